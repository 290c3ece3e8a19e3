"""The two models, how they are trained, and for each the way of exporting it that works when it is served.

With Keras 3, `tf.saved_model.save(model, DIR)` writes a model that TensorFlow Serving loads and calls AVAILABLE, and
that fails at every prediction (`Could not find variable ...`): Keras' variables are not among those that it restores.
`tf.saved_model.load` does not show it. `model.export` and `keras.export.ExportArchive` save the variables as they
should.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import digits
import keras
import numpy as np
import tensorflow as tf


def build_mlp() -> keras.Model:
    """The MNIST tutorials' multilayer perceptron: pictures of 28x28 in, ten probabilities out."""
    return keras.Sequential(
        [
            keras.Input(shape=(28, 28), name="images"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


class CustomModel(tf.keras.Model):
    """A convolutional model of one's own: pictures of 28x28x1 in, ten probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = keras.layers.Conv2D(16, kernel_size=5, strides=2, activation="relu")
        self.pooling = keras.layers.MaxPooling2D()
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(64, activation="relu")
        self.probabilities = keras.layers.Dense(10, activation="softmax")
        # Built here and not at the first call: Keras 3 does not see the variables that are made inside a tf.function,
        # and fit would have nothing to train.
        self.convolution.build((None, 28, 28, 1))
        self.hidden.build((None, 6 * 6 * 16))
        self.probabilities.build((None, 64))
        self.built = True

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.float32)])
    def call(self, images: tf.Tensor) -> tf.Tensor:
        features = self.flatten(self.pooling(self.convolution(images)))
        return self.probabilities(self.hidden(features))


def export_mlp(model: keras.Model, directory: Path) -> None:
    """Export with the signature `serving_default`."""
    model.export(directory, verbose=False)


def export_custom(model: keras.Model, directory: Path) -> None:
    """Export with the signature `call`, whose input is the one that the decorator of `call` declares."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("call", model.call)
    archive.write_out(directory, verbose=False)


@dataclass(frozen=True)
class Recipe:
    build: Callable[[], keras.Model]
    input_shape: tuple[int, ...]
    epochs: int
    export: Callable[[keras.Model, Path], None]


MLP = Recipe(build_mlp, (28, 28), 10, export_mlp)
CUSTOM = Recipe(CustomModel, (28, 28, 1), 6, export_custom)


def train(recipe: Recipe, seed: int) -> tuple[keras.Model, float]:
    """Return a trained model and the share of the held-out digits that it gets right."""
    training, held_out = digits.load()
    training = digits.with_moved_copies(training)
    keras.utils.set_random_seed(seed)
    model = recipe.build()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", jit_compile=False)
    model.fit(
        training.pixels.reshape(-1, *recipe.input_shape),
        training.labels,
        batch_size=64,
        epochs=recipe.epochs,
        verbose=0,
    )
    probabilities = model.predict(held_out.pixels.reshape(-1, *recipe.input_shape), verbose=0)
    return model, float(np.mean(probabilities.argmax(axis=1) == held_out.labels))

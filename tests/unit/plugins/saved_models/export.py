"""Export the SavedModels that the tests of saved_model_inspection.py read, one directory each, beside this file.

Made with TensorFlow 2.21.0, Keras 3.15.1 and, for the two of tf_keras, tf_keras 2.21.0, which is not among the locked
requirements: run it in an environment of its own.

    python -m venv DIR
    DIR/bin/pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0
    DIR/bin/python tests/unit/plugins/saved_models/export.py

Each model is as small as can be. Those marked + were loaded and called on a real server or are of a kind that was.

sequential_saved         broken +  Keras 3 Sequential, tf.saved_model.save: its variables are not restored
sequential_exported      good +    the same, model.export
subclass_saved           broken +  Keras 3 subclass, input_signature on call, tf.saved_model.save with signatures
subclass_fitted_saved    broken +  the same, compiled and fitted before
subclass_archived        good +    the same class, keras.export.ExportArchive
subclass_lazily_archived good      a class that builds its layer inside call, never fitted, ExportArchive
legacy_sequential        good +    tf_keras Sequential, tf.saved_model.save: the tutorials' line
legacy_subclass          good +    tf_keras subclass, tf.saved_model.save with signatures: the tutorials' other line
unsigned                 refused   Keras 3 subclass that was never called: no signature
other_tag                refused   a graph with the tags serve and gpu, and one with the tag train; none with serve only
constant                 good      no variable, written by TensorFlow 2, which makes variables/ all the same
graph_without_variables  good      no variable and no variables/, as TensorFlow 1 writes it
main_op                  good      TensorFlow 1, a variable that the main op sets and no restore does
ragged                   refused   its only output is a ragged tensor, which the server cannot return
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

HERE = Path(__file__).resolve().parent
LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
INPUT = tf.TensorSpec([None, 2], tf.float32, name="x")


class Subclass(tf.keras.Model):
    """Its layer is built at once; under tf_keras that makes no difference."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = tf.keras.layers.Dense(1)
        self.dense.build((None, 2))
        self.built = True

    @tf.function(input_signature=[INPUT])
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.dense(x)


class LazySubclass(tf.keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = tf.keras.layers.Dense(1)

    @tf.function(input_signature=[INPUT])
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.dense(x)


class Unsigned(keras.Model):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x


class Constant(tf.Module):
    @tf.function(input_signature=[INPUT])
    def call(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 2.0 * x}


class Ragged(tf.Module):
    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int64)])
    def call(self, x: tf.RaggedTensor) -> dict[str, tf.RaggedTensor]:
        return {"y": x + 1}


def sequential() -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.layers.Input((2,), name="x"), tf.keras.layers.Dense(1)])


def archive(model: keras.Model, path: Path) -> None:
    one = keras.export.ExportArchive()
    one.track(model)
    one.add_endpoint("call", model.call, input_signature=[INPUT])
    one.write_out(path, verbose=False)


def export_keras(target: Path) -> None:
    tf.saved_model.save(sequential(), target / "sequential_saved")
    sequential().export(target / "sequential_exported", verbose=False)
    saved, fitted = Subclass(), Subclass()
    tf.saved_model.save(saved, target / "subclass_saved", signatures={"call": saved.call})
    fitted.compile("sgd", "mse")
    fitted.fit(np.zeros((2, 2)), np.zeros((2, 1)), verbose=0)
    tf.saved_model.save(fitted, target / "subclass_fitted_saved", signatures={"call": fitted.call})
    archive(Subclass(), target / "subclass_archived")
    lazy = LazySubclass()
    lazy.built = True  # or the archive refuses it
    archive(lazy, target / "subclass_lazily_archived")
    tf.saved_model.save(Unsigned(), target / "unsigned")


def export_legacy_keras(target: Path) -> None:
    tf.saved_model.save(sequential(), target / "legacy_sequential")
    model = LazySubclass()
    tf.saved_model.save(model, target / "legacy_subclass", signatures={"call": model.call})


def export_graphs(target: Path) -> None:
    """Write what only TensorFlow 1's builder can."""
    v1 = tf.compat.v1

    def add(path: Path, tag_sets: list[list[str]], variable: bool = False) -> None:
        builder = v1.saved_model.Builder(str(path))
        with v1.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None], name="x")
            factor = v1.get_variable("factor", initializer=2.0, use_resource=True) if variable else tf.constant(2.0)
            signature = v1.saved_model.predict_signature_def({"x": x}, {"y": factor * x})
            main_op = v1.global_variables_initializer() if variable else None
            session.run(v1.global_variables_initializer())
            saver = v1.train.Saver([v1.get_variable("step", initializer=0, use_resource=True)]) if variable else None
            if variable:
                session.run(v1.global_variables_initializer())
            builder.add_meta_graph_and_variables(
                session, tag_sets[0], {"serving_default": signature}, main_op=main_op, saver=saver
            )
            for tags in tag_sets[1:]:
                builder.add_meta_graph(tags)
        builder.save()

    add(target / "other_tag", [["serve", "gpu"], ["train"]])
    add(target / "graph_without_variables", [["serve"]])
    add(target / "main_op", [["serve"]], variable=True)


def main() -> None:
    if LEGACY:
        export_legacy_keras(HERE)
        return
    for path in HERE.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    export_keras(HERE)
    for name, model in (("constant", Constant()), ("ragged", Ragged())):
        tf.saved_model.save(model, HERE / name, signatures={"serving_default": model.call})
    export_graphs(HERE)
    # TensorFlow chooses its Keras once, when it is imported.
    subprocess.run([sys.executable, __file__], env=os.environ | {"TF_USE_LEGACY_KERAS": "1"}, check=True)


if __name__ == "__main__":
    main()

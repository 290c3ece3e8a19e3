"""Export the SavedModels that the tests serve, those that answers were recorded of too: export_models.py DIR.

keras/{sequential_saved,sequential_exported,subclass_saved,subclass_archived}: four ways to save a Keras 3 model with
    four inputs and one output; a model that has the suffix _saved loads and cannot predict.
examples: signatures classify and regress on serialized tf.Examples with a float feature x.
slow:     signature serving_default, n int64 [None] -> done; takes n[0] milliseconds, asleep.
words:    a vocabulary in an asset file, word string [None] -> id int64 [None].
warm, badly_warm: affine models with a warm-up request that works and one that does not.
"""

import pathlib
import shutil
import sys

import golden_models
import golden_models_2
import keras
import tensorflow as tf
from tensorflow.python.data.experimental.ops import testing
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2


class Examples(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        labels = tf.tile([["low", "high"]], [tf.size(inputs), 1])
        return {"classes": labels, "scores": tf.stack([1.0 - x, x], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        return {"outputs": 2.0 * x}


class Slow(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="n")])
    def call(self, n):
        asleep = tf.data.Dataset.from_tensors(tf.cast(n, tf.float32)).apply(testing.sleep(n[0] * 500))
        return {"done": tf.data.experimental.get_single_element(asleep)}  # which asks for a second one, too


class Words(tf.Module):
    def __init__(self, vocabulary):
        super().__init__()
        initializer = tf.lookup.TextFileInitializer(
            vocabulary, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(initializer, default_value=-1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def call(self, word):
        return {"id": self.table.lookup(word)}


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 4))  # built later, inside call, its variables escape the archive too
        self.built = True

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def call(self, x):
        return self.dense(x)


def export_keras(target):
    sequential = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    tf.saved_model.save(sequential, f"{target}/sequential_saved/1")
    sequential.export(f"{target}/sequential_exported/1", verbose=False)
    saved, archived = Subclass(), Subclass()
    tf.saved_model.save(saved, f"{target}/subclass_saved/1", signatures={"call": saved.call})
    archive = keras.export.ExportArchive()
    archive.track(archived)
    archive.add_endpoint("call", archived.call, input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    archive.write_out(f"{target}/subclass_archived/1", verbose=False)


def add_warmup(version_directory, signature_name):
    log = prediction_log_pb2.PredictionLog()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "warm"
    request.model_spec.signature_name = signature_name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    log.predict_log.request.CopyFrom(request)
    extra = pathlib.Path(version_directory, "assets.extra")
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


def main(target):
    golden_models.main(f"{target}/golden")
    golden_models_2.main(f"{target}/golden_2")
    export_keras(f"{target}/keras")
    examples = Examples()
    tf.saved_model.save(
        examples,
        f"{target}/examples/1",
        signatures={"serving_default": examples.classify, "regress": examples.regress},
    )
    slow = Slow()
    tf.saved_model.save(slow, f"{target}/slow/1", signatures={"serving_default": slow.call})
    vocabulary = pathlib.Path(target, "vocabulary.txt")
    vocabulary.write_text("nought\none\ntwo\n", encoding="utf-8")
    words = Words(str(vocabulary))
    tf.saved_model.save(words, f"{target}/words/1", signatures={"serving_default": words.call})
    vocabulary.unlink()  # the model must find the copy among its assets
    for name, signature_name in (("warm", "call"), ("badly_warm", "missing")):
        shutil.copytree(f"{target}/golden/affine/1", f"{target}/{name}/1")
        add_warmup(f"{target}/{name}/1", signature_name)


if __name__ == "__main__":
    main(sys.argv[1])

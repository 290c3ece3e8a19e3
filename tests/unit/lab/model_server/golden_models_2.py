"""Export the SavedModels that rest-golden-2.json was recorded against: golden_models_2.py DIR.

i32, i64, u8, f32, f64, txt, flag: version 1, one input `v` of that type and unknown shape, output `v`, the same.
pair: version 1, inputs a float32 [None] and b string [None], outputs a and b_bytes, the same.
Served with: label `blue-green` -> 1 on f32, Prometheus metrics on, no batching.
"""

import sys

import tensorflow as tf

TYPES = {
    "i32": tf.int32,
    "i64": tf.int64,
    "u8": tf.uint8,
    "f32": tf.float32,
    "f64": tf.float64,
    "txt": tf.string,
    "flag": tf.bool,
}


def identity(dtype):
    module = tf.Module()
    module.call = tf.function(lambda v: {"v": tf.identity(v)}, input_signature=[tf.TensorSpec(None, dtype, name="v")])
    return module


class Pair(tf.Module):
    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, name="a"), tf.TensorSpec([None], tf.string, name="b")]
    )
    def call(self, a, b):
        return {"a": tf.identity(a), "b_bytes": tf.identity(b)}


def main(target):
    for name, model in [(name, identity(dtype)) for name, dtype in TYPES.items()] + [("pair", Pair())]:
        tf.saved_model.save(model, f"{target}/{name}/1", signatures={"serving_default": model.call})


if __name__ == "__main__":
    main(sys.argv[1])

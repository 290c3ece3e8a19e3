"""Export small SavedModels on which a reader without TensorFlow can be wrong, and say what TensorFlow does with each.

The answers are {path: {signature: error, empty where it predicts}}, with {"": error} for a model that does not load.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

v1 = tf.compat.v1
SPEC = tf.TensorSpec([None], tf.float32, "x")
CASES: dict[str, Callable[[Path], None]] = {}


def case(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Have a function that writes a case called, by its name."""
    CASES[function.__name__] = function
    return function


# TensorFlow 1: a graph


def save(path: Path, signatures: dict[str, Any], main_op: Any = None, legacy: bool = False) -> None:
    """Write the default graph; local variables are neither saved nor initialised when it is loaded."""
    session = v1.get_default_session()
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer(), v1.tables_initializer()])
    definitions = {
        name: v1.saved_model.predict_signature_def({"x": x}, {"y": y}) for name, (x, y) in signatures.items()
    }
    builder = v1.saved_model.Builder(str(path))
    init = {"legacy_init_op" if legacy else "main_op": main_op}
    builder.add_meta_graph_and_variables(session, ["serve"], definitions, **init)
    builder.save()


def graph_case(function: Callable[[], Any]) -> Callable[[], Any]:
    """Have a function called that returns (x, y), or besides what save() takes after the signatures."""

    def write(path: Path) -> None:
        with v1.Graph().as_default(), v1.Session():
            x, y, *more = function()
            save(path, {"serving_default": (x, y)}, *more)

    CASES[function.__name__] = write
    return function


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change the meta graph of a SavedModel."""
    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    (path / "saved_model.pb").write_bytes(model.SerializeToString())


def numbers() -> tf.Tensor:
    return v1.placeholder(tf.float32, [None])


def words() -> tf.Tensor:
    return v1.placeholder(tf.string, [None])


def variable(name: str, value: Any = 2.0, is_resource: bool = True, is_restored: bool = False) -> Any:
    collections = ["variables" if is_restored else "local_variables"]
    return v1.get_variable(name, initializer=value, collections=collections, use_resource=is_resource)


def table() -> Any:
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), -1.0)


@graph_case
def table_that_is_not_filled() -> Any:
    x = words()
    return x, table().lookup(x)


@graph_case
def table_that_the_main_op_fills() -> Any:
    x = words()
    y = table().lookup(x)
    return x, y, v1.tables_initializer()


@graph_case
def table_that_the_legacy_init_op_fills() -> Any:
    return *table_that_the_main_op_fills(), True


@graph_case
def table_that_needs_no_filling() -> Any:
    x = words()
    return x, tf.raw_ops.LookupTableFindV2(
        table_handle=tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.float32),
        keys=x,
        default_value=0.0,
    )


@graph_case
def reference_that_is_not_set() -> Any:
    x = numbers()
    return x, x * variable("q", is_resource=False)


@graph_case
def reference_that_is_itself_the_output() -> Any:
    return numbers(), variable("q", is_resource=False)


@graph_case
def reference_that_is_restored() -> Any:
    x = numbers()
    return x, x * variable("q", is_resource=False, is_restored=True)


@graph_case
def reference_that_is_set_first() -> Any:
    x = numbers()
    return x, x * variable("q", is_resource=False).assign(tf.reduce_sum(x))


@graph_case
def reference_in_parts() -> Any:
    x = numbers()
    parts = v1.get_variable("parts", [4, 2], partitioner=v1.fixed_size_partitioner(2))
    return x, x * tf.reduce_sum(parts)


@graph_case
def iterator_that_is_not_made() -> Any:
    x = numbers()
    iterator = v1.data.make_initializable_iterator(tf.data.Dataset.range(4))
    return x, x + tf.cast(iterator.get_next(), tf.float32)


@graph_case
def iterator_that_the_main_op_makes() -> Any:
    x = numbers()
    iterator = v1.data.make_initializable_iterator(tf.data.Dataset.range(4))
    return x, x + tf.cast(iterator.get_next(), tf.float32), iterator.initializer


@graph_case
def iterator_that_makes_itself() -> Any:
    x = numbers()
    return x, x + tf.cast(v1.data.make_one_shot_iterator(tf.data.Dataset.range(4)).get_next(), tf.float32)


@graph_case
def sparse_input() -> Any:
    x = v1.sparse_placeholder(tf.float32, [None, 3])
    return x, tf.sparse.to_dense(x)


@graph_case
def sparse_output() -> Any:
    x = numbers()
    return x, tf.sparse.from_dense(x)


@case
def sparse_input_beside_a_plain_one(path: Path) -> None:
    with v1.Graph().as_default(), v1.Session():
        x, sparse = numbers(), v1.sparse_placeholder(tf.float32, [None, 3])
        save(path, {"serving_default": (x, x * 2), "sparse": (sparse, tf.sparse.to_dense(sparse))})


@graph_case
def input_in_the_middle() -> Any:
    x = tf.identity(numbers() * variable("q"))
    return x, x * variable("w", is_restored=True)


@graph_case
def input_that_others_wait_for() -> Any:
    """A value that is fed does not run for it, and what waits for its node does."""
    with tf.control_dependencies([variable("q").read_value()]):
        x = tf.identity(numbers())
    with tf.control_dependencies([x]):
        return x, tf.constant(3.0) * 2


@graph_case
def placeholder_that_others_wait_for() -> Any:
    """Here nothing waits for its node, when it is fed."""
    with tf.control_dependencies([variable("q").read_value()]):
        x = numbers()
    with tf.control_dependencies([x]):
        return x, tf.constant(3.0) * 2


@graph_case
def read_that_is_waited_for() -> Any:
    x = numbers()
    with tf.control_dependencies([variable("q").read_value()]):
        return x, x * 2


@graph_case
def read_in_an_old_branch() -> Any:
    x, q = numbers(), variable("q")
    return x, v1.cond(tf.reduce_any(x > 1e6), lambda: x * q, lambda: x * 2)


@graph_case
def read_behind_an_old_branch_in_another() -> Any:
    x, q = numbers(), variable("q")
    is_large = tf.reduce_any(x > 1e6)
    return x, v1.cond(is_large, lambda: v1.cond(is_large, lambda: x * 3, lambda: x * 4) * q, lambda: x * 2)


@graph_case
def read_behind_an_old_branch() -> Any:
    x, q = numbers(), variable("q")
    return x, v1.cond(tf.reduce_any(x > 1e6), lambda: x * 3, lambda: x * 2) * q


@graph_case
def read_in_an_old_loop() -> Any:
    x, q = numbers(), variable("q")
    return x, v1.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * q), (0, x))[1]


@graph_case
def init_that_reads_what_is_not_set() -> Any:
    x, r = numbers(), variable("r")
    return x, x * r, v1.assign(r, variable("q").read_value()).op


@graph_case
def init_that_adds_to_what_is_not_set() -> Any:
    x, r = numbers(), variable("r")
    return x, x * r, v1.assign_add(r, 1.0).op


@graph_case
def init_that_reads_what_is_restored() -> Any:
    x, r = numbers(), variable("r")
    return x, x * r, v1.assign(r, variable("q", is_restored=True).read_value()).op


@graph_case
def init_in_order() -> Any:
    x, q, r = numbers(), variable("q"), variable("r")
    with tf.control_dependencies([v1.assign(q, 1.0)]):
        return x, x * r, v1.assign(r, q.read_value()).op


@graph_case
def init_of_what_depends_on_another() -> Any:
    x, q = numbers(), variable("q", is_resource=False)
    r = variable("r", q.initialized_value() * 2, is_resource=False)
    return x, x * r, v1.local_variables_initializer()


@graph_case
def init_of_what_is_not_set_yet() -> Any:
    x, r = numbers(), variable("r")
    return x, x * r, v1.cond(v1.is_variable_initialized(r), tf.no_op, lambda: r.initializer).op


@case
def tag_that_is_written_twice(path: Path) -> None:
    CASES["reference_that_is_restored"](path)
    edit(path, lambda meta_graph: meta_graph.meta_info_def.tags.append("serve"))


@case
def handles_without_a_name(path: Path) -> None:
    """The one that is read is another node than the one that is restored."""
    with v1.Graph().as_default(), v1.Session():
        x = numbers()
        save(path, {"serving_default": (x, x * variable("q", is_restored=True))})

    def change(meta_graph: Any) -> None:
        nodes = meta_graph.graph_def.node
        handle = next(node for node in nodes if node.name == "q")
        handle.attr["shared_name"].s = b""
        nodes.add().CopyFrom(handle)
        nodes[-1].name = "again"
        for node in nodes:
            if node.op == "ReadVariableOp" and node.name.startswith("mul"):
                node.input[0] = "again"

    edit(path, change)


# TensorFlow 2: functions


def function_case(body: Callable[[Any, tf.Tensor], tf.Tensor]) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """Have a function of a variable and x called whose variable is not restored, as Keras 3 loses it."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.q = keras.Variable(0.5, name="q", trainable=False)
            self.built = True

        @tf.function(input_signature=[SPEC])
        def call(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": body(self.q.value, x)}

    def write(path: Path) -> None:
        model = Model()
        tf.saved_model.save(model, path, signatures={"serving_default": model.call})

    CASES[body.__name__] = write
    return body


def is_large(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(x > 1e6)


@function_case
def only_written(q: Any, x: tf.Tensor) -> tf.Tensor:
    q.assign(tf.reduce_sum(x))
    return x * 2


@function_case
def written_before_it_is_read(q: Any, x: tf.Tensor) -> tf.Tensor:
    q.assign(tf.reduce_sum(x))
    return x * q


@function_case
def read_before_it_is_written(q: Any, x: tf.Tensor) -> tf.Tensor:
    y = x * q
    q.assign(tf.reduce_sum(x))
    return y


@function_case
def added_to(q: Any, x: tf.Tensor) -> tf.Tensor:
    q.assign_add(tf.reduce_sum(x))
    return x * 2


@function_case
def read_for_nothing(q: Any, x: tf.Tensor) -> tf.Tensor:
    q.read_value()
    return x * 2


@function_case
def read_in_a_branch(q: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.cond(is_large(x), lambda: x + q, lambda: x * 2)


@function_case
def read_in_both_branches(q: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.cond(is_large(x), lambda: x + q, lambda: x * q)


@function_case
def read_in_a_case(q: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.switch_case(tf.size(x) - 1, [lambda: x * 2, lambda: x * q])


@function_case
def written_in_both_branches(q: Any, x: tf.Tensor) -> tf.Tensor:
    tf.cond(is_large(x), lambda: q.assign(1.0), lambda: q.assign(2.0))
    return x * q


@function_case
def read_in_a_loop(q: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(lambda element: element * q, x)


@function_case
def read_in_a_branch_of_a_loop(q: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(lambda element: tf.cond(is_large(element), lambda: element * q, lambda: element), x)


@function_case
def written_in_a_loop(q: Any, x: tf.Tensor) -> tf.Tensor:
    tf.while_loop(lambda i: i < 2, lambda i: (i + tf.cast(q.assign(1.0) > 0, tf.int32),), (0,))
    return x * 2


@function_case
def read_in_a_dataset(q: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.data.Dataset.from_tensor_slices(x).map(lambda element: element * q).reduce(0.0, lambda a, b: a + b)


@function_case
def gathered(q: Any, x: tf.Tensor) -> tf.Tensor:
    return x * tf.gather(tf.reshape(q, [1]), 0)


@case
def table_of_a_module(path: Path) -> None:
    class WithTable(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = table()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "x")])
        def call(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.table.lookup(x)}

    model = WithTable()
    tf.saved_model.save(model, path, signatures={"serving_default": model.call})


# variables/ of another export


class Module(tf.Module):
    def __init__(self, size: int = 2, dtype: tf.DType = tf.float32, **more: Any) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones([size, 1], dtype))
        self.more = more

    @tf.function(input_signature=[SPEC])
    def call(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.matmul(tf.reduce_sum(x) * tf.ones([1, self.w.shape[0]]), tf.cast(self.w, tf.float32))}


def export(path: Path, model: tf.Module) -> None:
    tf.saved_model.save(model, path, signatures={"serving_default": model.call})


def draw(path: Path, size: int) -> None:
    with v1.Graph().as_default(), v1.Session():
        x = numbers()
        factor = variable("w", tf.ones([size]), is_resource=False, is_restored=True)
        save(path, {"serving_default": (x, x * tf.reduce_sum(factor))})


def of_another(path: Path, write: Callable[[Path, Any], None], model: Any, other: Any) -> None:
    """Write a model with the variables of another one."""
    write(path, model)
    write(path.with_name("other"), other)
    shutil.rmtree(path / "variables")
    (path.with_name("other") / "variables").rename(path / "variables")
    shutil.rmtree(path.with_name("other"))


@case
def variables_of_another_training(path: Path) -> None:
    of_another(path, export, Module(), Module())


@case
def variables_with_more_besides(path: Path) -> None:
    of_another(path, export, Module(), Module(more=tf.Variable(1.0)))


@case
def variables_with_other_names(path: Path) -> None:
    of_another(path, export, Module(more=tf.Variable(1.0)), Module())


@case
def variables_of_another_dtype(path: Path) -> None:
    of_another(path, export, Module(), Module(dtype=tf.int32))


@case
def variables_of_another_shape(path: Path) -> None:
    of_another(path, export, Module(size=2), Module(size=1))


@case
def references_of_another_shape(path: Path) -> None:
    of_another(path, draw, 2, 3)


@case
def references_of_an_object(path: Path) -> None:
    of_another(path, lambda where, model: draw(where, 2) if model is None else export(where, model), None, Module())


# What TensorFlow does with them


def value_of(tensor: Any) -> Any:
    """Return a value that fits an input: one of each unknown dimension, zeros or empty text."""
    shape = [max(dimension.size, 1) for dimension in tensor.tensor_shape.dim]
    return np.full(shape, b"" if tensor.dtype == tf.string.as_datatype_enum else 0)


def verdict(path: str) -> dict[str, str]:
    """Load a SavedModel as the server does, by its restore op and its init op, and call every signature."""
    answers = {}
    with v1.Graph().as_default(), v1.Session() as session:
        try:
            signatures = v1.saved_model.loader.load(session, ["serve"], path).signature_def
        except Exception as error:  # of whatever kind
            return {"": str(error) or "it does not load"}
        for name, one in signatures.items():
            if one.outputs and not name.startswith("__"):
                try:
                    feed = {tensor.name: value_of(tensor) for tensor in one.inputs.values()}
                    session.run([tensor.name for tensor in one.outputs.values()], feed)
                    answers[name] = ""
                except Exception as error:
                    answers[name] = str(error) or "it fails"
    return answers


def main(directory: Path, *others: str) -> dict[str, dict[str, str]]:
    """Write every case into a directory, and return the answers for these and for other SavedModels."""
    v1.disable_control_flow_v2()  # in graphs; functions have no other
    for name, write in CASES.items():
        write(directory / name)
    v1.enable_control_flow_v2()
    return {path: verdict(path) for path in [*(str(directory / name) for name in CASES), *others]}

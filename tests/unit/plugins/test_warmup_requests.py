"""Warm-up requests, read back by TensorFlow and its protobuf classes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    WARMUP_FILE,
    check_records,
    warmup_files,
    warmup_records,
)


def signature(**inputs: Any) -> dict[str, Any]:
    """Return signatures with one, call, whose inputs are {name: (dtype, shape)}."""
    return {
        "call": {"inputs": {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in inputs.items()}},
    }


def request(*instances: Any) -> dict[str, Any]:
    return {"signature_name": "call", "instances": list(instances)}


def read_back(tmp_path: Path, content: bytes) -> list[Any]:
    """Return the requests of a file as the server reads it: TFRecord with checksums, PredictionLog."""
    path = tmp_path / "requests"
    path.write_bytes(content)
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]


def test_requests_name_model_and_signature_and_hold_a_batch(tmp_path: Path) -> None:
    content = warmup_records("MLP", [request([1, 2.5]), request([0, 0], [3, 4])], signature(x=("float32", [-1, 2])))
    first, second = read_back(tmp_path, content)
    assert (first.model_spec.name, first.model_spec.signature_name) == ("MLP", "call")
    assert not first.model_spec.HasField("version")
    np.testing.assert_array_equal(tf.make_ndarray(first.inputs["x"]), np.array([[1, 2.5]], np.float32))
    np.testing.assert_array_equal(tf.make_ndarray(second.inputs["x"]), np.array([[0, 0], [3, 4]], np.float32))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float16", [0.1, -65504.0]),
        ("bfloat16", [0.1, 1.00390625, 3.0e38, -0.0]),
        ("float32", [0.1, 1e-40, 7]),
        ("float64", [0.1, 1e300]),
        ("int8", [-128, 127]),
        ("uint8", [0, 255]),
        ("int16", [-32768, 32767]),
        ("uint16", [0, 65535]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("uint32", [0, 2**32 - 1]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("uint64", [0, 2**64 - 1]),
        ("bool", [True, False]),
    ],
)
def test_numbers_are_those_that_tensorflow_makes(tmp_path: Path, dtype: str, values: list[Any]) -> None:
    (found,) = read_back(tmp_path, warmup_records("m", [request(*values)], signature(x=(dtype, [-1]))))
    expected = tf.constant(values, dtype=tf.dtypes.as_dtype(dtype))
    assert found.inputs["x"].dtype == expected.dtype.as_datatype_enum
    assert tf.make_ndarray(found.inputs["x"]).tobytes() == expected.numpy().tobytes()


def test_several_inputs_by_name_texts_and_bytes(tmp_path: Path) -> None:
    signatures = signature(words=("string", [-1, -1]), weight=("float32", [-1]), blob=("string", None))
    one = {"words": ["grün", ""], "weight": 1, "blob": {"b64": "AP8="}}
    (found,) = read_back(tmp_path, warmup_records("m", [request(one, one)], signatures))
    assert tf.make_ndarray(found.inputs["words"]).tolist() == [["grün".encode(), b""]] * 2
    assert tf.make_ndarray(found.inputs["blob"]).tolist() == [b"\x00\xff"] * 2
    assert found.inputs["weight"].tensor_shape.dim[0].size == 2


def test_bytes_of_the_only_input_are_no_names(tmp_path: Path) -> None:
    (found,) = read_back(tmp_path, warmup_records("m", [request({"b64": "AA=="})], signature(x=("string", [-1]))))
    assert tf.make_ndarray(found.inputs["x"]).tolist() == [b"\x00"]


@pytest.mark.parametrize(
    ("sample", "signatures", "words"),
    [
        (
            request([1]),
            signature(x=("float32", [-1, 2])),
            r"'x' takes float32 \[-1, 2\], and the instances make \[1, 1\]",
        ),
        (request([1, 2], [3]), signature(x=("float32", [-1, 2])), "different lengths"),
        (request([1, [2]]), signature(x=("float32", [-1, 2])), "different depths"),
        (request("one"), signature(x=("float32", [-1])), "another kind of value"),
        (request(1.5), signature(x=("int32", [-1])), "another kind of value"),
        (request(True), signature(x=("int32", [-1])), "another kind of value"),
        (request(1), signature(x=("bool", [-1])), "another kind of value"),
        (request(256), signature(x=("uint8", [-1])), "another kind of value"),
        (request(1e39), signature(x=("float32", [-1])), "another kind of value"),
        (request(1), signature(x=("string", [-1])), "another kind of value"),
        (request({"b64": "?"}), signature(x=("string", [-1])), "another kind of value"),
        (request(1), signature(x=("complex64", [-1])), "no request can hold"),
        (request(1), signature(x=("float32", [-1]), y=("float32", [-1])), "an object with the inputs x, y"),
        (request({"x": 1}), signature(x=("float32", [-1]), y=("float32", [-1])), "has the inputs x; .* takes x, y"),
        (request({"x": 1}, 2), signature(x=("float32", [-1])), "all objects by input name, or all plain"),
        (request(1), {}, "no signature 'call'"),
    ],
)
def test_what_does_not_fit_is_refused(sample: dict[str, Any], signatures: dict[str, Any], words: str) -> None:
    with pytest.raises(SavedModelError, match=f"request 1.*{words}"):
        warmup_records("m", [sample], signatures)


def test_version_that_brings_its_own_requests_keeps_them() -> None:
    described = signature(x=("float32", [-1]))
    assert list(warmup_files("m", [request(1)], {"saved_model.pb": {}}, described)) == [WARMUP_FILE]
    assert warmup_files("m", [request(1)], {WARMUP_FILE: {}}, described) == {}
    assert warmup_files("m", [], {}, described) == {}


# The file that a version brings

CALL = signature(x=("float32", [-1]), word=("string", [-1]))
GOOD = warmup_records("m", [request({"x": 1, "word": "a"})] * 2, CALL)
LENGTH = len(GOOD) // 2


def record(content: bytes) -> bytes:
    """Return a record, by TensorFlow's own writer."""
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            writer.write(content)
        return Path(file.name).read_bytes()


def log(**fields: Any) -> bytes:
    return record(prediction_log_pb2.PredictionLog(**fields).SerializeToString())


def predict(signature_name: str = "call", **inputs: Any) -> bytes:
    """Return a record of a request, as a client's log has it."""
    request = predict_pb2.PredictRequest(model_spec={"name": "m", "signature_name": signature_name})
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log(predict_log={"request": request})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ""),
        (b"PK", ""),
        (GOOD, ""),
        (GOOD + bytes(11), ""),
        (GOOD + bytes(12), "record 3 is damaged"),
        (bytes(12), "it is no TFRecord"),
        (b"one request a line\n" * 3, "it is no TFRecord"),
        (GOOD[:12], "cut short in record 1"),
        (GOOD[: LENGTH + 12], "cut short in record 2"),
        (GOOD[:-1], "cut short in record 2"),
        (GOOD[:13] + b"\xff" + GOOD[14:], "the checksum of record 1 is wrong"),
        (GOOD[:-1] + b"\xff", "the checksum of record 2 is wrong"),
        (GOOD[:LENGTH] + b"\xff" + GOOD[LENGTH + 1 :], "record 2 is damaged"),
        (GOOD + record(b"text"), "record 3 is no PredictionLog: "),
        (record(b"\x32\x05\x0a"), "record 1 is no PredictionLog: a field is longer than the message that it is in"),
        (record(b""), ""),
    ],
)
def test_file_is_read_as_tensorflow_reads_it(tmp_path: Path, content: bytes, words: str) -> None:
    try:
        read_back(tmp_path, content)
    except (tf.errors.DataLossError, DecodeError):
        assert words
    else:
        assert not words
    if words:
        with pytest.raises(ValueError, match=words):
            check_records(content, CALL)
    else:
        check_records(content, CALL)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (predict(x=[1.0], word=["a"]), ""),
        (log(classify_log={}), ""),
        (log(regress_log={}), ""),
        (log(session_run_log={}), "record 1: the server makes no such request"),
        (log(predict_streamed_log={}), "record 1: the server makes no such request"),
        (predict(signature_name="", x=[1.0]), "record 1: there is no signature 'serving_default'"),
        (predict(signature_name="sum", x=[1.0]), "record 1: there is no signature 'sum'"),
        (GOOD + predict(y=[1.0]), "record 3: signature 'call' has no input 'y'"),
        (predict(x=[1]), "record 1: input 'x' takes float32, and the request has int32"),
        (predict(x=[1.0]) * 1001, "more than 1000 records"),
    ],
)
def test_request_that_the_server_could_not_make_is_told(content: bytes, words: str) -> None:
    if words:
        with pytest.raises(ValueError, match=words):
            check_records(content, CALL)
    else:
        check_records(content, CALL)

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes and reads the requests that a server makes to a version before it is AVAILABLE, without TensorFlow.

The file is a TFRecord of PredictionLog messages (tensorflow_serving/apis/prediction_log.proto; core/tensor.proto of
TensorFlow). A request that fails keeps the version from being served, so what does not fit its signature is refused;
at its start it ends the server. How it reads the file: servables/tensorflow/saved_model_warmup{,_util}.cc, and
TensorFlow's lib/io/record_reader.cc.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any, Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.protobuf_wire import (
    Range,
    WireError,
    WireReader,
    delimited,
    varint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_bundle import (
    masked_crc32c,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_types import dtype_name
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    MAX_WARMUP_REQUESTS,
    Files,
    SavedModelError,
)

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_READ_BYTES = 1 << 26  # of a file that is read; its checksums take some seconds

# Fields of the messages.
_PREDICT_LOG, _SESSION_RUN_LOG, _PREDICT_STREAMED_LOG = delimited(6), delimited(5), delimited(7)  # PredictionLog
_REQUEST, _MODEL_SPEC, _INPUT, _SIGNATURE_NAME = delimited(1), delimited(1), delimited(2), delimited(3)
_KEY, _VALUE, _DTYPE = delimited(1), delimited(2), varint(1)

# DataType of TensorFlow (core/framework/types.proto) and how struct packs one value; bfloat16 is a float's upper half.
_NUMBERS = {
    "float32": (1, "f"),
    "float64": (2, "d"),
    "int32": (3, "i"),
    "uint8": (4, "B"),
    "int16": (5, "h"),
    "int8": (6, "b"),
    "int64": (9, "q"),
    "bool": (10, "?"),
    "bfloat16": (14, ""),
    "uint16": (17, "H"),
    "float16": (19, "e"),
    "uint32": (22, "I"),
    "uint64": (23, "Q"),
}
_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_STRING = 7


def warmup_files(model: str, samples: list[dict[str, Any]], files: Files, signatures: dict[str, Any]) -> dict[str, str]:
    """Return what is added to a version: the base64 of WARMUP_FILE, nothing without samples or where files has one.

    Raises SavedModelError, as warmup_records does.
    """
    if not samples or WARMUP_FILE in files:
        return {}
    return {WARMUP_FILE: base64.b64encode(warmup_records(model, samples, signatures)).decode()}


def warmup_records(model: str, samples: list[dict[str, Any]], signatures: dict[str, Any]) -> bytes:
    """Return the content of a version's WARMUP_FILE.

    samples are sample_requests of the catalogue, as read_samples returns them, and signatures those of the version, as
    Inspection has them. Raises SavedModelError, which names the request and what its signature takes.
    """
    records = []
    for number, sample in enumerate(samples, start=1):
        name = sample["signature_name"]
        if name not in signatures:
            raise SavedModelError(f"sample_requests: request {number}: there is no signature {name!r}")
        try:
            columns = _columns(sample["instances"], signatures[name]["inputs"])
            inputs = {
                key: _tensor(values, signatures[name]["inputs"][key], f"input {key!r}")
                for key, values in columns.items()
            }
        except ValueError as error:
            raise SavedModelError(f"sample_requests: request {number}, signature {name!r}: {error}") from error
        records.append(_record(_predict_log(model, name, inputs)))
    return b"".join(records)


def _columns(instances: list[Any], inputs: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the values of each input, one an instance; util/json_tensor.cc says how instances are read."""
    by_name = [isinstance(one, dict) and set(one) != {"b64"} for one in instances]
    if any(by_name) != all(by_name):
        raise ValueError("instances are either all objects by input name, or all plain values")
    if not by_name[0]:
        if len(inputs) != 1:
            raise ValueError(f"an instance has to be an object with the inputs {', '.join(sorted(inputs))}")
        return {next(iter(inputs)): instances}
    for one in instances:
        if set(one) != set(inputs):
            raise ValueError(
                f"an instance has the inputs {', '.join(sorted(one))}; the signature takes {', '.join(sorted(inputs))}"
            )
    return {key: [one[key] for one in instances] for key in inputs}


def _tensor(values: list[Any], facts: dict[str, Any], what: str) -> bytes:
    """Return a TensorProto of these values, whose first dimension is the batch."""
    dtype, expected = facts["dtype"], facts["shape"]
    shape = _shape(values)
    leaves = list(_leaves(values, shape))
    fits = expected is None or (
        len(expected) == len(shape) and all(size in (-1, found) for size, found in zip(expected, shape))
    )
    if len(leaves) != math.prod(shape) or not fits:
        raise ValueError(f"{what} takes {dtype} {expected}, and the instances make {shape}")
    dims = b"".join(_message(2, _number(varint(1)) + _number(size)) for size in shape)
    try:
        if dtype == "string":
            number, content = _STRING, b"".join(_message(8, _bytes_of(one)) for one in leaves)
        else:
            number, content = _NUMBERS[dtype][0], _message(4, _packed(dtype, leaves))
    except KeyError:
        raise ValueError(f"{what} takes {dtype}, which no request can hold") from None
    except (TypeError, ValueError, OverflowError, struct.error):
        raise ValueError(f"{what} takes {dtype}, and an instance holds another kind of value") from None
    return _number(varint(1)) + _number(number) + _message(2, dims) + content


def _shape(values: Any) -> list[int]:
    """Return the sizes of nested lists, along their first elements."""
    sizes = []
    while isinstance(values, list):
        sizes.append(len(values))
        if not values:
            break
        values = values[0]
    return sizes


def _leaves(values: Any, shape: list[int]) -> Iterator[Any]:
    """Yield the values of nested lists. Raises ValueError where they are not of this shape."""
    if not shape:
        if isinstance(values, list):
            raise ValueError("lists of one level have different depths")
        yield values
        return
    if not isinstance(values, list) or len(values) != shape[0]:
        raise ValueError("lists of one level have different lengths")
    for one in values:
        yield from _leaves(one, shape[1:])


def _packed(dtype: str, values: list[Any]) -> bytes:
    """Return the values as the machine has them. Raises TypeError, OverflowError and struct.error for other kinds."""
    for one in values:
        if isinstance(one, bool) != (dtype == "bool") or not isinstance(one, (bool, int, float)):
            raise TypeError(dtype)
    if dtype in _FLOATS:
        values = [float(one) for one in values]
    if dtype == "bfloat16":
        return b"".join(_bfloat16(one) for one in values)
    return struct.pack(f"<{len(values)}{_NUMBERS[dtype][1]}", *values)


def _bfloat16(value: float) -> bytes:
    """Return the upper half of a float32, rounded to the nearest, to the even one of two."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    if not math.isnan(value):
        bits += 0x7FFF + (bits >> 16 & 1)
    return struct.pack("<H", bits >> 16 & 0xFFFF)


def _bytes_of(value: Any) -> bytes:
    """Return a string, or what an object {"b64": ...} encodes. Raises TypeError and ValueError."""
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError("no base64") from error
    if not isinstance(value, str):
        raise TypeError("no string")
    return value.encode()


def _predict_log(model: str, signature: str, inputs: dict[str, bytes]) -> bytes:
    """Return a PredictionLog with one PredictRequest."""
    spec = _message(1, model.encode()) + _message(3, signature.encode())
    request = _message(1, spec)
    for name, tensor in sorted(inputs.items()):
        request += _message(2, _message(1, name.encode()) + _message(2, tensor))
    return _message(6, _message(1, request))


def _message(number: int, content: bytes) -> bytes:
    return _number(delimited(number)) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """Return a varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


# TFRecord (TensorFlow's lib/io/record_writer.h): length, its checksum, content, its checksum


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def check_records(content: bytes, signatures: dict[str, Any]) -> None:
    """Raise ValueError for the content of a version's own WARMUP_FILE with which the server would not serve it.

    signatures are those of the version. Fewer bytes than a record's length takes are the end, as for the server.
    """
    position = number = 0
    while len(content) - position >= 12:
        number += 1
        start = position + 12
        (length,) = struct.unpack_from("<Q", content, position)
        if _checksum(content[position : position + 8]) != content[position + 8 : start]:
            raise ValueError("it is no TFRecord" if number == 1 else f"record {number} is damaged")
        position = start + length + 4
        if position > len(content):
            raise ValueError(f"it is cut short in record {number}")
        record = content[start : start + length]
        if _checksum(record) != content[start + length : position]:
            raise ValueError(f"the checksum of record {number} is wrong")
        if number > MAX_WARMUP_REQUESTS:
            raise ValueError(f"it has more than {MAX_WARMUP_REQUESTS} records, at which the server fails")
        try:
            _check_log(WireReader.of(record), signatures)
        except WireError as error:
            raise ValueError(f"record {number} is no PredictionLog: {error}") from error
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from error


def _check_log(reader: WireReader, signatures: dict[str, Any]) -> None:
    """Raise ValueError for a PredictionLog that the server would not take, or whose request does not fit."""
    for tag, start, end in reader.fields(0, reader.size):
        if tag in (_SESSION_RUN_LOG, _PREDICT_STREAMED_LOG):
            raise ValueError("the server makes no such request; log those of Predict, Classify or Regress")
        if tag == _PREDICT_LOG:
            for request in reader.parts((start, end), _REQUEST):
                _check_request(reader, request, signatures)


def _check_request(reader: WireReader, request: Range, signatures: dict[str, Any]) -> None:
    name = ""
    for spec in reader.parts(request, _MODEL_SPEC):
        for text in reader.parts(spec, _SIGNATURE_NAME):
            name = reader.text(*text)
    signature = signatures.get(name or "serving_default")
    if signature is None:
        raise ValueError(f"there is no signature {name or 'serving_default'!r}")
    for entry in reader.parts(request, _INPUT):
        key = "".join(reader.text(*text) for text in reader.parts(entry, _KEY))
        dtypes = [
            first for value in reader.parts(entry, _VALUE) for t, first, _ in reader.fields(*value) if t == _DTYPE
        ]
        if key not in signature["inputs"]:
            raise ValueError(f"signature {name!r} has no input {key!r}")
        expected = signature["inputs"][key]["dtype"]
        if dtypes and dtype_name(dtypes[-1]) != expected:
            raise ValueError(f"input {key!r} takes {expected}, and the request has {dtype_name(dtypes[-1])}")

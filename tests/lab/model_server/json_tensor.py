"""REST bodies to tensors and tf.Examples, and tensors and results to REST bodies.

Source: tensorflow/serving @ 9d981c5c, util/json_tensor.cc; the messages were observed on a real server.
"""

from __future__ import annotations

import base64
import binascii
import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework.dtypes import as_dtype
from tensorflow_serving.apis import input_pb2

from . import dtypes, json_text, status

_FLOATS = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_INTEGER_RANGES = {
    types_pb2.DT_INT32: range(-(2**31), 2**31),
    types_pb2.DT_INT16: range(-(2**31), 2**31),
    types_pb2.DT_INT8: range(-(2**31), 2**31),
    types_pb2.DT_UINT8: range(-(2**31), 2**31),
    types_pb2.DT_INT64: range(-(2**63), 2**63),
    types_pb2.DT_UINT32: range(2**32),
    types_pb2.DT_UINT64: range(2**64),
}


class Format(enum.Enum):
    """The two forms of a predict request, and of its answer."""

    ROW = "instances"
    COLUMNAR = "inputs"


@dataclass
class PredictInput:
    """A predict request: signature_name is empty for the default one, tensors are keyed by input name."""

    signature_name: str
    format: Format
    tensors: dict[str, np.ndarray]


def _type_error(value: Any, dtype: int) -> status.StatusError:
    return status.invalid_argument(
        f"JSON Value: {json_text.shown(value)} Type: {json_text.type_name(value)} is not of expected type: "
        f"{dtypes.type_string(dtype)}"
    )


def _format_error(value: Any, problem: str) -> status.StatusError:
    return status.invalid_argument(f"JSON Value: {json_text.shown(value)} {problem}")


def _is_base64_object(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _decode_base64(value: Any) -> bytes:
    if not _is_base64_object(value):
        raise _format_error(value, "not formatted correctly for base64 data")
    text = "".join(value["b64"].split())
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise status.invalid_argument("Unable to base64 decode") from error


def _scalar(value: Any, dtype: int) -> Any:
    """Return a JSON scalar as an element of a tensor; raises INVALID_ARGUMENT or UNIMPLEMENTED."""
    if dtype in _FLOATS:
        if type(value) not in (int, float):
            raise _type_error(value, dtype)
        return value
    if dtype in _INTEGER_RANGES:
        if type(value) is not int or value not in _INTEGER_RANGES[dtype]:
            raise _type_error(value, dtype)
        return value
    if dtype == types_pb2.DT_STRING:
        if not isinstance(value, str):
            raise _type_error(value, dtype)
        return value.encode("utf-8", "surrogateescape")
    if dtype == types_pb2.DT_BOOL:
        if not isinstance(value, bool):
            raise _type_error(value, dtype)
        return value
    raise status.StatusError(
        status.Code.UNIMPLEMENTED,
        f"Conversion of JSON Value: {json_text.shown(value)} to type: {dtypes.type_string(dtype)}",
    )


def _dense_shape(value: Any) -> list[int]:
    """Return the shape that a nested list has along its first elements."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _fill(value: Any, level: int, shape: list[int], dtype: int, elements: list[Any]) -> None:
    """Append the elements of a nested list of this shape; raises INVALID_ARGUMENT where the list departs from it."""
    if not isinstance(value, list):
        if level != len(shape):
            raise status.invalid_argument(
                f"JSON Value: {json_text.shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        if not isinstance(value, dict):
            elements.append(_scalar(value, dtype))
        elif dtype == types_pb2.DT_STRING:
            elements.append(_decode_base64(value))
        else:
            raise _type_error(value, dtype)
        return
    if level >= len(shape):
        raise status.invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise status.invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for element in value:
        _fill(element, level + 1, shape, dtype, elements)


def _to_array(elements: list[Any], shape: list[int], dtype: int) -> np.ndarray:
    """Return elements as an array; floats are rounded and small integers wrap around, as in the real server."""
    target = as_dtype(dtype).as_numpy_dtype
    with np.errstate(over="ignore"):
        wide = np.int32 if dtype in (types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT8) else target
        return np.array(elements, dtype=wide).astype(target).reshape(shape)


@dataclass
class _Rows:
    """The elements of one input gathered over the rows of a request, and the shape that each row must have."""

    dtype: int
    shape: list[int] | None = None
    elements: list[Any] = field(default_factory=list)

    def add(self, value: Any) -> None:
        """Append a row; raises INVALID_ARGUMENT when its size or shape differs from the first one's."""
        shape = _dense_shape(value)
        elements: list[Any] = []
        _fill(value, 0, shape, self.dtype, elements)
        if self.shape is not None:
            size = math.prod(self.shape)
            if len(elements) != size:
                raise status.invalid_argument(f"Expecting tensor size: {size} but got: {len(elements)}")
            if shape != self.shape:
                raise status.invalid_argument(
                    f"Expecting shape {_shape_string(self.shape)} but got: {_shape_string(shape)}"
                )
        self.shape = shape
        self.elements += elements


def _shape_string(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _tensors_from_rows(rows: list[Any], inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the inputs of a request in row form, batched along a new first dimension."""
    if not isinstance(rows[0], dict) and len(inputs) > 1:
        raise status.invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = isinstance(rows[0], dict) and not _is_base64_object(rows[0])
    gathered: dict[str, _Rows] = {}

    def add(value: Any, name: str) -> None:
        if name not in inputs:
            raise status.invalid_argument(f"JSON object: does not have named input: {name}")
        gathered.setdefault(name, _Rows(inputs[name].dtype)).add(value)

    for number, row in enumerate(rows):
        row_named = isinstance(row, dict) and not _is_base64_object(row)
        if named and not row_named:
            raise status.invalid_argument(f"Expecting object but got list at item {number} of input list")
        if not named and row_named:
            raise status.invalid_argument(f"Expecting value/list but got object at item {number} of input list")
        values = row if named else {next(iter(inputs)): row}
        for name, value in values.items():
            try:
                add(value, name)
            except status.StatusError as error:
                key = f" key: {name}" if named else ""
                raise status.invalid_argument(
                    f"Failed to process element: {number}{key} of 'instances' list. Error: {error}"
                ) from error
        if named and values.keys() != inputs.keys():
            raise status.invalid_argument(
                f"Failed to process element: {number} of 'instances' list. JSON object: {json_text.shown(row)} keys "
                f"must be equal to: {','.join(sorted(inputs))}"
            )
    return {
        name: _to_array(column.elements, [len(rows), *(column.shape or [])], column.dtype)
        for name, column in gathered.items()
    }


def _tensors_from_columns(value: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the inputs of a request in column form."""
    if isinstance(value, dict) and not _is_base64_object(value):
        for name in inputs:
            if name not in value:
                raise status.invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        columns = {name: value[name] for name in inputs}
    elif len(inputs) > 1:
        raise status.invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    else:
        columns = {next(iter(inputs)): value}
    tensors = {}
    for name, column in columns.items():
        shape = _dense_shape(column)
        elements: list[Any] = []
        _fill(column, 0, shape, inputs[name].dtype, elements)
        tensors[name] = _to_array(elements, shape, inputs[name].dtype)
    return tensors


def _parse_object(body: bytes) -> dict[str, Any]:
    document = json_text.parse(body)
    if not isinstance(document, dict):
        raise _format_error(document, "Is not object")
    return document


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _format_error(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return name


def parse_predict(body: bytes, find_inputs: Callable[[str], Mapping[str, Any]]) -> PredictInput:
    """Parse the body of a predict request.

    find_inputs returns the TensorInfos of a signature's inputs and may raise; it is asked as soon as the signature's
    name is known, so that its error comes before those of the values. Raises INVALID_ARGUMENT or UNIMPLEMENTED.
    """
    document = _parse_object(body)
    name = _signature_name(document)
    inputs = find_inputs(name)
    if not inputs:
        raise status.invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    has_rows, has_columns = "instances" in document, "inputs" in document
    if has_rows and has_columns:
        raise _format_error(
            document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if has_rows:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise _format_error(document, "Expecting 'instances' to be an list/array")
        if not rows:
            raise _format_error(document, "No values in 'instances' array")
        return PredictInput(name, Format.ROW, _tensors_from_rows(rows, inputs))
    if has_columns:
        return PredictInput(name, Format.COLUMNAR, _tensors_from_columns(document["inputs"], inputs))
    raise status.invalid_argument("Missing 'inputs' or 'instances' key")


def _add_to_feature(value: Any, name: str, feature: Any) -> None:
    """Append a JSON scalar to a Feature, whose kind its first element decides."""

    def values_of(kind: str) -> Any:
        current = feature.WhichOneof("kind")
        if current not in (None, kind):
            raise status.invalid_argument(
                f"Unexpected element type in feature: {name} expecting type: {current.removesuffix('_list')}"
            )
        return getattr(feature, kind).value

    if value is None or isinstance(value, list) or (isinstance(value, dict) and not _is_base64_object(value)):
        raise status.invalid_argument(
            f"Feature: {name} has element with unexpected JSON type: {json_text.type_name(value)}"
        )
    if isinstance(value, dict):
        values_of("bytes_list").append(_decode_base64(value))
    elif isinstance(value, str):
        values_of("bytes_list").append(value.encode("utf-8", "surrogateescape"))
    elif isinstance(value, float):
        values_of("float_list").append(value)
    else:
        values = values_of("int64_list")
        if value >= 2**63:
            raise status.invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        values.append(int(value))


def _fill_example(value: Any, example: Any) -> None:
    """Fill a tf.Example from a JSON object of scalars and lists."""
    if not isinstance(value, dict):
        raise status.invalid_argument(f"Example must be JSON object but got JSON {json_text.type_name(value)}")
    for name, content in value.items():
        feature = example.features.feature[name]
        for element in content if isinstance(content, list) else [content]:
            _add_to_feature(element, name, feature)


def parse_examples(body: bytes) -> tuple[str, Any]:
    """Parse the body of a classify or regress request; returns the signature's name and a tensorflow.serving.Input.

    Raises INVALID_ARGUMENT.
    """
    document = _parse_object(body)
    name = _signature_name(document)
    result = input_pb2.Input()
    add_example = result.example_list.examples.add
    if "context" in document:
        _fill_example(document["context"], result.example_list_with_context.context)
        add_example = result.example_list_with_context.examples.add
    if "examples" not in document:
        raise _format_error(document, "When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _format_error(document, "'examples' value is an empty array")
    for example in examples:
        _fill_example(example, add_example())
    return name, result


def _write_element(writer: json_text.PrettyWriter, value: Any, dtype: int, as_bytes: bool) -> None:
    """Write one element of a tensor; raises INVALID_ARGUMENT for a type that JSON answers do not carry."""
    if dtype in _FLOATS:
        writer.raw(json_text.decimal_text(float(value), single=dtype == types_pb2.DT_FLOAT))
    elif dtype in _INTEGER_RANGES:
        writer.raw(str(int(value)))
    elif dtype == types_pb2.DT_BOOL:
        writer.raw("true" if value else "false")
    elif dtype != types_pb2.DT_STRING:
        raise status.invalid_argument(f"Failed to write JSON value for tensor type: {dtypes.type_string(dtype)}")
    elif as_bytes:
        writer.start("{")
        writer.string("b64")
        writer.string(base64.b64encode(value).decode("ascii"))
        writer.end()
    else:
        writer.string(value.decode("utf-8", "surrogateescape"))


def _write_tensor(writer: json_text.PrettyWriter, name: str, values: Any, dtype: int) -> None:
    """Write a tensor, or a part of one, as nested arrays."""
    if isinstance(values, np.ndarray) and values.ndim:
        writer.start("[")
        for value in values:
            _write_tensor(writer, name, value, dtype)
        writer.end()
        return
    value = values.item() if isinstance(values, np.ndarray) else values
    _write_element(writer, value, dtype, as_bytes=name.endswith("_bytes"))


def _rows_text(outputs: Mapping[str, np.ndarray]) -> str:
    """Return an answer in row form; raises INVALID_ARGUMENT unless all outputs share their first dimension."""
    batch_size = None
    for name, tensor in outputs.items():
        if tensor.ndim == 0:
            raise status.invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch_size not in (None, len(tensor)):
            raise status.invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(tensor)} expecting: {batch_size}"
            )
        batch_size = len(tensor)
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string("predictions")
    writer.start("[")
    for row in range(batch_size or 0):
        if len(outputs) > 1:
            writer.start("{")
        writer.single_line_arrays = True
        for name, tensor in outputs.items():
            if len(outputs) > 1:
                writer.string(name)
            _write_tensor(writer, name, tensor[row], dtypes.data_type(tensor))
        writer.single_line_arrays = False
        if len(outputs) > 1:
            writer.end()
    writer.end()
    writer.end()
    return writer.text()


def _columns_text(outputs: Mapping[str, np.ndarray]) -> str:
    """Return an answer in column form."""
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string("outputs")
    if len(outputs) > 1:
        writer.start("{")
    for name, tensor in outputs.items():
        if len(outputs) > 1:
            writer.string(name)
        _write_tensor(writer, name, tensor, dtypes.data_type(tensor))
    if len(outputs) > 1:
        writer.end()
    writer.end()
    return writer.text()


def predict_text(outputs: Mapping[str, np.ndarray], form: Format) -> str:
    """Return the body of the answer to a predict request; raises INVALID_ARGUMENT for outputs it cannot carry."""
    if not outputs:
        raise status.invalid_argument("Cannot convert empty tensor map to JSON")
    return _rows_text(outputs) if form is Format.ROW else _columns_text(outputs)


def classification_text(result: Any) -> str:
    """Return the body of the answer to a classify request: for each example a list of [label, score]."""
    if not result.classifications:
        raise status.invalid_argument("Cannot convert empty ClassificationResults to JSON")
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string("results")
    writer.start("[")
    for classifications in result.classifications:
        writer.single_line_arrays = True
        writer.start("[")
        for label_and_score in classifications.classes:
            writer.start("[")
            writer.string(label_and_score.label)
            writer.raw(json_text.decimal_text(label_and_score.score, single=True))
            writer.end()
        writer.end()
        writer.single_line_arrays = False
    writer.end()
    writer.end()
    return writer.text()


def regression_text(result: Any) -> str:
    """Return the body of the answer to a regress request: one number for each example."""
    if not result.regressions:
        raise status.invalid_argument("Cannot convert empty RegressionResults to JSON")
    writer = json_text.PrettyWriter()
    writer.start("{")
    writer.string("results")
    writer.single_line_arrays = True
    writer.start("[")
    for regression in result.regressions:
        writer.raw(json_text.decimal_text(regression.value, single=True))
    writer.end()
    writer.end()
    return writer.text()


def error_text(message: str) -> str:
    """Return the body of an answer that is an error."""
    writer = json_text.PrettyWriter()
    writer.value({"error": message})
    return writer.text()

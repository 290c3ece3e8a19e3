# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dtypes and shapes of tensors, as TensorFlow's messages have them.

Sources: tensorflow/core/framework/{types,tensor_shape}.proto.
"""

from __future__ import annotations

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.protobuf_wire import (
    WireError,
    WireReader,
    delimited,
    signed,
    varint,
)

MAX_RANK = 254  # TensorShape::MaxDimensions()

# By number, as TensorFlow prints them.
_DTYPE_NAMES = (
    "invalid float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16 "
    "quint16 uint16 complex128 float16 resource variant uint32 uint64 float8_e5m2 float8_e4m3fn float8_e4m3fnuz "
    "float8_e4m3b11fnuz float8_e5m2fnuz int4 uint4 int2 uint2 float4_e2m1fn"
)
DTYPES = _DTYPE_NAMES.split()

_DIMENSION, _UNKNOWN_RANK, _SIZE = delimited(2), varint(3), varint(1)  # TensorShapeProto, Dim


def dtype_name(number: int) -> str:
    """Return a DataType as TensorFlow prints it. The references of TensorFlow 1 have a number that is higher by 100."""
    if number < len(DTYPES):
        return DTYPES[number]
    if 100 < number < 100 + len(DTYPES):
        return f"{DTYPES[number - 100]}_ref"
    return f"unknown ({number})"


def read_shape(reader: WireReader, value: tuple[int, int]) -> list[int] | None:
    """Return a TensorShapeProto: -1 for an unknown dimension, None for an unknown rank."""
    dimensions = []
    for tag, first, end in reader.fields(*value):
        if tag == _UNKNOWN_RANK and first:
            return None
        if tag == _DIMENSION:
            sizes = [signed(size) for t, size, _ in reader.fields(first, end) if t == _SIZE]
            dimensions.append(sizes[-1] if sizes else 0)
            if len(dimensions) > MAX_RANK:
                raise WireError(f"a tensor has more than {MAX_RANK} dimensions")
    return dimensions

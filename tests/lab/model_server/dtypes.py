"""TensorFlow's data types, of arrays and by name."""

from __future__ import annotations

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework.dtypes import as_dtype


def data_type(array: np.ndarray) -> int:
    """Return the DataType of an array; arrays of objects hold strings."""
    return types_pb2.DT_STRING if array.dtype == object else as_dtype(array.dtype).as_datatype_enum


def enum_name(dtype: int) -> str:
    """Return the name of a DataType's enumerator, such as `DT_FLOAT`."""
    return types_pb2.DataType.Name(dtype)


def type_string(dtype: int) -> str:
    """Return the name of a DataType as TensorFlow's messages spell it, such as `float` or `int64`."""
    return enum_name(dtype).removeprefix("DT_").lower()

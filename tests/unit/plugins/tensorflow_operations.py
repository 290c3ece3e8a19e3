"""Print a module with the names of all operations that the installed TensorFlow knows; make operations keeps it."""

from __future__ import annotations

import textwrap

import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

MODULE = '''\
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operations of TensorFlow. Written by `make operations`, from its registry."""

from __future__ import annotations

VERSION = "{version}"
_NAMES = """
{names}
"""
OPERATIONS = frozenset(_NAMES.split())
'''


def module_text() -> str:
    """Return the text of plugins/module_utils/_saved_model/tensorflow_operations.py."""
    registry = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    names = sorted(operation.name for operation in op_def_pb2.OpList.FromString(registry).op)
    lines = textwrap.fill(" ".join(names), 120, break_long_words=False, break_on_hyphens=False)
    return MODULE.format(version=tf.__version__, names=lines)


if __name__ == "__main__":
    print(module_text(), end="")

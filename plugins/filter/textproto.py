# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: textproto
short_description: Quote a string for a protobuf text-format file
version_added: 0.1.0
description:
  - Returns the string in double quotes with everything escaped that the text format asks for, so that any name or path
    can stand in C(models.config).
options:
  _input:
    description: The string.
    type: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
line: "name: {{ 'say \"hi\"' | modelops.tensorflow_serving.textproto }}"
"""

RETURN = r"""
_value:
  description: The quoted string.
  type: str
"""

from typing import Any, Callable

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def textproto(value: Any) -> str:
    """Return value as a quoted text-format string; other control characters become octal escapes."""
    text = str(value).translate(_ESCAPES)
    return '"' + "".join(char if char.isprintable() else _octal(char) for char in text) + '"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode())


class FilterModule:
    def filters(self) -> dict[str, Callable[[Any], str]]:
        return {"textproto": textproto}

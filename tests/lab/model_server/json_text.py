"""JSON read by Python, and written in the layout of the real server's answers and messages.

Source: tensorflow/serving @ 9d981c5c, util/json_tensor.cc (ParseJson, JsonValueToDebugString, WriteDecimal). What is
wrong with a text is said in the real server's words where they were recorded; RapidJSON's others are not copied.

Values are None, bool, int, float, str, list and dict; an int lies between -2**63 and 2**64 - 1, larger numbers are
floats. Text is decoded with surrogateescape, so that bytes that are no UTF-8 pass through unchanged.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from . import status

_MAX_SHOWN_BYTES = 256


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= 20 and -(2**63) <= int(text) < 2**64 else _double(text)


def _double(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise status.invalid_argument(f"JSON Parse error: {text[:40]} is too large for a double")
    return number


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of two members with the same name the first one counts."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        members.setdefault(name, value)
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_int=_integer, parse_float=_double)


def parse(body: bytes) -> Any:
    """Parse the JSON document that a body begins with; raises INVALID_ARGUMENT with the offset in bytes."""
    if not body:
        raise status.invalid_argument("JSON Parse error: The document is empty")
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    try:
        return _DECODER.raw_decode(text, len(text) - len(text.lstrip(" \t\n\r")))[0]
    except json.JSONDecodeError as error:
        problem = "Invalid value" if error.msg == "Expecting value" else error.msg
        offset = len(body) - len(text[error.pos :].encode("utf-8", "surrogateescape"))
        raise status.invalid_argument(f"JSON Parse error: {problem}. at offset: {offset}") from error


def type_name(value: Any) -> str:
    """Return the name of a value's JSON type, as the real server's messages spell it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def decimal_text(value: float, single: bool) -> str:
    """Return an element of a float or double tensor as the real server writes it, with digits enough to read it back.

    Numbers that are whole end in `.0`; NaN, Infinity and -Infinity, which are no JSON, are written as such. single
    says that the value is a float32.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "-Infinity" if value < 0 else "Infinity"
    text = f"{value:g}"
    read_back = float(np.float32(text)) if single else float(text)
    if read_back != value:
        text = f"{value:.{9 if single else 17}g}"
    return text if "." in text or "e" in text else f"{text}.0"


class PrettyWriter:
    """Writes JSON indented by four spaces; arrays stand on one line while single_line_arrays is set.

    It begins nothing once it has written so many characters as its limit.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.single_line_arrays = False
        self._left = limit
        self._parts: list[str] = []
        self._levels: list[tuple[str, int]] = []  # bracket and number of values or names so far

    def text(self) -> str:
        """Return what has been written."""
        return "".join(self._parts)

    def raw(self, text: str) -> None:
        """Write a value that is JSON text already."""
        self._write(self._prefix() + text)

    def string(self, value: str) -> None:
        """Write a string, or the name of a member."""
        self.raw(json.dumps(value, ensure_ascii=False))

    def start(self, bracket: str) -> None:
        """Begin an object (`{`) or an array (`[`)."""
        self.raw(bracket)
        self._levels.append((bracket, 0))

    def end(self) -> None:
        """End the innermost object or array."""
        bracket, count = self._levels.pop()
        is_long = count and not (bracket == "[" and self.single_line_arrays)
        self._write((self._new_line() if is_long else "") + ("}" if bracket == "{" else "]"))

    def value(self, value: Any) -> None:
        """Write a value that was read."""
        if isinstance(value, dict):
            self.start("{")
            for name, member in value.items():
                self.string(name)
                self.value(member)
            self.end()
        elif isinstance(value, list):
            self.start("[")
            for element in value:
                self.value(element)
            self.end()
        elif isinstance(value, str):
            self.string(value)
        elif isinstance(value, float):
            self.raw(decimal_text(value, single=False))
        else:
            self.raw(json.dumps(value))

    def _write(self, text: str) -> None:
        if self._left > 0:
            self._parts.append(text)
            self._left -= len(text)

    def _new_line(self) -> str:
        return "\n" + "    " * len(self._levels)

    def _prefix(self) -> str:
        """Return what stands between the former value and the next one, and count the next one."""
        if not self._levels:
            return ""
        bracket, count = self._levels[-1]
        self._levels[-1] = (bracket, count + 1)
        if bracket == "{" and count % 2:
            return ": "
        if bracket == "{" or not self.single_line_arrays:
            return ("," if count else "") + self._new_line()
        return ", " if count else ""


def shown(value: Any) -> str:
    """Return a value as the real server's messages show it: pretty, arrays on one line, cut after some 256 bytes."""
    writer = PrettyWriter(_MAX_SHOWN_BYTES)
    writer.single_line_arrays = True
    writer.value(value)
    return writer.text()

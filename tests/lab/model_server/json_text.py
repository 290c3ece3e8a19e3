"""JSON read and written as RapidJSON does it, whose messages and layout the real server's answers show.

Source: RapidJSON's reader.h (with kParseNanAndInfFlag), error/en.h, prettywriter.h and internal/dtoa.h; elements of
tensors are written as in tensorflow/serving @ 9d981c5c, util/json_tensor.cc (WriteDecimal).

Values are None, bool, int, float, str, list and dict; an int lies between -2**63 and 2**64 - 1, larger numbers are
floats. Text is decoded with surrogateescape, so that bytes that are no UTF-8 pass through unchanged.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import numpy as np

from . import status

_SPACE = re.compile(r"[ \t\n\r]*")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FRACTION = re.compile(r"\.([0-9]*)")
_EXPONENT = re.compile(r"[eE][+-]?([0-9]*)")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS = (
    ("null", None),
    ("true", True),
    ("false", False),
    ("NaN", math.nan),
    ("Infinity", math.inf),
    ("Inf", math.inf),
    ("-Infinity", -math.inf),
    ("-Inf", -math.inf),
)
_WRITTEN_ESCAPES = {value: f"\\{key}" for key, value in _ESCAPES.items() if key != "/"}


class _Failure(Exception):
    """The text is no JSON: what RapidJSON says, and the offset in characters."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class _Reader:
    """A recursive descent parser of one document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self) -> Any:
        """Return the document's value; raises _Failure."""
        self._skip_space()
        if self._at == len(self._text):
            raise _Failure("The document is empty.", self._at)
        value = self._value()
        self._skip_space()
        if self._at != len(self._text):
            raise _Failure("The document root must not be followed by other values.", self._at)
        return value

    def _skip_space(self) -> None:
        self._at = self._match(_SPACE).end()

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Match a pattern that matches everywhere."""
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _Failure("Invalid value.", self._at)
        return found

    def _consume(self, character: str) -> bool:
        if self._text.startswith(character, self._at):
            self._at += len(character)
            return True
        return False

    def _value(self) -> Any:
        if self._consume("{"):
            return self._object()
        if self._consume("["):
            return self._array()
        if self._consume('"'):
            return self._string()
        for literal, value in _LITERALS:
            if self._consume(literal):
                return value
        return self._number()

    def _object(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self._skip_space()
        if self._consume("}"):
            return members
        while True:
            if not self._consume('"'):
                raise _Failure("Missing a name for object member.", self._at)
            name = self._string()
            self._skip_space()
            if not self._consume(":"):
                raise _Failure("Missing a colon after a name of object member.", self._at)
            self._skip_space()
            value = self._value()
            members.setdefault(name, value)  # FindMember finds the first of two with the same name
            self._skip_space()
            if self._consume("}"):
                return members
            if not self._consume(","):
                raise _Failure("Missing a comma or } after an object member.", self._at)
            self._skip_space()

    def _array(self) -> list[Any]:
        elements: list[Any] = []
        self._skip_space()
        if self._consume("]"):
            return elements
        while True:
            elements.append(self._value())
            self._skip_space()
            if self._consume("]"):
                return elements
            if not self._consume(","):
                raise _Failure("Missing a comma or ] after an array element.", self._at)
            self._skip_space()

    def _string(self) -> str:
        parts = []
        while True:
            plain = self._match(_PLAIN)
            parts.append(plain.group())
            self._at = plain.end()
            if self._consume('"'):
                return "".join(parts)
            if self._consume("\\"):
                parts.append(self._escape())
            elif self._at == len(self._text) or self._text[self._at] == "\0":
                raise _Failure("Missing a closing quotation mark in string.", self._at)
            else:
                raise _Failure("Invalid encoding in string.", self._at)

    def _escape(self) -> str:
        start = self._at - 1
        kind = self._text[self._at : self._at + 1]
        self._at += 1
        if kind in _ESCAPES:
            return _ESCAPES[kind]
        if kind != "u":
            raise _Failure("Invalid escape character in string.", start)
        code = self._hex(start)
        if 0xD800 <= code <= 0xDFFF:
            if code > 0xDBFF or not self._consume("\\u"):
                raise _Failure("The surrogate pair in string is invalid.", start)
            low = self._hex(start)
            if not 0xDC00 <= low <= 0xDFFF:
                raise _Failure("The surrogate pair in string is invalid.", start)
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        return chr(code)

    def _hex(self, start: int) -> int:
        digits = self._text[self._at : self._at + 4]
        if not re.fullmatch(r"[0-9A-Fa-f]{4}", digits):
            raise _Failure("Incorrect hex digit after \\u escape in string.", start)
        self._at += 4
        return int(digits, 16)

    def _number(self) -> int | float:
        start = self._at
        self._at = self._match(_INTEGER).end()
        is_integer = True
        for pattern, missing in (
            (_FRACTION, "Miss fraction part in number."),
            (_EXPONENT, "Miss exponent in number."),
        ):
            part = pattern.match(self._text, self._at)
            if part is not None:
                is_integer = False
                self._at = part.end()
                if not part.group(1):
                    raise _Failure(missing, self._at)
        text = self._text[start : self._at]
        if is_integer and -(2**63) <= int(text) < 2**64:
            return int(text)
        number = float(text)
        if math.isinf(number):
            raise _Failure("Number too big to be stored in double.", start)
        return number


def parse(body: bytes) -> Any:
    """Parse a JSON document; raises INVALID_ARGUMENT with RapidJSON's words and the offset in bytes."""
    if not body:
        raise status.invalid_argument("JSON Parse error: The document is empty")
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    try:
        return _Reader(text).document()
    except _Failure as failure:
        offset = len(body) - len(text[failure.offset :].encode("utf-8", "surrogateescape"))
        raise status.invalid_argument(f"JSON Parse error: {failure.message} at offset: {offset}") from failure


def type_name(value: Any) -> str:
    """Return the name of a value's JSON type, as the real server's messages spell it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def double_text(value: float) -> str:
    """Return a finite double as RapidJSON writes it: shortest digits, no exponent between 1e-6 and 1e21."""
    sign, digit_tuple, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits, minus = "".join(map(str, digit_tuple)), "-" if sign else ""
    point = len(digits) + int(exponent)  # the value is 0.DIGITS * 10**point
    if digits == "0":
        return f"{minus}0.0"
    if len(digits) <= point <= 21:
        return f"{minus}{digits}{'0' * (point - len(digits))}.0"
    if 0 < point <= 21:
        return f"{minus}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{minus}{mantissa}e{point - 1}"


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


def _string_text(value: str) -> str:
    return '"' + re.sub(r'["\\\x00-\x1f]', lambda match: _escaped(match.group()), value) + '"'


def _escaped(character: str) -> str:
    return _WRITTEN_ESCAPES.get(character) or f"\\u{ord(character):04X}"


class PrettyWriter:
    """Writes JSON indented by four spaces; arrays stand on one line while single_line_arrays is set."""

    def __init__(self) -> None:
        self.single_line_arrays = False
        self._parts: list[str] = []
        self._levels: list[tuple[str, int]] = []  # bracket and number of values or names so far

    def text(self) -> str:
        """Return what has been written."""
        return "".join(self._parts)

    def raw(self, text: str) -> None:
        """Write a value that is JSON text already."""
        self._prefix()
        self._parts.append(text)

    def string(self, value: str) -> None:
        """Write a string, or the name of a member."""
        self.raw(_string_text(value))

    def start(self, bracket: str) -> None:
        """Begin an object (`{`) or an array (`[`)."""
        self.raw(bracket)
        self._levels.append((bracket, 0))

    def end(self) -> None:
        """End the innermost object or array."""
        bracket, count = self._levels.pop()
        if count and not (bracket == "[" and self.single_line_arrays):
            self._new_line()
        self._parts.append("}" if bracket == "{" else "]")

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
            self.raw(double_text(value) if math.isfinite(value) else decimal_text(value, single=False))
        else:
            self.raw({None: "null", True: "true", False: "false"}[value] if not _is_integer(value) else str(value))

    def _new_line(self) -> None:
        self._parts.append("\n" + "    " * len(self._levels))

    def _prefix(self) -> None:
        """Write what stands between the former value and the next one."""
        if not self._levels:
            return
        bracket, count = self._levels[-1]
        self._levels[-1] = (bracket, count + 1)
        if bracket == "{" and count % 2:
            self._parts.append(": ")
            return
        if count:
            self._parts.append(",")
        if bracket == "{" or not self.single_line_arrays:
            self._new_line()
        elif count:
            self._parts.append(" ")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """Return a value as the real server's messages show it: pretty, with arrays on one line."""
    if isinstance(value, float):
        return decimal_text(value, single=False)
    writer = PrettyWriter()
    writer.single_line_arrays = True
    writer.value(value)
    return writer.text()

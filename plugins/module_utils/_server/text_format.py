# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads and writes protobuf text format by a schema, with nothing but Python's own library, as it runs on the hosts.

A message is a dict of its fields as JSON knows them: lists, dicts for maps, enum values by name, an Any with the key
@type, a google.protobuf wrapper as the bare value. Written is all of this. Read is what models.config consists of:
strings, whole numbers, enums, messages and maps. What the real parsers refuse, parse refuses. Beyond that it refuses
what nobody needs there: + before a number, a space after -, extensions, enum values as numbers, unknown escapes,
control characters, white space beyond ASCII, and a list without a colon.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NoReturn

MAX_TEXT_BYTES = 4 << 20
MAX_DEPTH = 32
ANY_PREFIX = "type.googleapis.com/"

_RANGES = {
    "int32": range(-(2**31), 2**31),
    "uint32": range(2**32),
    "int64": range(-(2**63), 2**63),
}
_DEFAULTS: dict[str, Any] = {"string": "", "bool": False, "float": 0.0, "double": 0.0}
_FLOAT_MAX = (2 - 2**-23) * 2.0**127

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
    |(?P<name>[A-Za-z_][0-9A-Za-z_]*)
    |(?P<number>-?\.?[0-9][0-9A-Za-z_.+-]*)
    |(?P<string>"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\.)*"|'(?:[^'\\\x00-\x08\x0a-\x1f\x7f]|\\.)*')
    |(?P<sign>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SINGLE = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", "'": "'", '"': '"'}
_QUOTED = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


class TextFormatError(Exception):
    """A text that is not the message, with its line; or values that cannot be one."""


@dataclass(frozen=True)
class Message:
    """A kind of message: its fields by name, and the sets of fields of which only one may be there."""

    name: str
    fields: Mapping[str, Field]
    oneofs: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True)
class Field:
    """A field: string, bool, int32, uint32, int64, float, double, enum, message, map or any.

    message is the kind of a message; of a map its entry, with the fields key and value. types are the messages that an
    Any may hold. A wrapped scalar is written as { value: ... }.
    """

    kind: str
    repeated: bool = False
    message: Message | None = None
    choices: tuple[str, ...] = ()
    types: tuple[Message, ...] = ()
    wrapped: bool = field(default=False)

    @property
    def of_message(self) -> Message:
        """The kind of message of a message or a map."""
        if self.message is None:
            raise TypeError(f"a field of kind {self.kind} has no message")
        return self.message


def parse(text: str | bytes, message: Message) -> dict[str, Any]:
    """Return the message that a text says, without booleans, floats, wrappers and Any, which no text to be read has.

    Raises TextFormatError with the line for any other text.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise TextFormatError(f"not UTF-8: {error}") from error
    if len(text) > MAX_TEXT_BYTES:
        raise TextFormatError(f"longer than {MAX_TEXT_BYTES} bytes")
    return _Parser(text).message(message, end="", depth=0)


class _Parser:
    """Goes through a text from its start to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._start = 0  # of the current token
        self._kind = ""  # of the current token, empty at the end
        self._token = ""
        self._advance()

    def _fail(self, problem: str) -> NoReturn:
        line = self._text.count("\n", 0, self._start) + 1
        column = self._start - (self._text.rfind("\n", 0, self._start) + 1) + 1
        raise TextFormatError(f"line {line}, column {column}: {problem}")

    def _advance(self) -> str:
        """Go to the next token, and return the one that was current."""
        token = self._token
        while True:
            self._start = self._position
            if self._position == len(self._text):
                self._kind = self._token = ""
                return token
            match = _TOKEN.match(self._text, self._position)
            if not match:
                self._fail(f"{self._text[self._position]!r} has no meaning here")
            self._position = match.end()
            if match.lastgroup != "space":
                self._kind, self._token = str(match.lastgroup), match.group()
                return token

    def _take(self, sign: str) -> bool:
        """Go past a sign if it stands here."""
        if self._kind == "sign" and self._token == sign:
            self._advance()
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            self._fail(f"{sign} is expected" + (f", not {self._token}" if self._token else ""))

    def message(self, message: Message, end: str, depth: int) -> dict[str, Any]:
        """Return the fields up to the sign end, or to the end of the text."""
        if depth > MAX_DEPTH:
            self._fail(f"messages lie in each other more than {MAX_DEPTH} deep")
        values: dict[str, Any] = {}
        while not (self._take(end) if end else not self._kind):
            if self._kind != "name":
                self._fail(f"a field of {message.name} is expected" + (f", not {self._token}" if self._token else ""))
            name = self._token
            if name not in message.fields:
                self._fail(f"{message.name} has no field {name}{nearest(name, message.fields)}")
            other = _rival(message, name, values)
            if other:
                self._fail(f"{message.name} takes one of {other} and {name}")
            if name in values and not _is_many(message.fields[name]):
                self._fail(f"{message.name} takes one {name}")
            self._advance()
            self._field(message.fields[name], name, values, depth)
            if not self._take(","):
                self._take(";")
        return values

    def _field(self, of: Field, name: str, values: dict[str, Any], depth: int) -> None:
        has_colon = self._take(":")
        if of.message is None and not has_colon:
            self._fail(f": is expected after {name}")
        if not _is_many(of):
            values[name] = self._value(of, depth)
            return
        many = values.setdefault(name, {} if of.kind == "map" else [])
        if not (has_colon and self._take("[")):
            _add(many, self._value(of, depth))
            return
        if self._take("]"):
            return
        while True:
            _add(many, self._value(of, depth))
            if self._take("]"):
                return
            self._expect(",")

    def _value(self, of: Field, depth: int) -> Any:
        if of.message is not None:
            values = self._enclosed(of.message, depth)
            if of.kind != "map":
                return values
            entry = of.message.fields
            return values.get("key", default(entry["key"])), values.get("value", default(entry["value"]))
        if of.kind == "string":
            return self._string()
        return self._enum(of) if of.kind == "enum" else self._integer(of)

    def _enclosed(self, message: Message, depth: int) -> dict[str, Any]:
        if self._take("<"):
            return self.message(message, ">", depth + 1)
        self._expect("{")
        return self.message(message, "}", depth + 1)

    def _string(self) -> str:
        if self._kind != "string":
            self._fail("a string in quotes is expected")
        content = b""
        while self._kind == "string":
            content += self._unescape(self._token[1:-1])
            self._advance()
        try:
            return content.decode()
        except UnicodeDecodeError:
            self._fail("the string before this is not UTF-8")

    def _unescape(self, text: str) -> bytes:
        content, position = b"", 0
        for match in _ESCAPE.finditer(text):
            content += text[position : match.start()].encode("utf-8", "surrogatepass")
            position = match.end()
            octal, hexadecimal, *points, single = match.groups()
            point = next((int(digits, 16) for digits in points if digits), None)
            byte = int(octal, 8) if octal else int(hexadecimal, 16) if hexadecimal else 0
            if byte > 0xFF or (single and single not in _SINGLE):
                self._fail(f"{match.group()} is no escape")
            if point is not None and (point > 0x10FFFF or 0xD800 <= point < 0xE000):
                self._fail(f"{match.group()} is no character")
            if single:
                content += _SINGLE[single].encode()
            else:
                content += bytes([byte]) if point is None else chr(point).encode()
        return content + text[position:].encode("utf-8", "surrogatepass")

    def _integer(self, of: Field) -> int:
        if self._kind != "number" or not _INTEGER.fullmatch(self._token):
            self._fail(f"a whole number is expected, not {self._token or 'the end'}")
        number = _integer(self._token)
        if number not in _RANGES[of.kind]:
            self._fail(f"{self._token} is out of range for {of.kind}")
        self._advance()
        return number

    def _enum(self, of: Field) -> str:
        if self._kind != "name" or self._token not in of.choices:
            self._fail(f"{self._token or 'the end'} is none of {' '.join(of.choices)}")
        return self._advance()


def _integer(token: str) -> int:
    """Return a number as C writes it; 0 at its front means octal."""
    digits = token.lstrip("-")
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    return int(digits, base) * (-1 if token.startswith("-") else 1)


def _is_finite(number: float, of: Field) -> bool:
    return math.isfinite(number) and (of.kind != "float" or abs(number) <= _FLOAT_MAX)


def _is_many(of: Field) -> bool:
    return of.repeated or of.kind == "map"


def _add(many: Any, value: Any) -> None:
    if isinstance(many, dict):
        many[value[0]] = value[1]
    else:
        many.append(value)


def _rival(message: Message, name: str, values: Iterable[str]) -> str:
    """Return the other field of the same set of which one is there already, if any."""
    for oneof in message.oneofs:
        if name in oneof:
            return next((other for other in values if other != name and other in oneof), "")
    return ""


def default(of: Field) -> Any:
    """Return what a field is that is not there."""
    if _is_many(of):
        return {} if of.kind == "map" else []
    if of.kind in ("message", "any"):
        return {}
    return of.choices[0] if of.kind == "enum" else _DEFAULTS.get(of.kind, 0)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return '; did you mean NAME?', or nothing where no name is near."""
    near = difflib.get_close_matches(str(name), list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""


def read_values(values: Any, message: Message) -> tuple[dict[str, Any], list[str]]:
    """Return values that a user has given as a message, and all that is wrong with them.

    Fields that are null count as absent; numbers and booleans may come as text, as templates make them.
    """
    problems: list[str] = []
    return _read_message(values, message, "", problems, 0), problems


def _read_message(values: Any, message: Message, at: str, problems: list[str], depth: int) -> dict[str, Any]:
    if not isinstance(values, dict) or depth > MAX_DEPTH:
        problems.append(f"{at or message.name} takes fields by their names")
        return {}
    read: dict[str, Any] = {}
    for name, value in values.items():
        here = f"{at}.{name}" if at else str(name)
        if name not in message.fields:
            problems.append(f"{here}: {message.name} has no field {name}{nearest(name, message.fields)}")
        elif value is not None:
            other = _rival(message, name, read)
            if other:
                problems.append(f"{here}: {message.name} takes one of {other} and {name}")
            read[name] = _read_field(value, message.fields[name], here, problems, depth)
    return read


def _read_field(value: Any, of: Field, at: str, problems: list[str], depth: int) -> Any:
    if of.kind == "map":
        if not isinstance(value, dict):
            problems.append(f"{at} takes values by their keys")
            return {}
        entry = of.of_message.fields
        return {
            _read_one(key, entry["key"], at, problems, depth): _read_one(
                one, entry["value"], f"{at}.{key}", problems, depth
            )
            for key, one in value.items()
        }
    if of.repeated:
        if not isinstance(value, list):
            problems.append(f"{at} takes a list")
            return []
        return [_read_one(one, of, f"{at}[{index}]", problems, depth) for index, one in enumerate(value)]
    return _read_one(value, of, at, problems, depth)


def _read_one(value: Any, of: Field, at: str, problems: list[str], depth: int) -> Any:
    if of.kind == "any":
        types = {ANY_PREFIX + message.name: message for message in of.types}
        kind = value.get("@type") if isinstance(value, dict) else None
        if kind not in types:
            problems.append(f"{at} takes @type, one of {' '.join(types)}")
            return {}
        rest = {name: one for name, one in value.items() if name != "@type"}
        return {"@type": kind, **_read_message(rest, types[kind], at, problems, depth + 1)}
    if of.kind == "message":
        return _read_message(value, of.of_message, at, problems, depth + 1)
    text = str(value).strip()
    if of.kind == "bool" and (isinstance(value, bool) or text.lower() in ("true", "false")):
        return text.lower() == "true"
    if of.kind in _RANGES and not isinstance(value, bool) and re.fullmatch("-?[0-9]{1,20}", text):
        if int(text) in _RANGES[of.kind]:
            return int(text)
        problems.append(f"{at}: {text} is out of range for {of.kind}")
        return 0
    if of.kind in ("float", "double") and _FLOAT.fullmatch(text) and _is_finite(float(text.rstrip("fF")), of):
        return float(text.rstrip("fF"))
    if of.kind == "enum" and value in of.choices:
        return value
    if of.kind == "string" and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            problems.append(f"{at} is not UTF-8")
        return str(value)
    wanted = {"bool": "true or false", "string": "a string", "enum": f"one of {' '.join(of.choices)}"}
    number = "a number" if of.kind in ("float", "double") else "a whole number"
    shown = f", not {value!r}" if of.kind != "string" else ""  # a string may be a secret
    problems.append(f"{at} takes {wanted.get(of.kind, number)}{shown}")
    return default(of)


def render(values: Mapping[str, Any], message: Message, indent: int = 0) -> str:
    """Return a message as text, a field a line, in the order of the schema; maps in the order of their keys."""
    lines: list[str] = []
    for name, of in message.fields.items():
        if name not in values:
            continue
        value = values[name]
        if of.kind == "map":
            for key in sorted(value):
                lines += _block(name, render({"key": key, "value": value[key]}, of.of_message, indent + 1), indent)
        else:
            for one in value if of.repeated else [value]:
                lines += _lines(name, of, one, indent)
    return "".join(lines)


def _lines(name: str, of: Field, value: Any, indent: int) -> list[str]:
    if of.kind == "any":
        held = next(message for message in of.types if value["@type"] == ANY_PREFIX + message.name)
        content = _block(f"[{value['@type']}]", render(value, held, indent + 2), indent + 1)
        return _block(name, "".join(content), indent)
    if of.kind == "message":
        return _block(name, render(value, of.of_message, indent + 1), indent)
    if of.wrapped:
        return _block(name, "  " * (indent + 1) + f"value: {_scalar(of, value)}\n", indent)
    return ["  " * indent + f"{name}: {_scalar(of, value)}\n"]


def _block(name: str, content: str, indent: int) -> list[str]:
    return ["  " * indent + name + " {\n", content, "  " * indent + "}\n"]


def _scalar(of: Field, value: Any) -> str:
    if of.kind == "string":
        return quote(value)
    if of.kind == "bool":
        return "true" if value else "false"
    return repr(value) if of.kind in ("float", "double") else str(value)


def quote(text: str) -> str:
    """Return text as a quoted string; control characters and what cannot be seen become octal escapes."""
    escaped = text.translate(_QUOTED)
    return '"' + "".join(char if char.isprintable() else _octal(char) for char in escaped) + '"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode())

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads protobuf messages field by field, without the protobuf library, from files of any size and any origin.

Source of the format: https://protobuf.dev/programming-guides/encoding/

A message is a range of bytes, and fields() walks over it without going into what it contains: a field that nobody asks
for costs a few bytes of reading, however long it is. To read a nested message, call fields() on its range, so how
deep that goes is up to the program, never to the file.
"""

from __future__ import annotations

from typing import Callable, Iterator, Tuple

# (tag, start, end) of a length-delimited or fixed field, (tag, value, 0) of a varint. Compare the tag with what
# varint() and delimited() return: a field of an unexpected wire type is then an unknown one, as protobuf has it.
Field = Tuple[int, int, int]
Range = Tuple[int, int]  # of bytes in the file

CHUNK_BYTES = 1 << 18
MAX_TEXT_BYTES = 1 << 16  # of one name or string that is taken out of the file
MAX_FIELDS = 20_000_000  # of one file; some 15 seconds of reading

_LONGEST_HEADER_BYTES = 20  # a tag and a length, ten bytes each at most
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are no protobuf message, or one that is beyond the limits above."""


def varint(number: int) -> int:
    """Return the tag of an integer, enumeration or boolean field."""
    return number << 3 | _VARINT


def delimited(number: int) -> int:
    """Return the tag of a field that is a string, bytes or a message."""
    return number << 3 | _DELIMITED


def signed(value: int) -> int:
    """Return what an int32, int64 or enumeration says, whose varint is that of an unsigned 64-bit integer."""
    return value - (1 << 64) if value >> 63 else value


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return (value, position after it). Raises WireError where it has no end."""
    value = shift = 0
    while shift < 70:
        if position >= len(data):
            raise WireError("a number is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise WireError("a number has more than ten bytes")


class WireReader:
    """Fields of messages in one file, of which a small part is in memory at any time."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        """Take the file's size in bytes and a function that returns so many bytes (2nd) from a position (1st)."""
        self.size = size
        self._read = read
        self._data, self._base = b"", 0
        self._fields_left = MAX_FIELDS

    @classmethod
    def of(cls, data: bytes) -> WireReader:
        """Return a reader of bytes that are in memory."""
        return cls(len(data), lambda position, count: data[position : position + count])

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Yield the fields of the message in this range of the file.

        Raises WireError where it is malformed, and OSError where the file cannot be read.
        """
        position = start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise WireError(f"more than {MAX_FIELDS} fields")
            # The caller that takes a field may have moved the part that is in memory.
            at = position - self._base
            if at < 0 or at + _LONGEST_HEADER_BYTES > len(self._data):
                self._load(position)
                at = 0
            data = self._data
            tag = data[at]
            if tag < 0x80:
                at += 1
            else:
                tag, at = read_varint(data, at)
            if tag < 8:
                raise WireError("a field has no number")
            kind = tag & 7
            if kind == _DELIMITED:
                length, at = read_varint(data, at)
                first = self._base + at
                position = first + length
                second = position
            elif kind == _VARINT:
                first, at = read_varint(data, at)
                position = self._base + at
                second = 0
            elif kind in (_FIXED64, _FIXED32):
                first = self._base + at
                position = first + (8 if kind == _FIXED64 else 4)
                second = position
            else:
                raise WireError(f"a field has the wire type {kind}")
            if position > end:
                raise WireError("a field is longer than the message that it is in")
            yield tag, first, second

    def parts(self, message: Range, wanted: int) -> Iterator[Range]:
        """Yield where the fields of this tag are in a message."""
        for tag, first, end in self.fields(*message):
            if tag == wanted:
                yield first, end

    def content(self, start: int, end: int) -> bytes:
        """Return the bytes of a string field. Raises WireError where they are too many for a name."""
        if end - start > MAX_TEXT_BYTES:
            raise WireError(f"a name has {end - start} bytes")
        if start < self._base or end > self._base + len(self._data):
            self._load(start)
        return self._data[start - self._base : end - self._base]

    def text(self, start: int, end: int) -> str:
        """Return a string field. Raises WireError where it is too long or no UTF-8."""
        try:
            return self.content(start, end).decode()
        except UnicodeDecodeError as error:
            raise WireError("a string is not UTF-8") from error

    def whole(self) -> bytes:
        """Return all of the file, whose size it is up to the caller to look at before."""
        return self._read(0, self.size)

    def _load(self, position: int) -> None:
        """Have the part of the file in memory that begins here."""
        count = min(CHUNK_BYTES, self.size - position)
        self._data, self._base = self._read(position, count), position
        if len(self._data) != count or count < 0:
            raise WireError("the file became shorter while it was read")

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads variables.index, which says how many shards the variables have and how long each has to be.

Sources of the format: tensorflow/core/util/tensor_bundle (a table whose empty key holds a BundleHeaderProto and whose
other keys hold one BundleEntryProto a tensor), tensorflow/core/protobuf/tensor_bundle.proto, and LevelDB's
doc/table_format.md. TensorFlow writes the blocks uncompressed, and checks the checksum of each that it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.protobuf_wire import (
    WireError,
    WireReader,
    read_varint,
    signed,
    varint,
)

MAX_INDEX_BYTES = 1 << 26  # a million variables have some 60 MB
MAX_SHARDS = 99_999  # five digits in the names of the shards

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_TRAILER_BYTES = 5  # after each block: its compression, and a masked CRC32C over block and compression
_UNCOMPRESSED, _SNAPPY = 0, 1

_NUM_SHARDS = varint(1)  # BundleHeaderProto
_SHARD_ID, _OFFSET, _SIZE = varint(3), varint(4), varint(5)  # BundleEntryProto


class BundleError(ValueError):
    """The bytes are no index of variables."""


@dataclass(frozen=True)
class BundleIndex:
    """What an index says of its shards, as far as its blocks are not compressed."""

    num_shards: int | None  # None where the header is in a compressed block
    shard_bytes: dict[int, int]  # {shard: the least length that its tensors need}


def read_index(data: bytes) -> BundleIndex:
    """Return what the content of a variables.index says. Raises BundleError where it is damaged."""
    if len(data) > MAX_INDEX_BYTES:
        raise BundleError(f"it has more than {MAX_INDEX_BYTES} bytes")
    if len(data) < _FOOTER_BYTES or data[-8:] != _MAGIC:
        raise BundleError("it does not end as a table of TensorFlow's does")
    try:
        return _read_table(data)
    except WireError as error:
        raise BundleError(str(error)) from error


def _read_table(data: bytes) -> BundleIndex:
    footer = data[-_FOOTER_BYTES:-8]
    _, position = _handle(footer, 0)  # the meta index, which is empty
    (start, length), _ = _handle(footer, position)
    num_shards = None
    shard_bytes: dict[int, int] = {}
    behind = 0
    for number, (_, handle) in enumerate(_entries(_block(data, start, length))):
        (start, length), _ = _handle(handle, 0)
        if start < behind:  # each byte is read once, whatever the index says
            raise BundleError("its blocks overlap")
        behind = start + length + _TRAILER_BYTES
        for key_bytes, value in _entries(_block(data, start, length)):
            if not key_bytes:
                num_shards = _number_of_shards(value)
            else:
                shard, needed = _last_byte(value)
                shard_bytes[shard] = max(needed, shard_bytes.get(shard, 0))
        if not number and num_shards is None and data[start + length] == _UNCOMPRESSED:
            raise BundleError("it has no header")
    if num_shards is not None and any(shard >= num_shards for shard in shard_bytes):
        raise BundleError(f"it has {num_shards} shards and a tensor in shard {max(shard_bytes)}")
    return BundleIndex(num_shards, shard_bytes)


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Return the (start, length) of a block that stands at a position, and the position after it."""
    start, position = read_varint(data, position)
    length, position = read_varint(data, position)
    return (start, length), position


def _block(data: bytes, start: int, length: int) -> bytes:
    """Return the content of a block, nothing where it is compressed."""
    end = start + length
    if end + _TRAILER_BYTES > len(data):
        raise BundleError("a block lies beyond its end")
    if int.from_bytes(data[end + 1 : end + _TRAILER_BYTES], "little") != masked_crc32c(data[start : end + 1]):
        raise BundleError("a checksum is wrong")
    if data[end] == _SNAPPY:
        return b""
    if data[end] != _UNCOMPRESSED:
        raise BundleError(f"a block has the compression {data[end]}")
    return data[start:end]


def _entries(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (length of the key, value) of each entry of a block.

    A key is given as what it shares with the one before and what it adds. Only the empty one has to be told from the
    others, so none is put together.
    """
    if not block:
        return
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise BundleError("a block has no entries")
    position = key_bytes = 0
    while position < end:
        shared, position = read_varint(block, position)
        added, position = read_varint(block, position)
        length, position = read_varint(block, position)
        value = position + added
        position = value + length
        if shared > key_bytes or position > end:
            raise BundleError("an entry is cut short")
        key_bytes = shared + added
        yield key_bytes, block[value:position]


def _number_of_shards(header: bytes) -> int:
    count = 0
    for tag, value, _ in WireReader.of(header).fields(0, len(header)):
        if tag == _NUM_SHARDS:
            count = signed(value)
    if not 0 <= count <= MAX_SHARDS:
        raise BundleError(f"it has {count} shards")
    return count


def _last_byte(entry: bytes) -> tuple[int, int]:
    """Return (shard, where the tensor of an entry ends in it)."""
    shard = offset = size = 0
    for tag, value, _ in WireReader.of(entry).fields(0, len(entry)):
        if tag == _SHARD_ID:
            shard = signed(value)
        elif tag == _OFFSET:
            offset = signed(value)
        elif tag == _SIZE:
            size = signed(value)
    if not 0 <= shard <= MAX_SHARDS or offset < 0 or size < 0:
        raise BundleError("a tensor has no place")
    return shard, offset + size


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of a block as LevelDB stores it: CRC32C, rotated and shifted."""
    crc = 0xFFFF_FFFF
    table = _CRC32C
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFF_FFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads variables.index, which says how many shards the variables have, how long each has to be, and what is in them.

Sources of the format: tensorflow/core/util/tensor_bundle (a table whose empty key holds a BundleHeaderProto and whose
other keys hold one BundleEntryProto a tensor), tensorflow/core/protobuf/tensor_bundle.proto, and LevelDB's
doc/table_format.md. TensorFlow writes the blocks uncompressed, and checks the checksum of each that it reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Container, Iterator, NamedTuple

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.protobuf_wire import (
    WireError,
    WireReader,
    delimited,
    read_varint,
    signed,
    varint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_types import (
    dtype_name,
    read_shape,
)

MAX_INDEX_BYTES = 1 << 26
MAX_ENTRIES = 400_000  # more variables than a graph within its own limits can have
MAX_NAME_BYTES = 1 << 12
MAX_SHARDS = 99_999  # five digits in the names of the shards

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_TRAILER_BYTES = 5  # after each block: its compression, and a masked CRC32C over block and compression
_UNCOMPRESSED, _SNAPPY = 0, 1

_NUM_SHARDS = varint(1)  # BundleHeaderProto
_DTYPE, _SHAPE, _SHARD_ID, _OFFSET, _SIZE = varint(1), delimited(2), varint(3), varint(4), varint(5)  # BundleEntryProto


class BundleError(ValueError):
    """The bytes are no index of variables."""


class StoredTensor(NamedTuple):
    """What a tensor is, by its entry or by the graph that restores it: its shape is None where that does not say."""

    dtype: str
    shape: list[int] | None

    def __str__(self) -> str:
        return self.dtype if self.shape is None else f"{self.dtype} {self.shape}"

    def fits(self, other: StoredTensor) -> bool:
        """Say whether the other one, whose shape may have unknown dimensions (-1), can be this one."""
        if self.shape is None or other.shape is None:
            return self.dtype == other.dtype
        sizes = zip(self.shape, other.shape)
        return (self.dtype, len(self.shape)) == (other.dtype, len(other.shape)) and all(
            wanted in (-1, size) for size, wanted in sizes
        )


@dataclass
class BundleIndex:
    """What an index says of its shards and of tensors, as far as its blocks are not compressed."""

    num_shards: int | None = None  # None where the header is in a compressed block
    shard_bytes: dict[int, int] = field(default_factory=dict)  # {shard: the least length that its tensors need}
    tensors: dict[str, StoredTensor] = field(default_factory=dict)  # by their names, those that were asked for
    is_whole: bool = True  # whether no block is compressed


def read_index(data: bytes, names: Container[str] = ()) -> BundleIndex:
    """Return what the content of a variables.index says, of these tensors what they are.

    Raises BundleError where it is damaged, or beyond the limits.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise BundleError(f"it has more than {MAX_INDEX_BYTES} bytes")
    if len(data) < _FOOTER_BYTES or data[-8:] != _MAGIC:
        raise BundleError("it does not end as a table of TensorFlow's does")
    try:
        return _read_table(data, names)
    except WireError as error:
        raise BundleError(str(error)) from error


def _read_table(data: bytes, names: Container[str]) -> BundleIndex:
    footer = data[-_FOOTER_BYTES:-8]
    _, position = _handle(footer, 0)  # the meta index, which is empty
    (start, length), _ = _handle(footer, position)
    index = BundleIndex()
    behind = 0
    counter = count()
    for number, (_, handle) in enumerate(_entries(_block(data, start, length), counter)):
        (start, length), _ = _handle(handle, 0)
        if start < behind:  # each byte is read once, whatever the index says
            raise BundleError("its blocks overlap")
        behind = start + length + _TRAILER_BYTES
        block = _block(data, start, length)
        index.is_whole = index.is_whole and block is not None
        for key, value in _entries(block, counter):
            if key:
                _add_tensor(index, key.decode(errors="replace"), value, names)
            else:
                index.num_shards = _number_of_shards(value)
        if not number and index.num_shards is None and block is not None:
            raise BundleError("it has no header")
    if index.num_shards is not None and any(shard >= index.num_shards for shard in index.shard_bytes):
        raise BundleError(f"it has {index.num_shards} shards and a tensor in shard {max(index.shard_bytes)}")
    return index


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Return the (start, length) of a block that stands at a position, and the position after it."""
    start, position = read_varint(data, position)
    length, position = read_varint(data, position)
    return (start, length), position


def _block(data: bytes, start: int, length: int) -> bytes | None:
    """Return the content of a block, None where it is compressed."""
    end = start + length
    if end + _TRAILER_BYTES > len(data):
        raise BundleError("a block lies beyond its end")
    if int.from_bytes(data[end + 1 : end + _TRAILER_BYTES], "little") != masked_crc32c(data[start : end + 1]):
        raise BundleError("a checksum is wrong")
    if data[end] == _SNAPPY:
        return None
    if data[end] != _UNCOMPRESSED:
        raise BundleError(f"a block has the compression {data[end]}")
    return data[start:end]


def _entries(block: bytes | None, counter: Iterator[int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) of each entry of a block. A key shares its beginning with the one before."""
    if block is None:
        return
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise BundleError("a block has no entries")
    position = 0
    key = b""
    while position < end:
        shared, position = read_varint(block, position)
        added, position = read_varint(block, position)
        length, position = read_varint(block, position)
        value = position + added
        if shared > len(key) or value + length > end:
            raise BundleError("an entry is cut short")
        if next(counter) > MAX_ENTRIES:
            raise BundleError(f"it has more than {MAX_ENTRIES} entries")
        if shared + added > MAX_NAME_BYTES:
            raise BundleError(f"a name has more than {MAX_NAME_BYTES} bytes")
        key = key[:shared] + block[position:value]
        position = value + length
        yield key, block[value:position]


def _number_of_shards(header: bytes) -> int:
    count = 0
    for tag, value, _ in WireReader.of(header).fields(0, len(header)):
        if tag == _NUM_SHARDS:
            count = signed(value)
    if not 0 <= count <= MAX_SHARDS:
        raise BundleError(f"it has {count} shards")
    return count


def _add_tensor(index: BundleIndex, name: str, entry: bytes, names: Container[str]) -> None:
    """Note where the tensor of an entry ends in its shard, and what it is where that is asked for."""
    shard = offset = size = dtype = 0
    shape = (0, 0)
    reader = WireReader.of(entry)
    for tag, first, end in reader.fields(0, len(entry)):
        if tag == _SHARD_ID:
            shard = signed(first)
        elif tag == _OFFSET:
            offset = signed(first)
        elif tag == _SIZE:
            size = signed(first)
        elif tag == _DTYPE:
            dtype = first
        elif tag == _SHAPE:
            shape = (first, end)
    if not 0 <= shard <= MAX_SHARDS or offset < 0 or size < 0:
        raise BundleError("a tensor has no place")
    index.shard_bytes[shard] = max(offset + size, index.shard_bytes.get(shard, 0))
    if name in names:
        index.tensors[name] = StoredTensor(dtype_name(dtype), read_shape(reader, shape))


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

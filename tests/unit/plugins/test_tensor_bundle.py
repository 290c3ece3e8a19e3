"""An index tells how many shards there are and how long each has to be, and a damaged one is told."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from saved_model_files import block, message, mutated, number, sealed, table, variables_index, varint

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import tensor_bundle
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_bundle import (
    BundleError,
    StoredTensor,
    read_index,
)

REAL = sorted(Path(__file__).parent.glob("saved_models/*/variables/variables.index"))


def entry(shard: int, offset: int, size: int) -> bytes:
    return number(1, 1) + number(3, shard) + number(4, offset) + number(5, size)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.parent.parent.name)
def test_index_that_tensorflow_wrote_needs_its_shard_to_the_last_byte(path: Path) -> None:
    index = read_index(path.read_bytes())
    assert index.num_shards == 1
    assert index.shard_bytes == {0: (path.parent / "variables.data-00000-of-00001").stat().st_size}


def test_each_shard_needs_the_tensor_that_ends_last() -> None:
    header = b"", number(1, 3)
    first = block([header, (b"a", entry(0, 100, 20)), (b"b", entry(2, 0, 7))])
    second = block([(b"c", entry(0, 0, 100)), (b"d", entry(2, 7, 2**40))])
    index = read_index(table(first, second))
    assert (index.num_shards, index.shard_bytes) == (3, {0: 120, 2: 2**40 + 7})


def test_tensors_that_are_asked_for_are_told() -> None:
    """Keys share their beginnings, within a block."""
    shape = message(2, message(2, number(1, 3)), message(2, number(1, 0)))
    entries = b"\0\0\2\x08\1"  # the header: one shard
    for shared, added, value in ((0, b"layer/a", b"\x08\1"), (6, b"b", number(1, 9) + shape), (6, b"c", b"\x08\7")):
        entries += bytes([shared, len(added), len(value)]) + added + value
    index = read_index(table(sealed(entries + bytes(4) + b"\1\0\0\0")), {"layer/a", "layer/b", "b"})
    assert index.tensors == {"layer/a": ("float32", []), "layer/b": ("int64", [3, 0])}
    assert index.is_whole


@pytest.mark.parametrize(
    ("stored", "wanted", "fits"),
    [
        (("float32", [2]), ("float32", [2]), True),
        (("float32", [2]), ("float32", None), True),
        (("float32", [2, 0]), ("float32", [-1, 0]), True),
        (("float32", []), ("float32", []), True),
        (("float32", [2]), ("float32", [3]), False),
        (("float32", [2]), ("float32", [2, 1]), False),
        (("float32", [2]), ("float64", [2]), False),
        (("float32", [2]), ("float64", None), False),
    ],
)
def test_tensor_fits_what_leaves_dimensions_open(stored: Any, wanted: Any, fits: bool) -> None:
    assert StoredTensor(*stored).fits(StoredTensor(*wanted)) == fits


def test_checksum_is_that_of_leveldb() -> None:
    """The CRC32C of these digits, e3069283, is the check value of its definition; leveldb/util/crc32c.h masks it."""
    masked = ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32
    assert tensor_bundle.masked_crc32c(b"123456789") == masked


@pytest.mark.parametrize("position", [0, 1, 20, -60, -70])
def test_flipped_bit_in_a_block_is_told(position: int) -> None:
    data = bytearray(variables_index([7, 7]))
    data[position] ^= 1
    with pytest.raises(BundleError, match="a checksum is wrong"):
        read_index(bytes(data))


def test_compressed_blocks_are_left_out() -> None:
    header = block([(b"", number(1, 2)), (b"a", entry(0, 0, 9))])
    compressed = block([(b"b", b"snappy")], compression=1)
    index = read_index(table(header, compressed))
    assert (index.num_shards, index.shard_bytes, index.is_whole) == (2, {0: 9}, False)
    index = read_index(table(block([(b"", b"snappy")], compression=1), block([(b"b", entry(1, 0, 5))])))
    assert (index.num_shards, index.shard_bytes) == (None, {1: 5})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "does not end"),
        (b"index", "does not end"),
        (bytes(1000), "does not end"),
        (variables_index([7])[:-1], "does not end"),
        (variables_index([7])[5:], "checksum is wrong"),
        (variables_index([7])[-48:], "beyond its end"),
        (table(block([(b"a", entry(0, 0, 7))])), "no header"),
        (table(block([(b"", number(1, -1))])), "it has -1 shards"),
        (table(block([(b"", number(1, 10**6))])), "it has 1000000 shards"),
        (table(block([(b"", number(1, 1)), (b"a", entry(1, 0, 7))])), "1 shards and a tensor in shard 1"),
        (table(block([(b"", number(1, 1)), (b"a", entry(-1, 0, 7))])), "no place"),
        (table(block([(b"", number(1, 1)), (b"a", entry(0, -1, 7))])), "no place"),
        (table(block([(b"", number(1, 1)), (b"a", entry(0, 0, -7))])), "no place"),
        (table(block([(b"", number(1, 1)), (b"a", b"\x0f")])), "wire type 7"),
        (table(block([(b"", number(1, 1))], compression=7)), "the compression 7"),
        (table(sealed(b"\1\0\0" + bytes(4) + b"\1\0\0\0")), "an entry is cut short"),
        (table(sealed(b"\0\0\1" + bytes(4) + b"\1\0\0\0")), "an entry is cut short"),
        (table(sealed(b"\0\1\0" + bytes(4) + b"\1\0\0\0")), "an entry is cut short"),
        (table(sealed(bytes(4) + b"\2\0\0\0")), "no entries"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_index_is_told(data: bytes, complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        read_index(data)


def test_block_that_is_listed_twice_is_told() -> None:
    """So that a small index cannot make a reader read for ever."""
    one = block([(b"", number(1, 1))])
    handle = varint(0) + varint(len(one) - 5)
    index = block([(b"a", handle), (b"b", handle)])
    footer = (varint(0) * 2 + varint(len(one)) + varint(len(index) - 5)).ljust(40, b"\0")
    with pytest.raises(BundleError, match="overlap"):
        read_index(one + index + footer + variables_index([7])[-8:])


@pytest.mark.parametrize("limit", ["MAX_INDEX_BYTES", "MAX_ENTRIES", "MAX_NAME_BYTES"])
def test_what_is_read_is_bounded(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    data = variables_index([7])
    most = {"MAX_INDEX_BYTES": len(data), "MAX_ENTRIES": 2, "MAX_NAME_BYTES": len("00000000")}[limit]
    monkeypatch.setattr(tensor_bundle, limit, most)
    assert read_index(data).num_shards == 1
    monkeypatch.setattr(tensor_bundle, limit, most - 1)
    with pytest.raises(BundleError, match=f"more than {most - 1} "):
        read_index(data)


def test_millions_of_tiny_entries_take_seconds() -> None:
    """Three bytes each, so that it is not the limit of bytes that stops them."""
    tiny = sealed(bytes(3 * 1_000_000) + bytes(4) + b"\1\0\0\0")
    began = time.process_time()
    with pytest.raises(BundleError, match="more than 400000 entries"):
        read_index(table(block([(b"", number(1, 1))]), tiny))
    assert time.process_time() - began < 20


def test_mutated_block_is_read_or_refused() -> None:
    """With the right checksum, so that what is behind it is put to the test."""
    chance = random.Random(20)  # noqa: S311
    blocks = [path.read_bytes()[:-100] for path in REAL] + [
        block([(b"", number(1, 3)), (b"a", entry(2, 100, 20))])[:-5]
    ]
    refused = 0
    for _ in range(5000):
        content = mutated(chance.choice(blocks), chance, chance.choice(blocks))
        try:
            index = read_index(table(sealed(content)))
        except BundleError:
            refused += 1
        else:
            assert index.num_shards is not None
            assert all(0 <= shard < index.num_shards and size >= 0 for shard, size in index.shard_bytes.items())
    assert 1000 < refused < 5000

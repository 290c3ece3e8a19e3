"""Messages are walked over field by field, nothing else of them is read, and what is no message is told."""

from __future__ import annotations

import pytest
from saved_model_files import message, number, varint

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import protobuf_wire
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.protobuf_wire import (
    WireError,
    WireReader,
)

HUGE = 1 << 40


def walk(data: bytes) -> list[protobuf_wire.Field]:
    return list(WireReader.of(data).fields(0, len(data)))


def test_fields_are_told_in_their_order() -> None:
    data = number(1, 300) + message(2, "text") + b"\x19" + bytes(8) + b"\x25" + bytes(4) + number(1, -1)
    assert walk(data) == [
        (protobuf_wire.varint(1), 300, 0),
        (protobuf_wire.delimited(2), 5, 9),
        (3 << 3 | 1, 10, 18),
        (4 << 3 | 5, 19, 23),
        (protobuf_wire.varint(1), (1 << 64) - 1, 0),
    ]


def test_strings_and_signed_numbers_are_read() -> None:
    data = message(1, "größe") + number(2, -1)
    reader = WireReader.of(data)
    (_, start, end), (_, value, _) = reader.fields(0, len(data))
    assert (reader.text(start, end), protobuf_wire.signed(value), protobuf_wire.signed(1)) == ("größe", -1, 1)


def test_nested_message_can_be_read_while_its_parent_is_walked_over() -> None:
    """Also where the nested one reaches far beyond the part of the file that is in memory."""
    filler = b"x" * protobuf_wire.CHUNK_BYTES
    data = b"".join(message(1, number(1, one), message(2, filler), message(3, f"name {one}")) for one in range(5))
    reader = WireReader(len(data), lambda position, count: data[position : position + count])
    found = []
    for _, start, end in reader.fields(0, len(data)):
        inner = list(reader.fields(start, end))
        found.append((inner[0][1], reader.text(*inner[2][1:])))
    assert found == [(one, f"name {one}") for one in range(5)]


@pytest.mark.parametrize("shift", range(24))
def test_number_may_lie_across_the_end_of_what_is_in_memory(shift: int) -> None:
    """The fields have 21 bytes, and begin at every place before that end."""
    count = protobuf_wire.CHUNK_BYTES // 21 + 5
    fields = varint((1 << 29) - 1 << 3) + varint(-1) + message((1 << 29) - 1)
    assert len(fields) == 21
    data = message(1, b"x" * (shift + 126)) + fields * count
    assert walk(data)[1::2] == [(protobuf_wire.varint((1 << 29) - 1), (1 << 64) - 1, 0)] * count


def test_content_is_stepped_over_unread() -> None:
    read = []

    def zeros(position: int, count: int) -> bytes:
        read.append(count)
        return (header if position == 0 else b"").ljust(count, b"\0")[:count]

    header = protobuf_wire.delimited(1).to_bytes(1, "little") + varint(HUGE)
    reader = WireReader(len(header) + HUGE, zeros)
    assert [end - start for _, start, end in reader.fields(0, reader.size)] == [HUGE]
    assert read == [protobuf_wire.CHUNK_BYTES]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\x08", "cut short"),
        (b"\x08\x80", "cut short"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than ten bytes"),
        (b"\x80" * 11, "more than ten bytes"),
        (b"\x0a", "cut short"),
        (b"\x0a\x05abcd", "longer than the message"),
        (b"\x0a" + varint(1 << 60), "longer than the message"),
        (b"\x0a" + varint(-1), "longer than the message"),
        (b"\x09" + bytes(7), "longer than the message"),
        (b"\x0d" + bytes(3), "longer than the message"),
        (b"\x00\x00", "no number"),
        (b"\x02\x00", "no number"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0e", "wire type 6"),
        (b"\x0f", "wire type 7"),
    ],
)
def test_malformed_message_is_told(data: bytes, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        walk(data)


def test_field_ends_within_its_message_and_not_within_the_file() -> None:
    data = b"\x0a\x05" + bytes(100)
    with pytest.raises(WireError, match="longer than the message"):
        list(WireReader.of(data).fields(0, 6))
    with pytest.raises(WireError, match="longer than the message"):
        list(WireReader.of(b"\x08\x80\x80\x01").fields(0, 2))


def test_names_are_bounded_and_text() -> None:
    reader = WireReader.of(bytes(protobuf_wire.MAX_TEXT_BYTES + 1))
    assert len(reader.content(1, reader.size)) == protobuf_wire.MAX_TEXT_BYTES
    with pytest.raises(WireError, match=f"a name has {reader.size} bytes"):
        reader.content(0, reader.size)
    with pytest.raises(WireError, match="not UTF-8"):
        WireReader.of(b"\xff").text(0, 1)


def test_fields_of_a_file_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf_wire, "MAX_FIELDS", 100)
    assert len(walk(number(1, 1) * 100)) == 100
    with pytest.raises(WireError, match="more than 100 fields"):
        walk(number(1, 1) * 101)


def test_file_that_is_cut_while_it_is_read_is_told() -> None:
    reader = WireReader(1000, lambda position, count: number(1, 1) * 10)
    with pytest.raises(WireError, match="became shorter"):
        list(reader.fields(0, 1000))

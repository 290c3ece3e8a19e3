"""Makes small SavedModels without TensorFlow, whole ones unless the test asks for another kind."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_bundle import (
    masked_crc32c,
)

DTYPES = {"float32": 1, "int32": 3, "string": 7, "int64": 9}
SIGNATURES = {
    "serving_default": {
        "method_name": "tensorflow/serving/predict",
        "inputs": {"x": {"dtype": "float32", "shape": [-1, 2]}},
        "outputs": {"y": {"dtype": "float32", "shape": [-1, 1]}},
    }
}


def varint(value: int) -> bytes:
    value %= 1 << 64
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + varint(value >> 7)


def number(field: int, value: int) -> bytes:
    """Encode an integer field of a message."""
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes | str) -> bytes:
    """Encode a field that is a message, made of its encoded fields, or a string."""
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def node(name: str, op: str, *inputs: str, shared_name: str | None = None) -> bytes:
    """Encode a node as a field of a GraphDef."""
    attributes = (
        [] if shared_name is None else [message(5, message(1, "shared_name"), message(2, message(2, shared_name)))]
    )
    return message(1, message(1, name), message(2, op), *(message(3, one) for one in inputs), *attributes)


def tensor(field: int, name: str, facts: dict[str, Any], of: str) -> bytes:
    """Encode an input or an output as a field of a SignatureDef."""
    dimensions = [number(3, 1)] if facts["shape"] is None else [message(2, number(1, size)) for size in facts["shape"]]
    info = message(1, f"{of}:0"), number(2, DTYPES[facts["dtype"]]), message(3, *dimensions)
    return message(field, message(1, name), message(2, *info))


def signature(name: str, facts: dict[str, Any]) -> bytes:
    """Encode a signature as a field of a MetaGraphDef. Its outputs are those of the node call_NAME."""
    return message(
        5,
        message(1, name),
        message(
            2,
            *(tensor(1, one, found, f"{name}_{one}") for one, found in facts["inputs"].items()),
            *(tensor(2, one, found, f"call_{name}") for one, found in facts["outputs"].items()),
            message(3, facts["method_name"]),
        ),
    )


def meta_graph(*parts: bytes, tags: Iterable[str] = ("serve",), tensorflow_version: str = "2.21.0") -> bytes:
    """Encode a meta graph as a field of a SavedModel."""
    return message(2, message(1, *(message(4, tag) for tag in tags), message(5, tensorflow_version)), *parts)


def graph(
    signatures: dict[str, Any] = SIGNATURES,
    *,
    tags: Iterable[str] = ("serve",),
    variables: Sequence[str] = ("w",),
    unrestored: Sequence[str] = (),
    assets: Sequence[str] = (),
    tensorflow_version: str = "2.21.0",
) -> bytes:
    """Return a saved_model.pb whose signatures read all variables, and whose restore sets those of the first list."""
    nodes = [node(name, "VarHandleOp", shared_name=name) for name in (*variables, *unrestored)]
    for name, facts in signatures.items():
        inputs = [f"{name}_{one}" for one in facts["inputs"]]
        nodes += (node(one, "Placeholder") for one in inputs)
        nodes.append(node(f"call_{name}", "StatefulPartitionedCall", *inputs, *variables, *unrestored))
    functions, saver = b"", b""
    if variables:
        nodes += [
            node("saver_filename", "Placeholder"),
            node("restore", "PartitionedCall", "saver_filename", *variables),
        ]
        functions = message(
            2, message(1, message(1, message(1, "traced_restore")), message(3, message(2, "RestoreV2")))
        )
        saver = message(3, message(3, "restore"))
    return number(1, 1) + meta_graph(
        message(2, *nodes, functions),
        saver,
        *(signature(name, facts) for name, facts in signatures.items()),
        *(message(6, message(2, name)) for name in assets),
        tags=tags,
        tensorflow_version=tensorflow_version,
    )


def block(entries: Iterable[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    """Encode a block of a table, whose keys share nothing, with its checksum."""
    content = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    return sealed(content + (0).to_bytes(4, "little") + (1).to_bytes(4, "little"), compression)


def sealed(content: bytes, compression: int = 0) -> bytes:
    """Return the content of a block with the checksum that belongs to it."""
    content += bytes([compression])
    return content + masked_crc32c(content).to_bytes(4, "little")


def table(*blocks: bytes) -> bytes:
    """Encode a table of such blocks."""
    handles, position = [], 0
    for one in blocks:
        handles.append((b"%08d" % len(handles), varint(position) + varint(len(one) - 5)))
        position += len(one)
    index = block(handles)
    footer = varint(0) * 2 + varint(position) + varint(len(index) - 5)
    return b"".join(blocks) + index + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def variables_index(shard_bytes: Sequence[int]) -> bytes:
    """Return a variables.index for shards of these lengths, with one variable in each."""
    entries = [(b"", number(1, len(shard_bytes)))]
    for shard, size in enumerate(shard_bytes):
        entries.append((b"v%05d" % shard, number(1, 1) + number(3, shard) + number(4, 0) + number(5, size)))
    return table(block(entries))


def make_saved_model(
    path: Path,
    *,
    weights: bytes = b"weights",
    shards: int = 1,
    signatures: dict[str, Any] = SIGNATURES,
    tags: Iterable[str] = ("serve",),
    unrestored: Sequence[str] = (),
    tensorflow_version: str = "2.21.0",
) -> Path:
    """Write a SavedModel with a variable and return its directory.

    Its signatures also read the variables that are given as unrestored, which no restore sets.
    """
    (path / "variables").mkdir(parents=True)
    (path / "assets").mkdir()
    (path / "saved_model.pb").write_bytes(
        graph(signatures, tags=tags, unrestored=unrestored, tensorflow_version=tensorflow_version)
    )
    (path / "assets" / "words.txt").write_text("one\n")
    (path / "variables" / "variables.index").write_bytes(variables_index([len(weights)] * shards))
    for index in range(shards):
        (path / "variables" / f"variables.data-{index:05d}-of-{shards:05d}").write_bytes(weights)
    return path


def mutated(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Return data with a few changes of the kinds that find faults in parsers, pieces of other among them."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(6)
        if kind == 0:
            del changed[at:]
        elif kind == 1 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            changed[at : at + 1] = varint(1 << chance.randrange(64))
        elif kind == 3:
            start = chance.randrange(len(other))
            changed[at:at] = other[start : start + chance.randrange(200)]
        elif kind == 4:
            del changed[at : at + chance.randrange(100)]
        else:
            changed[at : at + 8] = bytes(chance.randrange(256) for _ in range(8))
    return bytes(changed)

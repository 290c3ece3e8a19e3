"""Makes directories that pass for SavedModels, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

GRAPH = b"\x08\x01...save/RestoreV2..."  # a graph that restores variables
CONSTANT_GRAPH = b"\x08\x01...PartitionedCall..."


def make_saved_model(path: Path, *, weights: bytes = b"weights", shards: int = 1) -> Path:
    """Write a whole SavedModel with variables and return its directory."""
    (path / "variables").mkdir(parents=True)
    (path / "assets").mkdir()
    (path / "saved_model.pb").write_bytes(GRAPH)
    (path / "assets" / "words.txt").write_text("one\n")
    (path / "variables" / "variables.index").write_bytes(b"index")
    for index in range(shards):
        (path / "variables" / f"variables.data-{index:05d}-of-{shards:05d}").write_bytes(weights)
    return path

"""What of a large file is new: found by comparing the two versions that the controller has."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils import (
    delta,
    run_cache,
)

BLOCK = 16


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(run_cache.constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "memory"))
    monkeypatch.setattr(delta, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(delta, "COMPARED_BYTES", 100)


def change_of(tmp_path: Path, old: bytes, new: bytes, stamp: str = "") -> delta.Change | None:
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    return delta.compare(tmp_path / "old", tmp_path / "new", stamp)


def applied(old: bytes, size: int, change: delta.Change) -> bytes:
    """Return what the host makes of an old file."""
    made = bytearray(old[:size].ljust(size, b"\0"))
    data = change.data.read_bytes()
    for offset, length in change.runs or []:
        made[offset : offset + length], data = data[:length], data[length:]
    assert data == b""
    return bytes(made)


OLD = bytes(number * number % 251 for number in range(1000))


@pytest.mark.parametrize(
    ("new", "runs"),
    [
        (OLD, []),
        (b"x" + OLD[1:], [[0, BLOCK]]),
        (OLD[:500] + bytes(40) + OLD[540:], [[496, 3 * BLOCK]]),
        (OLD[:100] + b"x" + OLD[101:500] + b"y" + OLD[501:], [[96, BLOCK], [496, BLOCK]]),
        (OLD[:-1] + b"x", [[992, 8]]),
        (OLD + b"more", [[992, 12]]),
        (OLD[:-1], [[0, 0]]),
        (OLD[:992], [[0, 0]]),
    ],
)
def test_new_file_is_made_of_the_old_one_and_the_runs(tmp_path: Path, new: bytes, runs: list[list[int]]) -> None:
    change = change_of(tmp_path, OLD, new)
    assert change
    assert change.runs == runs
    assert applied(OLD, len(new), change) == new
    assert change.is_patch == (new != OLD)


@pytest.mark.parametrize("new", [b"x" + OLD, bytes(1000), OLD[:700] + bytes(300)])
def test_file_of_which_too_much_is_new_gets_no_patch(tmp_path: Path, new: bytes) -> None:
    change = change_of(tmp_path, OLD, new)
    assert change
    assert (change.runs, change.is_patch, change.data.stat().st_size) == (None, False, 0)


def test_small_files_are_not_compared(tmp_path: Path) -> None:
    assert change_of(tmp_path, OLD, OLD[:99]) is None
    assert change_of(tmp_path, OLD[:99], OLD) is None


def test_files_are_compared_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = change_of(tmp_path, OLD, b"x" + OLD[1:], "stamp")
    monkeypatch.setattr(delta, "_write_patch", None)
    assert change_of(tmp_path, OLD, b"x" + OLD[1:], "stamp") == first
    with pytest.raises(TypeError):
        change_of(tmp_path, OLD, b"x" + OLD[1:], "another")

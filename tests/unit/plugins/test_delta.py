"""What of a large file is new: found by comparing two versions on the controller, and put together on the host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._delta.delta import DELTAS, apply_deltas
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils import run_cache
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish import delta

BLOCK = 16


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(run_cache.constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "memory"))
    monkeypatch.setattr(delta, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(delta, "COMPARED_BYTES", 100)


def compared(tmp_path: Path, old: bytes, new: bytes, stamp: str = "") -> delta.Comparison | None:
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    return delta.compare(tmp_path / "old", tmp_path / "new", stamp)


def applied(tmp_path: Path, size: int, found: delta.Comparison) -> bytes:
    """Return what the host makes of its old file and the delta that has arrived."""
    basis, staging = tmp_path / "basis", tmp_path / "staging"
    (staging / DELTAS).mkdir(parents=True)
    basis.mkdir()
    (tmp_path / "old").rename(basis / "weights")
    shutil.copy(found.data, staging / DELTAS)
    apply_deltas({"weights": found.told({"size": size, "mtime_ns": 5})}, basis, staging)
    assert [path.name for path in staging.iterdir()] == ["weights"]
    assert (staging / "weights").stat().st_mtime_ns == 5
    return (staging / "weights").read_bytes()


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
    found = compared(tmp_path, OLD, new)
    assert found
    assert found.runs == runs
    assert applied(tmp_path, len(new), found) == new
    assert found.is_delta == (new != OLD)


@pytest.mark.parametrize("new", [b"x" + OLD, bytes(1000), OLD[:700] + bytes(300)])
def test_file_of_which_too_much_is_new_gets_no_delta(tmp_path: Path, new: bytes) -> None:
    found = compared(tmp_path, OLD, new)
    assert found
    assert (found.runs, found.is_delta, found.data.stat().st_size) == (None, False, 0)


def test_small_files_are_not_compared(tmp_path: Path) -> None:
    assert compared(tmp_path, OLD, OLD[:99]) is None
    assert compared(tmp_path, OLD[:99], OLD) is None


def test_files_are_compared_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compared(tmp_path, OLD, b"x" + OLD[1:], "stamp")
    monkeypatch.setattr(delta, "_write_delta", None)
    assert compared(tmp_path, OLD, b"x" + OLD[1:], "stamp") == first
    with pytest.raises(TypeError):
        compared(tmp_path, OLD, b"x" + OLD[1:], "another")

"""A program that was replaced and put back while it ran needs no restart."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.modules import unit_restart_info


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that can be replaced."""
    return Path(shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "program"))


@pytest.fixture
def pid(program: Path) -> Iterator[str]:
    """A process that runs it."""
    with subprocess.Popen([program, "60"]) as process:  # noqa: S603
        yield str(process.pid)
        process.kill()


def replace(program: Path, content: bytes) -> None:
    new = program.with_suffix(".new")
    new.write_bytes(content)
    new.replace(program)


def test_process_runs_the_same_bytes_after_they_were_replaced_and_put_back(program: Path, pid: str) -> None:
    content = program.read_bytes()
    replace(program, content + b"\0")
    assert not unit_restart_info.runs(pid, str(program))
    replace(program, content)
    assert unit_restart_info.runs(pid, str(program))


def test_process_that_is_gone_and_program_that_is_gone_are_not_the_same(program: Path, pid: str) -> None:
    assert not unit_restart_info.runs("0", str(program))
    program.unlink()
    assert not unit_restart_info.runs(pid, str(program))

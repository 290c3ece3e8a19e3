"""A file that root trusts is written by root, and is whole or as it was."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common import files
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common import managed_file as writing
from ansible_collections.modelops.tensorflow_serving.plugins.modules import managed_file

Write = Callable[..., dict[str, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.service"


@pytest.fixture
def write(run_module: Callable[..., dict[str, Any]], path: Path) -> Write:
    own = {"owner": str(os.getuid()), "group": str(os.getgid())}
    return lambda content, check=False, **more: run_module(
        managed_file, check, **({"path": str(path), "content": content} | own | more)
    )


def test_file_is_written_once_with_its_mode(write: Write, path: Path) -> None:
    result = write("a\n", mode="0640")
    assert (result["changed"], result["diff"]["before"], result["diff"]["after"]) == (True, "", "a\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("a\n", 0o640)
    before = path.stat()
    assert write("a\n", mode="0640")["changed"] is False
    assert path.stat() == before
    assert write("a\n", mode="0644")["changed"] is True
    assert path.stat().st_ino == before.st_ino


def test_check_mode_says_so_and_writes_nothing(write: Write, path: Path) -> None:
    assert write("a\n", check=True)["changed"] is True
    assert not path.exists()
    write("a\n")
    assert write("b\n", check=True)["diff"]["before"] == "a\n"
    assert path.read_text() == "a\n"


def test_who_has_the_old_file_open_does_not_write_to_the_new_one(write: Write, path: Path) -> None:
    write("a\n")
    with path.open("a") as old:
        write("b\n")
        old.write("attack\n")
    assert path.read_text() == "b\n"


def test_file_that_lies_where_the_new_one_is_written_is_not_written_to(
    write: Write, path: Path, tmp_path: Path
) -> None:
    """As one that somebody has put there, or a killed run has left, and has open; a link leads nowhere."""
    new, target = path.with_name(f".{path.name}.new"), tmp_path / "target"
    target.touch()
    os.link(target, new)
    write("a\n")
    new.symlink_to(target)
    write("b\n")
    assert (path.read_text(), target.read_text(), path.is_symlink()) == ("b\n", "", False)


def test_content_that_is_not_valid_is_not_written(write: Write, path: Path, tmp_path: Path) -> None:
    write("good\n", validate="grep good %s")
    result = write("bad\n", validate="grep -c good %s")
    assert result["msg"] == f"grep -c good %s says: 0; {path} was left unchanged"
    assert path.read_text() == "good\n"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_missing_directory_is_told(write: Write, tmp_path: Path) -> None:
    assert "No such file or directory" in write("a\n", path=str(tmp_path / "no" / "file"))["msg"]


UNIT = """[Unit]
Description=x
[Service]
ExecStart=/bin/true
{}
[X-Tfserving]
InstanceOf=a
"""


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd says what it would take")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("MemoryMax=200%", "a.service:5: Invalid memory limit '200%'"),
        ("Usr=me", "a.service:5: Unknown key"),
        ("ExecStop=/no/such/program", "a.service: Command /no/such/program is not executable"),
    ],
)
def test_unit_of_which_systemd_complains_is_not_written(
    write: Write, path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    monkeypatch.setattr(writing, "UNIT_PATH", path.parent)
    assert write(UNIT.format("MemoryMax=20%"))["changed"]
    refused = write(UNIT.format(line))
    assert words in refused["msg"]
    assert "which was left unchanged" in refused["msg"]
    assert path.read_text() == UNIT.format("MemoryMax=20%")
    # In check mode a program may be missing that the run would install.
    assert write(UNIT.format(line), check=True).get("failed", False) is ("Command" not in words)


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("function", ["fsync", "fchmod", "fchown"])
def test_full_file_system_is_named_and_nothing_is_left_behind(
    write: Write, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, function: str
) -> None:
    write("a\n")

    def fail(*_: Any) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(files.os, function, fail)
    mounted = tmp_path
    while not mounted.is_mount():
        mounted = mounted.parent
    told = f"no space left for {tmp_path} on its file system, which is mounted at {mounted}. Free some there (df -h "
    assert write("b\n")["msg"].startswith(told)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(path.name, "a\n")]

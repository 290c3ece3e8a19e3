"""Whether a unit's process is older than what it was started from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import last_good, unit_state
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.unit_state import UnitState


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "unit.service"
    path.touch()
    return str(path)


def test_file_changed_after_the_start_is_newer(file: str) -> None:
    changed = Path(file).stat().st_ctime
    assert unit_state.newer_than(changed - 1, [file]) == [file]
    assert unit_state.newer_than(changed + 1, [file]) == []


def test_modification_time_set_to_the_past_hides_no_change(file: str) -> None:
    os.utime(file, (0, 0))
    assert unit_state.newer_than(time.time() - 60, [file]) == [file]


def test_missing_files_are_ignored(file: str) -> None:
    assert unit_state.newer_than(0, [file + ".missing", file]) == [file]


class Host:
    """A host whose systemctl shows these properties, and that has no bus."""

    def __init__(self, **properties: object) -> None:
        unit = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "MainPID": 7,
            "ExecMainStartTimestampMonotonic": 0,
            "FragmentPath": "",
            "NeedDaemonReload": "no",
            "InvocationID": "now",
        }
        self._output = "".join(f"{name}={value}\n" for name, value in (unit | properties).items())

    def run_command(self, command: list[str], **_: Any) -> tuple[int, str, str]:
        return (0, self._output, "") if command[0] == "systemctl" else (1, "", "no bus")


def state(host: Host, *files: str, record: last_good.LastGood | None = None) -> UnitState:
    return unit_state.unit_states(host, {"serving": list(files)}, "/no/such/program", record)["serving"]  # type: ignore[arg-type]


def monotonic_microseconds() -> int:
    return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)


def test_unit_older_than_its_files_is_outdated(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("unit", "config")]
    for path in paths:
        Path(path).touch()
    started = monotonic_microseconds() - 60_000_000
    host = Host(ExecMainStartTimestampMonotonic=started, FragmentPath=paths[0])
    assert state(host, paths[1], "/no/such/file") == UnitState(True, True, True, tuple(paths), fragment=paths[0])


def test_drop_ins_are_looked_for_on_disk_because_systemd_names_only_what_it_has_read(tmp_path: Path) -> None:
    folders = [tmp_path / "etc", tmp_path / "run"]
    for folder, name in ((folders[0], "b.conf"), (folders[1], "a.conf"), (folders[1], "no drop-in")):
        (folder / "serving.service.d").mkdir(parents=True, exist_ok=True)
        (folder / "serving.service.d" / name).touch()
    found = unit_state.drop_ins("serving.service", [str(folder) for folder in (*folders, tmp_path / "absent")])
    # The directories too, as they change when a drop-in is removed.
    etc, run = (str(folder / "serving.service.d") for folder in folders)
    assert found == [etc, f"{etc}/b.conf", run, f"{run}/a.conf"]


def test_unit_younger_than_its_files_is_not_outdated(file: str) -> None:
    host = Host(ExecMainStartTimestampMonotonic=monotonic_microseconds() + 60_000_000, FragmentPath=file)
    assert state(host) == UnitState(exists=True, is_active=True, is_enabled=True, fragment=file)


def test_unit_file_that_systemd_has_not_read_makes_a_process_outdated() -> None:
    host = Host(ExecMainStartTimestampMonotonic=monotonic_microseconds(), NeedDaemonReload="yes")
    assert state(host).outdated


@pytest.mark.parametrize(
    ("properties", "exists"),
    [
        ({"ActiveState": "inactive", "MainPID": 0}, True),
        ({"ActiveState": "failed", "MainPID": 0}, True),
        ({"ActiveState": "active", "MainPID": 0}, True),
        ({"LoadState": "not-found", "ActiveState": "inactive", "MainPID": 0, "UnitFileState": ""}, False),
    ],
)
def test_unit_that_does_not_run_is_not_outdated(file: str, properties: dict[str, object], exists: bool) -> None:
    found = state(Host(FragmentPath=file, NeedDaemonReload="yes", **properties), file)
    assert found == UnitState(exists, is_active=False, is_enabled=exists, fragment=file)


def test_drop_in_restarts_a_server_whose_files_are_as_they_were_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit, folder = tmp_path / "serving.service", tmp_path / "serving.service.d"
    folder.mkdir()
    for path in (unit, folder / "limit.conf"):
        path.write_text("x")
    facts = {
        "directories": {},
        "files": {str(unit): last_good.describe(unit)},
        "invocations": {"serving.service": "now"},
    }
    (tmp_path / last_good.LAST_GOOD).write_text(json.dumps(facts))
    host = Host(ExecMainStartTimestampMonotonic=monotonic_microseconds() - 60_000_000, FragmentPath=str(unit))
    monkeypatch.setattr(unit_state, "drop_ins", lambda _: [str(folder), str(folder / "limit.conf")])
    found = state(host, record=last_good.read_last_good(str(tmp_path)))
    assert found.outdated == (str(folder), str(folder / "limit.conf"))


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
    assert not unit_state.runs(pid, str(program))
    replace(program, content)
    assert unit_state.runs(pid, str(program))


def test_process_that_is_gone_and_program_that_is_gone_are_not_the_same(program: Path, pid: str) -> None:
    assert not unit_state.runs("0", str(program))
    program.unlink()
    assert not unit_state.runs(pid, str(program))

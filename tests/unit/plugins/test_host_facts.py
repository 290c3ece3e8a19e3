"""The modules that only look at the host: published versions, and whether a unit is older than its files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import last_good
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.modules import saved_model_versions_info, unit_restart_info

RunModule = Callable[..., dict[str, Any]]


def test_versions_of_each_model_are_listed_with_their_manifests(tmp_path: Path, run_module: RunModule) -> None:
    for name in ("MLP/1", "MLP/002", "MLP/.staging-3", "CNN"):
        (tmp_path / name).mkdir(parents=True)
    known = {"digest": "d1", "stamp": "s1", "source_digest": None, "bytes": 5, "signatures": {"call": {}}}
    (tmp_path / "MLP" / ".manifest-1.json").write_text(json.dumps({**known, "files": {}}))
    result = run_module(saved_model_versions_info, check=True, base_path=str(tmp_path), models=["MLP", "CNN", "new"])
    assert result["changed"] is False
    assert result["models"] == {
        "MLP": {
            "1": {"directory": "1", "intact": True, **known},
            "2": {"directory": "002", "intact": False, **dict.fromkeys(known)},
        },
        "CNN": {},
        "new": {},
    }


@pytest.mark.parametrize("content", ["", "{", "{}", '{"digest": "d"}', "[]", "null", "1", "\x80"])
def test_unreadable_manifest_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".manifest-1.json").write_bytes(content.encode("latin-1"))
    assert ModelStore(tmp_path).read_manifest(1) is None


def test_base_path_of_unknown_owners_is_described_by_numbers(tmp_path: Path, run_module: RunModule) -> None:
    os.chown(tmp_path, 54321, 54322)
    tmp_path.chmod(0o2750)
    result = run_module(saved_model_versions_info, base_path=str(tmp_path), models=[])
    assert result["base_path"] == {"owner": "54321", "group": "54322", "mode": "2750"}


def test_base_path_that_is_missing_has_the_room_of_what_it_will_lie_on(tmp_path: Path, run_module: RunModule) -> None:
    result = run_module(saved_model_versions_info, base_path=str(tmp_path / "not" / "yet"), models=["MLP"])
    assert (result["base_path"], result["models"]) == ({}, {"MLP": {}})
    free = os.statvfs(tmp_path)
    assert result["free"]["bytes"] == pytest.approx(free.f_bavail * free.f_frsize, rel=0.1)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "unit.service"
    path.touch()
    return str(path)


def test_file_changed_after_the_start_is_newer(file: str) -> None:
    changed = Path(file).stat().st_ctime
    assert unit_restart_info.newer_than(changed - 1, [file]) == [file]
    assert unit_restart_info.newer_than(changed + 1, [file]) == []


def test_modification_time_set_to_the_past_hides_no_change(file: str) -> None:
    os.utime(file, (0, 0))
    assert unit_restart_info.newer_than(time.time() - 60, [file]) == [file]


def test_missing_files_are_ignored(file: str) -> None:
    assert unit_restart_info.newer_than(0, [file + ".missing", file]) == [file]


def show(monkeypatch: pytest.MonkeyPatch, **properties: object) -> None:
    """Let systemctl show these properties."""
    unit = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "MainPID": 7,
        "ExecMainStartTimestampMonotonic": 0,
        "FragmentPath": "",
        "NeedDaemonReload": "no",
    }
    output = "".join(f"{name}={value}\n" for name, value in (unit | properties).items())
    monkeypatch.setattr(unit_restart_info.AnsibleModule, "run_command", lambda *_, **__: (0, output, ""))


def monotonic_microseconds() -> int:
    return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)


def test_unit_older_than_its_files_needs_a_restart(
    monkeypatch: pytest.MonkeyPatch, run_module: RunModule, tmp_path: Path
) -> None:
    paths = [str(tmp_path / name) for name in ("unit", "program")]
    for path in paths:
        Path(path).touch()
    started = monotonic_microseconds() - 60_000_000
    show(monkeypatch, ExecMainStartTimestampMonotonic=started, FragmentPath=paths[0])
    result = run_module(unit_restart_info, check=True, name="serving.service", files=[paths[1], "/no/such/file"])
    del result["invocation"]
    assert result.pop("differences") == []
    assert result == {"changed": False, "exists": True, "active": True, "restart_needed": True, "newer_files": paths}


def test_drop_ins_are_looked_for_on_disk_because_systemd_names_only_what_it_has_read(tmp_path: Path) -> None:
    folders = [tmp_path / "etc", tmp_path / "run"]
    for folder, name in ((folders[0], "b.conf"), (folders[1], "a.conf"), (folders[1], "no drop-in")):
        (folder / "serving.service.d").mkdir(parents=True, exist_ok=True)
        (folder / "serving.service.d" / name).touch()
    found = unit_restart_info.drop_ins("serving.service", [str(folder) for folder in (*folders, tmp_path / "absent")])
    # The directories too, as they change when a drop-in is removed.
    etc, run = (str(folder / "serving.service.d") for folder in folders)
    assert found == [etc, f"{etc}/b.conf", run, f"{run}/a.conf"]


def test_unit_younger_than_its_files_needs_no_restart(
    monkeypatch: pytest.MonkeyPatch, run_module: RunModule, file: str
) -> None:
    show(monkeypatch, ExecMainStartTimestampMonotonic=monotonic_microseconds() + 60_000_000, FragmentPath=file)
    result = run_module(unit_restart_info, name="serving.service")
    assert (result["active"], result["restart_needed"], result["newer_files"]) == (True, False, [])


def test_unit_file_that_systemd_has_not_read_needs_a_restart(
    monkeypatch: pytest.MonkeyPatch, run_module: RunModule
) -> None:
    show(monkeypatch, ExecMainStartTimestampMonotonic=monotonic_microseconds(), NeedDaemonReload="yes")
    result = run_module(unit_restart_info, name="serving.service")
    assert (result["restart_needed"], result["newer_files"]) == (True, [])


@pytest.mark.parametrize(
    ("properties", "exists"),
    [
        ({"ActiveState": "inactive", "MainPID": 0}, True),
        ({"ActiveState": "failed", "MainPID": 0}, True),
        ({"ActiveState": "active", "MainPID": 0}, True),
        ({"LoadState": "not-found", "ActiveState": "inactive", "MainPID": 0}, False),
    ],
)
def test_unit_that_does_not_run_needs_no_restart(
    monkeypatch: pytest.MonkeyPatch, run_module: RunModule, file: str, properties: dict[str, object], exists: bool
) -> None:
    show(monkeypatch, FragmentPath=file, NeedDaemonReload="yes", **properties)
    result = run_module(unit_restart_info, name="serving.service", files=[file])
    assert (result["exists"], result["active"], result["restart_needed"]) == (exists, False, False)


def test_drop_in_restarts_a_server_whose_files_are_as_they_were_recorded(
    monkeypatch: pytest.MonkeyPatch, run_module: RunModule, tmp_path: Path
) -> None:
    unit, folder = tmp_path / "serving.service", tmp_path / "serving.service.d"
    folder.mkdir()
    for path in (unit, folder / "limit.conf"):
        path.write_text("x")
    facts = last_good.describe(unit)
    record = {"directories": {}, "files": {str(unit): facts}, "invocations": {"serving.service": "now"}}
    (tmp_path / last_good.LAST_GOOD).write_text(json.dumps(record))
    started = monotonic_microseconds() - 60_000_000
    show(monkeypatch, ExecMainStartTimestampMonotonic=started, FragmentPath=str(unit), InvocationID="now")
    monkeypatch.setattr(unit_restart_info, "drop_ins", lambda _: [str(folder), str(folder / "limit.conf")])
    result = run_module(unit_restart_info, name="serving.service", config_path=str(tmp_path))
    assert result["newer_files"] == [str(folder), str(folder / "limit.conf")]

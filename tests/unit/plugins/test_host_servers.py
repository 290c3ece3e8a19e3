"""Every model server of a host is found, however it was started, with what it is told to serve."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import (
    host_servers,
    instances,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.host_servers import (
    HostServer,
    find_servers,
)

Find = Callable[..., dict[str, HostServer]]


class Systemctl:
    """Answers as a module whose host runs no unit, but those of which a test says the process."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        assert (command[:2], check_rc) == (["systemctl", "show"], True)
        blocks = [
            f"MainPID={self.pids.get(unit, 0)}\nControlGroup={'/system.slice/' + unit if unit in self.pids else ''}\n"
            for unit in command[3:]
        ]
        return 0, "\n".join(blocks), ""


@pytest.fixture
def systemctl() -> Systemctl:
    return Systemctl()


@pytest.fixture
def find(systemctl: Systemctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Find the servers of a host by their names: units in tmp_path/units, configuration in tmp_path/etc."""
    (tmp_path / "units").mkdir()
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(instances, "UNIT_PATH", tmp_path / "units")

    def run(instances: list[dict[str, Any]]) -> dict[str, HostServer]:
        found = find_servers(systemctl, "serving", str(tmp_path / "etc"), instances, ["MLP", "CNN"])  # type: ignore[arg-type]
        # Others that the machine of the tests may run are none of theirs.
        return {one.name: one for one in found if one.is_ours or one.pid in systemctl.pids.values()}

    return run


@pytest.fixture
def server_process(tmp_path: Path, systemctl: Systemctl) -> Iterator[int]:
    """A process that looks like a server of others, with a models.config of its own."""
    program = tmp_path / "by another name"
    program.write_text("import sys\nsys.stdin.read()\n")
    (tmp_path / "models.config").write_text(
        f'model_config_list {{ config {{ name: "digits" base_path: "{tmp_path}/models/MLP" '
        'model_platform: "tensorflow" } }'
    )
    command = [sys.executable, program, "--rest_api_port=8501", "--model_config_file=models.config"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) as process:
        systemctl.pids["other"] = process.pid
        yield process.pid
        assert process.stdin
        process.stdin.close()


def test_instances_of_the_inventory_are_there_with_their_models(find: Find) -> None:
    found = find([{}, {"name": "b", "models": ["CNN"]}])
    assert {name: one.listed for name, one in found.items()} == {
        "serving.service": {"MLP", "CNN"},
        "serving-b.service": {"CNN"},
    }
    with pytest.raises(ConnectionError, match="it does not run"):
        found["serving.service"].client()


def test_units_that_are_still_on_disk_count(find: Find, tmp_path: Path) -> None:
    mark = "[X-Tfserving]\nInstanceOf={}\nConfigPath=/etc/{}\n"
    (tmp_path / "units/serving-old.service").write_text(mark.format("serving", "old"))
    (tmp_path / "units/renamed.service").write_text(mark.format("earlier", "renamed"))
    (tmp_path / "units/ssh.service").write_text("[Service]\n")
    found = find([{}])
    assert {name: one.configs for name, one in found.items() if name != "serving.service"} == {
        "serving-old.service": (Path("/etc/old/models.config"),),
        "renamed.service": (Path("/etc/renamed/models.config"),),
    }


def test_models_config_without_a_unit_counts(find: Find, tmp_path: Path) -> None:
    (tmp_path / "etc/gone").mkdir()
    (tmp_path / "etc/gone/models.config").touch()
    (tmp_path / "etc/models.config").touch()
    assert list(find([{}])) == ["serving.service", f"{tmp_path}/etc/gone/models.config"]


def test_process_of_others_is_found_with_the_models_that_it_sees(
    find: Find, server_process: int, tmp_path: Path
) -> None:
    (found,) = [one for one in find([{}]).values() if one.pid == server_process]
    assert not found.is_ours
    assert f"pid {server_process}, " in found.name
    assert found.flags["rest_api_port"] == "8501"
    (tmp_path / "models/MLP").mkdir(parents=True)
    assert found.names_of(tmp_path / "models/MLP") == {"digits"}
    assert found.names_of(tmp_path) == set()
    (tmp_path / "models.config").write_text("{")
    assert found.names_of(tmp_path) is None
    (tmp_path / "models.config").unlink()  # which it goes on serving
    assert found.names_of(tmp_path) is None


def test_process_of_a_unit_is_the_unit_and_nobody_else(
    find: Find, server_process: int, systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl.pids["serving.service"] = server_process
    monkeypatch.setattr(host_servers, "control_group", lambda pid: "/system.slice/serving.service")
    found = find([{}])
    assert list(found) == ["serving.service"]
    assert found["serving.service"].pid == server_process != os.getpid()

"""A service's process is compared with what systemd would start: command line and environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.unit_process import differences

Differ = Callable[..., list[str]]
GIVEN = {"PATH": "/usr/bin", "LANG": "C.UTF-8", "INVOCATION_ID": "x", "JOURNAL_STREAM": "9:1"}


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A program that is a script, as the kernel runs it: with its interpreter in front."""
    path = tmp_path / "server"
    path.write_text(f"#!{sys.executable}\nimport sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def differ(program: str) -> Iterator[Differ]:
    """Run the program, and say in what it is not what a unit with these properties would start."""
    running: list[subprocess.Popen[str]] = []

    def run(
        wanted: list[str],
        there: list[str],
        environment: dict[str, str] | None = None,
        has_bus: bool = True,
        **properties: Any,
    ) -> list[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(there, stdin=pipe, stdout=pipe, text=True, env=GIVEN | (environment or {}))
        running.append(process)
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        facts = {
            "ExecStart": [[wanted[0], wanted, False, 0, 0, 0, 0, 0, 0, 0]],
            "Environment": ["A=1"],
            "EnvironmentFiles": [],
            "PassEnvironment": [],
        } | properties

        class Module:
            def run_command(self, command: list[str]) -> tuple[int, str, str]:
                if command[0] == "systemctl":
                    return 0, "LANG=C.UTF-8\nFROM_MANAGER=1\n", ""
                assert command[4].endswith("/unit/serving_2dx_2eservice")
                return (
                    (0, "\n".join(json.dumps({"data": facts[name]}) for name in command[6:]), "")
                    if has_bus
                    else (1, "", "")
                )

        return differences(Module(), "serving-x.service", process.pid, program)  # type: ignore[arg-type]

    yield run
    for process in running:
        process.communicate("")


def test_process_that_systemd_would_start_again_is_no_difference(differ: Differ, program: str) -> None:
    command = [program, "--port=1", "--name=a b"]
    assert differ(command, command, {"A": "1", "FROM_MANAGER": "1"}) == []


@pytest.mark.parametrize("there", [["--port=2"], ["--port=1", "--more=1"], []])
def test_other_arguments_are_a_difference(differ: Differ, program: str, there: list[str]) -> None:
    assert differ([program, "--port=1"], [program, *there], {"A": "1"}) == ["its command line"]


def test_other_program_is_a_difference(differ: Differ, program: str) -> None:
    """As after a drop-in with another ExecStart= was removed again."""
    other = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    assert differ([program, "--port=1"], other, {"A": "1"}) == ["its command line"]


@pytest.mark.parametrize("environment", [{"A": "2"}, {}, {"A": "1", "B": "left by a drop-in"}])
def test_other_environment_is_a_difference(differ: Differ, program: str, environment: dict[str, str]) -> None:
    assert differ([program], [program], environment) == ["its environment"]


def test_environment_from_a_file_is_not_judged(differ: Differ, program: str) -> None:
    environment = {"A": "1", "B": "from a file"}
    assert differ([program], [program], environment, EnvironmentFiles=[["/etc/default/serving", False]]) == []


def test_wrapper_that_becomes_the_program_is_no_difference(differ: Differ, program: str) -> None:
    assert (
        differ([*["/usr/bin/env", "-i"], sys.executable, program, "--port=1"], [program, "--port=1"], {"A": "1"}) == []
    )


@pytest.mark.parametrize("wanted", [["/usr/local/bin/start-server"], ["PROGRAM", "--port=${PORT}"]])
def test_unit_that_starts_something_of_the_users_is_not_judged(differ: Differ, program: str, wanted: list[str]) -> None:
    assert differ([program if word == "PROGRAM" else word for word in wanted], [program, "--port=1"]) == []


def test_dollar_that_systemd_was_told_to_keep_is_compared(differ: Differ, program: str) -> None:
    assert differ([program, "--a=$$x"], [program, "--a=$x"], {"A": "1"}) == []
    assert differ([program, "--a=$$x"], [program, "--a=$y"], {"A": "1"}) == ["its command line"]


def test_host_without_a_bus_is_not_judged(differ: Differ, program: str) -> None:
    assert differ([program, "--port=1"], [program], has_bus=False) == []

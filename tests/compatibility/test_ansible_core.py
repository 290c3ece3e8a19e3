"""serving.yml with every supported ansible-core, on one lab host: it converges, and then changes nothing.

Releases that need a newer Python than this one run in a container of the lab's newer Debian.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "lab"))

import images  # noqa: E402
import wheels  # noqa: E402

NAME = "compatibility"
HOST = "debian12"
RELEASES = ["2.17", "2.18", "2.19", "2.20", "2.21"]
LEAST_PYTHON = {"2.20": (3, 12), "2.21": (3, 12)}
PLAYBOOKS = PROJECT / "playbooks"

Play = Callable[[str], str]


@pytest.fixture(scope="module")
def lab() -> Iterator[dict[str, str]]:
    """The environment of commands on a lab of its own."""
    lab = [sys.executable, str(PROJECT / "tests" / "lab" / "lab.py")]
    subprocess.run([*lab, "down", "--name", NAME], check=True)
    subprocess.run([*lab, "up", "--name", NAME], check=True)
    yield {"TFSERVING_LAB": NAME, "ANSIBLE_NOCOLOR": "1", "CONTAINERS_CONF": str(PROJECT / ".lab/containers.conf")}
    subprocess.run([*lab, "down", "--name", NAME], check=True)


@pytest.fixture
def play(release: str, lab: dict[str, str], tmp_path: Path) -> Play:
    """Play a playbook on the host with the newest patch release of ansible-core, and return what it printed."""
    is_newer = LEAST_PYTHON.get(release, (3,)) > sys.version_info[:2]
    install = [str(wheels.find_uv(PROJECT)), "pip", "install", "--quiet", "--target", str(tmp_path)]
    if is_newer:
        platform = ["--python-version", images.TRIXIE.python, "--python-platform", wheels.PLATFORM]
        install += [*platform, "--only-binary", ":all:"]
    subprocess.run([*install, f"ansible-core=={release}.*"], check=True)

    def run(playbook: str) -> str:
        where = ["--inventory=inventories/lab", f"--limit={HOST}"]
        command = ["-m", "ansible", "playbook", *where, str(PLAYBOOKS / playbook)]
        environment = {**lab, "PYTHONPATH": str(tmp_path)}
        if is_newer:
            container = ["podman", "run", "--rm", f"--network=tfserving-{NAME}", f"--workdir={PROJECT}"]
            container += [f"--volume={path}:{path}:ro" for path in (PROJECT, tmp_path)]
            container += [f"--env={name}={value}" for name, value in environment.items()]
            command = [*container, images.infra_tag(), "python3", *command]
        else:
            command = [sys.executable, *command]
        done = subprocess.run(
            command, cwd=PROJECT, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def changed(output: str) -> int:
    (count,) = re.findall(rf"^{HOST}\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)
    return int(count)


@pytest.mark.parametrize("release", RELEASES)
def test_playbook_converges_and_then_changes_nothing(play: Play) -> None:
    assert changed(play("serving.yml")) > 0
    for playbook in ("serving.yml", "distribute.yml", "rollout.yml", "rollback.yml", "status.yml"):
        assert changed(play(playbook)) == 0
    assert changed(play("remove.yml")) > 0

"""Versions to publish, and how the tests publish and look after them."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from conftest import LAB

BASE = "/var/lib/tensorflow-serving/models"
SHARD = "variables/variables.data-00000-of-00001"
# What the collection runs on a host: a Python that reads the rest of its program from its input.
PROGRAM = "'^/usr/bin/python3 -c import json'"
KILL_PROGRAM = f"pkill -KILL -f {PROGRAM}"
ROLE = "modelops.tensorflow_serving.tfserving_models"


def copy_version(export: Path, path: Path, padding_bytes: int = 0) -> Path:
    """Make a version that differs from every other. Padding lengthens its shard by bytes that nothing can compress."""
    shutil.copytree(export, path)
    (path / "assets" / "mark.txt").write_text(f"{path}\n")
    with (path / SHARD).open("ab") as shard:
        while padding_bytes:
            padding_bytes -= shard.write(os.urandom(min(padding_bytes, 1 << 24)))
    return path


def models_only(directory: Path) -> Path:
    """Return a playbook of the part of serving.yml that publishes and prunes: the server sees that by itself."""
    playbook = directory / "models_only.yml"
    prune = {"ansible.builtin.include_role": {"name": ROLE, "tasks_from": "prune"}}
    play = {"hosts": "tfserving", "become": True, "gather_facts": False, "roles": [ROLE], "tasks": [prune]}
    playbook.write_text(json.dumps([play]))
    return playbook


def write(host, path: str, text: str) -> None:
    encoded = base64.b64encode(text.encode()).decode()
    host.check_output(f"echo {encoded} | base64 --decode > {path}")


def until(condition: str) -> str:
    """Return a shell's words for waiting."""
    return f"while ! {{ {condition}; }}; do sleep 0.01; done"


def has_bytes(path: str, count: int) -> str:
    """Return a shell's condition: a file has so many bytes."""
    return f'[ "0$(stat -c %s {path} 2> /dev/null)" -ge {count} ]'


def on_host(name: str, command: str) -> subprocess.Popen:
    """Run a command as root, whatever happens to the connection meanwhile."""
    ssh = ["ssh", "-F", LAB / "ssh_config", name, f"sudo timeout 60 sh -c {shlex.quote(command)}"]
    return subprocess.Popen(ssh, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def received(host) -> int:
    """Return the bytes that a host's network card has received."""
    return int(host.check_output("cat /sys/class/net/eth0/statistics/rx_bytes"))


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)

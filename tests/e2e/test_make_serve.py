"""`make serve` as a user runs it, on lab hosts of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
NAME = "e2e"
HOSTS = ("debian12", "debian13a", "debian13b")


def make_serve() -> str:
    environment = {**os.environ, "TFSERVING_LAB": NAME, "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        ["make", "serve"], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def changed(output: str) -> dict[str, list[int]]:
    """Return how many tasks changed each host, play by play."""
    counts = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)
    return {host: [int(count) for name, count in counts if name == host] for host, _ in counts}


@pytest.fixture(scope="module")
def first_run() -> Iterator[str]:
    lab = [sys.executable, str(PROJECT / "tests" / "lab" / "lab.py"), "down", "--name", NAME]
    subprocess.run(lab, check=True)
    yield make_serve()
    subprocess.run(lab, check=True)


def test_first_run_serves_and_predicts_on_every_host(first_run: str) -> None:
    for host in HOSTS:
        counted = re.search(rf"^{host}: (\d+) of (\d+) predictions are right$", first_run, re.MULTILINE)
        assert counted, first_run
        assert int(counted[2]) == 80
        assert int(counted[1]) >= 76


def test_second_run_changes_nothing(first_run: str) -> None:
    assert changed(make_serve()) == {host: [0, 0] for host in HOSTS}

"""Measure one contender at one job."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import memory
from bench.contenders import Contender, Job
from bench.hosts import STATE, BenchError, Traffic, files_of, on_host, on_hosts
from bench.models import read_once
from bench.opened import OpenedFiles

OUTPUT_LINES_SHOWN = 25
HOLE = STATE / "hole"


@dataclass(frozen=True)
class Run:
    """What a run has cost: seconds, and bytes."""

    wall_seconds: float
    cpu_seconds: float  # of the controller
    sent_bytes: int  # by the controller, to all hosts
    received_bytes: int  # by the controller
    disk_bytes: int  # that a host has less of
    opened_files: int  # of the models, on the controller and the first host


def prepare(contender: Contender, job: Job) -> None:
    """Make hosts that have the versions they should have, and no other."""
    contender.reset(job)
    wanted = "".join(f" && sudo test -d {contender.path(job)}/{version}" for version in job.present)
    if job.present and "no" in on_hosts(job.hosts, f"true{wanted} && echo -n yes || echo -n no"):
        contender.fill(job)


def measure(contender: Contender, job: Job, interface: str) -> Run:
    """Run the contender on prepared hosts, under the same conditions as all the others."""
    memory.fill(HOLE)
    read_once(job.source)
    os.sync()
    disk = disk_bytes(contender, job)
    with OpenedFiles(watched(contender, job)) as opened:
        before = Traffic.now(interface)
        cost = account(contender, job)
        traffic = Traffic.now(interface) - before
    contender.verify(job)
    return Run(
        wall_seconds=cost["wall_seconds"],
        cpu_seconds=cost["cpu_seconds"],
        sent_bytes=traffic.sent,
        received_bytes=traffic.received,
        disk_bytes=disk_bytes(contender, job) - disk,
        opened_files=len(opened.paths),
    )


def account(contender: Contender, job: Job) -> dict[str, float]:
    """Run the command with connections of its own, which end with it."""
    with TemporaryDirectory(prefix="tfserving-bench-") as scratch:
        report, log = Path(scratch, "cost.json"), Path(scratch, "log")
        environment = {
            **os.environ,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{scratch}/cp",
            "ANSIBLE_FORKS": str(len(job.hosts)),
            **contender.environment(),
        }
        command = ["python3", "-m", "bench.account", str(report), *contender.command(job)]
        with log.open("w") as file:
            subprocess.run(command, stdout=file, stderr=file, env=environment, check=True)
        cost: dict[str, float] = json.loads(report.read_text())
        if cost["returncode"]:
            tail = log.read_text(errors="replace").splitlines()[-OUTPUT_LINES_SHOWN:]
            raise BenchError("\n".join([f"{contender.name} failed:", *(f"  | {line[:300]}" for line in tail)]))
    return cost


def watched(contender: Contender, job: Job) -> list[Path]:
    """The versions that are there on both sides when nothing is to be done."""
    if job.missing or not contender.delivers:
        return []
    on_first_host = files_of(job.hosts[0]) / contender.path(job).lstrip("/")
    return [root / str(version) for root in (job.source, on_first_host) for version in job.versions]


def disk_bytes(contender: Contender, job: Job) -> int:
    """Blocks that the model takes on the first host; a file with several names counts once."""
    counted = on_host(job.hosts[0], f"sudo du --summarize --block-size=1 {contender.path(job)} 2> /dev/null || echo 0")
    return int(counted.split()[0])

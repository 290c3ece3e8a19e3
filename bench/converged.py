"""The contenders of the case converged: whole playbooks on hosts where nothing is left to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from bench import recorded_calls
from bench.contenders import INVENTORY, Contender, Job
from bench.hosts import HOSTS, ONE_HOST, STATE, BenchError, output_of

VARIABLES = "inventories/lab/group_vars/tfserving.yml"
CHECKOUT = Path(__file__).parents[1]
RECAP = STATE / "recap.json"
RECORDING = STATE / "recording"

Counts = dict[str, int]  # of a host's tasks, by how they ended


class Playbook(Contender):
    """A playbook with the lab's repository and the example models."""

    delivers = False
    playbook: str

    def command(self, job: Job) -> list[str]:
        return play(self.playbook, INVENTORY, "--limit", ":".join(job.hosts))


class Reference(Playbook):
    name = "15 stat and 9 assert"
    slug = "reference"
    playbook = "bench/playbooks/reference.yml"


class Converged(Playbook):
    name = "serving.yml"
    slug = "converged"
    playbook = "playbooks/serving.yml"

    def environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "bench/callback_plugins"),
            "TFSERVING_BENCH_RECAP": str(RECAP),
        }

    def verify(self, job: Job) -> None:
        for host, counts in recap().items():
            if counts["changed"]:
                raise BenchError(f"{self.name}: {host} was not converged, {counts['changed']} tasks changed it")


class Replayed(Converged):
    """The same for hosts that are not there, each of which answers as the recorded one did."""

    slug = "replayed"

    def __init__(self, hosts: int, recorded: Counts) -> None:
        self._hosts = hosts
        self._recorded = recorded

    def command(self, job: Job) -> list[str]:
        inventory = STATE / f"replayed-{self._hosts}.json"
        group = {"hosts": {f"replayed-[001:{self._hosts:03}]": None}, "vars": {"lab_directory": str(STATE)}}
        inventory.write_text(json.dumps({"tfserving": group}))
        return play(self.playbook, str(inventory), "--connection", "replaying_ssh")

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **recorded_connection(), "ANSIBLE_FORKS": str(len(HOSTS))}

    def verify(self, job: Job) -> None:
        """One host at least has to have run all that the recorded one did: some tasks may be run once for all."""
        super().verify(job)
        found = list(recap().values())
        if len(found) != self._hosts or self._recorded not in found:
            raise BenchError(
                f"{self.name}: {len(found)} replayed hosts of {self._hosts} ended, the first with {found[:1]}; "
                f"the recorded one ended with {self._recorded}"
            )


def play(playbook: str, inventory: str, *options: str) -> list[str]:
    return ["ansible-playbook", "-i", inventory, *options, playbook, "-e", f"@{VARIABLES}"]


def recap() -> dict[str, Counts]:
    counts: dict[str, Counts] = json.loads(RECAP.read_text())
    return counts


def recorded_connection() -> dict[str, str]:
    """Return the environment in which Ansible has the connections that record and replay."""
    return {
        "ANSIBLE_CONNECTION_PLUGINS": str(CHECKOUT / "bench/connection_plugins"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "",  # each task loads the plugin: it is compiled once and not each time
        recorded_calls.DIRECTORY: str(RECORDING),
    }


def converge_and_record() -> Counts:
    """Have all hosts serve, then record one; returns how many of its tasks were ok, skipped and so on."""
    contender = Converged()
    shutil.rmtree(RECORDING, ignore_errors=True)
    RECORDING.mkdir(parents=True)
    environment = {**contender.environment(), **recorded_connection(), "ANSIBLE_FORKS": str(len(HOSTS))}
    everywhere, first = (Job("converged", Path(), (), hosts) for hosts in (HOSTS, ONE_HOST))
    output_of(contender.command(everywhere), **environment)
    output_of([*contender.command(first), "--connection", "recording_ssh"], **environment)
    contender.verify(first)
    return recap()[ONE_HOST[0]]


def remove() -> None:
    """Remove from the hosts what would go on running beside other cases."""
    output_of(play("playbooks/remove.yml", INVENTORY), ANSIBLE_FORKS=str(len(HOSTS)))

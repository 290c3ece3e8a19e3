# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which hosts a rollout changes, in which batches, and whether it goes on, returns or stops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Sequence

GO, RETURN, STOP = "go", "return", "stop"
# What a host's record says of its phase, as module_utils/_rollout/record.py has it.
DONE = ("passed", "paused")


@dataclass(frozen=True)
class Host:
    """A host as the rollout finds it. record is that of a rollout that is not over, is_same whether it is this one.

    withdrawn are the versions, and held the models, that do not follow the catalogue here, by an earlier failure.
    has_restart says whether a server that runs there has to be restarted.
    """

    name: str
    changes: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    record: dict[str, Any] | None = None
    is_same: bool = False
    withdrawn: dict[str, list[int]] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    is_first: bool = False
    has_restart: bool = False

    @property
    def phase(self) -> str:
        """How far an unfinished rollout is here, empty where there is none."""
        return str(self.record["phase"]) if self.record else ""

    @property
    def failure(self) -> str:
        """What has failed of it here."""
        return str(self.record["failure"]) if self.record else ""


@dataclass
class Plan:
    """action is GO, RETURN or STOP, and reasons say why it is not GO.

    batches are names of hosts, without those that an earlier run has brought through all gates: done. counterparts has
    a host for each with which it is compared under traffic, as that is not changed before it; empty where there is
    none.
    """

    action: str
    reasons: list[str]
    batches: list[list[str]]
    done: list[str]
    counterparts: dict[str, str]


def size(given: Any, hosts: int, *, up: bool = False) -> int:
    """Return how many hosts a size is: a number, or a share such as 10%, rounded down or up; at least one.

    Raises ValueError.
    """
    text = str(given).strip()
    number = text[:-1] if text.endswith("%") else text
    if not number.isdecimal() or int(number) < 1 or (text.endswith("%") and int(number) > 100):
        raise ValueError(f"{text} is neither a number of hosts nor a share such as 10%")
    share = hosts * int(number)
    return max(1, -(-share // 100) if up else share // 100) if text.endswith("%") else int(number)


def make_plan(hosts: Sequence[Host], sizes: Sequence[Any], min_in_service: Any, *, resume: bool) -> Plan:
    """Return the plan for all hosts, in the order of the inventory.

    Hosts that are to be first come first, and those without a change or a restart last. The last size holds for all
    that are left. Where a server has to be restarted, a batch leaves min_in_service hosts alone, unless there are no
    more. Raises ValueError for sizes that are none.
    """
    unfinished = [host for host in hosts if host.record]
    action, reasons = _action(hosts, unfinished, resume=resume)
    changing = [host for host in hosts if host.changes or host.record or host.has_restart]
    changing.sort(key=lambda host: not host.is_first)
    most = len(hosts)
    if any(host.has_restart for host in hosts) and str(min_in_service) != "0":
        most = max(1, len(hosts) - size(min_in_service, len(hosts), up=True))
    names = [host.name for host in changing]
    batches: list[list[str]] = []
    lengths = [size(one, len(names)) for one in sizes] or [len(names)]
    while names:
        length = min(most, lengths[min(len(batches), len(lengths) - 1)])
        batches.append(names[:length])
        names = names[length:]
    unchanged = [host.name for host in hosts if host not in changing]
    while unchanged:
        batches.append(unchanged[:most])
        unchanged = unchanged[most:]
    done = [host.name for host in hosts if host.phase in DONE]
    batches = [left for left in ([name for name in batch if name not in done] for batch in batches) if left]
    return Plan(action, reasons, batches, done, _counterparts(hosts, batches))


def _action(hosts: Sequence[Host], unfinished: Sequence[Host], *, resume: bool) -> tuple[str, list[str]]:
    failed = [f"{host.name}: {host.failure}" for host in unfinished if host.phase == "failed"]
    if failed:
        return RETURN, [f"an earlier run of this rollout has failed on {one}" for one in failed]
    others = [host.name for host in unfinished if not host.is_same]
    if others:
        return RETURN, [
            f"an unfinished rollout has begun on {', '.join(others)}, and the catalogue asks for something else now"
        ]
    returned = [
        f"an unfinished rollout has begun on {host.name}, and has returned on {other.name}"
        for host in unfinished
        for other in hosts
        if not other.record and _has_returned(host.record or {}, other)
    ]
    if returned:
        return RETURN, returned
    reasons = [f"{host.name} is not healthy: {problem}" for host in hosts for problem in host.problems]
    if any(host.problems and host.phase == "changed" for host in unfinished):
        return RETURN, reasons
    paused = [host.name for host in unfinished if host.phase == "paused"]
    if paused and not resume:
        reasons.append(
            f"the rollout is paused after {', '.join(paused)}. Go on with -e tfserving_rollout_resume=true, or return "
            "with rollback.yml"
        )
    return (STOP, reasons) if reasons else (GO, [])


def _has_returned(record: dict[str, Any], host: Host) -> bool:
    """Say whether a host has gone back from what a rollout was about."""
    new = {(model, version) for model, versions in record["new"].items() for version in versions}
    refused = {(model, version) for model, versions in host.withdrawn.items() for version in versions}
    return bool(new & refused or {*record["held"]} & {*host.held})


def _counterparts(hosts: Sequence[Host], batches: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return a host of a later batch that changes the same models for each, each as seldom as can be."""
    models = {host.name: {change["model"] for change in host.changes} for host in hosts}
    found = {}
    for number, batch in enumerate(batches):
        later = [name for following in batches[number + 1 :] for name in following]
        for index, name in enumerate(batch):
            alike = [other for other in later if models[name] and models[name] <= models[other]]
            found[name] = alike[index % len(alike)] if alike else ""
    return found

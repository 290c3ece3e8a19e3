"""The cases: what each contender has to do, and what the role promises there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import converged, models
from bench.contenders import (
    Contender,
    Copy,
    Job,
    ManualRsync,
    ManualRsyncVerified,
    Ours,
    OursByPassword,
    Ping,
    Streams,
    Synchronize,
)
from bench.hosts import HOSTS, ONE_HOST, offer
from bench.summary import Summary, Target

MANUAL, MANUAL_VERIFIED, SYNCHRONIZE, COPY = ManualRsync(), ManualRsyncVerified(), Synchronize(), Copy()
OURS, OURS_BY_PASSWORD, PING, STREAMS = Ours(), OursByPassword(), Ping(), Streams()
CONVERGED, REFERENCE = converged.Converged(), converged.Reference()
OUR_NAMES = (OURS.name, CONVERGED.name)  # with which the labels of our rows begin
OURS_ON_ONE_HOST = f"{OURS.name}, one host"
REPLAYED_HOSTS = (50, 100, 200)
MB = 1_000_000

Results = Mapping[str, Summary]


@dataclass(frozen=True)
class Entry:
    """One row of a case's table."""

    label: str
    contender: Contender
    job: Job
    most_repeats: int = 1000


@dataclass(frozen=True)
class Case:
    slug: str
    title: str
    text: str
    entries: tuple[Entry, ...]
    targets: Callable[[Results], list[Target]]
    narrow: bool = False  # whether the controller's link is narrowed
    yardstick: Contender = MANUAL
    repeat: int = 3
    clean_up: Callable[[], None] = lambda: None


def entries(job: Job, *contenders: Contender) -> tuple[Entry, ...]:
    """One row each. copy takes long, so it runs once."""
    return tuple(Entry(one.name, one, job, 1 if one is COPY else 1000) for one in contenders)


def copied(results: Results, limit: float) -> Target:
    """Return what is promised where root copies, in times of an rsync whose result is verified as well."""
    ours, verified = (results[one.name].wall_seconds for one in (OURS_BY_PASSWORD, MANUAL_VERIFIED))
    return Target("wall time where root copies, in times of manual rsync, verified", ours / verified, limit)


def first(root: Path) -> Case:
    job = Job("big", models.make(root, "big"), (1,), ONE_HOST)

    def targets(results: Results) -> list[Target]:
        ours, manual, synchronize = (results[one.name].wall_seconds for one in (OURS, MANUAL, SYNCHRONIZE))
        return [
            Target("wall time, in times of manual rsync", ours / manual, 1.25),
            Target("wall time, in times of synchronize", ours / synchronize, 1.0),
            copied(results, 1.25),
        ]

    text = "One version, nearly all of it one shard, to a host that has none."
    rows = entries(job, MANUAL, MANUAL_VERIFIED, SYNCHRONIZE, COPY, OURS, OURS_BY_PASSWORD)
    return Case("first", "First version, 1 GiB", text, rows, targets)


def following(root: Path) -> Case:
    job = Job("huge", models.make(root, "huge"), (1, 2), ONE_HOST, present=(1,))

    def targets(results: Results) -> list[Target]:
        ours, manual, synchronize = (results[one.name].wall_seconds for one in (OURS, MANUAL, SYNCHRONIZE))
        return [
            Target("bytes sent, in % of the version", 100 * results[OURS.name].sent_bytes / models.HUGE_BYTES, 6),
            Target("wall time, in times of manual rsync --copy-dest", ours / manual, 1.25),
            Target("wall time, in times of synchronize", ours / synchronize, 1 / 1.5),
        ]

    text = (
        f"The host has version 1. Version 2 has the same {models.HUGE_BYTES // models.GIB} GiB shard with three ranges "
        "changed, 5 % of its bytes in all. Ours knows version 1 from the controller too, where sources keep it."
    )
    rows = (*entries(job, MANUAL), Entry(SYNCHRONIZE.name, SYNCHRONIZE, job, 1), *entries(job, COPY, OURS))
    return Case("next", "Next version, 5 % changed", text, rows, targets)


def shared(root: Path) -> Case:
    job = Job("shared", models.make(root, "shared"), (1, 2), ONE_HOST, present=(1,))
    same = models.SHARED_FILES * models.SHARED_FILE_BYTES
    changed = models.SHARED_SHARD_BYTES
    new = changed - (models.EXPORT / models.SHARD).stat().st_size  # all but the export that both shards begin with

    def targets(results: Results) -> list[Target]:
        ours = results[OURS.name]
        return [
            Target(
                "bytes sent beyond the changed ones, in % of the shared ones", 100 * (ours.sent_bytes - new) / same, 0.2
            ),
            Target("disk blocks for shared files, in % of them", 100 * (ours.disk_bytes - changed) / same, 0.1),
        ]

    text = (
        f"The host has version 1. Version 2 has a new {changed // models.MIB} MiB shard, and "
        f"{models.SHARED_FILES} files of {models.SHARED_FILE_BYTES // models.MIB} MiB with the same content and new "
        "times, as an export writes them."
    )
    return Case(
        "shared", "Next version that shares whole files", text, entries(job, MANUAL, SYNCHRONIZE, COPY, OURS), targets
    )


def nothing(root: Path) -> Case:
    versions = tuple(range(1, models.MANY_VERSIONS + 1))
    job = Job("many", models.make(root, "many"), versions, ONE_HOST, present=versions)

    def targets(results: Results) -> list[Target]:
        ours = results[OURS.name]
        return [
            Target("wall time, in times of ansible -m ping", ours.wall_seconds / results[PING.name].wall_seconds, 2),
            Target("files of the versions opened, on both sides", ours.opened_files, 0),
        ]

    text = f"The host has all {models.MANY_VERSIONS} versions of {models.MANY_BYTES // models.MIB} MiB each."
    rows = entries(job, PING, MANUAL, SYNCHRONIZE, COPY, OURS)
    return Case("nothing", "Nothing to do, 20 versions of 200 MiB", text, rows, targets)


def small(root: Path) -> Case:
    job = Job("small", models.make(root, "small"), (1,), ONE_HOST)
    sample = Job("small-sample", models.make(root, "small-sample"), (1,), ONE_HOST)

    def targets(results: Results) -> list[Target]:
        return [
            Target(
                "wall time, in times of manual rsync",
                results[OURS.name].wall_seconds / results[MANUAL.name].wall_seconds,
                1.5,
            ),
            copied(results, 1.5),
        ]

    text = (
        f"One version with {models.SMALL_FILES:,} files of {models.SMALL_FILE_BYTES // models.KIB} KiB. "
        f"copy gets {models.SMALL_SAMPLE} of them, as it takes its time for each."
    )
    rows = (
        *entries(job, MANUAL, MANUAL_VERIFIED, SYNCHRONIZE),
        Entry(f"{COPY.name}, {models.SMALL_SAMPLE} files", COPY, sample, 1),
        *entries(job, OURS, OURS_BY_PASSWORD),
    )
    return Case("small", "5,000 small files", text, rows, targets)


def push(root: Path) -> Case:
    job = Job("fleet", models.make(root, "fleet"), (1,), HOSTS)
    alone = Job("fleet", models.make(root, "fleet"), (1,), ONE_HOST)

    def targets(results: Results) -> list[Target]:
        slower = max(results[STREAMS.name].wall_seconds, results[OURS_ON_ONE_HOST].wall_seconds)
        what = "wall time, in times of the slower of the link and one host"
        return [Target(what, results[OURS.name].wall_seconds / slower, 1.25)]

    text = (
        f"{models.FLEET_BYTES // models.MIB} MiB to each of 8 hosts at the same time. The controller's link is "
        "narrowed to 1 Gbit/s. What it carries is measured by 8 ssh streams of the same bytes into nothing."
    )
    rows = (
        *entries(job, STREAMS, MANUAL, SYNCHRONIZE, COPY, OURS),
        Entry(OURS_ON_ONE_HOST, OURS, alone),
    )
    return Case("push", "8 hosts, push", text, rows, targets, narrow=True)


def pull(root: Path) -> Case:
    source = models.make(root, "fleet")

    def targets(results: Results) -> list[Target]:
        return [Target("MB sent by the controller in all", results[OURS.name].sent_bytes / MB, 1)]

    archive = models.archive(source / "1")
    pulled = {"source": f"{offer(archive)}/fleet-{{version}}.tar", "digests": {1: models.file_sha256(archive)}}
    job = Job("fleet", source, (1,), HOSTS, pull=pulled)
    text = (
        "The same version, which each host fetches from a web server by itself, a plain tar over https. A ping to all "
        "hosts shows what Ansible sends with a single module."
    )
    return Case("pull", "8 hosts, pull", text, entries(job, PING, OURS), targets, narrow=True)


def converged_hosts(root: Path) -> Case:
    """Leaves the models alone: what is measured is the playbook."""
    recorded = converged.converge_and_record()
    one, all_hosts = (Job("converged", models.EXPORT.parent, (), hosts) for hosts in (ONE_HOST, HOSTS))
    largest = REPLAYED_HOSTS[-1]

    def label(contender: Contender, hosts: int) -> str:
        return f"{contender.name}, {hosts} host{'s' if hosts > 1 else ''}"

    def replayed(hosts: int) -> str:
        return f"{CONVERGED.name}, {hosts} replayed hosts"

    def further(results: Results, contender: Contender, what: Callable[[Summary], float]) -> float:
        few, many = (what(results[label(contender, len(job.hosts))]) for job in (one, all_hosts))
        return (many - few) / (len(HOSTS) - 1)

    def targets(results: Results) -> list[Target]:
        ping = results[PING.name].wall_seconds
        cpu = {hosts: results[replayed(hosts)].cpu_seconds / hosts for hosts in REPLAYED_HOSTS}
        wall = {who: results[label(who, 1)].wall_seconds / ping for who in (CONVERGED, REFERENCE)}
        slope = {who: further(results, who, lambda row: row.wall_seconds) / ping for who in (CONVERGED, REFERENCE)}
        return [
            Target("wall time of one host, in times of ping", wall[CONVERGED], 6),
            Target("wall time of each further host, in times of ping to one", slope[CONVERGED], 1.5),
            Target("tasks per host, ok and skipped", recorded["ok"] + recorded["skipped"], 24),
            Target(f"controller CPU s per host of {largest} replayed ones", cpu[largest], 1),
            Target(
                f"the same, in times of that of {REPLAYED_HOSTS[0]} replayed hosts",
                cpu[largest] / cpu[REPLAYED_HOSTS[0]],
            ),
            Target(
                "controller CPU s of each further host over ssh",
                further(results, CONVERGED, lambda row: row.cpu_seconds),
            ),
            Target(f"{REFERENCE.name}: one host, in times of ping", wall[REFERENCE]),
            Target(f"{REFERENCE.name}: each further host, in times of ping to one", slope[REFERENCE]),
        ]

    text = (
        "All that playbooks/serving.yml does is there already, and served. A ping to one host shows what Ansible takes "
        "for a single module, a play of small tasks what it takes for as many. What 200 hosts cost the controller is "
        "measured with replayed ones."
    )
    rows = (
        Entry(PING.name, PING, one),
        *(Entry(label(who, len(job.hosts)), who, job) for who in (REFERENCE, CONVERGED) for job in (one, all_hosts)),
        *(Entry(replayed(hosts), converged.Replayed(hosts, recorded), one, 1) for hosts in REPLAYED_HOSTS),
    )
    return Case(
        "converged", "Converged hosts", text, rows, targets, yardstick=PING, repeat=5, clean_up=converged.remove
    )


ALL: dict[str, Callable[[Path], Case]] = {
    "first": first, "next": following, "shared": shared, "nothing": nothing, "small": small, "push": push, "pull": pull,
    "converged": converged_hosts,
}  # fmt: skip

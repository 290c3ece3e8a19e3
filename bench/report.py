"""The tables: on the terminal after each case, and in docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.summary import Summary, Target

MB = 1_000_000


@dataclass(frozen=True)
class CaseReport:
    """What there is to say about a case."""

    title: str
    text: str
    rows: Mapping[str, Summary]
    targets: Sequence[Target]
    yardstick: str  # the row in times of which the others' wall times are shown, where it is there


def save(case: CaseReport, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(case), indent=1))


def load(path: Path) -> CaseReport:
    saved = json.loads(path.read_text())
    rows = {label: Summary(**one) for label, one in saved["rows"].items()}
    targets = [Target(**one) for one in saved["targets"]]
    return CaseReport(saved["title"], saved["text"], rows, targets, saved["yardstick"])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = (
        [
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (header, rule, *rows)
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def megabytes(size: float) -> str:
    """Return MB with as many decimals as tell small from nothing."""
    return f"{size / MB:.2f}" if abs(size) < 10 * MB else f"{size / MB:,.0f}"


def case_header(yardstick: str) -> list[str]:
    measured = ["sent MB", "received MB", "controller CPU s", "disk MB", "runs"]
    return ["", "wall s", "min - max", f"x {yardstick}", *measured]


def case_rows(rows: Mapping[str, Summary], yardstick: str) -> list[list[str]]:
    """Return the cells of a case's table."""
    reference = rows.get(yardstick)
    return [
        [
            label,
            f"{one.wall_seconds:.2f}",
            f"{one.fastest_seconds:.2f} - {one.slowest_seconds:.2f}",
            f"{one.wall_seconds / reference.wall_seconds:.2f}" if reference else "",
            megabytes(one.sent_bytes),
            megabytes(one.received_bytes),
            f"{one.cpu_seconds:.2f}",
            megabytes(one.disk_bytes),
            str(one.repeats),
        ]
        for label, one in rows.items()
    ]


def target_rows(targets: Sequence[Target]) -> list[list[str]]:
    return [
        [target.what, f"{target.value:.2f}", "", ""]
        if target.limit is None
        else [target.what, f"{target.value:.2f}", f"{target.limit:.2f}", "yes" if target.met else "no"]
        for target in targets
    ]


def case_text(case: CaseReport) -> str:
    return (
        f"{markdown_table(case_header(case.yardstick), case_rows(case.rows, case.yardstick))}\n"
        f"{markdown_table(('target', 'reached', 'at most', 'met'), target_rows(case.targets))}"
    )


def document(cases: Sequence[CaseReport], machine: str) -> str:
    sections = "\n".join(f"## {case.title}\n{case.text}\n\n{case_text(case)}" for case in cases)
    return f"""\
# Benchmarks
Made by `make bench`, which builds its models, runs every contender on its own instance of the lab, and writes this
page.

![Wall time and bytes sent, by case and contender](benchmarks.png)

{machine}
{HOW}
{sections}"""


HOW = """\
## How it is measured
- The hosts are containers on the controller's machine, with systemd and ssh as anywhere. So both sides share the two
  cores: whatever a host computes slows the controller down too, for every contender alike.
- Contenders take turns, and the median of the wall times counts. Before each run what an earlier one has left is moved
  aside, memory is filled with pages of a file that nobody needs, the source is read once, so that all find it in the
  page cache, and dirty pages are written out. Without the filling, a virtual machine may have to get memory back from
  its host first, which may double the time of the next contender.
- **wall**: from the start of the command to its end; for Ansible with its start, and with new ssh connections.
- **sent, received**: by the controller, from the counters of the bridge that leads to the hosts, with the headers of
  ssh and TCP. What hosts fetch from each other is not in it.
- **controller CPU**: user and system time of the command and all its descendants, ssh's masters included.
- **disk**: blocks that the model takes more than before on a host; a file under two names counts once.
- **files opened**: fanotify on the versions of both sides.
- Every run is checked: afterwards the hosts have the same files with the same content, or it does not count. A run on
  converged hosts must not have changed anything.

- **manual rsync** is `rsync -a` into a temporary name and `mv`, each over an ssh connection of its own, with
  `--copy-dest` where there is a version before. It verifies nothing and leaves no manifest.
- **manual rsync, verified** adds what it lacks to be sure of what arrived: the digests of all files, read on both
  sides and compared, and a sync of the disk before the rename.
- **ansible.posix.synchronize** and **ansible.builtin.copy** run with their defaults, into the version's directory.
- **tfserving_models** is `ansible-playbook` with this collection's role and its defaults: inspected, verified by
  digests on arrival, on the disk (fsync, which the others leave to the kernel), published by one rename. The account
  that logs in has a sudo without a password, so that rsync runs as root on the host.
- **tfserving_models, sudo with a password** logs in as an account that may not run rsync as root. What it has received
  it could change, so root publishes a copy: every byte is read, hashed and written once more on the host, where manual
  rsync, verified, only reads it, and every file is made twice. So its limits are in times of that contender: 1.25,
  and 1.5 for thousands of small files, where making the second file and removing the first are most of the work.
- **serving.yml** is `ansible-playbook playbooks/serving.yml` with the example models, without a gateway, as many forks
  as hosts, at most 8. Each further host is the difference of 8 hosts and one, divided by 7.
- **replayed** hosts are not there. A connection plugin answers for each of them what one of the lab's hosts has
  answered: the controller does all that it does otherwise, except for the ssh client, and no host shares its cores.
"""

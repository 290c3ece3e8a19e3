"""What repeated runs come to, and whether a target is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.measure import Run


@dataclass(frozen=True)
class Summary:
    """Medians over the runs, and how far apart their wall times lie."""

    repeats: int
    wall_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    cpu_seconds: float
    sent_bytes: int
    received_bytes: int
    disk_bytes: int
    opened_files: int


@dataclass(frozen=True)
class Target:
    """Something promised: `value` may be `limit` at most. Without a limit it is there to compare with."""

    what: str
    value: float
    limit: float | None = None

    @property
    def met(self) -> bool:
        return self.limit is None or self.value <= self.limit


def summarize(runs: Sequence[Run]) -> Summary:
    walls = [run.wall_seconds for run in runs]
    return Summary(
        repeats=len(runs),
        wall_seconds=median(walls),
        fastest_seconds=min(walls),
        slowest_seconds=max(walls),
        cpu_seconds=median(run.cpu_seconds for run in runs),
        sent_bytes=int(median(run.sent_bytes for run in runs)),
        received_bytes=int(median(run.received_bytes for run in runs)),
        disk_bytes=int(median(run.disk_bytes for run in runs)),
        opened_files=max(run.opened_files for run in runs),
    )

"""Measure the cases and print a table of each; once all have been measured, write docs/benchmarks.md and its figure."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from bench import cases, contenders, figure, hosts, machine, report
from bench.cases import Case
from bench.hosts import BenchError
from bench.measure import Run, measure, prepare
from bench.report import CaseReport
from bench.summary import summarize

MODELS = hosts.STATE / "models"
RESULTS = hosts.STATE / "results"  # of each case, the last that was measured on this lab
DOCUMENT, FIGURE = Path("docs/benchmarks.md"), Path("docs/benchmarks.png")


class Progress:
    """Lines with the minutes and seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        print(f"{minutes:2d}:{seconds:02d}  {text}", flush=True)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"some of {' '.join(cases.ALL)} (default: all)")
    parser.add_argument("--repeat", type=int, metavar="N", help="runs of each contender (default: as the case has it)")
    options = parser.parse_args(argv)
    if unknown := set(options.cases) - set(cases.ALL):
        parser.error(f"no case {' '.join(sorted(unknown))}; there are {' '.join(cases.ALL)}")
    return options


def run_case(case: Case, repeat: int, interface: str, progress: Progress) -> CaseReport:
    """Let the contenders take turns."""
    runs: dict[str, list[Run]] = {entry.label: [] for entry in case.entries}
    with hosts.narrow_link(interface) if case.narrow else nullcontext():
        for number in range(1, repeat + 1):
            for entry in case.entries:
                if number <= entry.most_repeats:
                    prepare(entry.contender, entry.job)
                    run = measure(entry.contender, entry.job, interface)
                    runs[entry.label].append(run)
                    progress.say(f"{case.slug:9} {number}/{repeat}  {entry.label:36} {run_line(run)}")
    contenders.empty_aside(hosts.HOSTS)
    rows = {label: summarize(each) for label, each in runs.items()}
    return CaseReport(case.title, case.text, rows, case.targets(rows), case.yardstick.name)


def run_line(run: Run) -> str:
    megabytes = report.megabytes
    return (
        f"{run.wall_seconds:7.2f} s  CPU {run.cpu_seconds:6.2f} s  sent {megabytes(run.sent_bytes):>6} MB  "
        f"disk {megabytes(run.disk_bytes):>6} MB  opened {run.opened_files}"
    )


def main(argv: list[str]) -> int:
    options = parse(argv)
    progress = Progress()
    try:
        progress.say("preparing the hosts")
        hosts.prepare(hosts.HOSTS)
        contenders.install_synchronize()
        interface = hosts.bridge()
        hosts.widen_link(interface)
        for name in options.cases or cases.ALL:
            progress.say(f"{name}: preparing it")
            case = cases.ALL[name](MODELS)
            try:
                one = run_case(case, options.repeat or case.repeat, interface, progress)
            finally:
                case.clean_up()
            print(f"\n{one.title}\n{report.case_text(one)}", flush=True)
            report.save(one, RESULTS / f"{name}.json")
        saved = [RESULTS / f"{name}.json" for name in cases.ALL]
        if all(path.exists() for path in saved):
            reports = [report.load(path) for path in saved]
            DOCUMENT.write_text(report.document(reports, machine.describe()))
            figure.draw(reports, cases.OUR_NAMES, FIGURE)
            progress.say(f"wrote {DOCUMENT} and {FIGURE}")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The benchmark's arithmetic and tables, its accounting of processes, and its watch over files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
sys.path.insert(0, str(CHECKOUT))

from bench import cases, contenders, models, report  # noqa: E402
from bench.measure import Run  # noqa: E402
from bench.opened import OpenedFiles  # noqa: E402
from bench.summary import Summary, Target, summarize  # noqa: E402


def run(wall: float, sent: int = 0, disk: int = 0, opened: int = 0) -> Run:
    return Run(wall, cpu_seconds=wall / 2, sent_bytes=sent, received_bytes=0, disk_bytes=disk, opened_files=opened)


def test_the_median_counts_and_one_opened_file_is_not_forgotten() -> None:
    summary = summarize([run(9.0), run(1.0, sent=7, opened=1), run(2.0, sent=5)])
    assert (summary.fastest_seconds, summary.wall_seconds, summary.slowest_seconds) == (1.0, 2.0, 9.0)
    assert (summary.sent_bytes, summary.opened_files, summary.repeats) == (5, 1, 3)


def test_a_target_is_met_at_its_limit_and_not_beyond() -> None:
    assert Target("ratio", 1.25, 1.25).met
    assert not Target("ratio", 1.26, 1.25).met


@pytest.mark.parametrize(("size", "text"), [(0, "0.00"), (54_321, "0.05"), (9_990_000, "9.99"), (1_078e6, "1,078")])
def test_megabytes_tell_small_from_nothing(size: float, text: str) -> None:
    assert report.megabytes(size) == text


def test_rows_are_compared_with_rsync_and_aligned() -> None:
    rows = {"rsync": summarize([run(2.0)]), "ours": summarize([run(2.5, sent=12_000_000)])}
    cells = report.case_rows(rows, yardstick="rsync")
    assert [row[3] for row in cells] == ["1.00", "1.25"]
    assert [row[3] for row in report.case_rows(rows, yardstick="absent")] == ["", ""]
    table = report.markdown_table(report.case_header("rsync"), cells).splitlines()
    assert len({len(line) for line in table}) == 1
    assert [table[3].split("|")[column].strip() for column in (1, 5)] == ["ours", "12"]


def summaries(**walls: float) -> dict[str, Summary]:
    named = {"ours": cases.OURS, "manual": cases.MANUAL, "synchronize": cases.SYNCHRONIZE, "streams": cases.STREAMS}
    named |= {"copied": cases.OURS_BY_PASSWORD, "verified": cases.MANUAL_VERIFIED}
    found = {named[name].name: summarize([run(wall)]) for name, wall in walls.items() if name in named}
    return {**found, cases.OURS_ON_ONE_HOST: summarize([run(walls.get("one_host", 0.0))])}


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "make", lambda directory, name: directory / name)


@pytest.mark.usefixtures("no_models")
def test_eight_hosts_are_compared_with_the_slower_of_link_and_one_host(tmp_path: Path) -> None:
    case = cases.push(tmp_path)
    link = case.targets(summaries(ours=12.0, streams=10.0, one_host=3.0))
    host = case.targets(summaries(ours=12.0, streams=3.0, one_host=6.0))
    assert [target.value for target in (*link, *host)] == [1.2, 2.0]


@pytest.mark.usefixtures("no_models")
def test_a_first_version_must_beat_synchronize_too(tmp_path: Path) -> None:
    walls = {"ours": 5.0, "manual": 4.0, "synchronize": 4.5, "verified": 6.0, "copied": 7.0}
    met = [one.met for one in cases.first(tmp_path).targets(summaries(**walls))]
    assert met == [True, False, True]


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("case", [cases.first, cases.small])
def test_where_root_copies_a_verified_rsync_is_the_yardstick(
    tmp_path: Path, case: Callable[[Path], cases.Case]
) -> None:
    walls = {"ours": 5.0, "manual": 4.0, "synchronize": 4.5, "verified": 6.0, "copied": 9.0}
    assert case(tmp_path).targets(summaries(**walls))[-1].value == 1.5


def test_account_whose_sudo_asks_for_a_password_is_logged_in_as(tmp_path: Path) -> None:
    job = contenders.Job("big", tmp_path, (1,), ("one",))
    with_password, without = (json.loads(one.command(job)[-1]) for one in (cases.OURS_BY_PASSWORD, cases.OURS))
    assert {*with_password} - {*without} == {"ansible_user", "ansible_become_password"}


def test_manual_rsync_copies_from_the_version_before_into_a_name_that_is_no_version() -> None:
    job = contenders.Job("big", Path("/models/big"), (1, 2), ("one", "two"), present=(1,))
    script = cases.MANUAL.command(job)[-1]
    assert "--copy-dest=../1" in script
    assert "/models/big/2/ one:/srv/bench/manual/big/.incoming-2/ && " in script
    assert "two mv /srv/bench/manual/big/.incoming-2 /srv/bench/manual/big/2" in script


@pytest.mark.parametrize("arrived", ["as sent", "otherwise"])
def test_verified_manual_rsync_gives_no_name_to_what_arrived_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrived: str
) -> None:
    model, commands = tmp_path / "host" / "m", tmp_path / "bin"
    for folder in (tmp_path / "source" / "1", model, commands):
        folder.mkdir(parents=True)
    (tmp_path / "source" / "1" / "file").write_text("as sent")
    (commands / "ssh").write_text('#!/bin/sh\nshift 3\neval "$*"\n')  # -F, its file, and the host
    (commands / "rsync").write_text(
        f"#!/bin/sh\nmkdir {model}/.incoming-1 && printf '{arrived}' > {model}/.incoming-1/file\n"
    )
    for command in commands.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setattr(contenders, "BASE", str(tmp_path / "host"))
    monkeypatch.setattr(contenders.ManualRsyncVerified, "slug", "")
    job = contenders.Job("m", tmp_path / "source", (1,), ("host",))
    done = subprocess.run(contenders.ManualRsyncVerified().command(job), check=False)
    is_right = arrived == "as sent"
    assert (done.returncode == 0) is is_right
    assert (model / "1" / "file").exists() is is_right


def test_side_by_side_fails_when_one_of_them_does() -> None:
    assert subprocess.run(contenders.side_by_side(["true", "true"]), check=False).returncode == 0
    assert subprocess.run(contenders.side_by_side(["exit 3", "true"]), check=False).returncode == 3


def test_processes_that_outlive_the_command_are_ended_and_counted(tmp_path: Path) -> None:
    work = "import time\nwhile time.process_time() < 0.5: pass\nprint('worked', flush=True)\ntime.sleep(60)"
    (tmp_path / "work.py").write_text(work)
    left_behind = f"{sys.executable} {tmp_path}/work.py > {tmp_path}/said &"
    until_it_worked = f"until grep -qs worked {tmp_path}/said; do sleep 0.1; done"
    script = f"({left_behind} {until_it_worked}); exit 4"
    command = [sys.executable, "-m", "bench.account", tmp_path / "cost.json", "bash", "-c", script]
    subprocess.run(command, cwd=CHECKOUT, check=True, timeout=30)
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["returncode"] == 4
    assert cost["cpu_seconds"] >= 0.5


@pytest.mark.skipif(os.geteuid() != 0, reason="fanotify is root's")
def test_an_opened_file_is_seen_and_a_look_at_its_times_is_not(tmp_path: Path) -> None:
    for name in ("read", "looked-at"):
        (tmp_path / "1" / "variables").mkdir(parents=True, exist_ok=True)
        (tmp_path / "1" / "variables" / name).write_bytes(b"x")
    with OpenedFiles([tmp_path]) as opened:
        (tmp_path / "1" / "variables" / "read").read_bytes()
        (tmp_path / "1" / "variables" / "read").read_bytes()
        (tmp_path / "1" / "variables" / "looked-at").stat()
        list((tmp_path / "1").iterdir())
    assert opened.paths == {str(tmp_path / "1" / "variables" / "read")}


def test_the_next_version_differs_in_the_share_that_it_says(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    models.append_noise(shard, 3_000_000)
    before = shard.read_bytes()
    models.overwrite(shard, 0.05)
    after = shard.read_bytes()
    assert len(after) == len(before) == 3_000_000
    assert sum(a != b for a, b in zip(before, after, strict=True)) == pytest.approx(150_000, rel=0.01)


def test_an_archive_holds_the_version_itself(tmp_path: Path) -> None:
    (tmp_path / "fleet" / "1").mkdir(parents=True)
    (tmp_path / "fleet" / "1" / "saved_model.pb").write_bytes(b"graph")
    made = models.archive(tmp_path / "fleet" / "1")
    assert made.name == "fleet-1.tar"
    with tarfile.open(made) as tar:
        assert "./saved_model.pb" in tar.getnames()

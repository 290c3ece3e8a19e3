"""Recording what a host answers and replaying it for others, and the case that measures converged hosts with that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[3]
sys.path.insert(0, str(CHECKOUT))

from bench import cases, contenders, converged, report  # noqa: E402
from bench.hosts import BenchError  # noqa: E402
from bench.measure import Run  # noqa: E402
from bench.recorded_calls import call_name  # noqa: E402
from bench.summary import Summary, Target, summarize  # noqa: E402

LOCAL_SSH = '#!/bin/bash\nexec sh -c "${@: -1}"\n'  # the host is this machine
NO_SSH = "#!/bin/sh\necho there is no such host >&2; exit 255\n"
PLAY = "- {hosts: all, gather_facts: false, tasks: [%s]}"
PING = "{name: Ask whether it is there, ansible.builtin.ping: }"
TASKS = """
    {name: Leave a trace, ansible.builtin.command: "sh -c 'echo x >> {{ directory }}/trace'"},
    {name: See it, ansible.builtin.stat: {path: "{{ directory }}/trace"}, register: trace},
    {name: See nothing, ansible.builtin.stat: {path: "{{ directory }}/nothing"}, register: nothing},
    {name: Send a file, ansible.builtin.copy: {content: sent, dest: "{{ directory }}/sent"}},
    {name: Get a file, ansible.builtin.fetch: {src: "{{ directory }}/sent", dest: "{{ directory }}/got/"}},
    {name: Compare, ansible.builtin.assert: {that: [trace.stat.exists, not nothing.stat.exists]}},
"""


class Player:
    """Runs a playbook with another program in the place of ssh."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(self, tasks: str, connection: str, ssh: str, *hosts: str) -> subprocess.CompletedProcess[str]:
        program, play, inventory = (self._directory / name for name in ("ssh", "play.yml", "hosts.json"))
        program.write_text(ssh)
        program.chmod(0o755)
        play.write_text(PLAY % tasks)
        variables = {
            "directory": str(self._directory),
            "ansible_python_interpreter": sys.executable,
            "ansible_ssh_executable": str(program),
            "ansible_ssh_transfer_method": "piped",
        }
        inventory.write_text(json.dumps({"all": {"vars": variables, "hosts": dict.fromkeys(hosts)}}))
        return subprocess.run(
            ["ansible-playbook", "-i", str(inventory), "--connection", connection, str(play)],
            cwd=CHECKOUT,
            env={**os.environ, **cases.CONVERGED.environment(), **converged.recorded_connection()},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Player:
    monkeypatch.setattr(converged, "RECAP", tmp_path / "recap.json")
    monkeypatch.setattr(converged, "RECORDING", tmp_path / "recording")
    converged.RECORDING.mkdir()
    return Player(tmp_path)


def test_what_one_host_answered_is_answered_for_hosts_that_are_not_there(player: Player, tmp_path: Path) -> None:
    recorded = player.run(TASKS, "recording_ssh", LOCAL_SSH, "real")
    assert recorded.returncode == 0, recorded.stdout
    counts = converged.recap()["real"]
    replayed = player.run(TASKS, "replaying_ssh", NO_SSH, "first", "second", "third")
    assert replayed.returncode == 0, replayed.stdout
    assert converged.recap() == {"first": counts, "second": counts, "third": counts}
    assert (tmp_path / "trace").read_text() == "x\n"
    assert (tmp_path / f"got/third/{tmp_path}/sent").read_text() == "sent"


def test_a_call_that_the_recorded_host_did_not_get_ends_the_run(player: Player) -> None:
    assert player.run(PING, "recording_ssh", LOCAL_SSH, "real").returncode == 0
    replayed = player.run(f"{PING}, {PING}", "replaying_ssh", LOCAL_SSH, "other")
    assert replayed.returncode != 0
    assert "asked as often for this: ansible.modules.ping" in " ".join(replayed.stdout.split())


def test_a_call_has_the_same_name_in_every_run_and_on_every_host() -> None:
    one = "sudo -p '[sudo via ansible, key=abc] ' echo BECOME-SUCCESS-abc; mkdir /tmp/ansible-tmp-1.5-10-20/debian13a"
    other = "sudo -p '[sudo via ansible, key=xyz] ' echo BECOME-SUCCESS-xyz; mkdir /tmp/ansible-tmp-2.5-11-21/r-7"
    assert call_name(one, None, "debian13a") == call_name(other, None, "r-7")
    assert call_name(one, None, "debian13a") != call_name(one.replace("mkdir", "rmdir"), None, "debian13a")


def test_a_function_of_the_collection_is_found_by_its_name_whatever_its_arguments() -> None:
    payloads = [{"module": "a.host_lock", "function": "take", "arguments": {"pid": pid}} for pid in (1, 2)]
    names = {call_name("python3 -c ...", zlib.compress(json.dumps(one).encode()), "host") for one in payloads}
    assert names == {"a.host_lock.take"}


def test_a_program_that_nobody_knows_is_found_by_its_command() -> None:
    assert call_name("dd of=/tmp/ansible-tmp-1.5-10-20/f", b"content", "host") == "dd of=/tmp/TEMPORARY/f"


def ended(**counts: int) -> dict[str, int]:
    return {"ok": 20, "skipped": 4, "changed": 0, **counts}


@pytest.mark.parametrize(
    ("contender", "recap", "is_right"),
    [
        (cases.CONVERGED, {"a": ended()}, True),
        (cases.CONVERGED, {"a": ended(), "b": ended(changed=1)}, False),
        (converged.Replayed(2, ended()), {"a": ended(), "b": ended()}, True),
        (converged.Replayed(2, ended()), {"a": ended(), "b": ended(ok=18)}, True),  # two tasks were run once for both
        (converged.Replayed(2, ended()), {"a": ended(ok=18), "b": ended(ok=18)}, False),
        (converged.Replayed(3, ended()), {"a": ended(), "b": ended()}, False),
        (converged.Replayed(2, ended()), {"a": ended(), "b": ended(changed=1)}, False),
    ],
)
def test_a_run_counts_where_nothing_was_left_to_do_and_replayed_hosts_end_as_the_recorded_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contender: converged.Converged,
    recap: dict[str, dict[str, int]],
    is_right: bool,
) -> None:
    monkeypatch.setattr(converged, "RECAP", tmp_path / "recap.json")
    converged.RECAP.write_text(json.dumps(recap))
    with nullcontext() if is_right else pytest.raises(BenchError):
        contender.verify(contenders.Job("converged", tmp_path, (), ("a",)))


def test_the_reference_is_fifteen_stats_and_nine_asserts() -> None:
    tasks = [
        task
        for part in yaml.safe_load((CHECKOUT / cases.REFERENCE.playbook).read_text())[0]["tasks"]
        for task in yaml.safe_load((CHECKOUT / "bench/playbooks" / part["ansible.builtin.import_tasks"]).read_text())
    ]
    kinds = [kind for task in tasks for kind in ("stat", "assert") if f"ansible.builtin.{kind}" in task]
    assert (len(tasks), kinds.count("stat"), kinds.count("assert")) == (24, 15, 9)


def costs(wall: float, cpu: float = 0.0) -> Summary:
    return summarize([Run(wall, cpu, sent_bytes=0, received_bytes=0, disk_bytes=0, opened_files=0)])


def test_converged_hosts_are_compared_with_a_ping_and_with_small_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converged, "converge_and_record", lambda: ended(ok=21, skipped=5))
    rows = {
        "ansible -m ping": costs(2.0),
        "15 stat and 9 assert, 1 host": costs(4.0),
        "15 stat and 9 assert, 8 hosts": costs(18.0),
        "serving.yml, 1 host": costs(12.0, cpu=3.0),
        "serving.yml, 8 hosts": costs(40.0, cpu=17.0),
        "serving.yml, 50 replayed hosts": costs(0.0, cpu=50.0),
        "serving.yml, 100 replayed hosts": costs(0.0, cpu=100.0),
        "serving.yml, 200 replayed hosts": costs(0.0, cpu=220.0),
    }
    case = cases.converged_hosts(tmp_path)
    assert [entry.label for entry in case.entries] == list(rows)
    targets = case.targets(rows)
    assert [target.value for target in targets] == pytest.approx([6.0, 2.0, 26, 1.1, 1.1, 2.0, 2.0, 1.0])
    assert [target.met for target in targets if target.limit is not None] == [True, False, False, False]


def test_a_value_without_a_limit_is_shown_without_a_verdict() -> None:
    assert report.target_rows([Target("slope", 1.5)]) == [["slope", "1.50", "", ""]]


def test_ratios_are_in_times_of_the_yardstick_of_the_case(tmp_path: Path) -> None:
    rows = {"ansible -m ping": costs(2.0), "serving.yml": costs(12.0)}
    report.save(
        report.CaseReport("Converged hosts", "", rows, [Target("slope", 1.5)], "ansible -m ping"), tmp_path / "one"
    )
    table = report.case_text(report.load(tmp_path / "one")).splitlines()
    assert [table[line].split("|")[4].strip() for line in (0, 2, 3)] == ["x ansible -m ping", "1.00", "6.00"]

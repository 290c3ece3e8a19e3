"""Rollouts in batches while clients predict on every host without a pause: no request fails, whatever happens."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import INVENTORY, PROJECT, SERVING, Play
from prediction_stream import Stream

HOSTS = ("debian12", "debian13a")
THIRD = "debian13b"  # takes part where a batch of two and another is needed
EVERYWHERE = (*HOSTS, THIRD)
LIMIT = f"--limit={','.join(HOSTS)}"
ROLLOUT, ROLLBACK, STATUS = (str(PROJECT / "playbooks" / f"{name}.yml") for name in ("rollout", "rollback", "status"))
COMMAND = ["ansible-playbook", f"--inventory={INVENTORY}", ROLLOUT]
MODELS = "/var/lib/tensorflow-serving/models"
REQUESTS_PER_SECOND = 12  # to each host
# One host, then the other; what is measured under traffic is over quickly.
SETTINGS = {
    "tfserving_rollout_batches": ["1", "100%"],
    "tfserving_rollout_soak": {"seconds": 6, "min_requests": 50, "max_latency_ratio": 20},
    "tfserving_rollout_latency": {"max_ratio": 20, "max_p99_ratio": 100},
}


@pytest.fixture
def play(play):
    """Two hosts take part."""

    def run(playbook: str, *arguments: str, variables: dict) -> Play:
        return play(playbook, LIMIT, *arguments, variables=variables)

    return run


@pytest.fixture(scope="module")
def request_body(digits) -> dict:
    return {"instances": [digits[0]["pixels"]]}


@pytest.fixture(scope="module")
def streams(server_on, request_body):
    bodies = {"MLP": request_body}
    running = [Stream(server_on(name).address, bodies, REQUESTS_PER_SECOND).start() for name in EVERYWHERE]
    yield running
    for stream in running:
        stream.stop()


@pytest.fixture(autouse=True)
def no_request_fails(streams):
    """Every test is under traffic."""
    before = [len(stream.failures) for stream in streams]
    yield
    assert [stream.failures[count:] for stream, count in zip(streams, before, strict=True)] == [[], [], []]


def catalog(trained: Path, **keys) -> dict:
    """Return the variables of a play with one model, served as it is trained there."""
    return {"tfserving_models_catalog": [{"name": "MLP", "source": str(trained / "saved"), **keys}], **SETTINGS}


@pytest.fixture
def served(server_on):
    """Return the versions of MLP that each host serves."""

    def ask() -> list[set[int]]:
        return [
            {version for version, state in server_on(name).versions("MLP").items() if state == "AVAILABLE"}
            for name in HOSTS
        ]

    return ask


def results(played: Play) -> dict[str, str]:
    """Return what the table at the end says of each host."""
    lines = played.text.partition("Print the result")[2].splitlines()
    rows = [line.split() for line in lines]
    return {row[1]: row[2] for row in rows if len(row) > 2 and row[1] in HOSTS}


def test_plan_has_hosts_batches_and_bytes_and_changes_nothing(play, served, second_version):
    played = play(SERVING, variables=catalog(PROJECT / "examples/mnist"))
    assert not played.failed, played.text
    played = play(ROLLOUT, "--check", variables={**catalog(second_version), "tfserving_rollout_batches": ["1"]})
    assert (played.failed, played.changed()) == (False, 0), played.text
    rows = [line.split() for line in played.text.splitlines() if "MLP" in line and "debian" in line]
    assert [row[:5] for row in rows] == [[str(i), host, "MLP", "1", "2"] for i, host in enumerate(HOSTS, start=1)]
    assert all(int(row[5]) > 100_000 for row in rows)
    assert served() == [{1}, {1}]


def test_version_that_answers_something_else_never_meets_a_client(play, on, served, second_version, request_body):
    expected = [[0.0] * 10]
    variables = catalog(second_version, sample_requests=[{**request_body, "expected": expected}])
    played = play(ROLLOUT, variables=variables)
    assert played.failed
    assert "debian12: before traffic: smoke of MLP: differs by" in played.words, played.text
    assert results(played) == dict.fromkeys(HOSTS, "returned"), played.text
    assert served() == [{1}, {1}]
    for name in HOSTS:
        host = on(name)
        assert host.file(f"{MODELS}/MLP/.withdrawn-2.json").exists
        assert not host.file("/run/tfserving-candidate").exists
        assert host.run("systemctl is-active tfserving-candidate").stdout.strip() in ("inactive", "unknown")
    played = play(SERVING, variables=variables)
    assert (played.failed, played.changed()) == (False, 0), played.text


def test_failure_in_the_second_batch_returns_the_first_too(play, on, served, second_version, tmp_path):
    gate = tmp_path / "gate.yml"
    gate.write_text(
        "- name: Look at a dashboard\n  ansible.builtin.assert:\n    that: inventory_hostname != 'debian13a'\n"
        "    fail_msg: the dashboard is red\n"
    )
    events = tmp_path / "events"
    notify = tmp_path / "notify.yml"
    notify.write_text(
        f"- ansible.builtin.lineinfile: {{path: {events}, create: true, mode: '0644', "
        'line: "{{ tfserving_rollout_event }}"}\n  delegate_to: localhost\n  become: false\n'
    )
    variables = {
        **catalog(second_version),
        "tfserving_models_retry_withdrawn": True,
        "tfserving_rollout_gate_tasks": str(gate),
        "tfserving_rollout_event_tasks": str(notify),
    }
    played = play(ROLLOUT, variables=variables)
    assert played.failed
    assert "debian13a: the dashboard is red" in played.words, played.text
    assert results(played) == dict.fromkeys(HOSTS, "returned"), played.text
    assert served() == [{1}, {1}]
    assert events.read_text().split() == ["started", "batch_passed", "failed", "returned"]
    changes = on("debian12").check_output("cat /etc/tensorflow-serving/.history.json")
    assert changes.count('"by": ""') == 0


def test_paused_rollout_goes_on_when_it_is_told_to(play, served, second_version, request_body):
    variables = {
        **catalog(second_version, sample_requests=[request_body]),
        "tfserving_models_retry_withdrawn": True,
        "tfserving_rollout_confirm": "first",
    }
    played = play(ROLLOUT, variables=variables)
    assert not played.failed, played.text
    assert results(played) == {"debian12": "passed", "debian13a": "paused"}, played.text
    assert "latency median of MLP" in played.words
    assert "soak errors of MLP: 0.00% of" in played.words, played.text
    assert served() == [{2}, {1}]
    refused = play(SERVING, variables=variables)
    assert (refused.failed, refused.changed()) == (True, 0)
    assert "is not over here: paused" in refused.words
    assert "is not over here: begun" in play(STATUS, variables=variables).words
    stopped = play(ROLLOUT, variables=variables)
    assert (stopped.failed, stopped.changed()) == (True, 0), stopped.text
    assert "the rollout is paused after debian12" in stopped.words

    played = play(ROLLOUT, variables={**variables, "tfserving_rollout_resume": True})
    assert not played.failed, played.text
    assert served() == [{2}, {2}]
    played = play(SERVING, variables=variables)
    assert (played.failed, played.changed()) == (False, 0), played.text


def test_next_run_goes_on_with_a_rollout_that_was_killed(play, server_on, second_version, tmp_path):
    """The rollout moves a label: a promotion."""
    variables = catalog(second_version, version_labels={"stable": 2})
    log = tmp_path / "log"
    with log.open("w") as output:
        command = [*COMMAND, LIMIT, f"--extra-vars=@{tmp_path}/variables.json"]
        slow = {**variables, "tfserving_rollout_soak": {"seconds": 300}}
        (tmp_path / "variables.json").write_text(json.dumps(slow))
        run = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=os.environ, start_new_session=True
        )
        deadline = time.monotonic() + 300
        while "Let clients use the new versions" not in log.read_text():
            assert run.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()

    def labels() -> list[int]:
        answers = [server_on(name).get("/v1/models/MLP/labels/stable/metadata") for name in HOSTS]
        return [int(one.json()["model_spec"]["version"]) if one.status_code == 200 else 0 for one in answers]

    assert labels() == [2, 0]
    played = play(ROLLOUT, variables=variables)
    assert not played.failed, played.text
    assert results(played) == dict.fromkeys(HOSTS, "passed"), played.text
    assert labels() == [2, 2]


def at_a_terminal(command: list[str], question: str, answer: bytes) -> tuple[int, str]:
    """Run a command as a person does who answers one question each time; returns exit status and output."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(command[0], command)  # noqa: S606
    text, answered = "", 0
    while True:
        try:
            text += os.read(terminal, 1 << 16).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if text.count(question) > answered:
            answered += 1
            time.sleep(2)  # what is typed before the question is dropped
            os.write(terminal, answer)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def test_person_at_a_terminal_lets_the_next_batch_follow(server_on, second_version, tmp_path):
    """All hosts of a batch go by one answer."""
    variables = catalog(second_version, version_labels={"stable": 2, "next": 2})
    settings = {"tfserving_rollout_batches": ["2", "1"], "tfserving_rollout_confirm": "each"}
    (tmp_path / "variables.json").write_text(json.dumps({**variables, **settings}))
    command = [*COMMAND, f"--extra-vars=@{tmp_path}/variables.json"]
    status, text = at_a_terminal(command, "Type yes", b"yes\r")
    assert status == 0, text
    answers = [server_on(name).get("/v1/models/MLP/labels/next/metadata") for name in EVERYWHERE]
    assert [one.status_code for one in answers] == [200, 200, 200], text


def test_rollback_ends_a_rollout_that_is_paused(play, server_on, second_version):
    """There is no version to withdraw: the model is held where it is."""
    variables = {**catalog(second_version, version_labels={"canary": 2}), "tfserving_rollout_confirm": "each"}
    played = play(ROLLOUT, variables=variables)
    assert (played.failed, results(played)["debian12"]) == (False, "passed"), played.text
    played = play(ROLLBACK, variables=variables)
    assert not played.failed, played.text
    assert server_on("debian12").get("/v1/models/MLP/labels/stable/metadata").status_code == 200
    assert server_on("debian12").get("/v1/models/MLP/labels/canary/metadata").status_code != 200
    played = play(SERVING, variables=variables)
    assert (played.failed, played.changed()) == (False, 0), played.text
    assert "stays there as long as the catalogue asks for" in played.words

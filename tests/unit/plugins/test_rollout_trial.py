"""Steps of a rollout: what the gateway's log says of two versions, when that passes, and how second servers go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import nginx
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.trial import upstream_names
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout import candidate
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.answers import (
    lines_since,
    mark,
    read_answers,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.gates import Answers, trial
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import NotServed
from ansible_collections.modelops.tensorflow_serving.plugins.modules import gateway_trial

RunModule = Callable[..., dict[str, Any]]
NEW, OLD = "127.0.0.1:40001", "127.0.0.1:8501"
NAMES = upstream_names(0, 40001)
LIMITS = {
    "max_error_share": 0.01,
    "max_latency_ratio": 2,
    "max_p99_ratio": 4,
    "warmup_requests": 0,
    "min_requests": 100,
    "require_requests": False,
}


def line(address: str, answered: str = "200", seconds: str = "0.010", **changed: Any) -> str:
    entry = {"model": "MLP", "version": "", "label": "", "mirrored": False, "status": "200"}
    upstream = {"upstream_addr": address, "upstream_status": answered, "upstream_response_time": seconds}
    return json.dumps({**entry, **upstream, **changed})


@pytest.mark.parametrize(
    ("logged", "own", "other"),
    [
        (line(OLD), (0, []), (0, [0.01])),
        (line(NEW), (0, [0.01]), (0, [])),
        (line(NEW, mirrored=True), (0, [0.01]), (0, [])),
        (line(NEW, "500", "0.001", mirrored=True), (1, []), (0, [])),
        (line(NEW, "400"), (1, []), (0, [])),
        # It counts for what it answered first, and what the server says then is nobody's.
        (line(f"{NEW} : {OLD}", "500 : 200", "0.003 : 0.002"), (1, []), (0, [])),
        (line(f"{NEW} : {OLD}", "502 : 200", "0.000 : 0.002"), (1, []), (0, [])),
        (line("tfserving_trial_0", "502", "0.000", mirrored=True), (1, []), (0, [])),
        # Another server of the set, another candidate, and what a client or a split has named.
        (line(f"{OLD}, 127.0.0.1:8511", "502, 200", "0.000, 0.002"), (0, []), (0, [0.002])),
        (line("127.0.0.1:400011"), (0, []), (0, [0.01])),
        (line(OLD, version="1"), (0, []), (0, [])),
        (line(OLD, label="canary"), (0, []), (0, [])),
        (line(OLD, mirrored=True), (0, []), (0, [])),
        (line(OLD, model="other"), (0, []), (0, [])),
        (line(OLD, "404"), (0, []), (1, [])),
        # No server was asked, the client has gone, the line is not whole.
        (line("", "", "", status="401"), (0, []), (0, [])),
        (line(NEW, "-", "1.000", status="499"), (0, []), (0, [])),
        (line(OLD)[:40], (0, []), (0, [])),
        ("\n", (0, []), (0, [])),
    ],
)
def test_log_says_who_has_answered(logged: str, own: Any, other: Any) -> None:
    found = read_answers([logged], {"MLP": NAMES})["MLP"]
    assert [(one.errors, one.seconds) for one in found] == [own, other]


def test_log_is_read_from_the_mark_on_also_where_it_was_rotated(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("before\n")
    begin = mark(log)
    with log.open("ab") as file:
        file.write(b"one \xff\n")
    assert list(lines_since(log, begin)) == ["one \ufffd\n"]
    log.rename(tmp_path / "access.log.1")
    log.write_text("two\n")
    assert list(lines_since(log, begin)) == ["one \ufffd\n", "two\n"]
    (tmp_path / "access.log.1").unlink()
    assert list(lines_since(log, begin)) == ["two\n"]
    log.unlink()
    with pytest.raises(FileNotFoundError):
        list(lines_since(log, begin))


@pytest.mark.parametrize(
    ("own", "other", "passed"),
    [
        (Answers(0, [0.010] * 100), Answers(0, [0.010] * 1000), [True, True, True]),
        (Answers(1, [0.010] * 99), Answers(0, [0.010] * 1000), [True, True, True]),
        (Answers(2, [0.010] * 98), Answers(0, [0.010] * 1000), [False, True, True]),
        (Answers(50, [0.010] * 50), Answers(500, [0.010] * 500), [True, True, True]),
        (Answers(0, [0.022] * 100), Answers(0, [0.010] * 1000), [True, False, True]),
        # Slow for some inputs only.
        (Answers(0, [0.010] * 98 + [0.05] * 2), Answers(0, [0.010] * 1000), [True, True, False]),
        # What milliseconds can tell apart.
        (Answers(0, [0.001] * 100), Answers(0, [0.0] * 100), [True, True, True]),
        (Answers(0, [0.003] * 100), Answers(0, [0.001] * 100), [True, True, True]),
        (Answers(0, [0.004] * 100), Answers(0, [0.001] * 100), [True, False, True]),
        (Answers(100, []), Answers(0, [0.010] * 100), [False]),
        (Answers(0, [0.010] * 99), Answers(0, [0.010] * 1000), [True]),
        (Answers(0, []), Answers(0, []), [True]),
    ],
)
def test_step_is_judged_by_errors_median_and_p99(own: Answers, other: Answers, passed: list[bool]) -> None:
    assert [one["passed"] for one in trial("5 % answered", "MLP", own, other, LIMITS)] == passed


def test_first_answers_of_a_new_version_may_take_longer() -> None:
    own, other = Answers(0, [0.5] * 10 + [0.01] * 90), Answers(0, [0.01] * 100)
    assert not all(one["passed"] for one in trial("", "MLP", own, other, LIMITS))
    assert all(one["passed"] for one in trial("", "MLP", own, other, {**LIMITS, "warmup_requests": 10}))
    assert len(trial("", "MLP", own, other, {**LIMITS, "warmup_requests": 100})) == 1


def test_too_few_requests_fail_where_they_are_required() -> None:
    few = Answers(0, [0.01] * 5), Answers(0, [0.01] * 500)
    (said,) = trial("10 % copied", "MLP", *few, {**LIMITS, "require_requests": True})
    assert said["gate"] == "10 % copied"
    assert said["measured"] == "5 requests, 500 to compare with: too few to judge"
    assert not said["passed"]
    assert trial("", "MLP", Answers(), Answers(), {**LIMITS, "min_requests": 0})[0]["passed"]


@pytest.fixture
def step(tmp_path: Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return what judges a step in which these lines were logged."""
    log = tmp_path / "access.log"
    log.write_text(line(OLD, "500") + "\n")
    monkeypatch.setattr(nginx, "LOG", log)
    monkeypatch.setattr(gateway_trial, "check_running", lambda *_: None)

    def run(*lines: str, **more: Any) -> dict[str, Any]:
        begin = mark(log)
        with log.open("a") as file:
            file.writelines(f"{one}\n" for one in lines)
        given = {"candidates": [{"unit": "c", "port": 40001, "models": ["MLP"]}], "limits": LIMITS, "mark": begin}
        return run_module(gateway_trial, state="judged", kind="mirror", percent=10, **{**given, **more})

    return run


def test_step_passes_and_fails_with_what_was_measured(step: Callable[..., dict[str, Any]]) -> None:
    passed = step(*[line(OLD)] * 100, *[line(NEW, mirrored=True)] * 100)
    assert [one["gate"] for one in passed["gates"]] == [
        "10 % copied: errors",
        "10 % copied: latency median",
        "10 % copied: latency p99",
    ]
    failed = step(*[line(OLD)] * 100, *[line(NEW, "400", mirrored=True)] * 100)
    assert failed["failed"]
    assert failed["msg"] == (
        "before the change: 10 % copied: errors of MLP: 100.00% of 100, 0.00% to compare with (allowed: 1.00%)"
    )
    assert "gates" not in step(check=True)


def test_step_fails_where_the_second_server_has_ended(
    step: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any) -> None:
        raise NotServed("the second server has ended: nothing listens on port 40001")

    monkeypatch.setattr(gateway_trial, "check_running", ended)
    result = step(*[line(OLD)] * 100, *[line(NEW)] * 100)
    assert result["failed"]
    assert result["msg"].startswith("before the change: 10 % copied: the second server has ended")


class Module(SimpleNamespace):
    """An Ansible module that writes down what it would run."""

    def run_command(self, command: list[str], **_: Any) -> tuple[int, str, str]:
        self.called.append(command[1:])
        return 0, "", ""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    (tmp_path / "units").mkdir()
    monkeypatch.setattr(candidate, "UNITS", tmp_path / "units")
    monkeypatch.setattr(candidate, "DIRECTORY", tmp_path / candidate.NAME)
    monkeypatch.setattr(candidate.trial, "end", lambda: False)
    return Module(called=[])


def test_second_servers_that_a_run_has_left_are_ended_and_forgotten(module: Module, tmp_path: Path) -> None:
    units, directory = tmp_path / "units", candidate.DIRECTORY
    for name in (f"{candidate.NAME}-server", f"{candidate.NAME}-server-one"):
        (units / f"{name}.service").touch()
        (units / f"{name}.service.d").mkdir()
        (directory / name).mkdir(parents=True)
    (units / "other.service").touch()
    assert candidate._remove(module, f"{candidate.NAME}-server")
    assert [path.name for path in directory.iterdir()] == [f"{candidate.NAME}-server-one"]
    assert ["stop", f"{candidate.NAME}-server.service"] in module.called
    assert candidate.remove(module)
    assert [path.name for path in units.iterdir()] == ["other.service"]
    assert not directory.exists()


def test_nothing_is_reloaded_where_nothing_was_left(module: Module) -> None:
    assert not candidate.remove(module)
    assert module.called == []


def test_second_servers_go_where_a_gate_does_not_pass(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"unit": "c", "port": 1, "models": ["MLP"]}
    removed: list[bool] = []
    monkeypatch.setattr(candidate, "remove", lambda *_: removed.append(True))

    for passed, running, calls in ((True, [one], 1), (False, [], 2)):
        removed.clear()
        monkeypatch.setattr(candidate, "_run_gates", lambda *_, passed=passed: ([{"passed": passed}], [one]))
        assert candidate.run_gates(module, {})[1] == running
        assert len(removed) == calls
    monkeypatch.setattr(candidate, "_run_gates", lambda *_: (_ for _ in ()).throw(NotServed("it does not start")))
    removed.clear()
    with pytest.raises(NotServed):
        candidate.run_gates(module, {})
    assert len(removed) == 2

"""Which hosts a rollout changes in which batches, and when it goes on, returns or does not begin."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.rollout_plan import (
    GO,
    RETURN,
    STOP,
    Host,
    make_plan,
    size,
)

CHANGE = {"model": "MLP", "from": "1", "to": "2", "versions": [2], "unit": "tensorflow-model-server"}
DEFAULT = [1, "10%", "50%", "100%"]


def hosts(count: int, **keys: Any) -> list[Host]:
    return [Host(f"h{number}", changes=[CHANGE], **keys) for number in range(1, count + 1)]


def record(phase: str, *, new: bool = True, failure: str = "") -> dict[str, Any]:
    to = {"MLP": {"versions": [2], "labels": {}, "unit": "u"}}
    return {
        "phase": phase,
        "failure": failure,
        "to": to,
        "new": {"MLP": [2] if new else []},
        "held": [] if new else ["MLP"],
    }


def lengths(hosts: list[Host], sizes: list[Any], least: Any = 0, **keys: Any) -> list[int]:
    return [len(batch) for batch in make_plan(hosts, sizes, least, resume=False, **keys).batches]


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, DEFAULT, [1]),
        (3, DEFAULT, [1, 1, 1]),
        (10, DEFAULT, [1, 1, 5, 3]),
        (100, DEFAULT, [1, 10, 50, 39]),
        (7, [2], [2, 2, 2, 1]),
        (5, ["100%"], [5]),
        (3, [], [3]),
    ],
)
def test_batches_are_of_successive_sizes_and_the_last_one_repeats(count, sizes, expected):
    assert lengths(hosts(count), sizes) == expected


@pytest.mark.parametrize("given", ["0", 0, "-1", "101%", "half", "1.5", "%", ""])
def test_size_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match="neither a number of hosts nor a share"):
        size(given, 10)


@pytest.mark.parametrize(
    ("count", "least", "expected"),
    [(10, "50%", [5, 5]), (3, "50%", [1, 1, 1]), (10, 9, [1] * 10), (10, 0, [10]), (1, "50%", [1]), (2, 5, [1, 1])],
)
def test_batch_with_restarts_leaves_hosts_in_service(count, least, expected):
    assert lengths(hosts(count, has_restart=True), ["100%"], least) == expected
    assert lengths(hosts(count), ["100%"], least) == [count]


def test_chosen_hosts_come_first_and_those_without_a_change_last():
    found = [Host("same"), Host("a", changes=[CHANGE]), Host("canary", changes=[CHANGE], is_first=True)]
    plan = make_plan(found, DEFAULT, 0, resume=False)
    assert (plan.action, plan.batches) == (GO, [["canary"], ["a"], ["same"]])
    assert plan.counterparts == {"canary": "a", "a": "", "same": ""}


def test_restart_is_a_change_too():
    found = [Host("same"), Host("a", has_restart=True), Host("b", has_restart=True)]
    assert make_plan(found, DEFAULT, "50%", resume=False).batches == [["a"], ["b"], ["same"]]


def test_hosts_are_compared_with_hosts_of_later_batches_in_turn():
    plan = make_plan(hosts(6), [2, "100%"], 0, resume=False)
    assert plan.counterparts == {"h1": "h3", "h2": "h4", "h3": "", "h4": "", "h5": "", "h6": ""}


def test_host_is_compared_with_one_that_changes_the_same_models():
    other = {**CHANGE, "model": "CNN"}
    found = [Host("a", changes=[CHANGE]), Host("b", changes=[other]), Host("c", changes=[CHANGE, other])]
    assert make_plan(found, [1], 0, resume=False).counterparts == {"a": "c", "b": "c", "c": ""}


def test_interrupted_rollout_goes_on_where_it_was():
    first, second, third = hosts(3)
    found = [
        Host("h1", record=record("passed"), is_same=True),
        Host("h2", changes=second.changes, record=record("changed"), is_same=True),
        Host("h3", changes=third.changes, record=record("begun"), is_same=True),
    ]
    plan = make_plan(found, DEFAULT, 0, resume=False)
    assert (plan.action, plan.batches, plan.done) == (GO, [["h2"], ["h3"]], ["h1"])


def test_paused_rollout_goes_on_only_when_it_is_told_to():
    found = [Host("h1", record=record("paused"), is_same=True), *hosts(3)[1:]]
    assert make_plan(found, DEFAULT, 0, resume=False).action == STOP
    plan = make_plan(found, DEFAULT, 0, resume=True)
    assert (plan.action, plan.batches, plan.done) == (GO, [["h2"], ["h3"]], ["h1"])


@pytest.mark.parametrize(
    ("left", "others", "words"),
    [
        ({"record": record("failed", failure="smoke"), "is_same": True}, {}, "has failed on h1: smoke"),
        ({"record": record("begun"), "is_same": False}, {}, "the catalogue asks for something else now"),
        ({"record": record("changed"), "is_same": True}, {"withdrawn": {"MLP": [2]}}, "has returned on h2"),
        ({"record": record("passed", new=False), "is_same": True}, {"held": ["MLP"]}, "has returned on h2"),
        ({"record": record("changed"), "is_same": True, "problems": ["MLP is END"]}, {}, "h1 is not healthy"),
    ],
)
def test_rollout_that_cannot_go_on_returns(left, others, words):
    plan = make_plan([Host("h1", **left), Host("h2", changes=[CHANGE], **others)], DEFAULT, 0, resume=True)
    assert plan.action == RETURN
    assert any(words in reason for reason in plan.reasons)
    assert "h1" in [*plan.done, *(name for batch in plan.batches for name in batch)]


def test_host_that_does_not_serve_what_it_should_keeps_a_rollout_from_beginning():
    plan = make_plan([*hosts(1), Host("ill", problems=["MLP version 1 is END"])], DEFAULT, 0, resume=False)
    assert (plan.action, plan.reasons) == (STOP, ["ill is not healthy: MLP version 1 is END"])


def test_version_that_was_withdrawn_before_the_rollout_is_no_return():
    found = [Host("h1", changes=[CHANGE]), Host("h2", withdrawn={"MLP": [2]})]
    assert make_plan(found, DEFAULT, 0, resume=False).action == GO

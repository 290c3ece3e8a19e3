"""What the gates of a rollout measure, and when they pass."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.filter.rollout_report import rollout_report
from ansible_collections.modelops.tensorflow_serving.plugins.filter.rollout_soak import rollout_soak
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.candidate import overrides
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.gates import (
    difference,
    latency,
    percentile,
    smoke,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.metrics import added, counts
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import Ports

LIMITS = {"max_error_share": 0.01, "max_latency_ratio": 2, "min_requests": 100, "require_requests": False}
CHANGES = [{"model": "MLP", "versions": [2]}, {"model": "gone", "versions": []}]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([[1.0, 2.0]], [[1.0, 2.5]], 0.5),
        ([{"a": 1, "b": [3]}], [{"a": 1.25, "b": [3]}], 0.25),
        (["x"], ["x"], 0.0),
        ([], [], 0.0),
        (["x"], ["y"], math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ([{"a": 1}], [{"b": 1}], math.inf),
        ([1], [True], math.inf),
        ([1.0], ["1.0"], math.inf),
        ([math.nan], [math.nan], 0.0),
        ([math.nan], [1.0], math.inf),
        ([math.inf], [math.inf], 0.0),
        ([math.inf], [1.0], math.inf),
        ([[1.0]], [1.0], math.inf),
    ],
)
def test_difference_is_the_largest_of_all_numbers_and_infinite_for_anything_else(one, other, expected):
    assert difference(one, other) == difference(other, one) == expected


def test_smoke_without_a_limit_is_reported_only():
    assert smoke("MLP", 0.4, None, "version 1")["passed"]
    assert smoke("MLP", 0.4, 0.4, "version 1")["passed"]
    assert not smoke("MLP", 0.41, 0.4, "version 1")["passed"]
    assert not smoke("MLP", math.inf, 1e9, "version 1")["passed"]


def test_latency_is_judged_by_median_and_p99():
    old, new = [0.010] * 100, [0.015] * 98 + [0.100] * 2
    median, p99 = latency("MLP", old, new, 1.4, 4)
    assert (median["passed"], p99["passed"]) == (False, False)
    assert median["measured"] == "1.50 (10.0 ms to 15.0 ms)"
    assert [one["passed"] for one in latency("MLP", old, new, 1.5, 10)] == [True, True]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (50, 50), (100, 99), (200, 198)])
def test_percentile_is_one_of_the_values(count, expected):
    assert percentile(range(1, count + 1)) == expected


def soaked(own: tuple[float, float, float], other: tuple[float, float, float], **limits) -> list[dict]:
    def looks(end: tuple[float, float, float]) -> list[dict]:
        counted = dict(zip(("requests", "errors", "seconds"), end, strict=True))
        return [{"models": {}}, {"models": {"MLP": counted}}]

    return rollout_soak(CHANGES, {**LIMITS, **limits}, looks(own), looks(other))


@pytest.mark.parametrize(
    ("own", "other", "passed"),
    [
        ((1000, 0, 10), (1000, 0, 10), [True, True]),
        ((1000, 10, 10), (1000, 0, 10), [True, True]),
        ((1000, 11, 10), (1000, 0, 10), [False, True]),
        ((1000, 60, 10), (1000, 50, 10), [True, True]),
        ((1000, 0, 20.1), (1000, 0, 10), [True, False]),
        ((1000, 1000, 0), (1000, 0, 10), [False]),
        ((1000, 0, 10), (1000, 1000, 0), [True]),
    ],
)
def test_traffic_is_judged_by_errors_and_latency(own, other, passed):
    assert [one["passed"] for one in soaked(own, other)] == passed


def test_too_few_requests_are_said_and_fail_only_where_they_are_required():
    (few,) = soaked((99, 99, 1), (1000, 0, 1))
    assert few["passed"]
    assert "too few to judge" in few["words"]
    (few,) = soaked((1000, 0, 1), (0, 0, 0), require_requests=True)
    assert not few["passed"]


def test_server_that_was_restarted_between_two_looks_has_begun_to_count_again():
    looks = [{"models": {"MLP": {"requests": 5000, "errors": 0, "seconds": 9}}}]
    looks.append({"models": {"MLP": {"requests": 200, "errors": 100, "seconds": 1}}})
    errors, _ = rollout_soak(CHANGES, LIMITS, looks, [{"models": {}}, looks[0]])
    assert not errors["passed"]
    assert errors["measured"].startswith("50.00% of 200")


PAGE = r"""
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="MLP",status="OK"} 40
:tensorflow:serving:request_count{model_name="MLP",status="INVALID_ARGUMENT"} 2
:tensorflow:serving:request_count{model_name="say \"x\"",status="OK"} 1
# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_bucket{model_name="MLP",API="predict",entrypoint="REST",le="10"} 0
:tensorflow:serving:request_latency_sum{model_name="MLP",API="predict",entrypoint="REST"} 1.5e+06
:tensorflow:serving:request_latency_sum{model_name="MLP",API="predict",entrypoint="GRPC"} 500000
:tensorflow:serving:request_latency_count{model_name="MLP",API="predict",entrypoint="REST"} 30
"""


def test_page_is_counted_by_model():
    assert counts(PAGE) == {
        "MLP": {"requests": 42.0, "errors": 2.0, "seconds": 2.0},
        'say "x"': {"requests": 1.0, "errors": 0.0, "seconds": 0.0},
    }
    assert added([counts(PAGE), counts(PAGE)])["MLP"] == {"requests": 84.0, "errors": 4.0, "seconds": 4.0}
    assert counts("<html>") == added([]) == {}


def test_candidate_is_started_as_the_server_was_elsewhere():
    command = ["/usr/bin/tensorflow_model_server", "--port=8500", "--rest_api_port=8501", "--grpc_socket_path=/run/x"]
    command += ["--model_config_file=/etc/m.config", "--rest_api_num_threads=8", "--tag=a $b %c"]
    where = Ports(rest_api=40001, grpc=40002)
    text = overrides(command, where, Path("/run/c/models.config"), Path("/run/c-server"), 60)
    assert text.startswith(
        "[Service]\nExecStart=\nExecStart=/usr/bin/tensorflow_model_server --rest_api_num_threads=8 "
        '"--tag=a $$b %%c" --port=40002 --rest_api_port=40001 --model_config_file=/run/c/models.config\n'
    )
    assert "\nRuntimeDirectory=\nRuntimeDirectory=c-server\n" in text
    assert "\nRuntimeMaxSec=60\n" in text
    assert text.endswith("IPAddressAllow=\nIPAddressDeny=any\nIPAddressAllow=localhost\n")


def test_report_says_what_has_become_of_each_host():
    rows = [{"host": name, "batch": batch} for name, batch in (("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 3))]
    gate = {"gate": "smoke", "model": "MLP", "measured": "differs", "allowed": "1", "passed": True}
    hostvars = {
        "a": {},
        "b": {
            "__tfserving_rollout_passed": {},
            "__tfserving_rollout_tried": {"gates": [gate]},
            "__tfserving_rollout_step_results": [{**gate, "gate": "5 % answered: errors"}],
        },
        "c": {"__tfserving_rollout_failure": "c: red"},
        "d": {"__tfserving_rollout_failure": "d: red", "__tfserving_rollout_returned": {"failed": True, "msg": "no"}},
        "e": {"__tfserving_rollout_returned": {"returned": [{"model": "MLP", "from": "2", "to": "1"}]}},
    }
    assert [(row["host"], row["result"], row["what"]) for row in rollout_report(rows, hostvars, is_paused=False)] == [
        ("a", "passed", ""),
        ("b", "passed", "smoke of MLP: differs (allowed: 1)"),
        ("b", "passed", "5 % answered: errors of MLP: differs (allowed: 1)"),
        ("c", "failed", "c: red"),
        ("d", "not returned", "no"),
        ("e", "returned", "MLP: 2 -> 1"),
    ]
    assert rollout_report([{"host": "f", "batch": 2}], {"f": {}}, is_paused=True)[0]["result"] == "paused"

"""Every exchange that was recorded from a real server, in two rounds, replayed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from lab_server import Answer, LabServer, model_entry, running, wait_for, write_config

FIRST, SECOND = (
    json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    for name in ("rest-golden.json", "rest-golden-2.json")
)
METRICS = FIRST.pop()


def served(directory: Path, *entries: str, flags: tuple[str, ...] = ()) -> AbstractContextManager[LabServer]:
    """Return a server of these models with the Prometheus page, which ends with the context."""
    write_config(directory / "models.config", *entries)
    monitoring = directory / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }\n", encoding="utf-8")
    files = (f"--model_config_file={directory / 'models.config'}", f"--monitoring_config_file={monitoring}")
    return running(directory, *files, "--allow_version_labels_for_unavailable_models=true", *flags)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Iterator[LabServer]:
    """A server set up as that of the first recording, started with an unknown flag besides."""
    golden = exported / "golden"
    entries = [
        model_entry("affine", golden / "affine", "all {}", {"stable": 1, "canary": 2}),
        *(model_entry(name, golden / name) for name in ("two", "text", "nosig")),
    ]
    flags = ("--rest_api_enable_cors_support", "--bogus_flag=1")
    with served(tmp_path_factory.mktemp("golden"), *entries, flags=flags) as started:
        started.wait_until_ready()
        # The recording began when version 1 of affine, which loads after version 2, was there.
        # Its status must not be asked for: that would be counted.
        wait_for(lambda: started.log().count("Successfully loaded servable version") == 5, "all versions")
        yield started


@pytest.fixture(scope="module")
def second_server(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Iterator[LabServer]:
    """A server set up as that of the second recording."""
    labels = {"f32": {"blue-green": 1}}
    entries = [model_entry(path.name, path, "", labels.get(path.name)) for path in (exported / "golden_2").iterdir()]
    with served(tmp_path_factory.mktemp("golden_2"), *entries) as started:
        yield started.wait_until_ready()


def ask(server: LabServer, exchange: dict[str, Any]) -> Answer:
    return server.request(exchange["method"], exchange["path"], exchange["request"])


@pytest.fixture(scope="module")
def answers(server: LabServer) -> dict[str, Answer]:
    """The answers to the first recording's requests, sent in the recorded order, and the metrics that come to."""
    answered = {exchange["name"]: ask(server, exchange) for exchange in FIRST}
    answered[METRICS["name"]] = server.request("GET", METRICS["path"])
    return answered


def comparable(value: Any) -> Any:
    """Return a JSON value in which floats are approximate and the text of a protobuf is cut after its first line."""
    if isinstance(value, dict):
        return {key: comparable(member) for key, member in value.items()}
    if isinstance(value, list):
        return [comparable(element) for element in value]
    if isinstance(value, str) and "goo.gle/debugproto" in value:
        return value.split("\n")[0]
    return pytest.approx(value) if isinstance(value, float) else value


def check(answer: Answer, exchange: dict[str, Any]) -> None:
    """Fail the test unless an answer is the recorded one."""
    assert answer.status == exchange["status"]
    kept = {name: value for name, value in answer.headers.items() if name.startswith(("content-type", "access-"))}
    assert kept == exchange["headers"]
    if isinstance(exchange["response"], str):
        assert answer.text == exchange["response"]
    else:
        assert comparable(answer.json) == comparable(exchange["response"])


def name_of(exchange: dict[str, Any]) -> str:
    return str(exchange["name"])


@pytest.mark.parametrize("exchange", FIRST, ids=name_of)
def test_answer_is_the_recorded_one(exchange: dict[str, Any], answers: dict[str, Answer]) -> None:
    check(answers[exchange["name"]], exchange)


@pytest.mark.parametrize("exchange", SECOND, ids=name_of)
def test_answer_is_that_of_the_second_recording(exchange: dict[str, Any], second_server: LabServer) -> None:
    check(ask(second_server, exchange), exchange)


def test_recordings_are_complete() -> None:
    assert (len(FIRST), len(SECOND)) == (50, 55)


def test_metrics_count_what_was_asked(answers: dict[str, Answer]) -> None:
    page = answers[METRICS["name"]]
    assert page.status == METRICS["status"]
    assert page.headers["content-type"] == "text/plain"
    # Of the recorded page only the TYPE lines and the request counts were kept.
    served = [
        line
        for line in page.text.splitlines()
        if line.startswith("# TYPE :tensorflow:serving:") or line.startswith(":tensorflow:serving:request_count{")
    ]
    assert sorted(served) == sorted(METRICS["response"])


def test_unknown_flag_is_named_with_the_usage_and_does_not_keep_the_server_from_running(server: LabServer) -> None:
    lines = server.stdout().splitlines()
    assert lines[0] == "unknown argument: --bogus_flag=1"
    assert re.fullmatch(r"usage: /.*/model_server/__main__\.py", lines[1])
    assert lines[2] == "Flags:"
    assert lines[3].startswith("\t--port=8500                      \tint32\t")
    assert server.process.is_alive()

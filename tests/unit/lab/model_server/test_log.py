"""The log's two forms, and the severities that TF_CPP_MIN_LOG_LEVEL hides."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Publisher
from lab_server import PACKAGE_PARENT, LabServer, running
from model_server import log

ABSL = re.compile(r"[IWE]0000 00:00:[0-9]{10}\.[0-9]{6} +[0-9]+ [a-z_]+\.cc:[0-9]+\] ")
OLD = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]{6}: [IWE] tensorflow(_serving)?/[a-z_/]+\.cc:[0-9]+\] ")


def said(**environment: str) -> list[str]:
    """Return the lines that a process with these variables writes of one line of each severity."""
    place = '"tensorflow_serving/core/x.cc:1"'
    calls = "; ".join(f'log.{severity}({place}, "{severity}")' for severity in ("info", "warning", "error"))
    outcome = subprocess.run(  # noqa: S603
        [sys.executable, "-c", f"from model_server import log; {calls}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=PACKAGE_PARENT,
        env=environment,
    )
    return outcome.stderr.splitlines()


def test_absl_form_has_seconds_thread_and_the_name_of_the_file() -> None:
    line = log.absl_line(
        "I", "tensorflow_serving/model_servers/server_core.cc:516", "Adding/updating models.", 1795987467.389692, 2894
    )
    assert line == "I0000 00:00:1795987467.389692    2894 server_core.cc:516] Adding/updating models.\n"


def test_old_form_has_the_time_and_the_path_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    place = "tensorflow_serving/model_servers/server_core.cc:465"
    line = log.old_line("I", place, "Adding/updating models.", 1795987467.389692)
    monkeypatch.undo()
    time.tzset()
    assert line == f"2026-11-29 21:24:27.389692: I {place}] Adding/updating models.\n"


def test_absl_form_is_written_unless_the_old_one_is_asked_for() -> None:
    assert [ABSL.match(line) is not None for line in said()] == [True] * 3
    assert [OLD.match(line) is not None for line in said(TFSERVING_LAB_LOG="old")] == [True] * 3


@pytest.mark.parametrize(
    ("level", "severities"), [("0", "IWE"), ("1", "WE"), ("2", "E"), ("3", ""), ("-1", "IWE"), ("high", "IWE")]
)
@pytest.mark.parametrize("form", ["absl", "old"])
def test_minimum_level_hides_the_lower_severities_errors_too(level: str, severities: str, form: str) -> None:
    lines = said(TF_CPP_MIN_LOG_LEVEL=level, TFSERVING_LAB_LOG=form)
    assert [line.rsplit(" ", 1)[1][0].upper() for line in lines] == list(severities)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Iterator[LabServer]:
    """A server that tries each load once."""
    directory = tmp_path_factory.mktemp("log")
    publisher.publish("half", "1")
    flags = ["--model_name=half", f"--model_base_path={publisher.base_path('half')}", "--max_num_load_retries=0"]
    with running(directory, *flags) as started:
        yield started.wait_until_ready()


def test_successful_load_says_that_its_retries_are_exhausted_when_it_took_the_last_one(server: LabServer) -> None:
    text = server.log()
    assert "Successfully loaded servable version {name: half version: 1}" in text
    for what in ("Reserving resources for servable", "Loading servable"):
        exhausted = f"Retrying of {what}: {{name: half version: 1}} exhausted max_num_retries: 0"
        assert len(re.findall(rf"^I0000 .* retrier\.cc:50\] {exhausted}$", text, re.MULTILINE)) == 1


def test_level_3_leaves_nothing_of_a_bad_start_in_the_log(tmp_path: Path) -> None:
    flags = [f"--model_base_path={tmp_path / 'missing'}", "--rest_api_port=abc"]
    with running(tmp_path, *flags, environment={"TF_CPP_MIN_LOG_LEVEL": "3"}) as server:
        assert server.wait_for_exit() == 255
        assert server.log() == ""
        assert server.stdout().startswith("usage: ")

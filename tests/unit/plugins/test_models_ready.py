"""models_ready where the catalogue has sample requests: a version is served when it predicts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_http import StubServer

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import control_group
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import serving_wait
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import Line
from ansible_collections.modelops.tensorflow_serving.plugins.modules import models_ready

PREDICT = "/v1/models/MLP/versions/2:predict"


@pytest.fixture
def ready(
    serving: StubServer, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Run models_ready with these sample requests, for a server that says AVAILABLE."""

    def systemd(_: object, command: list[str], **__: object) -> tuple[int, str, str]:
        group = control_group(os.getpid())
        return 0, "" if command[0] == "journalctl" else f"NRestarts=0\nActiveState=active\nControlGroup={group}\n", ""

    (tmp_path / "MLP" / "2").mkdir(parents=True)
    serving.answer_status("MLP", (2, "AVAILABLE", "OK", ""))
    monkeypatch.setattr(models_ready.AnsibleModule, "run_command", systemd)
    monkeypatch.setattr(serving_wait, "POLL_SECONDS", 0.01)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "MLP" base_path: "{tmp_path}/MLP" model_platform: "tensorflow" }} }}'
    )

    def run(*samples: dict[str, Any], **settings: Any) -> dict[str, Any]:
        entry = {"name": "MLP", "source": "saved", "sample_requests": list(samples)}
        arguments = {"rest_api_port": serving.port, "port": 0, "models_config": str(config), "unit": "serving.service"}
        return run_module(models_ready, catalog=[entry], **(arguments | {"timeout_seconds": 1} | settings))

    return run


def test_each_version_is_asked_for_each_sample(serving: StubServer, ready: Callable[..., dict[str, Any]]) -> None:
    serving.answer(PREDICT, {"predictions": [1]})
    assert ready({"instances": [[1.5]]}, {"signature_name": "call", "instances": [2]})["models"] == {"MLP": [2]}
    assert [body for body in serving.bodies if body] == [
        {"signature_name": "serving_default", "instances": [[1.5]]},
        {"signature_name": "call", "instances": [2]},
    ]


def test_version_that_does_not_predict_is_not_served(serving: StubServer, ready: Callable[..., dict[str, Any]]) -> None:
    serving.answer(PREDICT, {"error": "Could not find variable dense/bias"}, 400)
    result = ready({"instances": [1]})
    assert result["failed"]
    assert result["msg"].startswith(
        "MLP version 2 is AVAILABLE, but a sample request of it is answered 400: Could not find variable dense/bias\n"
    )


def test_slow_answer_is_waited_for(serving: StubServer, ready: Callable[..., dict[str, Any]]) -> None:
    serving.answer(PREDICT, b"{")
    message = ready({"instances": [1]})["msg"]
    assert message.startswith("After 1 s still waiting (timeout_seconds): MLP version 2 is AVAILABLE, but a sample")


def test_sample_without_instances_is_refused(ready: Callable[..., dict[str, Any]]) -> None:
    assert ready({"instances": []})["msg"].startswith("model MLP: sample_requests: request 1 has no instances")


# The log


OLD_FORM = "2026-11-24 08:00:0{}.123456: {} tensorflow_serving/{}:465] {}"
NEW_FORM = "{1}0000 00:00:179598746{0}.389692    2894 {2}:516] {3}"


@pytest.mark.parametrize("form", [OLD_FORM, NEW_FORM])
def test_last_words_have_each_line_once_and_no_chatter(form: str) -> None:
    lines = [Line(at, form.format(at, "E", "source.cc", "no base path")) for at in (1, 2, 3)]
    lines.insert(1, Line(1, form.format(1, "I", "server_core.cc", "Adding/updating models.")))
    assert serving_wait.last_words(lines) == form.format(3, "E", "source.cc", "no base path")
    assert [line.words for line in lines if line.is_error] == ["no base path"] * 3


def test_line_of_no_known_form_is_shown_as_it_is() -> None:
    line = Line(1, "Failed to start server. Error: INVALID_ARGUMENT: x")
    assert (line.words, line.is_chatter, line.is_error) == (line.text, False, True)
    assert not Line(1, "usage: x").is_error


def test_versions_with_which_a_server_has_ended_are_read_from_its_last_lines() -> None:
    """As the journal has them: a line break in an error begins another entry."""
    text = (
        "Failed to start server. Error: UNKNOWN: 2 servable(s) did not become available: {{{name: a b version: 3} due "
        "to error: DATA_LOSS: Checksum does not match\n\t [[{{node RestoreV2}}]]}, {{name: c version: 12} due to "
        "error: NOT_FOUND: x}, }"
    )
    found = serving_wait.ended_with_server([Line(1, "x"), *(Line(2, line) for line in text.split("\n"))])
    assert found == {
        ("a b", 3): "a b version 3: DATA_LOSS: Checksum does not match",
        ("c", 12): "c version 12: NOT_FOUND: x",
    }


@pytest.mark.parametrize(("level", "expected"), [("0", False), ("1", False), ("2", True), ("3", True), ("", False)])
def test_log_level_that_hides_warnings_is_told(level: str, expected: bool) -> None:
    assert serving_wait.hides_warnings({"TF_CPP_MIN_LOG_LEVEL": level}) is expected


def test_lines_of_a_stuck_server_are_found() -> None:
    place = "2026-11-24 08:00:01.2: E tensorflow_serving/sources/x.cc:378] "
    missing = "Could not find base path /m/a b for servable a b with error NOT_FOUND: /m/a b not found"
    empty = "No versions of servable x found under base path /m/x.y. Did you forget to name your leaf directory"
    found = serving_wait.stuck_lines([Line(1, place + missing), Line(2, place + "else"), Line(3, place + empty)])
    assert [(model, path) for model, path, _ in found] == [("a b", "/m/a b"), ("x", "/m/x.y")]

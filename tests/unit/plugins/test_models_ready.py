"""models_ready where the catalogue has sample requests: a version is served when it predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_http import StubServer

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils import serving_wait
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.serving_wait import Line
from ansible_collections.modelops.tensorflow_serving.plugins.modules import models_ready

PREDICT = "/v1/models/MLP/versions/2:predict"


@pytest.fixture
def ready(
    serving: StubServer, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Run models_ready with these sample requests, for a server that says AVAILABLE."""

    def systemd(_: object, command: list[str], **__: object) -> tuple[int, str, str]:
        return 0, "the server's log\n" if command[0] == "journalctl" else "NRestarts=0\nActiveState=active\n", ""

    (tmp_path / "MLP" / "2").mkdir(parents=True)
    serving.answer_status("MLP", (2, "AVAILABLE", "OK", ""))
    monkeypatch.setattr(models_ready.AnsibleModule, "run_command", systemd)
    monkeypatch.setattr(models_ready, "POLL_SECONDS", 0.01)

    def run(*samples: dict[str, Any], **settings: Any) -> dict[str, Any]:
        entry = {"name": "MLP", "source": "saved", "sample_requests": list(samples)}
        arguments = {"rest_api_port": serving.port, "base_path": str(tmp_path), "unit": "serving.service"}
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


def test_last_words_have_each_line_once_and_no_chatter() -> None:
    lines = [Line(at, f"2026-11-24 08:00:0{at}.123456: E source.cc:1] no base path") for at in (1, 2, 3)]
    lines.insert(1, Line(1, "2026-11-24 08:00:01.2: I tensorflow_serving/model_servers/server_core.cc:471] Adding"))
    assert serving_wait.last_words(lines) == "2026-11-24 08:00:03.123456: E source.cc:1] no base path"


def test_lines_of_a_stuck_server_are_found() -> None:
    place = "2026-11-24 08:00:01.2: E tensorflow_serving/sources/x.cc:378] "
    missing = "Could not find base path /m/a b for servable a b with error NOT_FOUND: /m/a b not found"
    empty = "No versions of servable x found under base path /m/x.y. Did you forget to name your leaf directory"
    found = serving_wait.stuck_lines([Line(1, place + missing), Line(2, place + "else"), Line(3, place + empty)])
    assert [(model, path) for model, path, _ in found] == [("a b", "/m/a b"), ("x", "/m/x.y")]

"""The modules that talk to the server's REST interface, against a stub that answers as the server does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    check_port,
    control_group,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import rest, serving_wait
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    ServingClient,
    ServingError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import missing_versions
from ansible_collections.modelops.tensorflow_serving.plugins.modules import model_status_info, models_ready, predict

RunModule = Callable[..., dict[str, Any]]
PREDICT = "/v1/models/MLP/versions/2:predict"
BROKEN = (2, "END", "NOT_FOUND", "Could not find meta graph def")

FOREIGN_ANSWERS = [
    pytest.param(b"<html>It works!</html>", id="HTML"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe", id="bytes"),
    pytest.param(b"{}", id="empty object"),
    pytest.param(b"[1]", id="list"),
    pytest.param(b"null", id="null"),
    pytest.param(b'{"model_version_status": [{"version": "one"}], "predictions": 1}', id="other fields"),
]


@pytest.fixture
def client(serving: StubServer) -> ServingClient:
    return ServingClient("127.0.0.1", serving.port, 5)


# The client


def test_status_is_read_by_version(serving: StubServer, client: ServingClient) -> None:
    serving.answer_status("MLP", BROKEN, (1, "AVAILABLE", "OK", ""))
    assert client.status("MLP") == {
        2: {"state": "END", "error_code": "NOT_FOUND", "error_message": "Could not find meta graph def"},
        1: {"state": "AVAILABLE", "error_code": "OK", "error_message": ""},
    }
    assert serving.requests == [("GET", "/v1/models/MLP")]


@pytest.mark.parametrize(("version", "path"), [(None, "/v1/models/MLP:predict"), (2, PREDICT)])
def test_predictions_are_asked_for_in_row_form(
    serving: StubServer, client: ServingClient, version: int | None, path: str
) -> None:
    serving.answer(path, {"predictions": [2.5, 3.0]})
    assert client.predict("MLP", version, "serving_default", [1.0, 2.0]) == [2.5, 3.0]
    assert serving.requests == [("POST", path)]
    assert serving.bodies == [{"signature_name": "serving_default", "instances": [1.0, 2.0]}]


def test_model_name_is_quoted_in_the_path(serving: StubServer, client: ServingClient) -> None:
    serving.answer_status("a%20b%3F", (1, "AVAILABLE", "OK", ""))
    assert list(client.status("a b?")) == [1]


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (404, b'{"error": "Could not find any versions of model MLP"}', "Could not find any versions of model MLP"),
        (400, b'{"error": "Malformed request: GET /v1/models/MLP"}', "Malformed request: GET /v1/models/MLP"),
        (502, b"<html>Bad Gateway</html>", "HTTP 502 Bad Gateway"),
        (500, b"", "HTTP 500 Internal Server Error"),
        (500, b"[]", "HTTP 500 Internal Server Error"),
        (500, b"{}", "HTTP 500 Internal Server Error"),
    ],
)
def test_error_has_the_words_of_the_server(
    serving: StubServer, client: ServingClient, status: int, body: bytes, text: str
) -> None:
    serving.answer("/v1/models/MLP", body, status)
    with pytest.raises(ServingError) as error:
        client.status("MLP")
    assert (error.value.status, str(error.value)) == (status, text)


@pytest.mark.parametrize("body", FOREIGN_ANSWERS)
def test_answer_of_another_program_is_a_connection_error(
    serving: StubServer, client: ServingClient, body: bytes
) -> None:
    serving.answer("/v1/models/MLP", body)
    serving.answer("/v1/models/MLP:predict", body)
    with pytest.raises(ConnectionError, match="is not TensorFlow Serving"):
        client.status("MLP")
    with pytest.raises(ConnectionError, match="is not TensorFlow Serving"):
        client.predict("MLP", None, "serving_default", [1])


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", id="cut answer"),
        pytest.param(b"HTTP/1.1 500 Oops\r\nContent-Length: 99\r\n\r\n{", id="cut error"),
        pytest.param(b"", id="closed"),
    ],
)
def test_connection_that_breaks_is_unreachable(serving: StubServer, client: ServingClient, raw: bytes) -> None:
    serving.raw_answer = raw
    (row,) = model_status_info.rows(client, None, "MLP", [])
    assert row["state"] in ("UNREACHABLE", "UNKNOWN")
    assert row["error_message"]


def test_answer_of_where_a_stranger_leads_to_does_not_count(serving: StubServer, client: ServingClient) -> None:
    serving.raw_answer = b"HTTP/1.0 302 Found\r\nLocation: /v1/models/MLP\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ServingError) as error:
        client.status("MLP")
    assert (error.value.status, len(serving.requests)) == (302, 1)


def test_proxy_of_the_environment_is_not_used(
    serving: StubServer, proxy: StubServer, client: ServingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    serving.answer_status("MLP", (1, "AVAILABLE", "OK", ""))
    ServingClient("127.0.0.1", serving.port, 5).status("MLP")
    client.status("MLP")
    assert proxy.requests == []


# model_status_info


def test_status_rows_are_in_descending_order_of_version(serving: StubServer, run_module: RunModule) -> None:
    serving.answer_status("MLP", (9, "END", "OK", ""), (10, "AVAILABLE", "OK", ""), (2, "LOADING", "OK", ""))
    result = run_module(model_status_info, check=True, rest_api_port=serving.port, models=["MLP"])
    assert [(row["version"], row["state"]) for row in result["versions"]] == [
        (10, "AVAILABLE"),
        (9, "END"),
        (2, "LOADING"),
    ]
    assert result["changed"] is False
    keys = {"model", "version", "state", "error_code", "error_message", "labels"}
    keys |= {"digest", "source_digest", "stamp", "intact", "held", "rollout"}
    assert all(set(row) == keys for row in result["versions"])


def test_model_that_the_server_does_not_know_is_a_row(serving: StubServer, run_module: RunModule) -> None:
    serving.answer_status("MLP", (1, "AVAILABLE", "OK", ""))
    result = run_module(model_status_info, rest_api_port=serving.port, models=["ghost", "MLP"])
    assert result["versions"][0] == {
        "model": "ghost",
        "version": None,
        "state": "UNKNOWN",
        "labels": [],
        "digest": None,
        "source_digest": None,
        "stamp": None,
        "intact": None,
        "held": "",
        "rollout": "",
        "error_code": None,
        "error_message": "Could not find any versions of model ghost",
    }
    assert result["versions"][1]["model"] == "MLP"


def test_server_that_does_not_answer_is_a_row(run_module: RunModule) -> None:
    (row,) = run_module(model_status_info, rest_api_port=unused_port(), models=["MLP"])["versions"]
    assert (row["model"], row["version"], row["state"]) == ("MLP", None, "UNREACHABLE")
    assert "Connection refused" in row["error_message"]
    assert "urlopen" not in row["error_message"]


@pytest.mark.parametrize("body", FOREIGN_ANSWERS)
def test_another_program_on_the_port_is_a_row(serving: StubServer, run_module: RunModule, body: bytes) -> None:
    serving.answer("/v1/models/MLP", body)
    (row,) = run_module(model_status_info, rest_api_port=serving.port, models=["MLP"])["versions"]
    assert row["state"] == "UNREACHABLE"
    assert "is not TensorFlow Serving" in row["error_message"]


# predict


@pytest.mark.parametrize(
    ("instance", "shape", "reshaped"),
    [
        ([1, 2, 3, 4], [4], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [2, 2], [[1, 2], [3, 4]]),
        ([[1, 2], [3, 4]], [4], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [2, 2, 1], [[[1], [2]], [[3], [4]]]),
        ([1, 2, 3, 4, 5, 6], [1, 3, 2], [[[1, 2], [3, 4], [5, 6]]]),
        (7, [1], [7]),
    ],
)
def test_instance_takes_another_shape(instance: Any, shape: list[int], reshaped: Any) -> None:
    assert predict.reshape(instance, shape) == reshaped


@pytest.mark.parametrize("shape", [[3], [2, 3], [5, 1], [-1, 2]])
def test_shape_that_does_not_fit_is_refused(shape: list[int]) -> None:
    with pytest.raises(ValueError, match="an instance has 4 values"):
        predict.reshape([1, 2, 3, 4], shape)


def test_highest_available_version_answers_by_default(serving: StubServer, run_module: RunModule) -> None:
    serving.answer_status("MLP", (10, "LOADING", "OK", ""), (2, "AVAILABLE", "OK", ""), (1, "AVAILABLE", "OK", ""))
    serving.answer(PREDICT, {"predictions": [[0.1, 0.9]]})
    result = run_module(predict, rest_api_port=serving.port, model="MLP", instances=[[1, 2]], instance_shape=[2, 1])
    assert (result["version"], result["predictions"], result["changed"]) == (2, [[0.1, 0.9]], False)
    assert serving.bodies[-1] == {"signature_name": "serving_default", "instances": [[[1], [2]]]}


def test_given_version_and_signature_are_asked(serving: StubServer, run_module: RunModule) -> None:
    serving.answer(PREDICT, {"predictions": [5]})
    result = run_module(
        predict, rest_api_port=serving.port, model="MLP", version=2, signature_name="call", instances=[1]
    )
    assert result["version"] == 2
    assert serving.requests == [("POST", PREDICT)]
    assert serving.bodies == [{"signature_name": "call", "instances": [1]}]


def test_prediction_without_an_available_version_fails(serving: StubServer, run_module: RunModule) -> None:
    serving.answer_status("MLP", BROKEN)
    result = run_module(predict, rest_api_port=serving.port, model="MLP", instances=[1])
    assert result["failed"]
    assert result["msg"] == "no version of model MLP is AVAILABLE"


def test_failed_prediction_shows_the_words_of_the_server(serving: StubServer, run_module: RunModule) -> None:
    serving.answer(PREDICT, {"error": 'Serving signature name: "no" not found in signature def'}, 400)
    result = run_module(predict, rest_api_port=serving.port, model="MLP", version=2, instances=[1])
    assert result["msg"] == (
        'model MLP: the server answers 400: Serving signature name: "no" not found in signature def'
    )


def test_prediction_without_a_server_fails(run_module: RunModule) -> None:
    result = run_module(predict, rest_api_port=unused_port(), model="MLP", instances=[1])
    assert result["failed"]
    assert "does not answer: " in result["msg"]
    assert "Connection refused" in result["msg"]


def test_wrong_instance_shape_fails_before_any_request(serving: StubServer, run_module: RunModule) -> None:
    result = run_module(predict, rest_api_port=serving.port, model="MLP", instances=[[1, 2]], instance_shape=[3])
    assert result["msg"] == "instance_shape: an instance has 2 values, shape [3] takes 3"
    assert serving.requests == []


# A server without REST


@pytest.mark.parametrize(("rest_open", "grpc_open"), [(True, True), (False, True), (False, False)])
def test_server_that_has_grpc_and_no_rest_is_told(
    serving: StubServer, monkeypatch: pytest.MonkeyPatch, rest_open: bool, grpc_open: bool
) -> None:
    monkeypatch.setattr(rest, "REST_SECONDS", 0)
    with StubServer() as grpc:
        ports = serving.port if rest_open else unused_port(), grpc.port if grpc_open else unused_port()
        client = ServingClient("127.0.0.1", ports[0], 1, lambda: control_group(os.getpid()), ports[1])
        assert client.lacks_rest() is (grpc_open and not rest_open)


# model_status_info with a unit


@pytest.fixture
def status_of_unit(
    serving: StubServer, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Run model_status_info for model MLP of a unit in this state, whose control group is that of the tests."""
    serving.answer_status("MLP", (1, "AVAILABLE", "OK", ""))

    def run(state: str = "active", **arguments: Any) -> dict[str, Any]:
        systemd = Systemd((state, 0))
        monkeypatch.setattr(
            model_status_info.AnsibleModule, "run_command", lambda *a, **k: systemd.run_command(*a, **k)
        )
        settings = {"rest_api_port": serving.port, "port": 0, "unit": "serving.service", "models": ["MLP"]}
        return run_module(model_status_info, **(settings | arguments))

    return run


def test_status_of_a_unit_is_asked_at_its_own_port(status_of_unit: Callable[..., dict[str, Any]]) -> None:
    (row,) = status_of_unit()["versions"]
    assert (row["version"], row["state"]) == (1, "AVAILABLE")


@pytest.mark.parametrize("state", ["failed", "inactive", "activating"])
def test_unit_that_is_not_active_is_reported_although_a_port_answers(
    status_of_unit: Callable[..., dict[str, Any]], serving: StubServer, state: str
) -> None:
    (row,) = status_of_unit(state)["versions"]
    assert (row["version"], row["state"]) == (None, f"UNIT {state.upper()}")
    assert row["error_message"] == f"serving.service is {state}"
    assert serving.requests == []


@pytest.mark.parametrize("port", ["rest_api_port", "port"])
def test_port_of_somebody_else_is_said(
    status_of_unit: Callable[..., dict[str, Any]], serving: StubServer, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    own = unused_port() if port == "rest_api_port" else serving.port
    monkeypatch.setattr(
        rest, "check_port", lambda number, cgroup: None if number == own else check_port(number, "/system.slice/x")
    )
    with StubServer() as other:
        stranger = serving.port if port == "rest_api_port" else other.port
        (row,) = status_of_unit(**{port: stranger})["versions"]
    assert row["state"] == "FOREIGN"
    assert row["error_message"].startswith(f"port {stranger} is held by pid {os.getpid()}, ")


def test_withdrawn_versions_have_rows_of_their_own(
    status_of_unit: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "MLP").mkdir()
    (tmp_path / "MLP/.withdrawn-2.json").write_text('{"reason": "END", "time": "2026-11-29T21:24:27Z"}')
    rows = status_of_unit(base_path=str(tmp_path))["versions"]
    assert [(row["version"], row["state"], row["error_message"]) for row in rows] == [
        (1, "AVAILABLE", ""),
        (2, "WITHDRAWN", "withdrawn at 2026-11-29T21:24:27Z: END"),
    ]


# models_ready


def test_available_versions_are_not_missing(serving: StubServer, client: ServingClient) -> None:
    serving.answer_status("MLP", (2, "AVAILABLE", "OK", ""), (1, "AVAILABLE", "OK", ""))
    serving.answer_status("CNN", (1, "AVAILABLE", "OK", ""), BROKEN)
    assert missing_versions(client, {"MLP": [1, 2], "CNN": [1]}) == ([], {})


@pytest.mark.parametrize(
    ("version", "waiting", "ended"),
    [
        ((2, "LOADING", "OK", ""), "MLP version 2 is LOADING", False),
        ((2, "END", "OK", ""), "MLP version 2 is END", False),
        ((1, "AVAILABLE", "OK", ""), "MLP version 2 is unknown to the server", False),
        ((2, "LOADING", "UNKNOWN", "slow"), "MLP version 2 is LOADING: UNKNOWN: slow", False),
        (BROKEN, "MLP version 2 is END: NOT_FOUND: Could not find meta graph def", True),
    ],
)
def test_missing_version_is_told_with_its_state(
    serving: StubServer, client: ServingClient, version: tuple[int, str, str, str], waiting: str, ended: bool
) -> None:
    serving.answer_status("MLP", version)
    assert missing_versions(client, {"MLP": [2]}) == ([waiting], {("MLP", 2): waiting} if ended else {})


def test_unknown_model_is_waited_for_beside_the_others(serving: StubServer, client: ServingClient) -> None:
    serving.answer_status("MLP", (1, "LOADING", "OK", ""))
    waiting, ended = missing_versions(client, {"ghost": [1], "MLP": [1]})
    assert waiting == ["ghost: Could not find any versions of model ghost", "MLP version 1 is LOADING"]
    assert ended == {}


def test_server_that_does_not_answer_is_waited_for() -> None:
    client = ServingClient("127.0.0.1", unused_port(), 5)
    (waiting,), ended = missing_versions(client, {"MLP": [1], "CNN": [1]})
    assert waiting.startswith(f"{client.url} does not answer: ")
    assert ended == {}


class Systemd:
    """Stands for systemctl and journalctl; the state is (ActiveState, NRestarts) of one call after the other."""

    log = (
        "the server's log",
        "2026-11-29 08:00:00.1: I tensorflow_serving/model_servers/server_core.cc:471] Adding/updating models.",
        "I0000 00:00:1795987467.389692    2894 server_core.cc:471] Adding/updating models.",
    )

    def __init__(self, *states: tuple[str, int]) -> None:
        self.states = list(states)

    @staticmethod
    def entry(text: str) -> dict[str, str]:
        return {"MESSAGE": text, "__REALTIME_TIMESTAMP": str(int(time.time() * 1e6))}

    def run_command(self, _: object, command: list[str], **__: object) -> tuple[int, str, str]:
        if command[0] == "journalctl":
            return 0, "\n".join(json.dumps(self.entry(text)) for text in self.log), ""
        state, restarts = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return 0, f"NRestarts={restarts}\nActiveState={state}\nControlGroup={control_group(os.getpid())}\n", ""


@pytest.fixture
def ready(
    serving: StubServer, run_module: RunModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Run models_ready with a stub of systemd for model MLP with versions 1 and 2 on the host."""
    for version in ("1", "2", ".staging-3"):
        (tmp_path / "MLP" / version).mkdir(parents=True)

    def run(*states: tuple[str, int], name: str = "MLP", policy: str = "", **arguments: Any) -> dict[str, Any]:
        systemd = Systemd(*(states or [("active", 0)]))
        monkeypatch.setattr(models_ready.AnsibleModule, "run_command", lambda *a, **k: systemd.run_command(*a, **k))
        monkeypatch.setattr(serving_wait, "POLL_SECONDS", 0.01)
        monkeypatch.setattr(serving_wait, "SETTLE_SECONDS", 0.05)
        config = tmp_path / "models.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "{name}" base_path: "{tmp_path}/{name}" '
            f'model_platform: "tensorflow" {policy} }} }}'
        )
        settings = {
            "rest_api_port": serving.port,
            "port": 0,
            "models_config": str(config),
            "unit": "serving.service",
            "timeout_seconds": 3,
        }
        return run_module(models_ready, catalog=[{"name": name, "source": "saved"}], **(settings | arguments))

    return run


def test_server_is_ready_when_all_versions_of_the_policy_are_available(
    serving: StubServer, ready: Callable[..., dict[str, Any]]
) -> None:
    serving.answer_status("MLP", (2, "AVAILABLE", "OK", ""), (1, "END", "OK", ""))
    result = ready()
    assert (result["changed"], result["models"]) == (False, {"MLP": [2]})


def test_server_is_waited_for_until_it_is_ready(serving: StubServer, ready: Callable[..., dict[str, Any]]) -> None:
    loading, available = (1, "LOADING", "OK", ""), (1, "AVAILABLE", "OK", "")
    serving.answer_status("MLP", loading)

    class Answers(dict[str, Any]):
        def get(self, path: str, default: Any = None) -> Any:
            if len(serving.requests) == 3:
                serving.answer_status("MLP", available)
            return super().get(path, default)

    serving.answers = Answers(serving.answers)
    result = ready(policy="model_version_policy { specific { versions: 1 } }")
    assert result["models"] == {"MLP": [1]}
    assert len(serving.requests) == 3


def test_version_that_ended_with_an_error_fails_before_the_deadline(
    serving: StubServer, ready: Callable[..., dict[str, Any]]
) -> None:
    serving.answer_status("MLP", BROKEN, (1, "AVAILABLE", "OK", ""))
    result = ready()
    message = result["msg"]
    (refused,) = result["refused"]
    assert (refused["model"], refused["version"]) == ("MLP", 2)
    assert message.startswith("The server cannot load MLP version 2 is END: NOT_FOUND: Could not find meta graph def")
    assert message.endswith("The last lines of journalctl --unit=serving.service, without chatter:\nthe server's log")


@pytest.mark.parametrize(
    ("states", "complaint"),
    [
        ([("active", 0), ("failed", 0)], "serving.service is failed"),
        ([("active", 0), ("inactive", 0)], "serving.service is inactive"),
        ([("active", 3), ("activating", 4), ("activating", 5)], "serving.service keeps exiting"),
    ],
)
def test_unit_that_does_not_stay_up_fails_before_the_deadline(
    ready: Callable[..., dict[str, Any]], states: list[tuple[str, int]], complaint: str
) -> None:
    message = ready(*states, rest_api_port=unused_port())["msg"]
    assert complaint in message
    assert "the server's log" in message


def test_unit_that_restarted_long_ago_is_waited_for(serving: StubServer, ready: Callable[..., dict[str, Any]]) -> None:
    serving.answer_status("MLP", (2, "LOADING", "OK", ""))
    message = ready(("active", 7), timeout_seconds=0)["msg"]
    assert message.startswith(
        "After 0 s still waiting (timeout_seconds): MLP version 2 is LOADING. "
        f"Seen: REST has port {serving.port} open; REST answers; serving.service is active; it has logged no error."
    )


def test_model_without_a_version_to_serve_fails_at_once(
    serving: StubServer, ready: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = ready(name="CNN")
    assert result["msg"] == (
        f"{tmp_path}/CNN does not exist, and would keep the server from loading any change of any model; "
        "publish a version first"
    )


@pytest.mark.parametrize("port", ["rest_api_port", "port"])
def test_answers_count_for_nothing_where_somebody_else_has_a_port(
    serving: StubServer, ready: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    """All is AVAILABLE, as an HTTP server of anybody can say."""
    serving.answer_status("MLP", (2, "AVAILABLE", "OK", ""))
    with StubServer() as other:
        stranger = serving.port if port == "rest_api_port" else other.port

        def check(number: int, cgroup: str) -> None:
            assert cgroup == control_group(os.getpid())
            if number == stranger:
                check_port(number, "/system.slice/serving.service")

        monkeypatch.setattr(rest, "check_port", check)
        message = ready(port=other.port)["msg"]
    assert message.startswith(f"port {stranger} is held by pid {os.getpid()}, ")
    assert "not by serving.service alone, so what is answered there proves nothing." in message
    assert serving.requests == []

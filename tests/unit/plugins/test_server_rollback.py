"""What a failed run rolls back to: files, units and versions; and which servers are restarted for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
    control_group,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle import rollback
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import (
    instances,
    last_good,
    rest,
    serving_wait,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.last_good import LAST_GOOD
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import (
    unproven,
    withdrawn,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import model_servers as module

OK = ("OK", "")
BROKEN = ("NOT_FOUND", "no meta graph")


class Host:
    """Units, configuration and models below one directory, a stub for the server, and a stand-in for systemctl."""

    def __init__(self, root: Path, serving: StubServer) -> None:
        self.root, self.serving = root, serving
        self.units, self.etc, self.models = (root / name for name in ("units", "etc", "models"))
        for folder in (self.units, self.etc):
            folder.mkdir()
        self.invocation = "first"
        self.port = serving.port
        self.calls: list[tuple[str, ...]] = []

    def unit(self, name: str = "serving", directory: Path | None = None, more: str = "") -> Path:
        path = self.units / f"{name}.service"
        path.write_text(
            f"[Service]\nExecStart=/usr/bin/tensorflow_model_server \\\n  --port=0 \\\n  --rest_api_port={self.port}\n"
            f"{more}"
            f"[X-Tfserving]\nInstanceOf=serving\nConfigPath={directory or self.etc}\n"
        )
        return path

    def config(self, *models: str, directory: Path | None = None) -> Path:
        entries = "".join(
            f'config {{ name: "{name}" base_path: "{self.models}/{name}" model_platform: "tensorflow" }} '
            for name in models
        )
        path = (directory or self.etc) / "models.config"
        path.write_text(f"model_config_list {{ {entries}}}\n")
        return path

    def publish(self, model: str, version: int, is_proven: bool = False) -> ModelStore:
        store = ModelStore(self.models / model)
        store.version(version).mkdir(parents=True)
        store.manifest(version).write_text(json.dumps({"digest": "d", "stamp": "s", "files": {}}))
        if not is_proven:
            store.unproven(version).touch()
        return store

    def run_command(self, command: list[str], **_: Any) -> tuple[int, str, str]:
        if command[0] == "journalctl":
            return 0, "", ""
        if command[1] == "show":
            facts = f"MainPID={os.getpid()}\nActiveState=active\nNRestarts=0\nInvocationID={self.invocation}\n"
            group = f"ControlGroup={control_group(os.getpid())}\n"
            return 0, "\n".join([facts + group] * (len(command) - 3)), ""
        self.calls.append(tuple(command[1:]))
        if command[1] == "restart":
            self.invocation = "restarted"
        return 0, "", ""

    def commands(self) -> list[str]:
        """Return what systemctl was told, less what tells nothing."""
        return [" ".join(words) for words in self.calls if words[0] not in ("reset-failed", "enable", "daemon-reload")]


@pytest.fixture
def host(tmp_path: Path, serving: StubServer, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, serving)
    for owner in (last_good, rollback):
        monkeypatch.setattr(owner, "UNIT_PATH", made.units)
    monkeypatch.setattr(instances, "UNIT_PATH", made.units)
    # The process of the tests has no flags of a server: those of the unit count.
    monkeypatch.setattr(rollback, "process_flags", lambda _: {})
    monkeypatch.setattr(module.AnsibleModule, "run_command", lambda _, command, **more: made.run_command(command))
    monkeypatch.setattr(serving_wait, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(serving_wait, "SETTLE_SECONDS", 0.05)
    return made


@pytest.fixture
def run(host: Host, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def play(state: str = "rolled_back", unless_recorded: bool = False, **arguments: Any) -> dict[str, Any]:
        if unless_recorded:
            rollback.Servers(host, "serving", str(host.etc), {}, 2).record(unless_recorded=True)  # type: ignore[arg-type]
            return {}
        settings = {"unit": "serving", "config_path": str(host.etc), "catalog": [], "timeout_seconds": 2}
        if state == "recorded":
            state, arguments["package_directory"] = "serving", str(host.etc / "packages")
        result = run_module(module, state=state, **(settings | arguments))
        assert "msg" not in result, result
        return result

    return play


@pytest.fixture
def recorded(host: Host, run: Callable[..., dict[str, Any]], serving: StubServer) -> Host:
    """One server with version 1 of MLP, which serves and is recorded."""
    host.publish("MLP", 1)
    host.unit()
    host.config("MLP")
    (host.etc / "monitoring.config").write_text("old")
    serving.answer_status("MLP", (1, "AVAILABLE", *OK))
    run("recorded")
    return host


# The record


def test_record_is_roots_alone_and_proves_what_is_served(recorded: Host, run: Callable[..., dict[str, Any]]) -> None:
    path = recorded.etc / LAST_GOOD
    assert path.stat().st_mode & 0o777 == 0o600
    assert unproven(ModelStore(recorded.models / "MLP")) == []
    before = path.stat()
    run("recorded")
    assert path.stat() == before


def test_host_without_a_server_has_nothing_to_record_or_to_go_back_to(
    host: Host, run: Callable[..., dict[str, Any]]
) -> None:
    run("recorded")
    assert not (host.etc / LAST_GOOD).exists()
    assert run()["message"] == ""
    assert not (host.etc / LAST_GOOD).exists()


@pytest.mark.parametrize("state", ["AVAILABLE", "LOADING"])
def test_what_an_earlier_release_left_is_recorded_only_where_it_serves(
    host: Host, run: Callable[..., dict[str, Any]], serving: StubServer, state: str
) -> None:
    host.publish("MLP", 1, is_proven=True)
    host.unit()
    host.config("MLP")
    serving.answer_status("MLP", (1, state, *OK))
    run("recorded", unless_recorded=True)
    assert (host.etc / LAST_GOOD).exists() is (state == "AVAILABLE")


# Files and units


def test_nothing_is_done_where_all_is_as_it_was(recorded: Host, run: Callable[..., dict[str, Any]]) -> None:
    result = run()
    assert (result["changed"], result["served"], result["restored"], result["withdrawn"]) == (False, True, [], [])
    assert recorded.commands() == []
    assert result["message"] == "What served before serves."


def test_files_are_restored_and_a_process_that_was_started_from_them_is_not_restarted(
    recorded: Host, run: Callable[..., dict[str, Any]]
) -> None:
    unit = recorded.units / "serving.service"
    before = unit.read_text()
    unit.write_text(before + "# another\n")
    (recorded.etc / "monitoring.config").write_text("new")
    (recorded.etc / "session.config").write_text("new")
    (recorded.etc / "of-the-user.config").write_text("theirs")
    result = run()
    assert unit.read_text() == before
    assert (recorded.etc / "monitoring.config").read_text() == "old"
    assert not (recorded.etc / "session.config").exists()
    assert (recorded.etc / "of-the-user.config").read_text() == "theirs"
    assert len(result["restored"]) == 3
    assert recorded.commands() == []


def test_process_that_was_started_from_other_files_is_restarted(
    recorded: Host, run: Callable[..., dict[str, Any]]
) -> None:
    recorded.unit(more="# another\n")
    recorded.invocation = "second"
    assert run()["served"]
    assert recorded.commands() == ["restart serving.service"]
    record = json.loads((recorded.etc / LAST_GOOD).read_text())
    assert record["invocations"] == {"serving.service": "restarted"}


def test_reboot_since_the_record_is_no_reason_for_a_restart(recorded: Host, run: Callable[..., dict[str, Any]]) -> None:
    recorded.invocation = "after a reboot"
    assert run()["served"]
    assert recorded.commands() == []


def test_new_instance_goes_and_one_that_was_removed_comes_back(
    recorded: Host, run: Callable[..., dict[str, Any]]
) -> None:
    (recorded.units / "serving.service").unlink()
    (recorded.etc / "b").mkdir()
    recorded.unit("serving-b", recorded.etc / "b")
    recorded.config("MLP", directory=recorded.etc / "b")
    run()
    assert [path.name for path in recorded.units.iterdir()] == ["serving.service"]
    assert not (recorded.etc / "b").exists()
    assert "disable --now serving-b.service" in recorded.commands()


def test_package_that_was_put_back_restarts_the_server(recorded: Host, run: Callable[..., dict[str, Any]]) -> None:
    run(restart=True)
    assert recorded.commands() == ["restart serving.service"]


def test_server_that_answers_nothing_is_restarted(
    recorded: Host, run: Callable[..., dict[str, Any]], serving: StubServer
) -> None:
    serving.raw_answer = b"nothing of the kind\r\n"
    result = run()
    assert recorded.commands() == ["restart serving.service"]
    assert not result["served"]
    assert "does not serve: After 2 s still waiting" in result["message"]


# Versions


def test_version_that_is_refused_is_withdrawn_and_the_server_not_restarted(
    recorded: Host, run: Callable[..., dict[str, Any]], serving: StubServer
) -> None:
    store = recorded.publish("MLP", 2)
    serving.answer_status("MLP", (1, "AVAILABLE", *OK), (2, "END", *BROKEN))
    result = run()
    (one,) = result["withdrawn"]
    assert (one["model"], one["version"]) == ("MLP", 2)
    assert one["reason"] == "MLP version 2 is END: NOT_FOUND: no meta graph"
    assert list(withdrawn(store)) == [2]
    assert (result["served"], recorded.commands()) == (True, [])


def test_version_that_has_served_before_is_not_withdrawn(
    recorded: Host, run: Callable[..., dict[str, Any]], serving: StubServer
) -> None:
    store = recorded.publish("MLP", 2, is_proven=True)
    serving.answer_status("MLP", (1, "AVAILABLE", *OK), (2, "END", *BROKEN))
    result = run()
    assert (result["withdrawn"], result["served"]) == ([], False)
    assert list(store.published()) == [1, 2]


def test_version_that_refuses_a_sample_is_withdrawn(
    recorded: Host, run: Callable[..., dict[str, Any]], serving: StubServer
) -> None:
    recorded.publish("MLP", 2)
    serving.answer_status("MLP", (1, "AVAILABLE", *OK), (2, "AVAILABLE", *OK))
    serving.answer("/v1/models/MLP/versions/2:predict", {"error": "wrong shape"}, 400)
    entry = {"name": "MLP", "source": "s", "sample_requests": [{"instances": [1]}]}
    result = run(catalog=[entry])
    assert "a sample request of it is answered 400: wrong shape" in result["withdrawn"][0]["reason"]
    assert result["served"]


def test_model_that_never_served_leaves_the_file(
    recorded: Host, run: Callable[..., dict[str, Any]], serving: StubServer
) -> None:
    """The failed step has reported the refusal; the file that is restored does not have it."""
    store = recorded.publish("other", 1)
    config = recorded.etc / "models.config"
    before = config.read_text()
    refused = {"model": "other", "version": 1, "path": str(store.path), "reason": "END"}
    result = run(refused=[refused])
    assert [one["model"] for one in result["withdrawn"]] == ["other"]
    assert config.read_text() == before


def test_refusal_does_not_count_where_settings_of_the_start_may_have_been_the_cause(
    recorded: Host, run: Callable[..., dict[str, Any]]
) -> None:
    store = recorded.publish("other", 1)
    refused = {"model": "other", "version": 1, "path": str(store.path), "reason": "END"}
    recorded.unit(more="# another\n")
    assert run(refused=[refused])["withdrawn"] == []
    assert run(refused=[refused], restart=True)["withdrawn"] == []


def test_first_installation_keeps_the_models_that_can_be_served(
    host: Host, run: Callable[..., dict[str, Any]], serving: StubServer
) -> None:
    host.publish("MLP", 1)
    store = host.publish("other", 1)
    host.unit()
    host.config("MLP", "other")
    serving.answer_status("MLP", (1, "AVAILABLE", *OK))
    serving.answer_status("other", (1, "END", *BROKEN))
    result = run()
    assert (list(withdrawn(store)), result["served"]) == ([1], True)
    assert "other" not in (host.etc / "models.config").read_text()


def test_server_that_does_not_serve_with_files_that_have_served_is_freed_of_what_is_new(
    recorded: Host, run: Callable[..., dict[str, Any]], serving: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of why, so that any version that none has served may be the cause."""
    store = recorded.publish("MLP", 2)
    wait, port = rollback.wait_until_served, unused_port()

    def silent(client: Any, unit: Any, expected: dict[str, list[int]], *more: Any) -> None:
        if 2 in expected["MLP"]:
            raise serving_wait.NotServed(f"nothing listens on port {port}")
        wait(client, unit, expected, *more)

    monkeypatch.setattr(rollback, "wait_until_served", silent)
    result = run()
    assert (list(withdrawn(store)), result["served"]) == ([2], True)
    assert result["withdrawn"][0]["reason"] == "the server does not serve with it"


def test_version_is_not_to_blame_where_the_server_does_not_serve_without_it_either(
    recorded: Host, run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a drop-in of the user's that does not start."""
    store = recorded.publish("MLP", 2)
    recorded.publish("other", 1)
    before = recorded.config("MLP", "other").read_text()
    recorded_text = json.loads((recorded.etc / LAST_GOOD).read_text())

    def fail(*_: Any) -> None:
        raise serving_wait.NotServed("serving.service is failed, so nothing is served.")

    monkeypatch.setattr(rollback, "wait_until_served", fail)
    result = run()
    assert (result["withdrawn"], result["served"]) == ([], False)
    assert (list(store.published()), unproven(store), withdrawn(store)) == ([1, 2], [2], {})
    assert before != (recorded.etc / "models.config").read_text()
    assert json.loads((recorded.etc / LAST_GOOD).read_text()) == recorded_text


def test_servers_that_had_swapped_their_ports_stop_before_one_starts(
    recorded: Host, run: Callable[..., dict[str, Any]]
) -> None:
    (recorded.etc / "b").mkdir()
    recorded.unit("serving-b", recorded.etc / "b")
    recorded.config("MLP", directory=recorded.etc / "b")
    run("recorded")
    for name in ("serving", "serving-b"):
        (recorded.units / f"{name}.service").write_text((recorded.units / f"{name}.service").read_text() + "# x\n")
    recorded.invocation = "second"
    run()
    stopped = ["stop serving.service", "stop serving-b.service"]
    started = ["restart serving.service", "restart serving-b.service"]
    assert sorted(recorded.commands()[:2]) == sorted(stopped)
    assert sorted(recorded.commands()[2:]) == sorted(started)


def test_port_of_somebody_else_withdraws_nothing(
    recorded: Host, run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = recorded.publish("MLP", 2)

    def foreign(port: int, _: str) -> None:
        raise ForeignListener(f"port {port} is held by pid 7, x")

    monkeypatch.setattr(rest, "check_port", foreign)
    result = run()
    assert (result["withdrawn"], result["served"]) == ([], False)
    assert "is held by pid 7, x, not by serving.service alone" in result["message"]
    assert unproven(store) == [2]
    assert recorded.commands() == []


def test_model_whose_directory_was_taken_away_does_not_come_back(
    recorded: Host, run: Callable[..., dict[str, Any]], serving: StubServer
) -> None:
    """With it the server would open no port after a reboot."""
    recorded.publish("gone", 1)
    recorded.config("MLP", "gone")
    serving.answer_status("gone", (1, "AVAILABLE", *OK))
    run("recorded")
    ModelStore(recorded.models / "gone").path.rename(recorded.models / "elsewhere")
    run()
    text = (recorded.etc / "models.config").read_text()
    assert '"MLP"' in text
    assert "gone" not in text

"""What a host notes of a rollout, and how it returns to what it served before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import NginxError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle import model_rollback as rollback
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    note_served,
    read_history,
    read_holds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.model_change import ModelChange
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout import host as rollout_host
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import read_record
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import expected_versions
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import read, render
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import NotServed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import withdrawn
from ansible_collections.modelops.tensorflow_serving.plugins.modules import model_rollback, model_rollout

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")

LATEST = {"latest": {"num_versions": 1}}
BOTH = {"specific": {"versions": [1, 2]}}


class Host:
    """A host with one server, which serves whatever its models.config says; tells are the files that it was told."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]]) -> None:
        self.base_path, self.config_path = root / "models", str(root / "config")
        self.file = Path(self.config_path, "models.config")
        self.file.parent.mkdir()
        self.store = ModelStore(self.base_path / "MLP")
        self.tells: list[dict[str, Any]] = []
        self.versions_at_each_tell: list[list[int]] = []
        self._run = run

    def bring(self, version: int, *, distributed: bool = False) -> None:
        manifest = json.dumps({"digest": f"d{version}", "stamp": "s", "files": {}})
        directory = self.store.distributed(version) if distributed else self.store.version(version)
        directory.mkdir(parents=True)
        (self.store.distributed_manifest if distributed else self.store.manifest)(version).write_text(manifest)

    def tell(self, policy: dict[str, Any], **labels: int) -> None:
        """Have a run before the rollout, or one of it, write this."""
        model = {"name": "MLP", "base_path": str(self.store.path), "model_platform": "tensorflow"}
        self.file.write_text(render({"MLP": {**model, "model_version_policy": policy, "version_labels": labels}}))
        note_served(self.config_path, [self.config_path])

    def rollout(self, state: str, **more: Any) -> dict[str, Any]:
        given = {"unit": "server", "config_path": self.config_path, "base_path": str(self.base_path), "group": "root"}
        check = more.pop("check", False)
        return self._run(model_rollout, check=check, state=state, **given, **({"catalog": []} | more))

    def begin(self, versions: list[int], **labels: int) -> None:
        self.rollout("begun", to={"MLP": {"versions": versions, "labels": labels, "unit": "server"}})

    def roll_out(self) -> None:
        """Begin a rollout to version 2, publish that and have it served."""
        self.begin([2])
        self.bring(2)
        self.tell(LATEST)

    def served(self) -> tuple[list[int], dict[str, int]]:
        models = read(self.file)[1] or {}
        return expected_versions(models)["MLP"], models["MLP"].get("version_labels", {})


@pytest.fixture
def host(tmp_path: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Host:
    """It serves the latest version, 1."""
    made = Host(tmp_path, run_module)
    for module in (rollout_host, rollback):
        monkeypatch.setattr(module, "family", lambda *_: {"server": made.config_path})

    def carry_out(change: ModelChange) -> None:
        change.file.write(render(change.after))
        made.tells.append(change.after["MLP"]["model_version_policy"])
        made.versions_at_each_tell.append(sorted(made.store.published()))

    monkeypatch.setattr(ModelChange, "__post_init__", lambda _: None)
    monkeypatch.setattr(ModelChange, "carry_out", carry_out)
    made.bring(1)
    made.tell(LATEST)
    return made


def test_record_has_what_was_served_and_is_not_written_again_by_a_later_run(host: Host) -> None:
    host.bring(2, distributed=True)
    host.begin([2])
    record = read_record(host.config_path)
    assert record is not None
    assert (record["phase"], record["new"]) == ("begun", {"MLP": [2]})
    assert record["served"] == {"MLP": {"versions": {"1": "d1"}, "labels": {}}}
    host.begin([3])
    assert read_record(host.config_path) == record
    assert Path(host.config_path, ".rollout.json").stat().st_mode & 0o777 == 0o600


def test_phases_are_noted_until_the_end(host: Host) -> None:
    host.begin([1])
    for state in ("changed", "passed", "paused", "failed"):
        host.rollout(state, failure="red" if state == "failed" else "")
        record = read_record(host.config_path)
        assert record is not None
        assert record["phase"] == state
    assert record["failure"] == "red"
    host.rollout("ended")
    assert read_record(host.config_path) is None
    assert "another run has ended it" in host.rollout("changed")["msg"]


def test_host_has_not_passed_while_it_serves_something_else(host: Host) -> None:
    host.begin([1], stable=1)
    result = host.rollout("passed")
    assert "does not serve what the catalogue asks for of MLP" in result["msg"]
    host.tell(LATEST, stable=1)
    assert "failed" not in host.rollout("passed")


def test_model_that_has_not_changed_is_not_held(host: Host) -> None:
    host.begin([1])
    host.rollout("returned", failure="red")
    assert read_holds(host.config_path) == {}
    assert host.tells == []


def test_model_whose_server_is_gone_is_not_called_returned(host: Host) -> None:
    host.begin([1], stable=1)
    record = json.loads(Path(host.config_path, ".rollout.json").read_text())
    record["before"]["server-old"] = record["before"].pop("server")
    Path(host.config_path, ".rollout.json").write_text(json.dumps(record))
    assert "server-old, which served models before, is not on the host any more" in host.rollout("returned")["msg"]
    assert host.tells == []


def test_new_version_is_withdrawn_when_nobody_is_told_to_serve_it_any_more(host: Host) -> None:
    host.roll_out()
    assert host.served() == ([2], {})
    result = host.rollout("returned", failure="h1: smoke")
    assert result["returned"] == [{"model": "MLP", "from": "2", "to": "1"}]
    assert host.tells == [{"specific": {"versions": [1]}}, LATEST]
    assert host.versions_at_each_tell == [[1, 2], [1]]
    assert host.served() == ([1], {})
    assert withdrawn(host.store)[2]["reason"] == "h1: smoke"
    assert (read_record(host.config_path), read_holds(host.config_path)) == (None, {})
    assert [list(entry["models"]["MLP"]["versions"]) for entry in read_history(host.config_path)] == [
        ["1"],
        ["2"],
        ["1"],
    ]
    assert host.rollout("returned")["returned"] == []


def test_host_that_was_not_reached_returns_without_a_word_to_its_server(host: Host) -> None:
    host.bring(2, distributed=True)
    host.begin([2])
    result = host.rollout("returned", failure="h1: smoke")
    assert (result["changed"], result["returned"]) == (False, [])
    assert host.tells == []
    assert list(withdrawn(host.store)) == [2]
    assert not host.store.distributed(2).exists()
    assert host.served() == ([1], {})


def test_label_that_was_moved_goes_back_and_is_held(host: Host) -> None:
    host.bring(2)
    host.tell(BOTH, stable=1)
    host.begin([1, 2], stable=2)
    host.tell(BOTH, stable=2)
    assert host.rollout("returned", check=True)["returned"][0]["to"] == "1, 2 (stable: 1)"
    assert host.served()[1] == {"stable": 2}
    host.rollout("returned", failure="h1: red")
    assert host.served() == ([1, 2], {"stable": 1})
    hold = read_holds(host.config_path)["MLP"]
    assert (hold["labels"], hold["instead_of"]) == ({"stable": 1}, {"versions": [1, 2], "labels": {"stable": 2}})
    assert withdrawn(host.store) == {}


def test_rollback_returns_an_unfinished_rollout_and_goes_no_further(host: Host) -> None:
    host.bring(2)
    host.tell(BOTH, stable=1)
    host.begin([1, 2], stable=2)
    given = {"unit": "server", "config_path": host.config_path, "base_path": str(host.base_path), "group": "root"}
    result = host._run(model_rollback, **given, catalog=[{"name": "MLP", "source": "x"}])
    assert (result["changed"], result["rolled_back"]) == (False, [])
    assert host.served() == ([1, 2], {"stable": 1})
    assert read_record(host.config_path) is None
    assert "MLP" in read_holds(host.config_path)


def test_host_that_does_not_return_keeps_its_record(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.roll_out()

    def refuse(_: ModelChange) -> None:
        raise NotServed("it is stuck")

    monkeypatch.setattr(ModelChange, "carry_out", refuse)
    result = host.rollout("returned", failure="red")
    assert result["failed"]
    assert "server.service does not serve what it served before: it is stuck" in result["msg"]
    assert read_record(host.config_path) is not None
    assert host.store.published().keys() == {1, 2}


def test_plan_has_what_changes_and_what_leaves_the_catalogue_and_a_later_run_knows_it_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished rollout is compared with what was served before it, so that its gates are not left out."""
    asked = {"CNN": {"versions": [1], "labels": {}, "unit": "server"}}
    monkeypatch.setattr(rollout_host, "_asked", lambda *_: dict(asked))
    monkeypatch.setattr(rollout_host, "_problems", lambda *_: [])
    planned = host.rollout("planned")
    assert [(one["model"], one["from"], one["to"]) for one in planned["changes"]] == [
        ("CNN", "none", "1"),
        ("MLP", "1", "none"),
    ]
    host.rollout("begun", to=planned["to"])
    host.file.write_text("")
    again = host.rollout("planned")
    assert (again["is_same"], again["changes"]) == (True, planned["changes"])
    asked["CNN"] = {"versions": [2], "labels": {}, "unit": "server"}
    assert host.rollout("planned")["is_same"] is False
    host.rollout("returned", failure="red")
    assert host.served() == ([1], {})


def test_step_that_was_cut_is_ended_before_the_servers_return(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.roll_out()

    def refuse(_: Any) -> None:
        raise NginxError("emerg")

    monkeypatch.setattr(rollout_host, "remove", refuse)
    result = host.rollout("returned", failure="red")
    assert result["failed"]
    assert result["msg"] == "nginx does not forget what the rollout has tried: emerg"
    assert (host.tells, read_record(host.config_path) is None) == ([], False)
    ended: list[list[int]] = []
    monkeypatch.setattr(rollout_host, "remove", lambda _: ended.append(host.served()[0]))
    assert not host.rollout("returned", failure="red").get("failed")
    assert (ended, host.served()[0]) == ([[2]], [1])


@pytest.mark.parametrize(
    ("traffic", "changing", "can", "problems"),
    [(True, {"MLP"}, True, 0), (True, {"MLP"}, False, 1), (True, set(), False, 0), (False, {"MLP"}, False, 0)],
)
def test_gateway_that_cannot_take_steps_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, traffic: bool, changing: set[str], can: bool, problems: int
) -> None:
    monkeypatch.setattr(rollout_host, "family", lambda *_: {})
    monkeypatch.setattr(rollout_host, "can_try", lambda: can)
    params = {"traffic": traffic, "catalog": [], "unit": "server", "config_path": "/nowhere"}
    found = rollout_host._problems(None, params, changing)  # type: ignore[arg-type]
    assert ["its gateway is not there" in one for one in found] == [True] * problems

"""What a host has served, and what of it a rollback holds until the catalogue asks for something else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle import model_rollback as planned
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    MOST_ENTRIES,
    changes,
    earlier,
    end_holds,
    held_model,
    hold_of,
    mark_holds,
    needed_versions,
    note_served,
    read_history,
    read_holds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import catalog_models
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import read, render
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import NotServed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import withdraw
from ansible_collections.modelops.tensorflow_serving.plugins.modules import model_rollback

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")

CATALOG = [{"name": "MLP", "source": "x"}, {"name": "CNN", "source": "y"}]


class Host:
    """A host's models and the configuration of its one server, which serves whatever its models.config says."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]]) -> None:
        self.base_path, self.config_path = root / "models", str(root / "config")
        self.file = Path(self.config_path, "models.config")
        self.file.parent.mkdir()
        self._run = run

    def publish(self, model: str, *versions: int, digest: str = "d") -> None:
        for version in versions:
            store = ModelStore(self.base_path / model)
            store.version(version).mkdir(parents=True, exist_ok=True)
            manifest = {"digest": f"{digest}{version}", "stamp": "s", "files": {}}
            store.manifest(version).write_text(json.dumps(manifest))

    def write(self, catalog: list[dict[str, Any]]) -> None:
        """Have what the catalogue asks for, or what is held, in models.config, as a run does before it is proved."""
        published = {entry["name"]: sorted(ModelStore(self.base_path / entry["name"]).published()) for entry in catalog}
        models, problems = catalog_models(catalog, self.base_path, published)
        assert not problems
        holds = read_holds(self.config_path)
        found = {model["name"]: hold_of(holds, model, published[model["name"]]) for model in models}
        mark_holds(self.config_path, [name for name, hold in found.items() if hold])
        made = {model["name"]: model for model in models}
        made.update({name: held_model(made[name], hold) for name, hold in found.items() if hold})
        self.file.write_text(render(made))

    def serve(self, catalog: list[dict[str, Any]] | None = None) -> dict[str, str]:
        """Do what a run does that succeeds; returns the policy of each model."""
        self.write(catalog or CATALOG)
        end_holds(self.config_path)
        note_served(self.config_path, [self.config_path])
        return self.served()

    def served(self) -> dict[str, str]:
        """Return what is served of each model, as the history has it last."""
        last = read_history(self.config_path)[-1]["models"]
        return {name: ", ".join(sorted(state["versions"])) for name, state in last.items()}

    def labels(self) -> dict[str, int]:
        models = read(self.file)[1]
        assert models is not None
        found: dict[str, int] = models["MLP"].get("version_labels", {})
        return found

    def roll_back(self, *only: str, check: bool = False, **more: Any) -> dict[str, Any]:
        given = {"unit": "server", "config_path": self.config_path, "base_path": str(self.base_path), "group": "root"}
        given |= {"catalog": CATALOG, "models": list(only)}
        return self._run(model_rollback, check=check, **(given | more))


@pytest.fixture
def host(tmp_path: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Host:
    """It has served version 1 of both models, and serves version 2 of both."""
    made = Host(tmp_path, run_module)
    monkeypatch.setattr(planned, "family", lambda *_: {"server": made.config_path})
    server = planned.ModelChange
    monkeypatch.setattr(server, "__post_init__", lambda _: None)
    monkeypatch.setattr(server, "carry_out", lambda self: self.file.write(render(self.after)))
    monkeypatch.setattr(server, "put_back", lambda self: self.file.write(self.text))
    for version in (1, 2):
        made.publish("MLP", version)
        made.publish("CNN", version)
        made.serve()
    return made


def needed(host: Host, name: str) -> set[int]:
    return needed_versions(read_history(host.config_path), read_holds(host.config_path), name)


def told(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["model"], one["from"], one["to"]) for one in result["rolled_back"]]


def test_entry_is_added_where_something_else_is_served(host: Host) -> None:
    host.serve()
    history = read_history(host.config_path)
    assert [entry["models"]["MLP"] for entry in history] == [
        {"versions": {"1": "d1"}, "labels": {}},
        {"versions": {"2": "d2"}, "labels": {}},
    ]
    host.serve([{"name": "MLP", "source": "x", "version_labels": {"stable": 2}}, CATALOG[1]])
    found = changes(read_history(host.config_path), 3)
    assert [(one["model"], one["from"], one["to"]) for one in found] == [
        ("MLP", "2", "2 (stable: 2)"),
        ("MLP", "1", "2"),
        ("CNN", "1", "2"),
    ]


def test_history_keeps_the_last_entries_and_what_a_model_goes_back_to_for_root_alone(host: Host) -> None:
    for version in range(3, MOST_ENTRIES + 5):
        host.publish("MLP", version)
        host.serve()
    history = read_history(host.config_path)
    assert len(history) == MOST_ENTRIES
    assert list(history[-1]["models"]["MLP"]["versions"]) == [str(MOST_ENTRIES + 4)]
    assert needed(host, "CNN") == {1, 2}
    assert Path(host.config_path, ".history.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "{}", "null"])
def test_history_that_cannot_be_read_counts_as_none(host: Host, content: str) -> None:
    Path(host.config_path, ".history.json").write_text(content)
    assert read_history(host.config_path) == []
    assert not host.roll_back()["changed"]
    host.serve()
    assert len(read_history(host.config_path)) == 1


def test_model_stays_until_the_catalogue_asks_for_something_else(host: Host) -> None:
    result = host.roll_back("MLP")
    assert told(result) == [("MLP", "2", "1")]
    entry = {"name": "MLP", "model_version_policy": {"specific": {"versions": [1]}}}
    assert json.loads(result["rolled_back"][0]["catalog_entry"]) == entry
    assert host.served() == {"MLP": "1", "CNN": "2"}
    assert host.serve() == {"MLP": "1", "CNN": "2"}
    host.publish("CNN", 3)
    assert host.serve() == {"MLP": "1", "CNN": "3"}
    host.publish("MLP", 3)
    assert host.serve() == {"MLP": "3", "CNN": "3"}
    assert read_holds(host.config_path) == {}


def test_run_that_fails_does_not_end_a_hold(host: Host) -> None:
    host.roll_back("MLP")
    host.publish("MLP", 3)
    host.write(CATALOG)
    assert read_holds(host.config_path)["MLP"]["is_over"]
    (host.base_path / "MLP/3").rmdir()  # the server has refused it
    assert host.serve()["MLP"] == "1"


def test_label_that_moves_in_the_catalogue_ends_a_hold(host: Host) -> None:
    def labelled(version: int, **more: int) -> list[dict[str, Any]]:
        both = {"model_version_policy": {"specific": {"versions": [1, 2]}}}
        return [{"name": "MLP", "source": "x", "version_labels": {"stable": version, **more}, **both}, CATALOG[1]]

    host.serve(labelled(1))
    host.serve(labelled(2))
    result = host.roll_back("MLP", catalog=labelled(2))
    assert told(result) == [("MLP", "1, 2 (stable: 2)", "1, 2 (stable: 1)")]
    assert json.loads(result["rolled_back"][0]["catalog_entry"])["version_labels"] == {"stable": 1}
    host.serve(labelled(2))
    assert host.labels() == {"stable": 1}
    host.serve(labelled(2, canary=2))
    assert host.labels() == {"stable": 2, "canary": 2}


def test_entry_says_to_drop_labels_that_were_not_there(host: Host) -> None:
    catalog = [{"name": "MLP", "source": "x", "version_labels": {"stable": 2}}, CATALOG[1]]
    host.serve(catalog)
    result = host.roll_back("MLP", catalog=catalog)
    assert json.loads(result["rolled_back"][0]["catalog_entry"])["version_labels"] == {}


def test_nothing_but_the_models_changes_whatever_the_catalogue_says_of_others(host: Host) -> None:
    before = read(host.file)[1]
    entries = [{"name": "CNN", "source": "y", "model_version_policy": {"specific": {"versions": [1, 7]}}}]
    host.roll_back("MLP", catalog=[CATALOG[0], *entries, {"name": "NEW", "source": "z"}])
    after = read(host.file)[1]
    assert before is not None
    assert after is not None
    assert after["CNN"] == before["CNN"]
    assert after.keys() == before.keys()
    assert after["MLP"]["model_version_policy"] == {"specific": {"versions": [1]}}


def test_hold_whose_version_is_gone_counts_for_nothing(host: Host) -> None:
    host.roll_back("MLP")
    (host.base_path / "MLP/1").rmdir()
    assert host.serve()["MLP"] == "2"


def test_another_rollback_goes_further_back(host: Host) -> None:
    host.publish("MLP", 3)
    host.serve()
    for version in ("2", "1"):
        host.roll_back("MLP")
        assert host.served()["MLP"] == version
    assert "nothing else was served of MLP before" in host.roll_back("MLP")["msg"]


def test_version_that_a_server_has_loaded_by_itself_is_what_is_rolled_back_from(host: Host) -> None:
    host.publish("MLP", 3)  # as with --tags models
    assert told(host.roll_back("MLP")) == [("MLP", "3", "2")]


def test_rollback_that_was_killed_is_finished_by_the_next(host: Host) -> None:
    host.publish("MLP", 3)
    host.serve()
    noted = Path(host.config_path, ".history.json").read_text()
    host.roll_back("MLP")
    history = json.loads(noted)  # as it is when the server has taken the file, and nothing is noted yet
    history[-1]["rejected"] = ["MLP"]
    Path(host.config_path, ".history.json").write_text(json.dumps(history))
    assert told(host.roll_back("MLP")) == [("MLP", "3", "2")]
    assert host.served()["MLP"] == "2"
    assert told(host.roll_back("MLP")) == [("MLP", "2", "1")]


def test_rollback_that_was_killed_before_it_held_anything_is_forgotten(host: Host) -> None:
    path = Path(host.config_path, ".history.json")
    history = json.loads(path.read_text())
    history[-1]["rejected"] = ["MLP"]
    path.write_text(json.dumps(history))
    host.serve()
    host.publish("MLP", 3)
    host.serve()
    assert told(host.roll_back("MLP")) == [("MLP", "3", "2")]


def test_version_that_was_withdrawn_meanwhile_is_passed_over(host: Host) -> None:
    host.publish("MLP", 3)
    host.serve()
    store = ModelStore(host.base_path / "MLP")
    withdraw(store, 2, "x")
    assert told(host.roll_back("MLP")) == [("MLP", "3", "1")]


def test_names_of_no_model_are_an_error(host: Host) -> None:
    assert "tfserving_models_catalog has no model MPL" in host.roll_back("MPL")["msg"]


def test_what_was_rolled_back_from_counts_again_once_it_is_served_again(host: Host) -> None:
    host.roll_back("MLP")
    assert earlier(read_history(host.config_path), "MLP") == []
    Path(host.config_path, ".rolled-back.json").unlink()  # as with tfserving_rollout_override
    assert host.serve()["MLP"] == "2"
    host.publish("MLP", 3)
    host.serve()
    assert [*earlier(read_history(host.config_path), "MLP")[0]["versions"]] == ["2"]


def test_all_models_that_were_served_otherwise_go_back_by_default(host: Host) -> None:
    host.publish("NEW", 1)
    catalog = [*CATALOG, {"name": "NEW", "source": "z"}]
    host.serve(catalog)
    assert told(host.roll_back(catalog=catalog)) == [("MLP", "2", "1"), ("CNN", "2", "1")]
    assert host.served() == {"MLP": "1", "CNN": "1", "NEW": "1"}


def test_model_that_was_gone_for_a_while_is_new_again(host: Host) -> None:
    host.serve([CATALOG[1]])
    assert told(host.roll_back()) == [("CNN", "2", "1")]
    host.serve()
    assert told(host.roll_back("MLP")) == [("MLP", "2", "1")]


def test_all_that_cannot_be_rolled_back_is_said_at_once_and_nothing_is_changed(host: Host) -> None:
    (host.base_path / "MLP/1").rmdir()
    host.publish("CNN", 1, digest="other")
    result = host.roll_back("MLP", "CNN")
    for words in (
        "version 1 of MLP, which was served before, is not on the host any more",
        "version 1 of CNN has other files than when it was served before",
    ):
        assert words in result["msg"]
    assert read_holds(host.config_path) == {}


def test_one_model_that_cannot_go_back_does_not_keep_others_from_it(host: Host) -> None:
    (host.base_path / "MLP/1").rmdir()
    assert told(host.roll_back()) == [("CNN", "2", "1")]


def test_check_mode_says_the_same_and_changes_nothing(host: Host) -> None:
    before = {path: path.read_bytes() for path in Path(host.config_path).iterdir()}
    checked = host.roll_back(check=True)
    assert {path: path.read_bytes() for path in Path(host.config_path).iterdir()} == before
    assert checked["rolled_back"] == host.roll_back()["rolled_back"]


def test_server_that_does_not_serve_it_leaves_everything_as_it_was(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.publish("MLP", 3)
    host.serve()
    host.roll_back("MLP")
    before = {path: path.read_bytes() for path in Path(host.config_path).iterdir()}

    def refuse(self: Any) -> None:
        self.file.write(render(self.after))
        raise NotServed("version 1 is END")

    monkeypatch.setattr(planned.ModelChange, "carry_out", refuse)
    assert "does not serve it: version 1 is END" in host.roll_back("MLP")["msg"]
    assert {path: path.read_bytes() for path in Path(host.config_path).iterdir()} == before


def test_pruning_spares_what_is_held_and_what_a_rollback_would_serve(host: Host) -> None:
    host.publish("MLP", 3)
    host.serve()
    assert needed(host, "MLP") == {2, 3}
    host.publish("MLP", 4)  # which a server may have loaded by itself
    assert told(host.roll_back("MLP", check=True)) == [("MLP", "4", "3")]
    host.roll_back("MLP")
    assert needed(host, "MLP") == {2, 3}
    assert needed(host, "other") == set()

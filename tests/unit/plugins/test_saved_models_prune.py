"""Versions that nobody uses any more go, and nothing else; a run that is stopped anywhere is finished by the next."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from saved_model_files import make_saved_model
from saved_model_publishing import publish
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils import saved_model_store, user_tree
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.room import readable
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    add_digests,
    list_files,
    total_bytes,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model_store import (
    ModelStore,
    stage,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import saved_models_prune

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")

Prune = Callable[..., dict[str, Any]]

LOGIN, GROUP = 1000, 1


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def store(base_path: Path) -> ModelStore:
    return ModelStore(base_path / "MLP")


@pytest.fixture
def prune(
    run_module: Callable[..., dict[str, Any]], base_path: Path, serving: StubServer, monkeypatch: pytest.MonkeyPatch
) -> Prune:
    """Run the module for model MLP, of which one version is kept, with a server that knows no model.

    Its warnings are returned by themselves, as Ansible adds up those of all modules of a process.
    """
    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: said.append(text))

    def run(check: bool = False, **arguments: Any) -> dict[str, Any]:
        settings = {
            "catalog": [{"name": "MLP", "source": "models/mlp"}],
            "base_path": str(base_path),
            "rest_api_port": serving.port,
            "timeout_seconds": 0,
            "keep": 1,
        }
        said.clear()
        return {**run_module(saved_models_prune, check, **settings | arguments), "warnings": list(said)}

    return run


def publish_version(store: ModelStore, version: int, weights: bytes | None = None) -> None:
    """Publish a version as the modules do. What it shares with published ones becomes hard links, as there."""
    source = make_saved_model(
        store.path.parent.parent / "sources" / store.path.name / str(version), weights=weights or b"w" * version
    )
    files = add_digests(source, list_files(source))
    names = saved_model_store.plan_staging(store, version, files).names
    stage(store, version, names, LOGIN, GROUP)
    for name in names:
        (store.staging(version) / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, store.staging(version) / name)
    assert publish(store, version, files, GROUP, {"source_digest": None, "signatures": {}}) == []


def put_by_hand(store: ModelStore, version: int) -> None:
    make_saved_model(store.path / str(version))


def names(store: ModelStore) -> list[str]:
    return sorted(path.name for path in store.path.iterdir()) if store.path.exists() else []


def published_names(*versions: int) -> list[str]:
    return sorted([f".manifest-{version}.json" for version in versions] + [str(version) for version in versions])


def removed(result: dict[str, Any]) -> list[tuple[str, int]]:
    assert "msg" not in result, result
    assert result["changed"] is bool(result["removed"])
    return [(one["model"], one["version"]) for one in result["removed"]]


def warnings(result: dict[str, Any]) -> str:
    """Return all warnings of a result as one text."""
    return "\n".join(result["warnings"])


# What stays


def test_newest_versions_stay_and_the_second_run_changes_nothing(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2, 10):
        publish_version(store, version)
    assert removed(prune(keep=2)) == [("MLP", 1)]
    assert names(store) == published_names(2, 10)
    second = prune(keep=2)
    assert (removed(second), second["freed_bytes"], second["cleaned"], warnings(second)) == ([], 0, [], "")


def test_every_version_stays_without_keep(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2, 3):
        publish_version(store, version)
    assert removed(prune(keep=None)) == []


def test_keep_of_the_entry_counts_before_that_of_the_role(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2, 3):
        publish_version(store, version)
    assert removed(prune(catalog=[{"name": "MLP", "source": "m", "keep": 2}])) == [("MLP", 1)]


def test_keep_below_one_is_refused(store: ModelStore, prune: Prune) -> None:
    publish_version(store, 1)
    assert "keep is 0" in prune(keep=0)["msg"]
    assert names(store) == published_names(1)


def test_versions_of_policy_and_labels_stay(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2, 3, 4):
        publish_version(store, version)
    entry = {
        "name": "MLP",
        "source": "m",
        "model_version_policy": {"specific": {"versions": [2]}},
        "version_labels": {"stable": "1"},
    }
    assert removed(prune(catalog=[entry])) == [("MLP", 3)]


def test_version_put_there_by_hand_stays_and_counts(store: ModelStore, prune: Prune) -> None:
    publish_version(store, 1)
    put_by_hand(store, 2)
    result = prune()
    assert removed(result) == [("MLP", 1)]
    assert warnings(result) == ""
    publish_version(store, 3)
    result = prune()
    assert removed(result) == []
    assert "version 2 would be removed, but was not published by this collection" in warnings(result)


def test_absent_base_path_has_nothing_to_prune(prune: Prune) -> None:
    assert removed(prune(purge=True)) == []


# What the server uses


@pytest.mark.parametrize("state", ["START", "LOADING", "AVAILABLE", "UNLOADING"])
def test_version_in_use_stays_with_a_warning(store: ModelStore, prune: Prune, serving: StubServer, state: str) -> None:
    for version in (1, 2, 3):
        publish_version(store, version)
    serving.answer_status("MLP", (1, "END", "OK", ""), (2, state, "OK", ""), (3, "AVAILABLE", "OK", ""))
    for check in (True, False):
        result = prune(check)
        assert removed(result) == [("MLP", 1)]
        assert f"MLP/2 stays, as it is {state} in the running server" in warnings(result)
    assert names(store) == published_names(2, 3)


def test_version_that_is_unloaded_meanwhile_goes(store: ModelStore, prune: Prune, serving: StubServer) -> None:
    for version in (1, 2):
        publish_version(store, version)
    serving.answer_status("MLP", (1, "UNLOADING", "OK", ""), (2, "AVAILABLE", "OK", ""))

    def unload() -> None:
        while not serving.requests:
            time.sleep(0.01)
        serving.answer_status("MLP", (1, "END", "OK", ""), (2, "AVAILABLE", "OK", ""))

    unloading = threading.Thread(target=unload)
    unloading.start()
    result = prune(timeout_seconds=30)
    unloading.join()
    assert (removed(result), warnings(result)) == ([("MLP", 1)], "")
    assert len(serving.requests) == 2


def test_server_is_not_asked_without_need(store: ModelStore, prune: Prune, serving: StubServer) -> None:
    publish_version(store, 1)
    prune()
    assert serving.requests == []


def test_nothing_is_removed_where_nothing_answers(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2):
        publish_version(store, version)
    result = prune(rest_api_port=unused_port(), timeout_seconds=30)
    assert removed(result) == []
    assert "does not say which it uses: [Errno 111] Connection refused. Start the server" in warnings(result)
    assert names(store) == published_names(1, 2)


def test_nothing_at_all_is_removed_where_the_server_errs_about_one_model(
    store: ModelStore, base_path: Path, prune: Prune, serving: StubServer
) -> None:
    for model in ("MLP", "CNN"):
        for version in (1, 2):
            publish_version(ModelStore(base_path / model), version)
    serving.answer("/v1/models/CNN", {"error": "out of memory"}, 500)
    result = prune(catalog=[{"name": "MLP", "source": "m"}, {"name": "CNN", "source": "c"}])
    assert removed(result) == []
    assert "out of memory" in warnings(result)


# Check mode


def test_check_mode_says_what_would_go_and_changes_nothing(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2):
        publish_version(store, version)
    (store.path / ".removed-1").mkdir()
    before = names(store)
    predicted = prune(check=True)
    assert removed(predicted) == [("MLP", 1)]
    assert names(store) == before
    done = prune()
    assert {key: predicted[key] for key in ("removed", "freed_bytes", "cleaned")} == {
        key: done[key] for key in ("removed", "freed_bytes", "cleaned")
    }


def test_check_mode_counts_pending_versions_and_not_what_is_served_until_then(
    store: ModelStore, base_path: Path, prune: Prune, serving: StubServer
) -> None:
    gone = ModelStore(base_path / "gone")
    publish_version(store, 1)
    publish_version(gone, 1)
    for model in ("MLP", "gone"):
        serving.answer_status(model, (1, "AVAILABLE", "OK", ""))
    pending = [{"model": "MLP", "version": 2, "bytes": 5}]
    assert removed(prune(check=True, pending=pending, purge=True)) == [("MLP", 1), ("gone", 1)]
    assert removed(prune(check=True, purge=True)) == []
    assert removed(prune(pending=[], purge=True)) == []


def test_diff_shows_versions_with_their_sizes(store: ModelStore, base_path: Path, prune: Prune) -> None:
    publish_version(store, 1, b"a" * 1000)
    publish_version(store, 2, b"b" * 2000)
    gone = ModelStore(base_path / "gone")
    publish_version(gone, 7)
    versions = {"MLP/1": store.version(1), "MLP/2": store.version(2), "gone/7": gone.version(7)}
    lines = [f"{name}  {readable(total_bytes(list_files(path)))}\n" for name, path in versions.items()]
    diff = prune(_ansible_diff=True, purge=True)["diff"]
    assert (diff["before"], diff["after"]) == ("".join(lines), lines[1])
    assert len(set(lines)) == 3


# What is given back


def test_files_that_a_version_shares_with_one_that_stays_give_nothing_back(store: ModelStore, prune: Prune) -> None:
    publish_version(store, 1, b"s" * 300)
    publish_version(store, 2, b"o" * 300)
    publish_version(store, 3, b"s" * 300)
    result = prune()
    assert [one["bytes"] for one in result["removed"]] == [0, 300]
    assert result["freed_bytes"] == 300


def test_files_that_only_removed_versions_share_are_given_back_once(
    store: ModelStore, base_path: Path, prune: Prune
) -> None:
    publish_version(store, 1, b"shared")
    publish_version(store, 2, b"shared")
    size = total_bytes(list_files(store.version(2)))
    result = prune(catalog=[{"name": "other", "source": "m"}], purge=True)
    assert [one["bytes"] for one in result["removed"]] == [0, size]


# Models that left the catalogue


def test_model_that_left_the_catalogue_stays_without_purge(base_path: Path, prune: Prune) -> None:
    gone = ModelStore(base_path / "gone")
    publish_version(gone, 1)
    (gone.path / ".staging-2").mkdir()
    before = names(gone)
    result = prune()
    assert (removed(result), result["cleaned"], warnings(result)) == ([], [], "")
    assert names(gone) == before


def test_purge_removes_a_model_that_left_the_catalogue(store: ModelStore, base_path: Path, prune: Prune) -> None:
    gone = ModelStore(base_path / "gone")
    publish_version(store, 1)
    publish_version(gone, 1)
    publish_version(gone, 2)
    (gone.path / ".staging-3").mkdir()
    result = prune(purge=True)
    assert removed(result) == [("gone", 1), ("gone", 2)]
    assert result["cleaned"] == ["gone/.staging-3", "gone"]
    assert [path.name for path in base_path.iterdir()] == ["MLP"]
    assert removed(prune(purge=True)) == []


def test_purge_leaves_what_the_server_still_serves(base_path: Path, prune: Prune, serving: StubServer) -> None:
    gone = ModelStore(base_path / "gone")
    publish_version(gone, 1)
    publish_version(gone, 2)
    serving.answer_status("gone", (1, "END", "OK", ""), (2, "AVAILABLE", "OK", ""))
    result = prune(purge=True)
    assert removed(result) == [("gone", 1)]
    assert names(gone) == published_names(2)
    assert warnings(result) == (
        "gone/2 stays, as it is AVAILABLE in the running server; playbooks/serving.yml takes it out of models.config"
    )


def test_purge_leaves_a_model_that_the_server_is_told_to_serve(base_path: Path, prune: Prune, tmp_path: Path) -> None:
    """None of its versions can be loaded, so the server uses none; but it polls nothing more without its base path."""
    gone = ModelStore(base_path / "gone")
    publish_version(gone, 1)
    config = tmp_path / "models.config"
    config.write_text(f'model_config_list {{ config {{ name: "gone" base_path: "{gone.path}" }} }}')
    result = prune(purge=True, models_config=str(config))
    assert (removed(result), result["cleaned"]) == ([], [])
    assert warnings(result) == f"gone stays, as it is in {config}; playbooks/serving.yml takes it out there"
    assert removed(prune(purge=True, models_config=str(config), check=True, pending=[])) == [("gone", 1)]
    config.write_text("model_config_list {}")
    assert removed(prune(purge=True, models_config=str(config))) == [("gone", 1)]


def test_way_back_stays_while_the_server_has_nothing_else(store: ModelStore, prune: Prune, serving: StubServer) -> None:
    publish_version(store, 1)
    publish_version(store, 2)
    serving.answer_status("MLP", (2, "END", "INTERNAL", "cannot be loaded"))
    result = prune()
    assert removed(result) == []
    assert "MLP/1 stays, as it is a way back while no version is AVAILABLE in the running server" in warnings(result)


def test_purge_leaves_what_others_put_there(base_path: Path, prune: Prune) -> None:
    gone, foreign = ModelStore(base_path / "gone"), ModelStore(base_path / "foreign")
    publish_version(gone, 1)
    put_by_hand(gone, 2)
    (gone.path / "notes.txt").touch()
    put_by_hand(foreign, 1)
    (base_path / "link").symlink_to(gone.path)
    (base_path / "lost+found").mkdir(mode=0o700)
    result = prune(purge=True)
    assert removed(result) == [("gone", 1)]
    assert names(gone) == ["2", "notes.txt"]
    assert names(foreign) == ["1"]
    assert (base_path / "lost+found").exists()
    assert "holds what this collection did not put there: 2, notes.txt" in warnings(result)


# What interrupted runs left


@pytest.mark.parametrize(
    "name",
    [
        ".removed-1",
        ".staging-1",
        ".incoming-1",
        ".basis-1",
        ".staging-1.download",
        ".staging-1.progress",
        ".basis-2",
        ".staging-2",
    ],
)
def test_leftover_of_no_use_is_deleted_silently(store: ModelStore, prune: Prune, name: str) -> None:
    publish_version(store, 2)
    if name.endswith("s-1") or not name.endswith(("download", "progress")):
        (store.path / name / "variables").mkdir(parents=True)
    else:
        (store.path / name).touch()
    for check in (True, False):
        result = prune(check)
        assert (removed(result), result["cleaned"], warnings(result)) == ([], [f"MLP/{name}"], "")
    assert names(store) == published_names(2)


@pytest.mark.parametrize("keep", [1, None])
def test_version_that_is_being_transferred_is_left_alone(store: ModelStore, prune: Prune, keep: int | None) -> None:
    publish_version(store, 2)
    for name in (".staging-3", ".basis-3"):
        (store.path / name).mkdir()
    for name in (".staging-3.download", ".staging-3.progress", ".manifest-3.json"):
        (store.path / name).touch()
    before = names(store)
    result = prune(keep=keep)
    assert (removed(result), result["cleaned"]) == ([], [])
    assert names(store) == before


def test_staging_of_a_pending_version_is_not_a_leftover(store: ModelStore, prune: Prune) -> None:
    publish_version(store, 2)
    (store.path / ".staging-1").mkdir()
    assert prune(check=True, pending=[{"model": "MLP", "version": 1}])["cleaned"] == []


@pytest.mark.parametrize("name", [".manifest-1.json", ".manifest-3.json", ".manifest-3.new"])
def test_manifest_without_its_version_is_deleted(store: ModelStore, prune: Prune, name: str) -> None:
    publish_version(store, 2)
    (store.path / name).touch()
    assert prune()["cleaned"] == [f"MLP/{name}"]
    assert names(store) == published_names(2)


def test_other_names_with_a_dot_are_left_alone(store: ModelStore, prune: Prune) -> None:
    publish_version(store, 2)
    for name in (".removed-x", ".staging", ".snapshot", "removed-1"):
        (store.path / name).mkdir()
    assert prune()["cleaned"] == []


class Killed(BaseException):
    """What the module cannot catch, as a SIGKILL."""


@pytest.mark.parametrize("purge", [False, True])
def test_next_run_finishes_what_was_killed_anywhere(
    base_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch, purge: bool
) -> None:
    """Every system call that changes a directory is a place to be killed at."""
    calls = [
        (saved_model_store, "remove_tree"),
        (user_tree, "remove_tree"),
        (os, "rename"),
        (Path, "unlink"),
        (Path, "rmdir"),
    ]
    name = "gone" if purge else "MLP"
    expected = [] if purge else published_names(3)
    for steps in range(100):
        store = ModelStore(base_path / name)
        for version in (1, 2, 3):
            publish_version(store, version)
        (store.path / ".staging-2").mkdir()
        (store.path / ".manifest-0.json").touch()
        with monkeypatch.context() as patch:
            left = [steps]
            for owner, attribute in calls:
                patch.setattr(owner, attribute, killing(getattr(owner, attribute), left))
            try:
                prune(purge=purge)
                killed = False
            except Killed:
                killed = True
        whole = [store.version(version) for version in (1, 2, 3) if store.version(version).exists()]
        assert all((path / "variables" / "variables.index").exists() for path in whole)
        prune(purge=purge)
        assert names(store) == expected
        assert store.path.exists() is not purge
        shutil.rmtree(base_path.parent / "sources")
        shutil.rmtree(base_path)
        if not killed:
            break
    assert steps > 5


def killing(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """Return a function that does what call does, and is killed once as many of them have been done as left says."""

    def run(*arguments: Any, **options: Any) -> Any:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return call(*arguments, **options)

    return run


def test_failure_says_what_was_removed_before(store: ModelStore, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2, 3):
        publish_version(store, version)
    remove = saved_models_prune.remove

    def fail_at_2(store: ModelStore, version: int) -> None:
        if version == 2:
            raise OSError(5, "Input/output error")
        remove(store, version)

    monkeypatch.setattr(saved_models_prune, "remove", fail_at_2)
    result = prune()
    assert "Input/output error" in result["msg"]
    assert (result["changed"], [one["version"] for one in result["removed"]]) == (True, [1])

"""Versions that nobody uses any more go, and nothing else; a run that is stopped anywhere is finished by the next."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from saved_model_files import make_saved_model
from saved_model_publishing import publish
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import control_group
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle import prune as module_utils_prune
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    add_digests,
    list_files,
    total_bytes,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.host_servers import HostServer
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store import (
    store as model_store,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store import (
    user_tree,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import readable
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import plan_staging, stage
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import (
    prove,
    withdraw,
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
    """Run the module for model MLP, of which one version is kept, on a host with one server that knows no model.

    Its warnings are returned by themselves, as Ansible adds up those of all modules of a process. Whatever it does or
    says, the look at the host has seen that there is something for it.
    """
    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: said.append(text))

    def run(check: bool = False, servers: list[HostServer] | None = None, **arguments: Any) -> dict[str, Any]:
        found = [running(serving.port)] if servers is None else servers
        monkeypatch.setattr(saved_models_prune, "find_servers", lambda *_: found)
        settings = {
            "catalog": [{"name": "MLP", "source": "models/mlp"}],
            "base_path": str(base_path),
            "config_path": str(base_path.parent / "config"),
            "timeout_seconds": 0,
            "keep": 1,
        }
        plans = []
        with suppress(ValueError):
            plans = module_utils_prune.make_plans({"purge": False, **settings, **arguments})
        said.clear()
        result = {**run_module(saved_models_prune, check, **settings | arguments), "warnings": list(said)}
        assert any(plan.has_something for plan in plans) or not (result.get("changed") or said)
        return result

    return run


class Server(HostServer):
    """A server whose process is that of the tests: its REST port is in their control group."""

    port = 0

    @property
    def flags(self) -> dict[str, str]:
        return {"rest_api_port": str(self.port), "port": "0"}


def running(port: int, name: str = "serving.service", **facts: Any) -> HostServer:
    """Return a server that runs, with its REST port; facts are more of HostServer's."""
    made = type("Running", (Server,), {"port": port})
    server: HostServer = made(
        name, **{"is_ours": True, "pid": os.getpid(), "cgroup": control_group(os.getpid())} | facts
    )
    return server


def models_config(path: Path, *stores: ModelStore) -> Path:
    """Write a models.config with these models."""
    models = "".join(
        f'config {{ name: "{store.path.name}" base_path: "{store.path}" model_platform: "tensorflow" }} '
        for store in stores
    )
    path.write_text(f"model_config_list {{ {models}}}")
    return path


def publish_version(store: ModelStore, version: int, weights: bytes | None = None) -> None:
    """Publish a version as the modules do. What it shares with published ones becomes hard links, as there."""
    source = make_saved_model(
        store.path.parent.parent / "sources" / store.path.name / str(version), weights=weights or b"w" * version
    )
    files = add_digests(source, list_files(source))
    names = plan_staging(store, version, files).names
    stage(store, version, names, LOGIN, GROUP)
    for name in names:
        (store.staging(version) / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, store.staging(version) / name)
    assert publish(store, version, files, GROUP, {"source_digest": None, "signatures": {}}) == []
    prove(store, version)


def put_manually(store: ModelStore, version: int) -> None:
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


def test_version_put_there_manually_stays_and_counts(store: ModelStore, prune: Prune) -> None:
    publish_version(store, 1)
    put_manually(store, 2)
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
        assert f"MLP/2 stays, as it is {state} in serving.service" in warnings(result)
    assert names(store) == published_names(2, 3)


def test_version_that_is_unloaded_meanwhile_goes(
    store: ModelStore, prune: Prune, serving: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        publish_version(store, version)
    serving.answer_status("MLP", (1, "UNLOADING", "OK", ""), (2, "AVAILABLE", "OK", ""))

    def unload(_: float) -> None:
        serving.answer_status("MLP", (1, "END", "OK", ""), (2, "AVAILABLE", "OK", ""))

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=unload)
    monkeypatch.setattr(module_utils_prune, "time", clock)
    result = prune(timeout_seconds=30)
    assert (removed(result), warnings(result)) == ([("MLP", 1)], "")
    assert len(serving.requests) == 2


def test_servers_get_the_time_to_read_their_models_again(prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    def wait(_servers: Any, _plans: Any, timeout_seconds: float) -> module_utils_prune.Usage:
        waited.append(timeout_seconds)
        return module_utils_prune.Usage()

    monkeypatch.setattr(module_utils_prune, "wait_for_release", wait)
    often, seldom = running(8501), running(8511)
    monkeypatch.setattr(type(often), "flags", {"model_config_file_poll_wait_seconds": "2"})
    monkeypatch.setattr(type(seldom), "flags", {"model_config_file_poll_wait_seconds": "60"})
    prune(servers=[often, seldom], timeout_seconds=None)
    prune(servers=[], timeout_seconds=None)
    assert waited == [70, 10]


def test_server_is_not_asked_without_need(store: ModelStore, prune: Prune, serving: StubServer) -> None:
    publish_version(store, 1)
    prune()
    assert serving.requests == []


def test_nothing_is_removed_where_nothing_answers(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2):
        publish_version(store, version)
    port = unused_port()
    result = prune(servers=[running(port)], timeout_seconds=30)
    assert removed(result) == []
    assert f"does not say which it uses: nothing listens on port {port}. Start it" in warnings(result)
    assert names(store) == published_names(1, 2)


def test_nothing_of_a_model_is_removed_that_the_server_errs_about(
    store: ModelStore, base_path: Path, prune: Prune, serving: StubServer
) -> None:
    for model in ("MLP", "CNN"):
        for version in (1, 2):
            publish_version(ModelStore(base_path / model), version)
    serving.answer("/v1/models/CNN", {"error": "out of memory"}, 500)
    result = prune(catalog=[{"name": "MLP", "source": "m"}, {"name": "CNN", "source": "c"}])
    assert removed(result) == [("MLP", 1)]
    assert "No version of CNN is removed, as serving.service does not say which it uses: out of memory" in warnings(
        result
    )


def test_version_stays_that_the_second_server_uses(
    store: ModelStore, base_path: Path, prune: Prune, serving: StubServer
) -> None:
    """The first does not serve the model, and answers 404 for it, which says nothing of the second."""
    for version in (1, 2):
        publish_version(store, version)
    with StubServer() as second:
        second.answer_status("MLP", (1, "AVAILABLE", "OK", ""), (2, "END", "INTERNAL", "cannot be loaded"))
        both = [running(serving.port), running(second.port, "second.service")]
        for check in (True, False):
            result = prune(check, servers=both)
            assert removed(result) == []
            assert "MLP/1 stays, as it is AVAILABLE in second.service" in warnings(result)
        second.answer_status("MLP", (1, "END", "OK", ""), (2, "AVAILABLE", "OK", ""))
        assert removed(prune(servers=both)) == [("MLP", 1)]


def test_server_that_does_not_run_keeps_its_models_and_no_others(
    store: ModelStore, base_path: Path, prune: Prune, serving: StubServer, tmp_path: Path
) -> None:
    stores = {name: ModelStore(base_path / name) for name in ("MLP", "ranking", "fraud")}
    for one in stores.values():
        for version in (1, 2):
            publish_version(one, version)
    config = models_config(tmp_path / "models.config", stores["ranking"])
    down = HostServer("second.service", is_ours=True, configs=(config,), listed=frozenset(["fraud"]))
    catalog = [{"name": name, "source": "m"} for name in stores]
    result = prune(servers=[running(serving.port), down], catalog=catalog)
    assert removed(result) == [("MLP", 1)]
    assert (
        "No version of ranking, fraud is removed, as second.service does not say which it uses: it does not run"
        in warnings(result)
    )


def test_models_config_that_nobody_can_read_keeps_everything(store: ModelStore, prune: Prune, tmp_path: Path) -> None:
    for version in (1, 2):
        publish_version(store, version)
    config = tmp_path / "models.config"
    config.write_text("model_config_list {")
    assert removed(prune(servers=[HostServer("second.service", is_ours=True, configs=(config,))])) == []


def test_version_stays_that_the_server_is_told_to_serve_and_does_not_know_yet(
    store: ModelStore, prune: Prune, serving: StubServer, tmp_path: Path
) -> None:
    for version in (1, 2):
        publish_version(store, version)
    told = running(serving.port, configs=(models_config(tmp_path / "models.config", store),))
    result = prune(servers=[told])
    assert removed(result) == []
    assert "Could not find any versions of model MLP" in warnings(result)


def test_answer_of_somebody_else_on_the_port_counts_for_nothing(
    store: ModelStore, prune: Prune, serving: StubServer
) -> None:
    for version in (1, 2):
        publish_version(store, version)
    serving.answer_status("MLP", (1, "END", "OK", ""), (2, "AVAILABLE", "OK", ""))
    result = prune(servers=[running(serving.port, cgroup="/system.slice/serving.service")])
    assert removed(result) == []
    assert f"port {serving.port} is held by pid {os.getpid()}" in warnings(result)


def test_server_of_others_is_asked_for_the_models_that_it_has_from_here(
    store: ModelStore, base_path: Path, prune: Prune, serving: StubServer, tmp_path: Path
) -> None:
    """It may call a model by another name, and see its directory at another path."""
    for version in (1, 2):
        publish_version(store, version)
    (tmp_path / "mounted").symlink_to(base_path)
    config = tmp_path / "models.config"
    model = f'name: "digits" base_path: "{tmp_path}/mounted/MLP" model_platform: "tensorflow"'
    config.write_text(f"model_config_list {{ config {{ {model} }} }}")
    serving.answer_status("digits", (1, "AVAILABLE", "OK", ""))
    other = running(serving.port, "pid 7, tensorflow_model", is_ours=False, configs=(config,))
    for pending in (None, []):
        result = prune(True, servers=[other], pending=pending)
        assert removed(result) == []
        assert "MLP/1 stays, as it is AVAILABLE in pid 7, tensorflow_model" in warnings(result)
    # It may have been told so since it read the file; and where it is another's business it may say nothing at all.
    config.write_text("model_config_list { }")
    serving.answer_status("MLP", (1, "AVAILABLE", "OK", ""))
    assert removed(prune(servers=[other])) == []
    silent = running(unused_port(), "pid 8, tensorflow_model", is_ours=False, configs=(config,))
    result = prune(servers=[silent])
    assert (removed(result), warnings(result)) == ([("MLP", 1)], "")


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
        "gone/2 stays, as it is AVAILABLE in serving.service; playbooks/serving.yml removes it from models.config"
    )


def test_purge_leaves_a_model_that_any_models_config_names(
    base_path: Path, prune: Prune, serving: StubServer, tmp_path: Path
) -> None:
    """None of its versions can be loaded, so the server uses none; but it polls nothing more without its base path."""
    gone = ModelStore(base_path / "gone")
    publish_version(gone, 1)
    config = models_config(tmp_path / "models.config", gone)
    servers = [running(serving.port), HostServer("second.service", is_ours=True, configs=(config,))]
    result = prune(purge=True, servers=servers)
    assert (removed(result), result["cleaned"]) == ([], [])
    assert warnings(result) == f"gone stays, as it is in {config}; playbooks/serving.yml removes it there"
    assert removed(prune(purge=True, servers=servers, check=True, pending=[])) == [("gone", 1)]
    models_config(config)
    assert removed(prune(purge=True, servers=servers)) == [("gone", 1)]


def test_older_version_stays_while_the_server_has_nothing_else(
    store: ModelStore, prune: Prune, serving: StubServer
) -> None:
    publish_version(store, 1)
    publish_version(store, 2)
    serving.answer_status("MLP", (2, "END", "INTERNAL", "cannot be loaded"))
    result = prune()
    assert removed(result) == []
    assert "MLP/1 stays, as it may be needed by serving.service, which has no version of it AVAILABLE" in warnings(
        result
    )


def test_purge_leaves_what_others_put_there(base_path: Path, prune: Prune) -> None:
    gone, foreign = ModelStore(base_path / "gone"), ModelStore(base_path / "foreign")
    publish_version(gone, 1)
    put_manually(gone, 2)
    (gone.path / "notes.txt").touch()
    put_manually(foreign, 1)
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
        ".distributed-1",
        ".distributed-2",
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
    for name in (".staging-3", ".basis-3", ".distributed-4"):
        (store.path / name).mkdir()
    for name in (".staging-3.download", ".staging-3.progress", ".manifest-3.json", ".manifest-4.json"):
        (store.path / name).touch()
    before = names(store)
    result = prune(keep=keep)
    assert (removed(result), result["cleaned"]) == ([], [])
    assert names(store) == before


def test_staging_of_a_pending_version_is_not_a_leftover(store: ModelStore, prune: Prune) -> None:
    publish_version(store, 2)
    (store.path / ".staging-1").mkdir()
    assert prune(check=True, pending=[{"model": "MLP", "version": 1}])["cleaned"] == []


def test_withdrawn_version_goes_and_its_mark_stays_until_the_model_is_purged(
    base_path: Path, store: ModelStore, prune: Prune
) -> None:
    gone = ModelStore(base_path / "gone")
    for one in (store, gone):
        publish_version(one, 1)
        publish_version(one, 2)
        withdraw(one, 2, "it cannot be loaded")
    result = prune()
    assert (removed(result), result["cleaned"]) == ([], ["MLP/.withdrawn-2"])
    assert names(store) == sorted([*published_names(1), ".withdrawn-2.json"])
    assert names(gone) == sorted([*published_names(1), ".withdrawn-2", ".withdrawn-2.json"])
    result = prune(purge=True)
    assert removed(result) == [("gone", 1)]
    assert not gone.path.exists()


def test_version_that_goes_unproven_leaves_no_mark(store: ModelStore, prune: Prune) -> None:
    for version in (1, 2):
        publish_version(store, version)
    store.unproven(1).touch()
    store.unproven(7).touch()
    assert removed(prune()) == [("MLP", 1)]
    assert names(store) == published_names(2)


@pytest.mark.parametrize("name", [".manifest-1.json", ".manifest-3.json", ".manifest-3.json.new"])
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
        (model_store, "remove_tree"),
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
    remove = module_utils_prune.remove

    def fail_at_2(store: ModelStore, version: int) -> None:
        if version == 2:
            raise OSError(5, "Input/output error")
        remove(store, version)

    monkeypatch.setattr(module_utils_prune, "remove", fail_at_2)
    result = prune()
    assert "Input/output error" in result["msg"]
    assert (result["changed"], [one["version"] for one in result["removed"]]) == (True, [1])

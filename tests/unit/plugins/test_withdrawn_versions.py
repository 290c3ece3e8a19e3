"""A version that a server has refused leaves its sight by one rename, and says why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store import withdrawn_versions
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import (
    prove,
    unproven,
    withdraw,
    withdrawn,
)

MANIFEST = {"digest": "d", "stamp": "s", "source_digest": None, "files": {}}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A model with versions 1 and 2; 2 is unproven."""
    made = ModelStore(tmp_path / "MLP")
    for version in (1, 2):
        made.version(version).mkdir(parents=True)
        made.manifest(version).write_text(json.dumps(MANIFEST))
    made.unproven(2).touch()
    return made


def names(store: ModelStore) -> list[str]:
    return sorted(path.name for path in store.path.iterdir())


def test_version_is_unproven_until_a_server_has_served_it(store: ModelStore) -> None:
    store.unproven(3).touch()  # of a version that is on its way
    assert unproven(store) == [2]
    prove(store, 2)
    prove(store, 2)
    assert unproven(store) == []


def test_withdrawn_version_is_out_of_sight_with_reason_time_and_digest(store: ModelStore) -> None:
    withdraw(store, 2, "END: DATA_LOSS: corrupted\nrecord")
    assert list(store.published()) == [1]
    assert names(store) == [".manifest-1.json", ".withdrawn-2", ".withdrawn-2.json", "1"]
    (mark,) = withdrawn(store).values()
    assert mark.pop("time").endswith("Z")
    assert mark == {"reason": "END: DATA_LOSS: corrupted record", "digest": "d", "stamp": "s", "source_digest": None}


def test_version_that_is_published_again_is_not_withdrawn(store: ModelStore) -> None:
    withdraw(store, 2, "x")
    assert list(withdrawn(store)) == [2]
    store.version(2).mkdir()
    assert withdrawn(store) == {}


def test_mark_that_nobody_can_read_counts_and_says_nothing(store: ModelStore) -> None:
    for version, text in ((5, "{"), (6, "[]")):
        store.withdrawn_mark(version).write_text(text)
    (store.path / ".withdrawn-x.json").touch()
    assert [set(mark.values()) for mark in withdrawn(store).values()] == [{None}, {None}]
    assert withdrawn(ModelStore(store.path / "absent")) == {}


def test_run_that_is_killed_before_the_rename_leaves_the_version_where_it_is(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(withdrawn_versions.os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            withdraw(store, 2, "x")
    assert (list(store.published()), withdrawn(store), unproven(store)) == ([1, 2], {}, [2])
    withdraw(store, 2, "y")
    assert withdrawn(store)[2]["reason"] == "y"
    assert os.path.lexists(store.withdrawn(2))


def test_directory_of_an_earlier_refusal_makes_room_for_the_next(store: ModelStore) -> None:
    withdraw(store, 2, "x")
    store.version(2).mkdir()
    (store.version(2) / "new").touch()
    withdraw(store, 2, "y")
    assert (store.withdrawn(2) / "new").exists()


def test_version_that_is_only_distributed_is_withdrawn_without_ever_being_seen(store: ModelStore) -> None:
    store.distributed(3).mkdir()
    store.distributed_manifest(3).write_text(json.dumps(MANIFEST))
    withdraw(store, 3, "a gate has failed")
    assert store.published() == {1: "1", 2: "2"}
    assert store.withdrawn(3).is_dir()
    assert not store.distributed(3).exists()
    assert not store.distributed_manifest(3).exists()
    assert (withdrawn(store)[3]["reason"], withdrawn(store)[3]["digest"]) == ("a gate has failed", "d")

"""A version is filled where the server does not look, and comes and goes by one rename after it was checked."""

from __future__ import annotations

import grp
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from saved_model_files import make_saved_model
from saved_model_publishing import publish as publish_received

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._delta.delta import apply_deltas
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    add_digests,
    list_files,
    total_bytes,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store import store as model_store
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.arrival import (
    plan_versions,
    publish_version,
    stage_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import plan_staging, stage
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore, remove
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.versions import look_before_publishing

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")

LOGIN, GROUP = 1000, 1
WEIGHTS = "variables/variables.data-00000-of-00001"
EXTRA = {"source_digest": None, "signatures": {}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_saved_model(tmp_path / "source" / "1")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    (tmp_path / "models").mkdir()
    return ModelStore(tmp_path / "models" / "MLP")


@pytest.fixture
def files(source: Path) -> dict[str, Any]:
    return add_digests(source, list_files(source))


def publish(store: ModelStore, version: int, files: dict[str, Any], group_id: int, extra: dict[str, Any]) -> list[str]:
    """Publish what the login user has received."""
    return publish_received(store, version, files, group_id, extra, uid=LOGIN)


def arrive(source: Path, directory: Path, names: list[str] | None = None, uid: int = LOGIN) -> Path:
    """Let files arrive in a directory as a user's."""
    for name in list_files(source) if names is None else names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, directory / name)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, uid, uid)
        path.chmod(0o777 if uid else 0o700)
    return directory


@pytest.fixture
def staged(source: Path, store: ModelStore, files: dict[str, Any]) -> Path:
    """An incoming directory into which the whole source has arrived, as the login user's."""
    stage(store, 1, sorted(files), LOGIN, GROUP)
    return arrive(source, store.incoming(1))


@pytest.fixture
def staged_by_root(source: Path, store: ModelStore, files: dict[str, Any]) -> Path:
    """A staging directory into which the whole source has arrived, by an rsync that runs as root."""
    stage(store, 1, sorted(files), 0, GROUP)
    return arrive(source, store.staging(1), uid=0)


def publish_as(store: ModelStore, source: Path, version: int) -> dict[str, Any]:
    """Publish a source as a version in the way that the action does, and return its files."""
    files = add_digests(source, list_files(source))
    names = plan_staging(store, version, files).names
    stage(store, version, names, LOGIN, GROUP)
    arrive(source, store.incoming(version), names)
    assert publish(store, version, files, GROUP, EXTRA) == []
    return files


def facts(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_only_the_incoming_directory_is_the_login_users(store: ModelStore, files: dict[str, Any]) -> None:
    stage(store, 1, sorted(files), LOGIN, GROUP)
    assert facts(store.path) == (0, GROUP, 0o751)
    assert facts(store.incoming(1)) == (LOGIN, LOGIN, 0o700)
    assert facts(store.staging(1)) == (0, 0, 0o700)
    assert facts(store.basis(1)) == (0, LOGIN, 0o750)
    assert store.published() == {}


def test_rsync_that_runs_as_root_has_everything_to_itself(store: ModelStore, files: dict[str, Any]) -> None:
    stage(store, 1, sorted(files), LOGIN, GROUP)
    stage(store, 1, sorted(files), 0, GROUP)
    assert not store.incoming(1).exists()
    assert facts(store.staging(1)) == (0, 0, 0o700)
    assert facts(store.basis(1)) == (0, 0, 0o750)


def test_names_beside_the_versions_are_no_versions_to_the_server(store: ModelStore) -> None:
    for path in (store.staging(3), store.incoming(3), store.basis(3), store.removed(3), store.version(3)):
        path.mkdir(parents=True)
    assert store.published() == {3: "3"}


def test_half_filled_incoming_directory_is_resumed(store: ModelStore, staged: Path, files: dict[str, Any]) -> None:
    (staged / "saved_model.pb").unlink()
    before = tree(staged)
    for _ in range(2):
        stage(store, 1, sorted(files), LOGIN, GROUP)
        assert tree(staged) == before
        assert {path.stat().st_uid for path in (staged, *staged.rglob("*"))} == {LOGIN}
        os.chown(staged, 0, 0)  # as a run leaves it that was killed while it copied


def test_half_filled_staging_directory_of_roots_is_resumed(
    store: ModelStore, staged_by_root: Path, files: dict[str, Any]
) -> None:
    (staged_by_root / "saved_model.pb").unlink()
    before = tree(staged_by_root)
    stage(store, 1, sorted(files), 0, GROUP)
    assert tree(staged_by_root) == before


@pytest.mark.parametrize("changed", [".", "variables", WEIGHTS])
@pytest.mark.parametrize("uid", [0, LOGIN])
def test_what_is_partly_of_another_user_is_not_gone_on_with(
    store: ModelStore, source: Path, files: dict[str, Any], changed: str, uid: int
) -> None:
    """Version 0.1 gave staging directories away."""
    stage(store, 1, sorted(files), uid, GROUP)
    place = arrive(source, store.incoming(1) if uid else store.staging(1), uid=uid)
    os.chown(place / changed, LOGIN + 1, -1)
    stage(store, 1, sorted(files), uid, GROUP)
    assert list(place.iterdir()) == []
    assert place.stat().st_uid == uid


def test_leftovers_that_are_no_part_of_the_version_are_removed(
    tmp_path: Path, store: ModelStore, staged_by_root: Path, files: dict[str, Any]
) -> None:
    staged = staged_by_root
    (tmp_path / "shadow").touch()
    (staged / "old").mkdir()
    (staged / "old" / "old.txt").touch()
    (staged / "link").symlink_to(tmp_path / "shadow")
    (staged / "assets" / "words.txt").unlink()
    (staged / "assets" / "words.txt").symlink_to(tmp_path / "shadow")
    stage(store, 1, sorted(files), 0, GROUP)
    assert sorted(tree(staged)) == sorted(set(files) - {"assets/words.txt"})
    assert not (staged / "old").exists()
    assert (tmp_path / "shadow").exists()


def test_no_file_that_a_published_version_has_too_is_written_to(
    store: ModelStore, source: Path, files: dict[str, Any]
) -> None:
    """As a run leaves it that was killed between the links and the rename."""
    publish_as(store, source, 1)
    for names in (sorted(files), None):
        store.staging(2).mkdir(exist_ok=True)
        os.link(store.version(1) / "saved_model.pb", store.staging(2) / "saved_model.pb")
        stage(store, 2, names, 0, GROUP)
        assert not (store.staging(2) / "saved_model.pb").exists()
        assert facts(store.version(1) / "saved_model.pb") == (0, GROUP, 0o644)


@pytest.mark.parametrize("uid", [0, LOGIN])
def test_place_that_is_a_link_or_a_file_is_replaced(tmp_path: Path, store: ModelStore, uid: int) -> None:
    store.path.mkdir()
    (tmp_path / "elsewhere").mkdir()
    place = store.incoming if uid else store.staging
    place(1).symlink_to(tmp_path / "elsewhere")
    place(2).touch()
    for version in (1, 2):
        stage(store, version, None, uid, GROUP)
        assert place(version).is_dir()
        assert not place(version).is_symlink()
    assert (tmp_path / "elsewhere").stat().st_uid == 0


@pytest.mark.parametrize("uid", [0, LOGIN])
def test_whole_version_is_published_as_roots(store: ModelStore, source: Path, files: dict[str, Any], uid: int) -> None:
    stage(store, 1, sorted(files), uid, GROUP)
    arrive(source, store.incoming(1) if uid else store.staging(1), uid=uid)
    assert publish_received(store, 1, files, GROUP, EXTRA, uid=uid) == []
    assert store.published() == {1: "1"}
    assert sorted(path.name for path in store.path.iterdir()) == [".manifest-1.json", ".unproven-1", "1"]
    assert facts(store.version(1)) == (0, GROUP, 0o750)
    for path in store.version(1).rglob("*"):
        assert facts(path) == (0, GROUP, 0o750 if path.is_dir() else 0o644)


def test_manifest_records_what_was_published(store: ModelStore, staged: Path, files: dict[str, Any]) -> None:
    publish(store, 1, files, GROUP, {"source_digest": "abc", "signatures": {"call": {}}})
    assert json.loads(store.manifest(1).read_text()) == {
        "digest": tree_digest(files),
        "stamp": tree_stamp(files),
        "bytes": sum(one["size"] for one in files.values()),
        "source_digest": "abc",
        "signatures": {"call": {}},
        "generated": {},
        "files": files,
    }
    assert sorted(path.name for path in store.path.iterdir()) == [".manifest-1.json", ".unproven-1", "1"]


def test_version_appears_after_its_manifest_by_one_rename(
    store: ModelStore, staged: Path, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    rename = os.rename

    def watched(old: Any, new: Any) -> None:
        seen.append((Path(old), Path(new), store.manifest(1).exists(), facts(store.staging(1))[2]))
        rename(old, new)

    monkeypatch.setattr(os, "rename", watched)
    publish(store, 1, files, GROUP, EXTRA)
    assert seen == [(store.staging(1), store.version(1), True, 0o750)]


def test_everything_is_on_the_disk_before_the_version_appears(
    store: ModelStore, staged: Path, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    at_rename: list[Path] = []
    rename = os.rename
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(os.readlink(f"/proc/self/fd/{file}"))))
    monkeypatch.setattr(os, "rename", lambda old, new: (at_rename.extend(synced), rename(old, new)))
    publish(store, 1, files, GROUP, EXTRA)
    staging = store.staging(1)
    folders = {staging, staging / "variables", staging / "assets", store.path}
    assert {*(staging / name for name in files), *folders} <= set(at_rename)
    assert synced[-1] == store.path


def test_corrupted_file_is_named_and_the_version_is_absent(
    store: ModelStore, staged: Path, files: dict[str, Any]
) -> None:
    (staged / WEIGHTS).write_bytes(b"x" + (staged / WEIGHTS).read_bytes()[1:])
    assert publish(store, 1, files, GROUP, EXTRA) == [WEIGHTS]
    assert store.published() == {}
    assert not store.manifest(1).exists()


def test_version_is_published_after_the_corrupted_file_was_sent_again(
    source: Path, store: ModelStore, staged: Path, files: dict[str, Any]
) -> None:
    (staged / "saved_model.pb").write_bytes(b"other")
    assert publish(store, 1, files, GROUP, EXTRA) == ["saved_model.pb"]
    stage(store, 1, sorted(files), LOGIN, GROUP)
    arrive(source, staged, ["saved_model.pb"])
    assert publish(store, 1, files, GROUP, EXTRA) == []
    assert tree(store.version(1)) == tree(source)


def test_missing_file_is_named_as_one_to_be_sent_again(store: ModelStore, staged: Path, files: dict[str, Any]) -> None:
    (staged / "assets" / "words.txt").unlink()
    assert publish(store, 1, files, GROUP, EXTRA) == ["assets/words.txt"]
    assert store.published() == {}


def test_file_that_nobody_asked_for_is_not_published(
    store: ModelStore, staged: Path, source: Path, files: dict[str, Any]
) -> None:
    (staged / "assets" / "more.txt").touch()
    (staged / "empty").mkdir()
    assert publish(store, 1, files, GROUP, EXTRA) == []
    assert tree(store.version(1)) == tree(source)
    assert not (store.version(1) / "empty").exists()


def test_file_that_nobody_asked_for_is_named_where_rsync_runs_as_root(
    store: ModelStore, staged_by_root: Path, files: dict[str, Any]
) -> None:
    (staged_by_root / "assets" / "more.txt").touch()
    assert publish_received(store, 1, files, GROUP, EXTRA) == ["assets/more.txt"]
    assert store.published() == {}
    stage(store, 1, sorted(files), 0, GROUP, ["assets/more.txt"])
    assert publish_received(store, 1, files, GROUP, EXTRA) == []


def test_shared_file_that_a_published_version_has_lost_is_sent_again(store: ModelStore, source: Path) -> None:
    files = publish_as(store, source, 1)
    (store.version(1) / "saved_model.pb").unlink()
    names = plan_staging(store, 2, files).names
    stage(store, 2, names, LOGIN, GROUP)
    assert publish(store, 2, files, GROUP, EXTRA) == ["saved_model.pb"]


def test_empty_files_are_not_linked(store: ModelStore, source: Path) -> None:
    """A file may have some 65,000 names, and every empty one has the same sha256."""
    (source / "assets" / "empty").touch()
    publish_as(store, source, 1)
    publish_as(store, source, 2)
    assert not (store.version(1) / "assets" / "empty").samefile(store.version(2) / "assets" / "empty")


@pytest.mark.parametrize("name", ["1", "001"])
def test_published_version_is_never_replaced(store: ModelStore, staged: Path, files: dict[str, Any], name: str) -> None:
    make_saved_model(store.path / name, weights=b"served")
    store.manifest(1).write_text("as before")
    before = tree(store.path / name)
    with pytest.raises(SavedModelError, match="is there already"):
        publish(store, 1, files, GROUP, EXTRA)
    assert tree(store.path / name) == before
    assert store.manifest(1).read_text() == "as before"


def test_file_that_a_published_version_has_costs_no_transfer_and_no_blocks(
    tmp_path: Path, store: ModelStore, source: Path
) -> None:
    publish_as(store, source, 1)
    new = make_saved_model(tmp_path / "source" / "2", weights=b"trained!")
    (new / "assets" / "words.txt").rename(new / "assets" / "vocabulary.txt")
    os.utime(new / "saved_model.pb", (1, 1))
    files = add_digests(new, list_files(new))
    plan = plan_staging(store, 2, files)
    assert WEIGHTS in plan.names
    assert not {"saved_model.pb", "assets/vocabulary.txt"} & set(plan.names)
    publish_as(store, new, 2)
    assert tree(store.version(2)) == tree(new)
    for old, shared in (("saved_model.pb", "saved_model.pb"), ("assets/words.txt", "assets/vocabulary.txt")):
        assert (store.version(1) / old).samefile(store.version(2) / shared)
    assert not (store.version(1) / WEIGHTS).samefile(store.version(2) / WEIGHTS)


def test_shared_file_that_has_rotted_is_not_taken_over(store: ModelStore, source: Path) -> None:
    files = publish_as(store, source, 1)
    (store.version(1) / "saved_model.pb").write_bytes(b"rotten")
    names = plan_staging(store, 2, files).names
    stage(store, 2, names, LOGIN, GROUP)
    assert publish(store, 2, files, GROUP, EXTRA) == ["saved_model.pb"]
    assert (store.version(1) / "saved_model.pb").read_bytes() == b"rotten"
    stage(store, 2, [*names, "saved_model.pb"], LOGIN, GROUP)
    arrive(source, store.incoming(2), ["saved_model.pb"])
    assert publish(store, 2, files, GROUP, EXTRA) == []
    assert tree(store.version(2)) == tree(source)


def test_basis_has_the_files_of_the_version_before(tmp_path: Path, store: ModelStore) -> None:
    for version, weights in ((1, b"one"), (3, b"three"), (5, b"five")):
        publish_as(store, make_saved_model(tmp_path / "source" / str(version), weights=weights), version)
    stage(store, 4, [WEIGHTS, "assets/new.txt"], LOGIN, GROUP)
    (linked,) = (path for path in store.basis(4).rglob("*") if path.is_file())
    assert linked == store.basis(4) / WEIGHTS
    assert linked.samefile(store.version(3) / WEIGHTS)
    assert facts(linked) == (0, GROUP, 0o644)
    folders = {facts(path) for path in (store.basis(4), *store.basis(4).rglob("*")) if path.is_dir()}
    assert folders == {(0, LOGIN, 0o750)}


def test_version_put_there_by_hand_is_no_basis_and_shares_nothing(store: ModelStore, source: Path) -> None:
    shutil.copytree(source, store.version(1))
    files = add_digests(source, list_files(source))
    assert sorted(plan_staging(store, 2, files).names) == sorted(files)
    stage(store, 2, sorted(files), LOGIN, GROUP)
    assert list(store.basis(2).iterdir()) == []


def test_cut_file_is_filled_up_from_the_version_before(tmp_path: Path, store: ModelStore, source: Path) -> None:
    """Where root receives it; another user's file is left to rsync."""
    publish_as(store, make_saved_model(tmp_path / "source" / "2", weights=b"a" * 1000), 1)
    stage(store, 2, [WEIGHTS], 0, GROUP)
    partial = store.staging(2) / WEIGHTS
    partial.parent.mkdir()
    partial.write_bytes(b"b" * 300)
    for _ in range(2):
        stage(store, 2, [WEIGHTS], 0, GROUP)
        assert partial.read_bytes() == b"b" * 300 + b"a" * 700
    assert (store.version(1) / WEIGHTS).read_bytes() == b"a" * 1000


def write_delta(directory: Path, data: bytes, uid: int) -> None:
    (directory / ".deltas").mkdir()
    (directory / ".deltas" / "data").write_bytes(data)
    for path in (directory / ".deltas", directory / ".deltas" / "data"):
        os.chown(path, uid, uid)


@pytest.mark.parametrize("uid", [0, LOGIN])
def test_file_is_made_of_the_one_before_and_what_is_new(
    tmp_path: Path, store: ModelStore, source: Path, uid: int
) -> None:
    publish_as(store, make_saved_model(tmp_path / "source" / "2", weights=b"a" * 1000), 1)
    new = make_saved_model(tmp_path / "source" / "3", weights=b"a" * 100 + b"bb" + b"a" * 398 + b"cccc")
    files = add_digests(new, list_files(new))
    plan = plan_staging(store, 2, files)
    assert stage(store, 2, plan.names, uid, GROUP) == 1
    place = store.incoming(2) if uid else store.staging(2)
    whole = [name for name in plan.names if name != WEIGHTS]
    arrive(new, place, whole, uid)
    write_delta(place, b"bbcccc", uid)
    stage(store, 2, plan.names, uid, GROUP)  # what has arrived is not lost
    left = publish_version(
        str(store.path),
        2,
        grp.getgrgid(GROUP).gr_name,
        uid,
        {**{name: files[name]["size"] for name in whole}, ".deltas/data": 6},
        tree_digest(files),
        {name: files[name]["sha256"] for name in plan.shared},
        {WEIGHTS: {"data": "data", "runs": [[100, 2], [500, 4]], **files[WEIGHTS]}},
        EXTRA,
        {},
        distribute=False,
    )
    assert left == {}
    assert tree(store.version(2)) == tree(new)
    assert (store.version(2) / WEIGHTS).stat().st_mtime_ns == files[WEIGHTS]["mtime_ns"]
    assert facts(store.version(2) / WEIGHTS) == (0, GROUP, 0o644)
    assert (store.version(1) / WEIGHTS).read_bytes() == b"a" * 1000


@pytest.mark.parametrize("data", [b"y", None])
def test_delta_of_another_file_is_found_out(
    tmp_path: Path, store: ModelStore, source: Path, data: bytes | None
) -> None:
    """As well as one that did not arrive."""
    publish_as(store, make_saved_model(tmp_path / "source" / "2", weights=b"x" * 1000), 1)
    new = make_saved_model(tmp_path / "source" / "3", weights=b"y" * 1000)
    files = add_digests(new, list_files(new))
    names = plan_staging(store, 2, files).names
    stage(store, 2, names, 0, GROUP)
    arrive(new, store.staging(2), [name for name in names if name != WEIGHTS], 0)
    if data:
        write_delta(store.staging(2), data, 0)
    deltas = {WEIGHTS: {"data": "data", "runs": [[0, 1]], **files[WEIGHTS]}}
    apply_deltas(deltas, store.basis(2), store.staging(2))
    assert publish_received(store, 2, files, GROUP, EXTRA) == [WEIGHTS]


@pytest.mark.parametrize(("uid", "needed_mib", "inodes"), [(0, 40, 1), (LOGIN, 140, 2)])
def test_what_has_arrived_needs_no_space_again_and_the_copy_does(
    store: ModelStore, source: Path, files: dict[str, Any], uid: int, needed_mib: int, inodes: int
) -> None:
    large = {**files, WEIGHTS: {**files[WEIGHTS], "size": 100 << 20}}
    stage(store, 1, sorted(files), uid, GROUP)
    place = arrive(source, store.incoming(1) if uid else store.staging(1), uid=uid)
    os.truncate(place / WEIGHTS, 60 << 20)
    plan = plan_staging(store, 1, large, uid)
    assert needed_mib << 20 <= plan.needed_bytes <= (needed_mib << 20) + 2 * len(files) * 4096
    assert plan.needed_inodes == inodes * (len(files) + 3)  # and the directories: the version's, variables, assets


def test_removed_version_is_renamed_away_before_its_files_go(
    store: ModelStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_as(store, source, 1)
    whole = tree(store.version(1))
    remove_tree = model_store.remove_tree
    seen = []

    def watched(path: Path) -> None:
        if path.exists():
            seen.append((path, store.published(), tree(path)))
        remove_tree(path)

    monkeypatch.setattr(model_store, "remove_tree", watched)
    remove(store, 1)
    assert seen == [(store.removed(1), {}, whole)]
    assert list(store.path.iterdir()) == []


def test_removal_leaves_what_other_versions_share(tmp_path: Path, store: ModelStore, source: Path) -> None:
    publish_as(store, source, 1)
    publish_as(store, source, 2)
    remove(store, 1)
    assert tree(store.version(2)) == tree(source)


def test_what_the_controller_calls_stages_and_publishes(source: Path, store: ModelStore, files: dict[str, Any]) -> None:
    group = grp.getgrgid(GROUP).gr_name
    wanted = [{"model": "MLP", "version": 1, "uid": LOGIN, "files": list_files(source), "resend": []}]
    base_path = str(store.path.parent)
    (staged,) = stage_versions(base_path, group, wanted, 0)
    assert staged == {
        "target": str(store.incoming(1)),
        "staging": str(store.staging(1)),
        "basis": str(store.basis(1)),
        "shared": [],
        "is_published": False,
        "basis_version": None,
    }
    assert facts(store.path.parent) == (0, GROUP, 0o751)
    arrive(source, store.incoming(1))
    known = {"uid": LOGIN, "received": {name: one["size"] for name, one in files.items()}, "shared": {}, "deltas": {}}
    known |= {"extra": {"source_digest": None, "signatures": {"call": {}}}, "generated": {}, "distribute": False}
    arrived = {name: one["sha256"] for name, one in files.items()}
    assert publish_version(str(store.path), 1, group, digest="0" * 64, **known) == arrived
    assert store.published() == {}
    assert publish_version(str(store.path), 1, group, digest=tree_digest(files), **known) == {}
    found = look_before_publishing(base_path, ["MLP"], group, adopt=False)
    assert found["models"]["MLP"] == {
        "1": {
            "directory": "1",
            "intact": True,
            "digest": tree_digest(files),
            "stamp": tree_stamp(files),
            "source_digest": None,
            "bytes": total_bytes(files),
            "signatures": {"call": {}},
            "asked": None,
        }
    }
    assert found["base_access"] is None
    assert found["free"]["bytes"] > 0


WRITE_LATER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY)
print("open", flush=True)
sys.stdin.readline()
os.write(descriptor, b"late")
print("written", flush=True)
"""


def test_process_that_has_a_file_open_writes_nothing_into_the_published_version(
    store: ModelStore, staged: Path, source: Path, files: dict[str, Any]
) -> None:
    """As the rsync of a connection that was cut, and comes back."""
    before = (staged / "saved_model.pb").stat().st_mtime_ns
    command = [sys.executable, "-c", WRITE_LATER, staged / "saved_model.pb"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin
        assert writer.stdout
        assert writer.stdout.readline() == "open\n"
        stage(store, 1, sorted(files), LOGIN, GROUP)
        assert (staged / "saved_model.pb").stat().st_mtime_ns == before  # what has arrived does not travel again
        assert publish(store, 1, files, GROUP, EXTRA) == []
        print("go on", file=writer.stdin, flush=True)
        assert writer.stdout.readline() == "written\n"
    assert tree(store.version(1)) == tree(source)
    assert facts(store.version(1) / "saved_model.pb") == (0, GROUP, 0o644)


def test_files_that_root_has_received_are_not_copied(
    store: ModelStore, staged_by_root: Path, files: dict[str, Any]
) -> None:
    inodes = {name: (staged_by_root / name).stat().st_ino for name in files}
    publish_received(store, 1, files, GROUP, EXTRA)
    assert {name: (store.version(1) / name).stat().st_ino for name in files} == inodes


def test_rsync_that_another_run_left_in_there_is_ended(
    store: ModelStore, staged_by_root: Path, tmp_path: Path, files: dict[str, Any]
) -> None:
    shutil.copy2(shutil.which("sleep") or "", tmp_path / "rsync")
    with subprocess.Popen([tmp_path / "rsync", "30"], cwd=staged_by_root / "assets") as left:
        os.kill(left.pid, signal.SIGSTOP)
        assert publish_received(store, 1, files, GROUP, EXTRA) == []
        assert left.wait(timeout=5) == -signal.SIGKILL


def test_rsync_that_another_run_left_to_the_user_is_ended_before_it_is_filled_again(
    store: ModelStore, staged: Path, tmp_path: Path, files: dict[str, Any]
) -> None:
    shutil.copy2(shutil.which("sleep") or "", tmp_path / "rsync")
    shutil.copy2(shutil.which("sleep") or "", tmp_path / "another")
    left, other = (subprocess.Popen([tmp_path / name, "30"], cwd=staged / "assets") for name in ("rsync", "another"))
    with left, other:
        stage(store, 1, sorted(files), LOGIN, GROUP)
        assert left.wait(timeout=5) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def test_another_run_is_waited_for(store: ModelStore, staged: Path, files: dict[str, Any]) -> None:
    """It is about to publish what the next run would transfer."""
    wanted = {"model": "MLP", "version": 1, "uid": LOGIN, "files": files, "resend": []}
    is_held = threading.Event()

    def publish_slowly() -> None:
        with store.alone(1):
            is_held.set()
            time.sleep(0.3)
            publish(store, 1, files, GROUP, EXTRA)

    other = threading.Thread(target=publish_slowly)
    other.start()
    is_held.wait()
    (answer,) = stage_versions(str(store.path.parent), grp.getgrgid(GROUP).gr_name, [wanted], 0)
    other.join()
    assert answer["is_published"]
    assert facts(store.version(1)) == (0, GROUP, 0o750)
    assert not store.staging(1).exists()


def test_disk_space_is_checked_without_changing_anything(store: ModelStore, files: dict[str, Any]) -> None:
    huge = {**files, WEIGHTS: {**files[WEIGHTS], "size": 1 << 60}}
    wanted = {"model": "MLP", "version": 1, "uid": LOGIN, "resend": []}
    with pytest.raises(SavedModelError) as error:
        plan_versions(str(store.path.parent), [{**wanted, "files": huge}], 3 << 30)
    assert "has not enough disk space for the new versions: 2097152.0 TiB needed, " in str(error.value)
    assert "free, and pruning would free 3.0 GiB (playbooks/prune.yml)" in str(error.value)
    plan_versions(str(store.path.parent), [{**wanted, "files": files}], 0)
    assert list(store.path.parent.iterdir()) == []


def test_group_and_directory_that_are_missing_are_named(store: ModelStore) -> None:
    with pytest.raises(SavedModelError, match="group no-such-group does not exist"):
        stage_versions(str(store.path.parent), "no-such-group", [], 0)
    with pytest.raises(OSError, match=str(store.path)):
        publish_version(str(store.path), 1, "root", 0, {}, "0" * 64, {}, {}, {}, {}, distribute=False)


def test_damaged_file_is_not_there_to_be_taken_for_the_whole_one(
    store: ModelStore, staged: Path, files: dict[str, Any]
) -> None:
    wanted = {"model": "MLP", "version": 1, "uid": LOGIN, "files": files, "resend": [WEIGHTS]}
    stage_versions(str(store.path.parent), grp.getgrgid(GROUP).gr_name, [wanted], 0)
    assert not (staged / WEIGHTS).exists()
    assert (staged / "saved_model.pb").exists()

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a version gets to its place on a host: filled beside it, checked there, and published by one rename(2)."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import stat
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Iterable, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import (
    sync,
    sync_file_system,
    write_json,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._delta.delta import DELTAS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    WORKERS,
    Files,
    SavedModelError,
    add_digests,
    list_files,
    total_bytes,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import make_directory
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import whole_blocks
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import (
    AGAIN,
    DIRECTORY_MODE,
    ModelStore,
    folders_below,
    walk,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import (
    FILE_MODE,
    UserTree,
    remove_tree,
)

STAGING_MODE = 0o700
BASIS_MODE = 0o750  # for the group of the user who receives files
END_SECONDS = 10.0  # for a process that was killed
MANY_FILES = 100  # each costs a wait for the disk, which the whole file system costs once


@dataclass(frozen=True)
class Staging:
    """Which files of a version are to be transferred and which are not, and the bytes and inodes that it will take."""

    names: list[str]
    shared: set[str]
    needed_bytes: int
    needed_inodes: int


def plan_staging(store: ModelStore, version: int, files: Files, uid: int = 0) -> Staging:
    """Return what of files has to be transferred, by rsync as the user uid.

    A file whose sha256 is known and that a published version has already, under whatever name, is not; what an
    interrupted transfer left counts as there. What another user than root receives is copied: it needs its bytes twice.
    """
    there = {facts["sha256"] for manifest in store.manifests().values() for facts in manifest["files"].values()}
    # Empty files are not shared: a file has a limited number of hard links.
    shared = {name for name, facts in files.items() if facts["size"] and facts.get("sha256") in there}
    names = [name for name in files if name not in shared]
    places = [UserTree(store.staging(version), 0)]
    if uid:
        places.append(UserTree(store.incoming(version), uid))
    needed = 0
    for place in places:
        begun = place.sizes()
        for name in names:
            needed += max(0, whole_blocks(files[name]["size"]) - begun.get(name, 0))
    return Staging(names, shared, needed, len(places) * (len(names) + len(_folders_of(files))))


def stage(
    store: ModelStore,
    version: int,
    names: list[str] | None,
    uid: int,
    group_id: int,
    damaged: Collection[str] = (),
) -> int | None:
    """Make ready what a version is received in: the staging directory by root, the incoming one by the user uid.

    An interrupted transfer of the same user is taken over, less what is there of damaged files. names are the files
    that will come, None where they are not known yet. Each one that the version before has too gets a hard link in the
    basis directory; returns which version that is. Raises OSError.
    """
    make_directory(store.path, group_id)
    basis, staging, incoming = store.basis(version), store.staging(version), store.incoming(version)
    remove_tree(basis)
    _end_rsync(staging)
    UserTree(staging, 0).let_in(0)
    older = _version_before(store, version)
    folder = None if older is None else store.path / store.published()[older]
    gid = _group_of(uid)
    basis.mkdir(mode=BASIS_MODE)
    if folder is not None:
        _link_basis(folder, basis, names)
    for each in _folders(basis):
        os.chown(each, 0, gid)
        each.chmod(BASIS_MODE)
    if uid:
        _end_rsync(incoming)
        tree = UserTree(incoming, uid)
        tree.let_in(gid)
        tree.unlink(damaged)
    else:
        remove_tree(incoming)
        _keep_only(staging, names)
        for name in damaged:
            (staging / name).unlink(missing_ok=True)
        if folder is not None:
            for name in names or []:
                _fill_up(staging / name, basis / name)
    return older


def receive(incoming: UserTree, staging: Path, wanted: Mapping[str, int] | None, group_id: int) -> Files:
    """Copy what has arrived from the user's directory to the staging directory, and return what that is.

    wanted has the sizes of the files that were expected; None takes all. Raises OSError, and SavedModelError for what
    no transfer makes; then nothing of it is kept.
    """
    for entry in list(staging.iterdir()):
        remove_tree(entry)
    try:
        return incoming.take(staging, wanted, group_id)
    except SavedModelError:
        incoming.remove()
        raise


def examine(
    store: ModelStore, version: int, group_id: int, shared: Mapping[str, str], received: Files | None = None
) -> Files:
    """Have the files of a staging directory on the disk, and return what they are.

    shared has the sha256 of files that are not transferred, by name: they are hard links to those of published
    versions, as far as these have them. received are those that root copied, with their sha256. Raises SavedModelError.
    """
    staging, published = store.staging(version), store.version(version)
    if version in store.published():
        raise SavedModelError(f"{published} is there already; a published version is never changed")
    _end_rsync(staging)
    _link_shared(store, staging, shared)
    return _digest_and_sync(staging, list_files(staging), received or {}, group_id)


def release(
    store: ModelStore,
    version: int,
    files: Files,
    group_id: int,
    extra: dict[str, Any],
    generated: dict[str, str],
    *,
    distribute: bool = False,
) -> None:
    """Let a staging directory that was examined appear as its version; extra goes to its manifest.

    With distribute it gets a name that no server parses, and publish_distributed publishes it later. generated has the
    base64 of files that are added, by name: in the manifest they stand apart, so that the digest of the whole stays
    that of the source.
    """
    staging = store.staging(version)
    store.distributed_manifest(version).unlink(missing_ok=True)
    remove_tree(store.distributed(version))
    added = {name: _add(staging / name, b64decode(content), group_id) for name, content in generated.items()}
    for folder in reversed(_folders(staging)):
        os.chown(folder, 0, group_id)
        folder.chmod(DIRECTORY_MODE)
        sync(folder)
    manifest = store.distributed_manifest(version) if distribute else store.manifest(version)
    _write_manifest(manifest, files, {**extra, "generated": added})
    if distribute:
        os.rename(staging, store.distributed(version))  # noqa: PTH104
        sync(store.path)
    else:
        _appear(store, version, staging)
    remove_tree(store.basis(version))
    remove_tree(store.download(version))
    with suppress(OSError):  # a user who fills it without end keeps nothing from being published; pruning removes it
        UserTree(store.incoming(version), 0).remove()


def publish_distributed(path: str, version: int) -> None:
    """Publish a version of the model in a directory that was distributed before, by one rename.

    Raises OSError, and SavedModelError where its files are not those that were distributed.
    """
    store = ModelStore(Path(path))
    with store.alone(version):
        if version in store.published():  # another run was first
            return
        if store.read_distributed(version) is None:
            raise SavedModelError(
                f"{store.distributed(version)} was changed or removed meanwhile; rerun the playbook to send it again"
            )
        # It has two names until the version is there, so that one that is not published yet never lacks it.
        store.manifest(version).unlink(missing_ok=True)
        os.link(store.distributed_manifest(version), store.manifest(version))  # noqa: PTH200
        _appear(store, version, store.distributed(version))
        store.distributed_manifest(version).unlink()


def _appear(store: ModelStore, version: int, directory: Path) -> None:
    """Let a directory appear as a version."""
    store.unproven(version).write_text(AGAIN if store.withdrawn_mark(version).exists() else "")
    os.rename(directory, store.version(version))  # noqa: PTH104 - the one system call that everything here prepares
    sync(store.path)
    store.withdrawn_mark(version).unlink(missing_ok=True)
    remove_tree(store.withdrawn(version))


def _add(path: Path, content: bytes, group_id: int) -> dict[str, Any]:
    """Write a file of a staging directory that is root's, and return its size and sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.chown(path, 0, group_id)
    path.chmod(FILE_MODE)
    sync(path)
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _end_rsync(directory: Path) -> None:
    """End the rsync of a run that was cut off, which receives in a directory and waits for hours, until ssh gives up.

    Raises SavedModelError where one cannot be ended.
    """
    place = f"{directory.resolve()}/"
    killed = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            is_there = f"{os.readlink(process / 'cwd')}/".startswith(place)  # noqa: PTH115 - as it is shown
            if is_there and (process / "comm").read_text() == "rsync\n":
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(process / "cwd")
    deadline = time.monotonic() + END_SECONDS
    while any(map(os.path.exists, killed)):  # which a process that has ended and is not waited for has no more
        if time.monotonic() > deadline:
            raise SavedModelError(f"an rsync of an earlier run still writes to {directory}; rerun the playbook later")
        time.sleep(0.01)


def _group_of(uid: int) -> int:
    """Return the primary group of a user; of one that the host does not know, the id that is the same number."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _folders(path: Path) -> list[Path]:
    """Return a directory and all below it, each before what is in it."""
    return [path, *folders_below(path)]


def _folders_of(names: Iterable[str]) -> set[str]:
    """Return the relative paths of all directories that these files are in."""
    parents = {Path(parent) for parent in {name.rpartition("/")[0] for name in names}}
    return {str(folder) for parent in parents for folder in (parent, *parent.parents)}


def _version_before(store: ModelStore, version: int) -> int | None:
    """Return the published version that a new one has most in common with."""
    versions = list(store.manifests())
    older = [other for other in versions if other < version] or versions
    return older[0] if older else None


def _keep_only(staging: Path, names: list[str] | None) -> None:
    """Remove what is not among names, and what is a published version's file too, which rsync must not write to."""
    wanted = set(names or [])
    folders = _folders_of(wanted)
    for entry in list(walk(staging)):
        if not os.path.lexists(entry):
            continue
        name, status = entry.relative_to(staging).as_posix(), entry.lstat()
        is_known = names is None or name in wanted or name in folders or name.split("/")[0] == DELTAS
        if stat.S_ISDIR(status.st_mode):
            if not is_known:
                remove_tree(entry)
        elif not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not is_known:
            entry.unlink()


def _link_basis(older: Path, basis: Path, names: list[str] | None) -> None:
    for name in names if names is not None else list_files(older):
        if (older / name).is_file():
            (basis / name).parent.mkdir(mode=STAGING_MODE, parents=True, exist_ok=True)
            os.link(older / name, basis / name, follow_symlinks=False)


def _fill_up(partial: Path, basis: Path) -> None:
    """Append to a file that was cut what the version before has after it, so that rsync can go on by differences."""
    start, end = _size(partial), _size(basis)
    if 0 < start < end:
        with basis.open("rb") as source, partial.open("ab") as target:
            source.seek(start)
            shutil.copyfileobj(source, target, 1 << 20)


def _link_shared(store: ModelStore, staging: Path, shared: Mapping[str, str]) -> None:
    missing = [name for name in shared if not (staging / name).exists()]
    if not missing:
        return
    folders = store.published()
    there = {
        facts["sha256"]: store.path / folders[version] / name
        for version, manifest in store.manifests().items()
        for name, facts in manifest["files"].items()
    }
    for name in missing:
        source = there.get(shared[name])
        if source is not None and source.is_file():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(source, staging / name, follow_symlinks=False)


def _digest_and_sync(staging: Path, files: Files, received: Files, group_id: int) -> Files:
    """Have every file on the disk, and return files with the sha256 of each; that of received ones is known.

    Reading and writing to the disk go on at the same time; one after the other, a large file would take twice as long.
    """
    unread = {name: facts for name, facts in files.items() if name not in received}
    for name in unread:
        path = f"{staging}/{name}"
        os.chown(path, 0, group_id)
        os.chmod(path, FILE_MODE)  # noqa: PTH101 - a Path each would take longer than what is done here
    with ThreadPoolExecutor(WORKERS) as disk:
        if len(files) < MANY_FILES:
            synced = [disk.submit(sync, staging / name) for name in files]
        else:
            synced = [disk.submit(sync_file_system, staging)]
        digested = {**received, **add_digests(staging, unread)}
        for one in synced:
            one.result()
    return {name: digested[name] for name in files}


def _write_manifest(path: Path, files: Files, extra: dict[str, Any]) -> None:
    manifest = {
        "digest": tree_digest(files),
        "stamp": tree_stamp(files),
        "bytes": total_bytes(files),
        **extra,
        "files": files,
    }
    write_json(path, manifest)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the versions of one model lie on a host, and how one gets there and away.

The server loads a version the moment it sees its directory, and parses only names that are whole integers. So a version
is filled beside its place under a name with a dot, checked there, and comes and goes by one rename(2).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, Iterator, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.files import (
    sync,
    sync_file_system,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    WORKERS,
    Files,
    SavedModelError,
    add_digests,
    list_files,
    published_versions,
    total_bytes,
    tree_digest,
    tree_stamp,
)

# Others may pass through the base path and a model's directory, to a staging directory of theirs, and not list them. A
# version is the server's: its directory keeps others out, so that its files can be read by whoever gets a hard link.
BASE_MODE = 0o751
DIRECTORY_MODE = 0o750
FILE_MODE = 0o644
STAGING_MODE = 0o700

# Who receives by rsync on a host: a user id that Debian reserves and nobody has, so that no process of others can touch
# what it owns.
FETCH_UID = 65533

# In a staging directory: what is new in large files, until these are made of it. {name: {"data": name of a file there,
# "runs": [[offset, length], ...], "size": ..., "mtime_ns": ...}} in bytes
PATCHES = ".patches"
Patches = Dict[str, Dict[str, Any]]

BLOCK_BYTES = 4096
MANY_FILES = 100  # each costs a wait for the disk, which the whole file system costs once


@dataclass(frozen=True)
class ModelStore:
    """The directory of one model on a host: its versions, and what lies beside them."""

    path: Path

    def version(self, version: int) -> Path:
        return self.path / str(version)

    def manifest(self, version: int) -> Path:
        """Sizes and digests of a version's files; there if and only if this collection published it."""
        return self.path / f".manifest-{version}.json"

    def staging(self, version: int) -> Path:
        """The version on its way, which belongs to whoever fills it."""
        return self.path / f".staging-{version}"

    def basis(self, version: int) -> Path:
        """Hard links to files of an older version, of which rsync takes what has not changed."""
        return self.path / f".basis-{version}"

    def download(self, version: int) -> Path:
        """What a host remembers of a version that it fetches by itself."""
        return self.path / f".staging-{version}.download"

    def unproven(self, version: int) -> Path:
        """There as long as no server has served the version."""
        return self.path / f".unproven-{version}"

    def withdrawn(self, version: int) -> Path:
        """The version after a server has refused it."""
        return self.path / f".withdrawn-{version}"

    def withdrawn_mark(self, version: int) -> Path:
        """Why it was withdrawn."""
        return self.path / f".withdrawn-{version}.json"

    def removed(self, version: int) -> Path:
        """The version on its way out."""
        return self.path / f".removed-{version}"

    @contextmanager
    def alone(self, version: int | None = None) -> Iterator[None]:
        """Wait for a module of another run that is at work on a version, as a killed run may have left one.

        One that fetches holds the staging directory. Raises OSError where the model's directory is missing.
        """
        locks: list[int] = []
        try:
            for path in (self.path, *([] if version is None else [self.staging(version)])):
                if path == self.path or path.is_dir():
                    locks.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
                    fcntl.flock(locks[-1], fcntl.LOCK_EX)
            yield
        finally:
            for lock in locks:
                os.close(lock)

    def published(self) -> dict[int, str]:
        """Return {version: directory name} as the server sees them, whoever put them there."""
        return published_versions(self.path)

    def read_manifest(self, version: int) -> dict[str, Any] | None:
        """Return the manifest of a version, None where it has no readable one."""
        try:
            manifest = json.loads(self.manifest(version).read_text())
            readable = {"digest", "stamp", "files"} <= set(manifest) and isinstance(manifest["files"], dict)
        except (OSError, ValueError, TypeError):
            return None
        return manifest if readable else None

    def manifests(self) -> dict[int, dict[str, Any]]:
        """Return the manifests of the versions that this collection published, the newest first."""
        versions = ((version, self.read_manifest(version)) for version in sorted(self.published(), reverse=True))
        return {version: manifest for version, manifest in versions if manifest}


@dataclass(frozen=True)
class Staging:
    """Which files of a version are to be transferred and which are not, and the bytes and inodes that it will take."""

    names: list[str]
    shared: set[str]
    needed_bytes: int
    needed_inodes: int


def plan_staging(store: ModelStore, version: int, files: Files) -> Staging:
    """Return what of files has to be transferred.

    A file whose sha256 is known and that a published version has already, under whatever name, is not; what an
    interrupted transfer left counts as there.
    """
    there = {facts["sha256"] for manifest in store.manifests().values() for facts in manifest["files"].values()}
    # Empty files are not shared: a file has a limited number of hard links.
    shared = {name for name, facts in files.items() if facts["size"] and facts.get("sha256") in there}
    names = [name for name in files if name not in shared]
    staging, needed = store.staging(version), 0
    is_begun = staging.is_dir()
    for name in names:
        blocks = -(-files[name]["size"] // BLOCK_BYTES) * BLOCK_BYTES
        needed += max(0, blocks - _size(staging / name)) if is_begun else blocks
    return Staging(names, shared, needed, len(names) + len(_folders_of(files)))


def stage(
    store: ModelStore,
    version: int,
    names: list[str] | None,
    uid: int,
    group_id: int,
    damaged: Collection[str] = (),
) -> int | None:
    """Make an empty or take over a half-filled staging directory for the user who fills it.

    names are the files that will come, whatever else lies there is removed, and what is there of damaged ones; None
    where they are not known yet. Each one
    that the version before has too gets a hard link in the basis directory; returns which version that is.
    """
    make_directory(store.path, group_id)
    staging, basis = store.staging(version), store.basis(version)
    remove_tree(basis)
    if staging.is_symlink() or (staging.exists() and not staging.is_dir()):
        staging.unlink()
    staging.mkdir(mode=STAGING_MODE, exist_ok=True)
    own(staging, -1)
    _keep_only(staging, names)
    for name in damaged:
        (staging / name).unlink(missing_ok=True)
    basis.mkdir(mode=STAGING_MODE)
    older = _version_before(store, version)
    if older is not None:
        _link_basis(store.path / store.published()[older], basis, names)
        for name in names or []:
            _fill_up(staging / name, basis / name)
    for folder in reversed(_folders(basis)):
        os.chown(folder, uid, -1)
    give(staging, uid)
    return older


def compose(store: ModelStore, version: int, patches: Patches) -> None:
    """Make files of a version that has arrived in part of those of the version before and of what is new in them.

    What is made is checked like everything else when it is published. Raises OSError and SavedModelError.
    """
    staging, basis = store.staging(version), store.basis(version)
    own(staging, -1)
    list_files(staging)  # there are no links that would lead out of it
    for name, patch in patches.items():
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if not (basis / name).is_file():
            continue  # it is missing then, and sent as a whole
        _copy(basis / name, target)
        os.truncate(target, patch["size"])
        with (staging / PATCHES / patch["data"]).open("rb") as data, target.open("r+b") as file:
            for offset, length in patch["runs"]:
                file.seek(offset)
                file.write(data.read(length))
        os.utime(target, ns=(patch["mtime_ns"], patch["mtime_ns"]))
    remove_tree(staging / PATCHES)


def examine(store: ModelStore, version: int, group_id: int, shared: Mapping[str, str]) -> Files:
    """Close a filled staging directory, have its files on the disk, and return what they are.

    shared has the sha256 of files that are not transferred, by name: they are hard links to those of published
    versions, as far as these have them. Raises SavedModelError.
    """
    staging, published = store.staging(version), store.version(version)
    if version in store.published():
        raise SavedModelError(f"{published} is there already; a published version is never changed")
    own(staging, group_id)
    _link_shared(store, staging, shared)
    return _digest_and_sync(staging, list_files(staging))


def release(
    store: ModelStore,
    version: int,
    files: Files,
    group_id: int,
    extra: dict[str, Any],
    generated: dict[str, str],
) -> None:
    """Let a staging directory that was examined appear as its version; extra goes to its manifest.

    generated has the base64 of files that are added, by name: in the manifest they stand apart, so that the digest of
    the whole stays that of the source.
    """
    staging, published = store.staging(version), store.version(version)
    added = {name: _add(staging / name, b64decode(content), group_id) for name, content in generated.items()}
    for folder in reversed(_folders(staging)):
        os.chown(folder, 0, group_id)
        folder.chmod(DIRECTORY_MODE)
        sync(folder)
    _write_manifest(store.manifest(version), files, {**extra, "generated": added})
    store.unproven(version).touch()
    os.rename(staging, published)  # noqa: PTH104 - the one system call that everything here prepares
    sync(store.path)
    store.withdrawn_mark(version).unlink(missing_ok=True)
    remove_tree(store.withdrawn(version))
    remove_tree(store.basis(version))
    remove_tree(store.download(version))


def _add(path: Path, content: bytes, group_id: int) -> dict[str, Any]:
    """Write a file of a staging directory that is root's, and return its size and sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.chown(path, 0, group_id)
    path.chmod(FILE_MODE)
    sync(path)
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def remove(store: ModelStore, version: int) -> None:
    """Take a published version away: by one rename, and then its files, so that the server never sees a part of it."""
    removed = store.removed(version)
    remove_tree(removed)
    os.rename(store.path / store.published()[version], removed)  # noqa: PTH104 - as it came
    sync(store.path)
    remove_tree(removed)
    store.manifest(version).unlink()
    store.unproven(version).unlink(missing_ok=True)


def own(staging: Path, group_id: int) -> None:
    """Make a staging directory root's, so that whoever filled it cannot reach anything in it any more.

    From the top down: a directory is closed before anything is done to what it holds. A group_id of -1 leaves the
    group, as what is a published version's file too must not change. Raises OSError.
    """
    os.chown(staging, 0, 0)
    staging.chmod(STAGING_MODE)
    _end_rsync(staging)
    for folder, folders, names in os.walk(str(staging)):
        for name in folders + names:
            entry = f"{folder}/{name}"
            os.chown(entry, 0, group_id, follow_symlinks=False)
            mode = os.lstat(entry).st_mode
            if stat.S_ISDIR(mode):
                os.chmod(entry, STAGING_MODE)  # noqa: PTH101 - a Path each would take longer than what is done here
            elif stat.S_ISREG(mode) and _may_be_written_to(entry):
                _move_to_new_inode(Path(entry))


def _end_rsync(staging: Path) -> None:
    """Kill the rsync of a run that was cut off: one that runs as root could still open files where it stands."""
    place = f"{staging.resolve()}/"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is a user's, who is shut out
            is_there = f"{os.readlink(process / 'cwd')}/".startswith(place)  # noqa: PTH115 - as it is shown
            if is_there and (process / "comm").read_text() == "rsync\n":
                os.kill(int(process.name), signal.SIGKILL)


def _may_be_written_to(path: str) -> bool:
    """Say whether a process may have a file open for writing, which no change of owner or mode takes from it.

    The kernel gives a lease only while nobody has; a file system without leases cannot say.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # and with it the lease
    return False


def _move_to_new_inode(path: Path) -> None:
    """Let a file go on as a copy, so that who has it open writes to what has no name any more."""
    times = path.stat()
    copy = path.with_name(f".{path.name}.copy")
    _copy(path, copy)
    os.chown(copy, times.st_uid, times.st_gid)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.replace(path)


def give(staging: Path, uid: int) -> None:
    """Give a staging directory that is root's to the user who fills it: from the bottom up, the reverse of own."""
    for entry in reversed([staging, *walk(staging)]):
        os.chown(entry, uid, -1, follow_symlinks=False)


def keep_own_files(staging: Path) -> None:
    """Remove from a staging directory that is root's what may not be given away: links, and files of others too."""
    _keep_only(staging, None)


def make_directory(path: Path, group_id: int) -> None:
    """Make a base path or a model's directory what it should be."""
    for folder in reversed([path, *path.parents]):
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)  # whatever umask Ansible runs with
            sync(folder.parent)
    os.chown(path, 0, group_id)
    path.chmod(BASE_MODE)


def walk(path: Path) -> Iterator[Path]:
    """Yield everything below a directory, each directory before what is in it."""
    for folder, folders, names in os.walk(path):
        for name in folders + names:
            yield Path(folder, name)


def _folders(path: Path) -> list[Path]:
    """Return a directory and all below it, each before what is in it."""
    return [Path(folder) for folder, _, _ in os.walk(path)]


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
    """Remove what is not among names, and what is a published version's file too, which is not given to anybody."""
    wanted = set(names or [])
    folders = _folders_of(wanted)
    for entry in list(walk(staging)):
        if not os.path.lexists(entry):
            continue
        name, status = entry.relative_to(staging).as_posix(), entry.lstat()
        is_known = names is None or name in wanted or name in folders or name.split("/")[0] == PATCHES
        if stat.S_ISDIR(status.st_mode):
            if not is_known:
                shutil.rmtree(entry)
        elif not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not is_known:
            entry.unlink()


def _link_basis(older: Path, basis: Path, names: list[str] | None) -> None:
    for name in names if names is not None else list_files(older):
        if (older / name).is_file():
            (basis / name).parent.mkdir(mode=STAGING_MODE, parents=True, exist_ok=True)
            os.link(older / name, basis / name, follow_symlinks=False)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, within the file system without moving data where it can do that."""
    with source.open("rb") as old, target.open("wb") as new:
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            old.seek(new.tell())
            shutil.copyfileobj(old, new, 1 << 20)


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


def _digest_and_sync(staging: Path, files: Files) -> Files:
    """Have every file on the disk, and return files with the sha256 of each.

    Reading and writing to the disk go on at the same time; one after the other, a large file would take twice as long.
    """
    for name in files:
        os.chmod(f"{staging}/{name}", FILE_MODE)  # noqa: PTH101 - as in own
    with ThreadPoolExecutor(WORKERS) as disk:
        if len(files) < MANY_FILES:
            synced = [disk.submit(sync, staging / name) for name in files]
        else:
            synced = [disk.submit(sync_file_system, staging)]
        digested = add_digests(staging, files)
        for one in synced:
            one.result()
    return digested


def _write_manifest(path: Path, files: Files, extra: dict[str, Any]) -> None:
    manifest = {
        "digest": tree_digest(files),
        "stamp": tree_stamp(files),
        "bytes": total_bytes(files),
        **extra,
        "files": files,
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(manifest, indent=1) + "\n")
    sync(new)
    new.replace(path)
    sync(path.parent)


def remove_tree(path: Path) -> None:
    """Delete a directory of root's, or a link to one, where there is any. Raises OSError."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

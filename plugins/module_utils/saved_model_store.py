# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the versions of one model lie on a host, and how one gets there and away.

The server loads a version the moment it sees its directory, and parses only names that are whole integers. So a version
is filled beside its place under a name with a dot, checked there, and comes and goes by one rename(2).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.files import file_sha256, sync
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    WORKERS,
    Files,
    SavedModelError,
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

BLOCK_BYTES = 4096


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

    def removed(self, version: int) -> Path:
        """The version on its way out."""
        return self.path / f".removed-{version}"

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
    """What is left to transfer of a version: names of files, and the bytes and inodes that they will take."""

    names: list[str]
    needed_bytes: int
    needed_inodes: int


def plan_staging(store: ModelStore, version: int, files: Files) -> Staging:
    """Return what of files has to be transferred.

    A file whose sha256 is known and that a published version has already, under whatever name, is not; what an
    interrupted transfer left counts as there.
    """
    there = {facts["sha256"] for manifest in store.manifests().values() for facts in manifest["files"].values()}
    names = [name for name, facts in files.items() if facts.get("sha256") not in there]
    staging = store.staging(version)
    needed = 0
    for name in names:
        blocks = -(-files[name]["size"] // BLOCK_BYTES) * BLOCK_BYTES
        needed += max(0, blocks - _size(staging / name))
    folders = {folder for name in files for folder in Path(name).parents}
    return Staging(names, needed, len(names) + len(folders))


def stage(store: ModelStore, version: int, names: list[str] | None, uid: int, group_id: int) -> None:
    """Make an empty or take over a half-filled staging directory for the user who fills it.

    names are the files that will come, whatever else lies there is removed; None where they are not known yet. Each one
    that the version before has too gets a hard link in the basis directory.
    """
    make_directory(store.path, group_id)
    staging, basis = store.staging(version), store.basis(version)
    _remove_tree(basis)
    if staging.is_symlink() or (staging.exists() and not staging.is_dir()):
        staging.unlink()
    staging.mkdir(mode=STAGING_MODE, exist_ok=True)
    # Root's while it is looked through, so that nobody changes it meanwhile.
    os.chown(staging, 0, 0)
    staging.chmod(STAGING_MODE)
    _keep_only(staging, names)
    basis.mkdir(mode=STAGING_MODE)
    older = _version_before(store, version)
    if older is not None:
        _link_basis(older, basis, names)
        for name in names or []:
            _fill_up(staging / name, basis / name)
    for entry in (*(path for path in walk(basis) if path.is_dir()), basis, *walk(staging), staging):
        os.chown(entry, uid, -1, follow_symlinks=False)


def publish(store: ModelStore, version: int, files: Files, group_id: int, extra: dict[str, Any]) -> list[str]:
    """Check a filled staging directory against files and let it appear as its version; extra goes to its manifest.

    Files that are missing are hard links to those of published versions with the same sha256. Returns the names of
    files whose sha256 is not what it should be: they are deleted, nothing is published, and they have to be sent again.
    Raises SavedModelError when the staging directory has other files.
    """
    staging, published = store.staging(version), store.version(version)
    if version in store.published():
        raise SavedModelError(f"{published} is there already; a published version is never changed")
    own(staging, group_id)
    _link_shared(store, staging, files)
    arrived = list_files(staging)
    if set(arrived) != set(files):
        different = sorted(set(arrived) ^ set(files))
        raise SavedModelError(f"{staging} has not the files that were sent: {', '.join(different[:5])}")
    for entry in walk(staging):
        if entry.is_dir():
            os.chown(entry, 0, group_id)
            entry.chmod(DIRECTORY_MODE)
    broken = _check_and_sync(staging, files)
    for name in broken:
        (staging / name).unlink()
    if broken:
        return broken
    for entry in walk(staging):
        if entry.is_dir():
            sync(entry)
    os.chown(staging, 0, group_id)
    staging.chmod(DIRECTORY_MODE)
    sync(staging)
    _write_manifest(store.manifest(version), files, extra)
    os.rename(staging, published)  # noqa: PTH104 - the one system call that everything here prepares
    sync(store.path)
    _remove_tree(store.basis(version))
    _remove_tree(store.download(version))
    return []


def remove(store: ModelStore, version: int) -> None:
    """Take a published version away: by one rename, and then its files, so that the server never sees a part of it."""
    removed = store.removed(version)
    _remove_tree(removed)
    os.rename(store.path / store.published()[version], removed)  # noqa: PTH104 - as it came
    sync(store.path)
    _remove_tree(removed)
    store.manifest(version).unlink()


def own(staging: Path, group_id: int) -> None:
    """Make a staging directory root's, from the top down: whoever filled it cannot reach it any more."""
    os.chown(staging, 0, 0)
    staging.chmod(STAGING_MODE)
    for entry in walk(staging):
        os.chown(entry, 0, group_id, follow_symlinks=False)


def make_directory(path: Path, group_id: int) -> None:
    """Make a base path or a model's directory what it should be."""
    if not path.is_dir():
        path.mkdir(parents=True)
        sync(path.parent)
    os.chown(path, 0, group_id)
    path.chmod(BASE_MODE)


def walk(path: Path) -> Iterator[Path]:
    """Yield everything below a directory, each directory before what is in it."""
    for folder, folders, names in os.walk(path):
        for name in folders + names:
            yield Path(folder, name)


def _version_before(store: ModelStore, version: int) -> Path | None:
    """Return the directory of the published version that a new one has most in common with."""
    versions = list(store.manifests())
    older = [other for other in versions if other < version] or versions
    return store.path / store.published()[older[0]] if older else None


def _keep_only(staging: Path, names: list[str] | None) -> None:
    """Remove what is not among names, and what is a published version's file too, which is not given to anybody."""
    wanted = set(names or [])
    folders = {str(folder) for name in wanted for folder in Path(name).parents}
    for entry in list(walk(staging)):
        if not os.path.lexists(entry):
            continue
        name, status = entry.relative_to(staging).as_posix(), entry.lstat()
        if stat.S_ISDIR(status.st_mode):
            if names is not None and name not in folders:
                shutil.rmtree(entry)
        elif not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or (names is not None and name not in wanted):
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


def _link_shared(store: ModelStore, staging: Path, files: Files) -> None:
    missing = [name for name in files if not (staging / name).exists()]
    if not missing:
        return
    folders = store.published()
    shared = {
        facts["sha256"]: store.path / folders[version] / name
        for version, manifest in store.manifests().items()
        for name, facts in manifest["files"].items()
    }
    for name in missing:
        source = shared.get(files[name]["sha256"])
        if source is not None and source.is_file():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(source, staging / name, follow_symlinks=False)


def _check_and_sync(staging: Path, files: Files) -> list[str]:
    """Have every file on the disk, and return those whose sha256 is not that of files.

    Reading and writing to the disk go on at the same time; one after the other, a large file would take twice as long.
    """

    def settle(name: str) -> None:
        (staging / name).chmod(FILE_MODE)
        sync(staging / name)

    with ThreadPoolExecutor(WORKERS) as disk, ThreadPoolExecutor(WORKERS) as cpu:
        settled = disk.map(settle, files)
        digests = dict(zip(files, cpu.map(lambda name: file_sha256(staging / name), files)))
        list(settled)
    return sorted(name for name in files if digests[name] != files[name]["sha256"])


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


def _remove_tree(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the versions of one model lie on a host, and how one goes.

The server loads a version the moment it sees its directory, and parses only names that are whole integers. So what is
no version has a name with a dot, and a version comes and goes by one rename(2).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import (
    read_json,
    sync,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    add_digests,
    list_files,
    published_versions,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import (
    remove_tree,
)

# A version is the server's: its directory keeps others out, so that its files may be readable to those who get a hard
# link.
DIRECTORY_MODE = 0o750

AGAIN = "again\n"


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
        """The version on its way: root's alone, from its beginning to its end."""
        return self.path / f".staging-{version}"

    def distributed(self, version: int) -> Path:
        """The version, complete and checked, and not published yet."""
        return self.path / f".distributed-{version}"

    def distributed_manifest(self, version: int) -> Path:
        """What will be the manifest of such a version."""
        return self.path / f".distributed-{version}.json"

    def incoming(self, version: int) -> Path:
        """Where another user than root receives the files of a version, before root copies them: that user's."""
        return self.path / f".incoming-{version}"

    def basis(self, version: int) -> Path:
        """Hard links to files of an older version, of which rsync takes what has not changed; root's."""
        return self.path / f".basis-{version}"

    def download(self, version: int) -> Path:
        """What a host remembers of a version that it fetches by itself."""
        return self.path / f".staging-{version}.download"

    def unproven(self, version: int) -> Path:
        """There as long as no server has served the version; says AGAIN of one that was withdrawn before."""
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
        """Return {version: directory name} as the server sees them, also those that others put there."""
        return published_versions(self.path)

    def read_manifest(self, version: int) -> dict[str, Any] | None:
        """Return the manifest of a version, None where it has no readable one."""
        return self._read_manifest(self.manifest(version))

    def read_distributed(self, version: int) -> dict[str, Any] | None:
        """Return the manifest of a version that only has to be renamed to be published, None for any other.

        No file of the version is read. Raises OSError.
        """
        manifest = self._read_manifest(self.distributed_manifest(version))
        is_there = manifest and self.distributed(version).is_dir() and _has_files(self.distributed(version), manifest)
        return manifest if is_there else None

    @staticmethod
    def _read_manifest(path: Path) -> dict[str, Any] | None:
        manifest = read_json(path)
        is_one = isinstance(manifest, dict) and {"digest", "stamp", "files"} <= manifest.keys()
        return manifest if is_one and isinstance(manifest["files"], dict) else None

    def is_intact(self, version: int) -> bool:
        """Say whether the files of a version are those that this collection published, by names, sizes and times.

        No file is read. False for a version that others have put there, or have changed. Raises OSError.
        """
        manifest = self.read_manifest(version)
        return manifest is not None and _has_files(self.path / self.published()[version], manifest)

    def digest(self, version: int) -> str:
        """Return the digest of what a version's files are now, less the files that publishing added.

        Raises OSError, and SavedModelError for anything that is no regular file.
        """
        path = self.path / self.published()[version]
        files = add_digests(path, list_files(path))
        added = (self.read_manifest(version) or {}).get("generated", {})
        return tree_digest(
            {name: facts for name, facts in files.items() if added.get(name, {}).get("sha256") != facts["sha256"]}
        )

    def manifests(self) -> dict[int, dict[str, Any]]:
        """Return the manifests of the versions that this collection published, the newest first."""
        versions = ((version, self.read_manifest(version)) for version in sorted(self.published(), reverse=True))
        return {version: manifest for version, manifest in versions if manifest}


def _has_files(path: Path, manifest: dict[str, Any]) -> bool:
    """Say whether the files below a path are those of a manifest, by names, sizes and times. Raises OSError."""
    try:
        there = list_files(path)
    except SavedModelError:
        return False
    files = {**manifest["files"], **manifest.get("generated", {})}
    told = ("size", "mtime_ns")  # of a generated file the size only
    return there.keys() == files.keys() and all(
        facts.get(fact, there[name][fact]) == there[name][fact] for name, facts in files.items() for fact in told
    )


def remove(store: ModelStore, version: int) -> None:
    """Take a published version away: by one rename, and then its files, so that the server never sees a part of it."""
    removed = store.removed(version)
    remove_tree(removed)
    os.rename(store.path / store.published()[version], removed)  # noqa: PTH104 - as it came
    sync(store.path)
    remove_tree(removed)
    store.manifest(version).unlink()
    store.unproven(version).unlink(missing_ok=True)


def walk(path: Path) -> Iterator[Path]:
    """Yield everything below a directory of root's, each directory before what is in it."""
    return (Path(entry.path) for entry in _scan(path))


def folders_below(path: Path) -> Iterator[Path]:
    """Yield the directories below one of root's, each before what is in it."""
    return (Path(entry.path) for entry in _scan(path) if entry.is_dir(follow_symlinks=False))


def _scan(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a directory of root's, however deep, nothing below a file."""
    left = [str(path)]
    while left:
        with suppress(NotADirectoryError, FileNotFoundError), os.scandir(left.pop()) as scanned:
            entries = list(scanned)
            left += (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            yield from entries

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the versions on a host are still what was published: contents, names, owners and modes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import Access, access_of
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    list_files,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import BASE_MODE
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import (
    DIRECTORY_MODE,
    ModelStore,
    walk,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import FILE_MODE

CHUNK_BYTES = 1 << 20
WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True)
class Drift:
    """What differs from what was published, as text: contents have to be published again, access can be repaired."""

    contents: list[str] = field(default_factory=list)
    access: list[str] = field(default_factory=list)


class Verifier:
    """Compares the versions of models with their manifests, and reads no file twice that several versions share."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._digests: dict[tuple[int, int], str] = {}

    def check_directory(self, path: Path) -> list[str]:
        """Return what is wrong with a model's own directory, as text."""
        return self._check_access(path, BASE_MODE, f"{path.name}: the directory") if path.is_dir() else []

    def check_version(self, store: ModelStore, version: int) -> Drift:
        """Return everything that is wrong with a version that has a manifest. Raises OSError."""
        name = f"{store.path.name}/{version}"
        path, manifest_path = store.path / store.published()[version], store.manifest(version)
        manifest = store.read_manifest(version)
        if manifest is None or not _is_whole(manifest):
            return Drift([f"{name}: {manifest_path.name} cannot be read or is damaged"])
        access = []
        status = manifest_path.stat()
        if status.st_uid != 0 or status.st_mode & WRITABLE_BY_OTHERS:
            access.append(f"{name}: {manifest_path.name} may be written by others than root")
        access += self._check_access(path, DIRECTORY_MODE, f"{name}: the directory")
        for entry in walk(path):
            if not entry.is_symlink():
                is_directory = entry.is_dir()
                what = f"{name}: {'directory' if is_directory else 'file'} {entry.relative_to(path).as_posix()}"
                access += self._check_access(entry, DIRECTORY_MODE if is_directory else FILE_MODE, what)
        return Drift(self._check_contents(path, {**manifest["files"], **manifest.get("generated", {})}, name), access)

    def _check_contents(self, path: Path, published: dict[str, Any], name: str) -> list[str]:
        try:
            found = list_files(path)
        except SavedModelError as error:
            return [f"{name}: {error}"]
        problems = [f"{name}: file {file} is missing" for file in sorted(set(published) - set(found))]
        problems += [f"{name}: file {file} was not published" for file in sorted(set(found) - set(published))]
        for file in sorted(set(published) & set(found)):
            expected = published[file]
            if found[file]["size"] != expected["size"]:
                problems.append(
                    f"{name}: file {file} has {found[file]['size']} bytes, published were {expected['size']}"
                )
                continue
            try:
                digest = self._digest(path / file)
            except OSError as error:
                problems.append(f"{name}: file {file} cannot be read: {error.strerror}")
                continue
            if digest != expected["sha256"]:
                problems.append(f"{name}: file {file} has sha256 {digest}, published was {expected['sha256']}")
        return problems

    def _check_access(self, path: Path, mode: int, what: str) -> list[str]:
        found, expected = access_of(path), Access("root", self._group, f"{mode:04o}")
        return [] if found == expected else [f"{what} is {found}, published was {expected}"]

    def _digest(self, path: Path) -> str:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key not in self._digests:
            self._digests[key] = _read_digest(path)
        return self._digests[key]


def _read_digest(path: Path) -> str:
    """Return the sha256 of a file. The kernel is told that it is read once, so that the server's files stay cached."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_NOREUSE)
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _is_whole(manifest: dict[str, Any]) -> bool:
    """Say whether a manifest agrees with itself."""
    try:
        sizes = [int(facts["size"]) for facts in manifest["files"].values()]
        return sum(sizes) == manifest["bytes"] and bool(tree_digest(manifest["files"]) == manifest["digest"])
    except (KeyError, TypeError, ValueError):
        return False

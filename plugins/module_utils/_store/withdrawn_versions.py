# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Versions that a server has refused: taken out of its sight, so that neither it nor a reboot tries them again.

A version that appears has a file .unproven-N beside it until a server has served it. One that is refused meanwhile is
renamed to .withdrawn-N, which no server parses, and .withdrawn-N.json says why. The mark outlives the directory: the
same files are not published again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import (
    read_json,
    sync,
    write_json,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import AGAIN, ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import remove_tree

# Of the manifest: what a later run compares a source with.
_IDENTITY = ("digest", "source_digest", "stamp")


def withdrawn(store: ModelStore) -> dict[int, dict[str, Any]]:
    """Return the marks of the versions that were withdrawn and not published since: {version: mark}.

    A mark has reason (the server's words), time (UTC, ISO 8601), digest, source_digest and stamp; of one that cannot be
    read, all are None.
    """
    marks: dict[int, dict[str, Any]] = {}
    there = store.published()
    for path in store.path.glob(".withdrawn-*.json") if store.path.is_dir() else []:
        number = path.name[len(".withdrawn-") : -len(".json")]
        if number.isdecimal() and int(number) not in there:
            marks[int(number)] = {**dict.fromkeys(("reason", "time", *_IDENTITY)), **_read_mark(path)}
    return marks


def _read_mark(path: Path) -> dict[str, Any]:
    mark = read_json(path)
    return mark if isinstance(mark, dict) else {}


def unproven(store: ModelStore) -> list[int]:
    """Return the versions that this collection has published and no server has served yet, in ascending order."""
    return [version for version in sorted(store.published()) if store.unproven(version).exists()]


def is_tried_again(store: ModelStore, version: int) -> bool:
    """Say whether a version was withdrawn before it was published, and no server has served it since.

    A running server that has refused it does not load it again: the one before serves on without being wanted, and
    what is wanted is not looked at before that is gone (core/aspired_versions_manager.cc,
    ContainsAnyReaspiredVersions). A restart does.
    """
    try:
        return store.unproven(version).read_text() == AGAIN
    except OSError:
        return False


def prove(store: ModelStore, version: int) -> None:
    """Note that a server has served a version. Raises OSError."""
    store.unproven(version).unlink(missing_ok=True)


def set_aside(store: ModelStore, version: int) -> None:
    """Take a version, published or only distributed, out of every server's way by one rename. Raises OSError."""
    with store.alone():
        remove_tree(store.withdrawn(version))
        published = store.published().get(version)
        there = store.path / published if published else store.distributed(version)
        os.rename(there, store.withdrawn(version))  # noqa: PTH104 - as it came
        sync(store.path)


def bring_back(store: ModelStore, version: int) -> None:
    """Let a version that was set aside appear again. Raises OSError."""
    with store.alone():
        os.rename(store.withdrawn(version), store.version(version))  # noqa: PTH104 - as it went
        sync(store.path)


def withdraw(store: ModelStore, version: int, reason: str) -> None:
    """Set a version aside for good. Raises OSError.

    The mark comes first: a run that is killed in between leaves a version that is there, and so not withdrawn.
    """
    is_published = version in store.published()
    manifest = (store.read_manifest(version) if is_published else store.read_distributed(version)) or {}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    mark = {"reason": " ".join(reason.split()), "time": now, **{name: manifest.get(name) for name in _IDENTITY}}
    write_json(store.withdrawn_mark(version), mark)
    set_aside(store, version)
    store.distributed_manifest(version).unlink(missing_ok=True)
    store.manifest(version).unlink(missing_ok=True)
    store.unproven(version).unlink(missing_ok=True)

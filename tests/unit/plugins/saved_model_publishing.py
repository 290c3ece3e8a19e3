"""Publishes what has arrived of a version, as a host does with what its controller has sent."""

from __future__ import annotations

from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    Files,
    differing,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import (
    examine,
    receive,
    release,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import UserTree


def publish(
    store: ModelStore,
    version: int,
    files: Files,
    group_id: int,
    extra: dict[str, Any],
    generated: dict[str, str] | None = None,
    uid: int = 0,
) -> list[str]:
    """Return the names of files that are not as they should be; then nothing is published.

    uid is who received them: in the incoming directory, or where it is root, in the staging directory.
    """
    shared = {name: facts["sha256"] for name, facts in files.items()}
    incoming, sizes = UserTree(store.incoming(version), uid), {name: facts["size"] for name, facts in files.items()}
    received = receive(incoming, store.staging(version), sizes, group_id) if uid else None
    found = examine(store, version, group_id, shared, received)
    different = differing(files, {name: facts["sha256"] for name, facts in found.items()})
    if not different:
        release(store, version, found, group_id, extra, generated or {})
    return different

"""Publishes what lies in a staging directory, as a host does with what its controller has sent."""

from __future__ import annotations

from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import Files, differing
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model_store import (
    ModelStore,
    examine,
    release,
)


def publish(
    store: ModelStore,
    version: int,
    files: Files,
    group_id: int,
    extra: dict[str, Any],
    generated: dict[str, str] | None = None,
) -> list[str]:
    """Return the names of files that are not as they should be; then nothing is published."""
    shared = {name: facts["sha256"] for name, facts in files.items()}
    found = examine(store, version, group_id, shared)
    different = differing(files, {name: facts["sha256"] for name, facts in found.items()})
    if not different:
        release(store, version, found, group_id, extra, generated or {})
    return different

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host has of models: their versions, where these lie, and what disk space is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import (
    access,
    directory_problems,
    is_right,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import free_space
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import check_path
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import withdrawn

BASE_PATH = "tfserving_models_base_path"
FACTS = ("digest", "stamp", "source_digest", "bytes", "signatures", "asked")


def look_before_publishing(base_path: str, models: list[str], group: str, adopt: bool) -> dict[str, Any]:
    """Return models, distributed, withdrawn and free as the module serving_host_info does.

    base_access is owner, group and mode of the base path as they are, None where they are as they have to be. Raises
    SavedModelError where the base path may not be taken, or others than root can change what a path leads to.
    """
    problems = directory_problems(BASE_PATH, base_path, group, adopt)
    if problems:
        raise SavedModelError("\n".join(problems))
    for name in models:
        check_path(Path(base_path, name), BASE_PATH)
    return {
        "models": {name: describe(ModelStore(Path(base_path, name))) for name in models},
        "distributed": {name: describe_distributed(ModelStore(Path(base_path, name))) for name in models},
        "withdrawn": {name: withdrawn(ModelStore(Path(base_path, name))) for name in models},
        "free": free_space(Path(base_path)),
        "base_access": None if is_right(Path(base_path), group) else access(Path(base_path)),
    }


def describe(store: ModelStore) -> dict[str, dict[str, Any]]:
    """Return what is known of each version of a model; what a manifest says is None where it has no readable one."""
    return {
        str(version): {
            "directory": directory,
            "intact": store.is_intact(version),
            **_facts(store.read_manifest(version) or {}),
        }
        for version, directory in store.published().items()
    }


def describe_distributed(store: ModelStore) -> dict[str, dict[str, Any]]:
    """Return what is known of each version of a model that only has to be renamed to be published."""
    names = [path.name.rpartition("-")[2] for path in store.path.glob(".distributed-*")]
    manifests = {name: store.read_distributed(int(name)) for name in names if name.isdecimal()}
    return {name: {"intact": True, **_facts(manifest)} for name, manifest in manifests.items() if manifest}


def digests_of(base_path: str, versions: list[list[Any]]) -> list[str | None]:
    """Return the digest of the files that each of these versions, [model, version], has now.

    None for one that is no SavedModel's: it has links, or more than a version may. Raises OSError.
    """
    digests: list[str | None] = []
    for model, version in versions:
        try:
            digests.append(ModelStore(Path(base_path, model)).digest(version))
        except SavedModelError:
            digests.append(None)
    return digests


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: manifest.get(name) for name in FACTS}

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How versions that a controller sends arrive on a host: the host's part of the action saved_models."""

from __future__ import annotations

import grp
import os
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._delta.delta import Deltas, apply_deltas
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import (
    make_directory,
    take,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import check_space
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import (
    examine,
    plan_staging,
    receive,
    release,
    stage,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import UserTree


def stage_versions(base_path: str, group: str, versions: list[dict[str, Any]], prunable_bytes: int) -> list[Any]:
    """Make a staging directory for each version, where there is disk space for all of them.

    Each has model, version, uid (who receives the files; 0 for rsync that runs as root), files (size in bytes of each
    and its sha256 where it is known, by its path in the version; None where they are not known yet) and resend, names
    of files that arrived damaged and are not taken from a published version either; generated_bytes where something is
    added to them. Returns for each target (directory that rsync fills), staging (the one that is root's), basis
    (directory that rsync may take unchanged parts from), shared, names of files that need no transfer, and
    is_published, true for one that another run has published meanwhile; else also basis_version.
    Raises OSError and SavedModelError.
    """
    group_id = id_of(group)
    answers = plan_versions(base_path, versions, prunable_bytes)
    take(Path(base_path), group_id)
    for wanted, answer in zip(versions, answers):
        names = None if wanted["files"] is None else sorted(set(wanted["files"]) - set(answer["shared"]))
        store = ModelStore(Path(base_path, wanted["model"]))
        make_directory(store.path, group_id)
        with store.alone(wanted["version"]):
            answer["is_published"] = wanted["version"] in store.published()
            if not answer["is_published"]:
                answer["basis_version"] = stage(
                    store, wanted["version"], names, wanted["uid"], group_id, wanted["resend"]
                )
    return answers


def plan_versions(base_path: str, versions: list[dict[str, Any]], prunable_bytes: int) -> list[dict[str, Any]]:
    """Return what stage_versions would make, and change nothing. Raises OSError and SavedModelError."""
    answers: list[dict[str, Any]] = []
    needed_bytes = needed_inodes = 0
    for wanted in versions:
        store, version = ModelStore(Path(base_path, wanted["model"])), wanted["version"]
        shared: list[str] = []
        if wanted["files"] is not None:
            plan = plan_staging(store, version, wanted["files"], wanted["uid"])
            shared = sorted(plan.shared - set(wanted["resend"]))
            needed_bytes += plan.needed_bytes + wanted.get("generated_bytes", 0)
            needed_inodes += plan.needed_inodes
        staging, basis = str(store.staging(version)), str(store.basis(version))
        target = str(store.incoming(version)) if wanted["uid"] else staging
        answers.append({"target": target, "staging": staging, "basis": basis, "shared": shared})
    check_space(Path(base_path), needed_bytes, needed_inodes, prunable_bytes)
    return answers


def publish_version(
    path: str,
    version: int,
    group: str,
    uid: int,
    received: dict[str, int],
    digest: str,
    shared: dict[str, str],
    deltas: Deltas,
    extra: dict[str, Any],
    generated: dict[str, str],
    distribute: bool,
) -> dict[str, str]:
    """Publish or distribute what has arrived of a version in the model's directory path, where it is what digest says.

    uid is who received it; where that is not root, received has the sizes of the files by name, and root copies these.
    digest is that of tree_digest: thousands of files need not be told one by one. shared and generated are those of
    examine and release, deltas those of apply_deltas, extra goes to the manifest. Returns nothing, or where something
    else has arrived the sha256 of each file by name; then nothing is published. Raises OSError and SavedModelError.
    """
    store, group_id = ModelStore(Path(path)), id_of(group)
    with store.alone(version):
        incoming = UserTree(store.incoming(version), uid)
        copied = receive(incoming, store.staging(version), received, group_id) if uid else {}
        if deltas:
            apply_deltas(deltas, store.basis(version), store.staging(version))
        files = examine(store, version, group_id, shared, copied)
        if tree_digest(files) != digest:
            return {name: facts["sha256"] for name, facts in files.items()}
        release(store, version, files, group_id, extra, generated, distribute=distribute)
    return {}


def id_of(group: str) -> int:
    """Return the id of the server's group. Raises SavedModelError where models could not be given to it."""
    if os.geteuid() != 0:
        raise SavedModelError("models are root's on the host: run the play with become: true")
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SavedModelError(f"group {group} does not exist; the role tfserving_package makes it") from None

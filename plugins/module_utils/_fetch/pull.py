# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a host fetches and publishes a version by itself: the host's part of the action saved_models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import listed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.fetch import fetch
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import FETCH_UID, Request
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import (
    check_saved_model,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    total_bytes,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    WARMUP_FILE,
    warmup_files,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.arrival import (
    id_of,
    stage_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import examine, release
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore

ATTEMPTS = 2
BATCHING_FILE = "batching_params.pbtxt"  # servables/tensorflow/bundle_factory_util.cc


def passed_over(model: str, version: int, names: list[str]) -> list[str]:
    """Return the warning about what an archive holds beside a version."""
    if not names:
        return []
    text = f"what the archive of version {version} holds beside the SavedModel is passed over: {listed(names)}"
    return [f"model {model}: {text}"]


def pull_version(
    base_path: str,
    group: str,
    model: str,
    version: int,
    contract: dict[str, Any] | None,
    warmup: list[dict[str, Any]],
    is_archive: bool,
    request: dict[str, Any],
    distribute: bool,
    asked: str,
) -> dict[str, Any] | None:
    """Fetch a version, and once more where the whole has another digest than it should, and publish or distribute it.

    contract is the signatures that the model has to have, warmup the samples of its warm-up requests; request has the
    fields of Request, less the directories. Returns bytes, signatures, warnings and has_batching_file of the version,
    None where another run has published it meanwhile. Raises OSError and SavedModelError.
    """
    is_rsync = request["url"].startswith("rsync://")  # which runs as that user
    uid = FETCH_UID if is_rsync else 0
    wanted = {"model": model, "version": version, "uid": uid, "files": None, "resend": []}
    (staged,) = stage_versions(base_path, group, [wanted], request["prunable_bytes"])
    if staged["is_published"]:
        return None
    incoming = Path(staged["target"]) if is_rsync else None
    fetching = Request(**request, staging=Path(staged["staging"]), incoming=incoming, basis=Path(staged["basis"]))
    store, group_id = ModelStore(Path(base_path, model)), id_of(group)
    # What a run that was killed has added is not the source's.
    (fetching.staging / WARMUP_FILE).unlink(missing_ok=True)
    for _ in range(ATTEMPTS):
        received = fetch(fetching)
        with store.alone(version):
            files = examine(store, version, group_id, {})
            digest = tree_digest(files)
            # The digest of an archive was checked before it was unpacked.
            if is_archive or digest == fetching.digest:
                inspection = check_saved_model(fetching.staging, contract)
                signatures = inspection.signatures
                source_digest = fetching.digest if is_archive else None
                extra = {"source_digest": source_digest, "signatures": signatures, "asked": asked}
                generated = warmup_files(model, warmup, files, signatures)
                release(store, version, files, group_id, extra, generated, distribute=distribute)
                return {
                    "bytes": total_bytes(files),
                    "signatures": signatures,
                    "warnings": [*inspection.warnings, *passed_over(model, version, received.passed_over)],
                    "has_batching_file": BATCHING_FILE in files,
                }
    raise SavedModelError(
        f"{fetching.hide(fetching.url)} has digest {digest}, and `digests` of model {model} says {fetching.digest} for "
        f"version {version}; nothing was published. The module saved_model_info prints the digest of a SavedModel "
        "where it was exported"
    )

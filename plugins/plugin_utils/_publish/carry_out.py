# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Carries out a plan on a host: versions are pushed to it, or it fetches them."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.pull import pull_version
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import publish_distributed
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.plan import (
    PublishedVersion,
    PublishingPlan,
    Transfer,
    batching_note,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.push import Pusher
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.target import Target

FETCH_TIMEOUT_SECONDS = 60  # without a byte


def carry_out(
    plan: PublishingPlan,
    target: Target,
    pusher: Pusher,
    fetching: Mapping[str, Any],
    *,
    per_model_batching: bool,
    distribute: bool,
) -> list[PublishedVersion]:
    """Publish, or distribute, what the plan says, and return what that was.

    fetching is how a host fetches, as in Request.

    Raises AnsibleActionFail and SavedModelError; what was published by then stays.
    """
    if all(one.is_distributed for one in plan.transfers):  # else the first version that is staged has it made
        pusher.make_base_path()
    published = []
    try:
        for transfer in plan.transfers:
            if transfer.is_distributed:
                path = str(target.store(transfer).path)
                target.program.call(publish_distributed, path=path, version=transfer.version)
                published.append(transfer.result)
            elif transfer.pull:
                request = {**fetching, "prunable_bytes": plan.prunable_bytes}
                published.append(_fetch(transfer, target, request, distribute, per_model_batching=per_model_batching))
            else:
                pusher.push(transfer, distribute=distribute)
                published.append(transfer.result)
    finally:
        target.close()
    return published


def _fetch(
    transfer: Transfer, target: Target, request: Mapping[str, Any], distribute: bool, *, per_model_batching: bool
) -> PublishedVersion:
    """Let the host fetch a version."""
    pull = transfer.model.pulls[transfer.version]
    with target.watching(transfer):
        fetched: dict[str, Any] | None = target.program.call(
            pull_version,
            base_path=target.base_path,
            group=target.group,
            model=transfer.model.name,
            version=transfer.version,
            contract=transfer.contract,
            warmup=transfer.model.warmup,
            is_archive=pull.is_archive,
            request={**request, "url": pull.url, "digest": pull.digest, "timeout_seconds": FETCH_TIMEOUT_SECONDS},
            distribute=distribute,
            asked=transfer.asked,
        )
    if not fetched:  # another run has published it meanwhile
        return transfer.result
    for text in fetched["warnings"]:
        target.warn(text)
    if per_model_batching and not fetched["has_batching_file"]:
        target.warn(batching_note(transfer.model, transfer.version))
    return PublishedVersion(transfer.model.name, transfer.version, fetched["bytes"], fetched["signatures"])

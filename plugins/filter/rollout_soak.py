# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_soak
short_description: Judge models under traffic
version_added: 0.2.0
description:
  - Compares what a host has counted of the models that have changed with what another has, or itself before.
positional: limits, own, other
options:
  _input:
    description: The changes, as M(modelops.tensorflow_serving.model_rollout) returns them.
    type: list
    elements: dict
    required: true
  limits:
    description: C(max_error_share), C(max_latency_ratio), C(min_requests) and C(require_requests).
    type: dict
    required: true
  own:
    description: Two results of M(modelops.tensorflow_serving.serving_metrics_info), from the begin and the end.
    type: list
    elements: dict
    required: true
  other:
    description: The same of what it is compared with.
    type: list
    elements: dict
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
results: "{{ changes | modelops.tensorflow_serving.rollout_soak(limits, [start, end], [other_start, other_end]) }}"
"""

RETURN = r"""
_value:
  description: What was measured and what is allowed.
  type: list
  elements: dict
  sample:
    - {gate: soak errors, model: MLP, measured: "0.00% of 6000, 0.00% to compare with", allowed: "1.00%", passed: true,
       words: "soak errors of MLP: 0.00% of 6000, 0.00% to compare with (allowed: 1.00%)"}
"""

from typing import Any, Callable, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.gates import (
    NOTHING,
    since,
    soak,
    words,
)


def rollout_soak(
    changes: list[dict[str, Any]],
    limits: Mapping[str, Any],
    own: list[Mapping[str, Any]],
    other: list[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the results that DOCUMENTATION describes."""
    results = []
    for name in (change["model"] for change in changes if change["versions"]):
        of_own, of_other = (
            since(*({**NOTHING, **(look.get("models") or {}).get(name, {})} for look in looks))
            for looks in (own, other)
        )
        results += soak(name, of_own, of_other, limits)
    return [{**result, "words": words(result)} for result in results]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_soak": rollout_soak}

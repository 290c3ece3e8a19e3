# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_report
short_description: Say what has become of each host of a rollout
version_added: 0.2.0
description:
  - Returns a row for each host of a plan, with what was measured and what has failed.
positional: hostvars, is_paused
options:
  _input:
    description: The rows of the plan, as P(modelops.tensorflow_serving.rollout_plan#filter) returns them.
    type: list
    elements: dict
    required: true
  hostvars:
    description: The variable of this name.
    type: dict
    required: true
  is_paused:
    description: Whether the rollout is paused.
    type: bool
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
rows: "{{ __tfserving_rollout_plan.rows | modelops.tensorflow_serving.rollout_report(hostvars, false) }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
  elements: dict
  sample: [{"batch": 1, "host": "web1", "result": "passed", "what": "latency median of MLP: 1.04 (allowed: 2)"}]
"""

from typing import Any, Callable, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.gates import words


def rollout_report(rows: list[dict[str, Any]], hostvars: Mapping[str, Any], is_paused: bool) -> list[dict[str, Any]]:
    """Return the rows that DOCUMENTATION describes."""
    batches = {row["host"]: row["batch"] for row in rows}
    return [line for host, batch in batches.items() for line in _lines(host, batch, hostvars[host], is_paused)]


def _lines(host: str, batch: int, variables: Mapping[str, Any], is_paused: bool) -> list[dict[str, Any]]:
    returned = variables.get("__tfserving_rollout_returned") or {}
    failure = variables.get("__tfserving_rollout_failure", "")
    gates = [words(one) for one in (variables.get("__tfserving_rollout_tried") or {}).get("gates") or []]
    gates += [words(one) for one in variables.get("__tfserving_rollout_step_results") or []]
    gates += [one["words"] for one in variables.get("__tfserving_rollout_soak_results") or []]
    if "returned" in returned:
        result = "returned"
    elif returned.get("failed") or returned.get("unreachable"):
        result, failure = "not returned", str(returned.get("msg") or "it cannot be reached")
    elif failure:
        result = "failed"
    elif "__tfserving_rollout_passed" in variables or not batch:
        result = "passed"
    else:
        result = "paused" if is_paused else "not reached"
    told = [failure] if failure else []
    told += [f"{one['model']}: {one['from']} -> {one['to']}" for one in returned.get("returned") or []]
    return [
        {"batch": batch, "host": host, "result": result, "what": what}
        for what in [*told, *([] if failure else gates)] or [""]
    ]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_report": rollout_report}

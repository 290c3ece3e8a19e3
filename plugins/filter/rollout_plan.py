# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_plan
short_description: Plan the batches of a rollout
version_added: 0.2.0
description:
  - Returns which hosts change in which batch, and whether the rollout goes on, returns or cannot begin.
positional: hostvars, reached, settings
options:
  _input:
    description: The names of all hosts, in the order of the inventory.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable of this name, with what M(modelops.tensorflow_serving.model_rollout) has planned.
    type: dict
    required: true
  reached:
    description: Those that have passed the checks.
    type: list
    elements: str
    required: true
  settings:
    description: Sizes of the batches, the hosts that stay in service and those with a restart, and whether to resume
      and to leave out hosts that cannot be reached.
    type: dict
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
plan: "{{ ansible_play_hosts_all | modelops.tensorflow_serving.rollout_plan(hostvars, ansible_play_hosts, settings) }}"
"""

RETURN = r"""
_value:
  description: The action (V(go), V(return), V(stop)), the reasons against V(go), the batches, the number of each
    host's, the hosts to compare with, those with a change, whether it is resumed, and all of that as rows of a table.
  type: dict
"""

from typing import Any, Callable, Mapping

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.rollout_plan import (
    STOP,
    Host,
    make_plan,
)

# What the checks register of each host, also where it cannot be reached.
RESULTS = ("__tfserving_host", "__tfserving_models_published", "__tfserving_rollout_planned")


def rollout_plan(
    hosts: list[str], hostvars: Mapping[str, Any], reached: list[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the plan that DOCUMENTATION describes."""
    found, pending, missing = [], {}, []
    for name in hosts:
        variables = hostvars[name]
        if name not in reached:
            is_lost = any((variables.get(result) or {}).get("unreachable") for result in RESULTS)
            if not (is_lost and settings["skip_unreachable"]):
                missing.append(f"{name} {'cannot be reached' if is_lost else 'has failed the checks above'}")
            continue
        planned = variables["__tfserving_rollout_planned"]
        pending[name] = variables["__tfserving_models_published"]["published"]
        found.append(
            Host(
                name=name,
                changes=planned["changes"],
                problems=planned["problems"],
                record=planned["record"],
                is_same=planned["is_same"],
                withdrawn=planned["withdrawn"],
                held=planned["held"],
                is_first=boolean(variables.get("tfserving_rollout_first", False)),
                has_restart=name in settings["restart"],
            )
        )
    plan = make_plan(found, settings["batches"], settings["min_in_service"], resume=settings["resume"])
    batch_of = {
        **{name: number for number, batch in enumerate(plan.batches, start=1) for name in batch},
        **dict.fromkeys(plan.done, 0),
    }
    by_name = {host.name: host for host in found}
    return {
        "action": STOP if missing else plan.action,
        "reasons": [*missing, *plan.reasons],
        "batches": plan.batches,
        "batch_of": batch_of,
        "counterparts": plan.counterparts,
        "changing": [host.name for host in found if host.changes],
        "is_resumed": bool(plan.done),
        "rows": [
            row
            for name in sorted(batch_of, key=lambda name: batch_of[name])
            for row in _rows(by_name[name], batch_of[name], plan.counterparts.get(name, ""), pending[name])
        ],
    }


def _rows(host: Host, batch: int, counterpart: str, pending: list[dict[str, Any]]) -> list[dict[str, Any]]:
    of_host = {"batch": batch, "host": host.name}
    if not batch:
        return [{**of_host, "model": "has passed before"}]
    rows = []
    for change in host.changes:
        sizes = [one["bytes"] for one in pending if one["model"] == change["model"]]
        told = {name: change[name] for name in ("model", "from", "to")}
        size = None if None in sizes else sum(sizes)
        rows.append({**of_host, **told, "bytes": size, "compared with": counterpart or "itself before"})
    return rows or [{**of_host, "model": "nothing to change"}]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_plan": rollout_plan}

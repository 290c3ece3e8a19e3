# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The names of the collection's variables, and what is said of a name that is none of them."""

from __future__ import annotations

import difflib
from typing import Any, Iterable

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.renamed_variables import RENAMED

PREFIX = "tfserving_"
ALLOWED = "tfserving_allowed_extra_variables"

# What playbooks/serving.yml reads, as an argument_spec; the roles' variables are in their argument_specs.
SERVING_VARIABLES: dict[str, dict[str, Any]] = {
    ALLOWED: {"type": "list", "elements": "str"},
    "tfserving_lock_minutes": {"type": "int"},
    "tfserving_max_fail_percentage": {"type": "raw"},
    "tfserving_rollout_override": {"type": "bool"},
    "tfserving_serial": {"type": "raw"},
}
# Of these a play is cut into batches, before it knows its hosts' variables.
COMMAND_LINE_ONLY = ("tfserving_serial", "tfserving_max_fail_percentage")
# What other playbooks read, and what roles and playbooks register or loop over.
_OTHERS = (
    "tfserving_host",
    "tfserving_lock",
    "tfserving_monitoring_address",
    "tfserving_predict_digits",
    "tfserving_predict_models",
    "tfserving_predict_rows",
    "tfserving_predictions",
    "tfserving_role",
    "tfserving_rollout_event",
    "tfserving_rollout_models",
    "tfserving_rollout_resume",
    "tfserving_rollout_takeover",
    "tfserving_status",
)

# How much of two names has to be the same, without the prefix, for the one to be the other misspelt: 1 is all of it.
_ALIKE = 0.8


def name_problems(names: Iterable[str], known: Iterable[str], allowed: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what is wrong with names, and warnings of those that nothing reads; allowed are the user's own."""
    known = {*known, *SERVING_VARIABLES, *_OTHERS}
    by_stem = {name.removeprefix(PREFIX): name for name in known}
    problems, warnings = [], []
    for name in sorted({*names} - {*known, *allowed}):
        if name in RENAMED:
            problems.append(f"{name} is an old name; write {RENAMED[name]} instead.")
        elif name.startswith(PREFIX):
            near = difflib.get_close_matches(name.removeprefix(PREFIX), by_stem, n=1, cutoff=_ALIKE)
            if near:
                problems.append(
                    f"{name} is unknown; the nearest name is {by_stem[near[0]]}. Correct it, or list a variable of "
                    f"your own in {ALLOWED}."
                )
            else:
                warnings.append(
                    f"{name} is no variable of this collection, so nothing reads it. Remove it, or list a variable "
                    f"of your own in {ALLOWED}."
                )
    return problems, warnings

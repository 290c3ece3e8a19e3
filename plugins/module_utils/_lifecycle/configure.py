# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes all that the servers of a host read, and says which of them have to be started or restarted for it.

A running server reads models.config by itself: it has taken the models before anything that needs a restart is written.
"""

from __future__ import annotations

import grp
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import versions_by_model
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.managed_file import write_managed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import UNIT_PATH
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    HISTORY,
    HOLDS,
    mark_holds,
    note_served,
    read_history,
    read_holds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.models_config import (
    ModelsConfig,
    bring,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.removal import (
    gone_diff,
    remove_servers,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Servers
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import PROGRAM
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import RECORD
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    family,
    stale_units,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.last_good import (
    LAST_GOOD,
    read_last_good,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.unit_state import unit_states
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import (
    access,
    access_diff,
    make_directory,
    right_access,
)

# What the configuration directory has of earlier runs.
RECORDS = (LAST_GOOD, HISTORY, HOLDS, RECORD)


@dataclass
class Changes:
    """What has changed so far: diffs, and why a unit has to be restarted, by its name."""

    diff: list[dict[str, str]]
    changed: bool
    restart: dict[str, str]
    models_config: dict[str, dict[str, Any]] = field(default_factory=dict)


def configure(
    module: AnsibleModule, params: dict[str, Any], samples: dict[str, list[dict[str, Any]]], servers: Servers
) -> dict[str, Any]:
    """Write the configuration of all instances, and remove the servers that are not listed any more.

    params are those of the module model_servers. Returns its results; starts are the instances that have to be started,
    or restarted where restart is true. Raises OSError and ValueError; fails the module where a server does not take its
    models.
    """
    changes = Changes([], changed=False, restart={})
    if not module.check_mode:
        if read_last_good(params["config_path"]) is None:
            servers.record(unless_recorded=True)
        if not read_history(params["config_path"]):
            directories = family(params["unit"], params["config_path"]).values()
            note_served(params["config_path"], directories, proven_only=True)
    for one in params["instances"]:
        if one["name"]:
            _make_directory(module, Path(one["config_path"]), params["group"], changes)
    held: set[str] = set()
    for one in params["instances"]:
        outcome = bring(module, _models_config(params, one, samples))
        held.update(outcome.held)
        changes.changed = changes.changed or outcome.changed
        changes.diff.append(outcome.diff)
        changes.models_config[one["unit"]] = {"live": outcome.live, "steps": outcome.steps}
        if outcome.restart_reason:
            changes.restart[one["unit"]] = outcome.restart_reason
    if not module.check_mode:
        mark_holds(params["config_path"], held)
    _write_files(module, params["files"], changes)
    wanted = {one["unit"]: one["config_path"] for one in params["instances"]}
    stale = stale_units(family(params["unit"], params["config_path"]), wanted)
    changes.changed = changes.changed or bool(stale)
    changes.diff += [gone_diff(f"{one['unit']}.service") for one in stale]
    if not module.check_mode:
        remove_servers(module, stale, params["config_path"])
        for unit in params["displaced"]:
            module.run_command(["systemctl", "stop", f"{unit}.service"], check_rc=True)
    starts = _starts(module, params, changes)
    if not module.check_mode:
        # The starts of this run are nobody's endless loop, which the unit's start limit is there for.
        for one in starts:
            module.run_command(["systemctl", "reset-failed", f"{one['unit']}.service"])
    return {
        "changed": changes.changed,
        "diff": changes.diff,
        "models_config": changes.models_config,
        "starts": starts,
        "reasons": changes.restart,
    }


def _make_directory(module: AnsibleModule, folder: Path, group: str, changes: Changes) -> None:
    before = access(folder)
    if before != right_access(group):
        changes.changed = True
        changes.diff.append(access_diff(str(folder), before, group))
        if not module.check_mode:
            make_directory(folder, grp.getgrnam(group).gr_gid)


def _models_config(
    params: dict[str, Any], instance: dict[str, Any], samples: dict[str, list[dict[str, Any]]]
) -> ModelsConfig:
    return ModelsConfig(
        unit=f"{instance['unit']}.service",
        path=Path(instance["config_path"], MODELS_CONFIG),
        group=params["group"],
        rest_api_port=instance["rest_api_port"],
        base_path=Path(params["base_path"]),
        catalog=[entry for entry in params["catalog"] if entry["name"] in instance["models"]],
        samples=samples,
        timeout_seconds=params["timeout_seconds"],
        heal=params["heal"],
        holds={} if params["override"] else read_holds(params["config_path"]),
        pending=versions_by_model(params["pending"] or []),
        following=params["models"],
    )


def _write_files(module: AnsibleModule, files: list[dict[str, Any]], changes: Changes) -> None:
    """Write what is read at a start, the units last."""
    has_new_unit = False
    for file in sorted(files, key=lambda one: Path(one["path"]).parent == UNIT_PATH):
        path, is_secret = Path(file["path"]), file["content"] is None
        content = file["secret_content"] if is_secret else file["content"]
        changed, diff = write_managed(module, path, content, "root", file["group"], file["mode"])
        if changed:
            has_new_unit = has_new_unit or path.parent == UNIT_PATH
            changes.changed = True
            if module.check_mode and "after" in diff:  # else _starts sees it on disk
                changes.restart.setdefault(file["unit"], f"{path} is new")
        if not is_secret:
            changes.diff.append(diff)
    if has_new_unit and not module.check_mode:
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)


def _starts(module: AnsibleModule, params: dict[str, Any], changes: Changes) -> list[dict[str, Any]]:
    """Return the instances that have to be started, with restart, active and exists of each.

    What is on disk decides, so that a run which was killed is made up for. In check mode nothing has been written, and
    what would be decides as well.
    """
    files = {one["unit"]: [f"{one['config_path']}/{name}" for name in one["files"]] for one in params["instances"]}
    states = unit_states(module, files, PROGRAM, read_last_good(params["config_path"]))
    starts = []
    for one in params["instances"]:
        unit, state = one["unit"], states[one["unit"]]
        if state.outdated:
            changes.restart.setdefault(unit, f"older than {', '.join(state.outdated)}")
        if module.check_mode and params["package_changed"]:
            changes.restart.setdefault(unit, "the package changes")
        is_restart = state.is_active and unit in changes.restart
        if is_restart or not (state.is_active and state.is_enabled):
            starts.append({**one, "restart": is_restart, "active": state.is_active, "exists": state.exists})
    changes.restart = {one["unit"]: changes.restart[one["unit"]] for one in starts if one["restart"]}
    return starts


def remove(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Take all servers of a family off the host. Returns the results of the module. Raises OSError."""
    stale = stale_units(family(params["unit"], params["config_path"]), {})
    records = [path for path in (Path(params["config_path"], name) for name in RECORDS) if path.exists()]
    changed = bool(stale or records)
    if not module.check_mode:
        remove_servers(module, stale, params["config_path"])
        for record in records:
            record.unlink()
    return {"changed": changed, "diff": [gone_diff(f"{one['unit']}.service") for one in stale]}

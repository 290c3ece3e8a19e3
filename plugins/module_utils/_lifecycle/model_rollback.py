# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Returns models to what the host served before, in the models.config of its servers and in nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import numbers
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import ManagedFile
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    History,
    Hold,
    State,
    asked_for,
    held_model,
    note_served,
    now,
    previous,
    read_history,
    read_holds,
    rejecting,
    served_states,
    who,
    with_entry,
    words,
    write_history,
    write_holds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.models_config import (
    ModelsConfig,
    Outcome,
    apply,
    running_pid,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    family,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.last_good import (
    write_last_good_models,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    Models,
    catalog_models,
    published_of,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import read
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.ready import wait_until_ready
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    local_client,
    ports,
    process_flags,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import SystemdUnit
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import withdrawn


class RollbackError(Exception):
    """Nothing is rolled back on this host; the text has a line for each model that cannot be."""


def roll_back(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Roll models back, and return the result of the module model_rollback, whose params these are.

    Raises RollbackError before anything is changed, OSError, and NotReady. Where a server does not serve what it served
    before, everything is put back, and the module fails.
    """
    config_path = params["config_path"]
    directories = family(params["unit"], config_path)
    files = {unit: read(Path(directory, MODELS_CONFIG))[1] or {} for unit, directory in directories.items()}
    history = with_entry(read_history(config_path), served_states(directories.values()), who())
    targets, problems = _targets(history, {name: model for one in files.values() for name, model in one.items()})
    names = [entry["name"] for entry in params["catalog"]]
    for name in params["models"]:
        if name not in names:
            module.warn(f"{name} is no model of this host's tfserving_models_catalog")
        elif name not in targets:
            problems.setdefault(name, f"nothing else was served of {name} before")
    told = {name: why for name, why in problems.items() if name in (params["models"] or names)}
    if params["models"] and told:
        raise RollbackError("\n".join(["Nothing was rolled back:", *(f"- {why}" for why in told.values())]))
    for why in told.values():
        module.warn(f"{why}; it stays as it is")
    chosen = {name: one for name, one in targets.items() if name in (params["models"] or names) and name in names}
    holds = _holds(params, chosen, {name: model for one in files.values() for name, model in one.items()})
    if chosen and not module.check_mode:
        _carry_out(module, params, directories, files, holds, rejecting(history, chosen))
    served = history[-1]["models"] if history else {}
    rows = [
        {
            "model": name,
            "from": words(served.get(name)),
            "to": words(target),
            "catalog_entry": _entry(name, holds[name]),
        }
        for name, target in chosen.items()
    ]
    return {
        "changed": bool(chosen),
        "rolled_back": rows,
        "diff": {
            "before_header": "served",
            "after_header": "served",
            "before": "".join(f"{one['model']} {one['from']}\n" for one in rows),
            "after": "".join(f"{one['model']} {one['to']}\n" for one in rows),
        },
    }


def _targets(history: History, models: Models) -> tuple[dict[str, State], dict[str, str]]:
    """Return what each model goes back to, and why others cannot; models are those that servers are told of."""
    targets: dict[str, State] = {}
    problems: dict[str, str] = {}
    for name, published in published_of(models).items():
        target = previous(history, name)
        if target is None:
            continue
        store = ModelStore(Path(models[name]["base_path"]))
        gone = [version for version in map(int, target["versions"]) if version not in published]
        other = [
            int(version)
            for version, digest in target["versions"].items()
            if int(version) in published and (store.read_manifest(int(version)) or {}).get("digest") != digest
        ]
        if gone:
            problems[name] = f"{numbers(gone)} of {name}, which was served before, is not on the host any more"
        elif other:
            problems[name] = f"{numbers(other)} of {name} has other files than when it was served before"
        else:
            targets[name] = target
    return targets, problems


def _holds(params: dict[str, Any], targets: dict[str, State], current: Models) -> dict[str, Hold]:
    """Return the holds of the models, each with what the catalogue asks for now."""
    base_path = Path(params["base_path"])
    paths = {name: {"base_path": str(base_path / name)} for name in targets}
    published = published_of(paths)
    refused = {name: list(withdrawn(ModelStore(base_path / name))) for name in targets}
    entries = [entry for entry in params["catalog"] if entry["name"] in targets]
    models, _ = catalog_models(entries, base_path, published, refused, current)
    by_name = {model["name"]: model for model in models}
    by = who()
    return {
        name: {
            "versions": sorted(map(int, target["versions"])),
            "labels": target["labels"],
            "instead_of": asked_for(by_name.get(name, current[name]), published[name]),
            "time": now(),
            "by": by,
            "is_over": False,
        }
        for name, target in targets.items()
    }


def _carry_out(
    module: AnsibleModule,
    params: dict[str, Any],
    directories: dict[str, str],
    files: dict[str, Models],
    holds: dict[str, Hold],
    history: History,
) -> None:
    """Have the servers serve what is held, or put back everything that was written."""
    config_path = params["config_path"]
    old_history, old_holds = read_history(config_path), read_holds(config_path)
    written: dict[ManagedFile, str] = {}
    is_done = False
    try:
        write_history(config_path, history)
        write_holds(config_path, {**old_holds, **holds})
        for unit, directory in directories.items():
            models = {name: held_model(one, holds[name]) if name in holds else one for name, one in files[unit].items()}
            if models != files[unit]:
                path = Path(directory, MODELS_CONFIG)
                file = ManagedFile(module, path, "root", params["group"], "0640")
                written[file] = read(path)[0]
                _bring(module, params, SystemdUnit(module, f"{unit}.service"), path, file, models)
        write_last_good_models(config_path)
        note_served(config_path, directories.values())
        is_done = True
    finally:
        if not is_done:
            for file, text in written.items():
                file.write(text)
            write_holds(config_path, old_holds)
            write_history(config_path, old_history)


def _bring(
    module: AnsibleModule, params: dict[str, Any], unit: SystemdUnit, path: Path, file: ManagedFile, models: Models
) -> None:
    """Have one server serve these models. One that cannot be told of them while it runs is restarted."""
    config = ModelsConfig(
        unit=unit.name,
        path=path,
        group=params["group"],
        rest_api_port=0,
        base_path=Path(params["base_path"]),
        catalog=[],
        samples={},
        timeout_seconds=params["timeout_seconds"],
        heal="restart",
    )
    outcome = Outcome(changed=True, diff={})
    apply(module, config, file, models, outcome)
    if not outcome.live:
        module.run_command(["systemctl", "reset-failed", unit.name])
        module.run_command(["systemctl", "restart", unit.name], check_rc=True)
    client = local_client(ports(process_flags(running_pid(module, unit.name))), unit.cgroup)
    wait_until_ready(client, unit, path, {}, params["timeout_seconds"])


def _entry(name: str, hold: Hold) -> str:
    """Return what the model's entry in the catalogue has to say for this to last, as YAML in one line."""
    entry = {"name": name, "model_version_policy": {"specific": {"versions": hold["versions"]}}}
    if hold["labels"] or hold["instead_of"]["labels"]:
        entry["version_labels"] = hold["labels"]
    return json.dumps(entry)

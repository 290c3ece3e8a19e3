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
    earlier,
    held_model,
    new_hold,
    note_served,
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
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.model_change import ModelChange
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Server
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.host import give_back
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import read_record
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    family,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.last_good import (
    write_last_good_models,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    Models,
    NotTaken,
    catalog_models,
    published_of,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import read
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import NotServed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import withdrawn


class RollbackError(Exception):
    """Nothing is rolled back on this host, and the text says why."""


def roll_back(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Roll models back, and return the result of the module model_rollback, whose params these are.

    A host with an unfinished rollout returns to what it served before that. Raises RollbackError, NotReturned,
    ForeignListener and OSError. Where a server does not serve what it served before, everything
    is put back.
    """
    config_path = params["config_path"]
    if read_record(config_path):
        return _results([{**row, "catalog_entry": ""} for row in give_back(module, params, "it was rolled back")])
    directories = family(params["unit"], config_path)
    files = {unit: read(Path(directory, MODELS_CONFIG))[1] or {} for unit, directory in directories.items()}
    history = _history(config_path, served_states(directories.values()))
    current = {name: model for one in files.values() for name, model in one.items()}
    targets, problems = _targets(history, current)
    names = [entry["name"] for entry in params["catalog"]]
    if params["models"] and not set(params["models"]) & set(names):
        raise RollbackError(f"tfserving_models_catalog has no model {' and none '.join(params['models'])}")
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
    holds = _holds(params, chosen, current)
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
    return _results(rows)


def _results(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the results of the module for what was rolled back."""
    return {
        "changed": bool(rows),
        "rolled_back": rows,
        "diff": {
            "before_header": "served",
            "after_header": "served",
            "before": "".join(f"{one['model']} {one['from']}\n" for one in rows),
            "after": "".join(f"{one['model']} {one['to']}\n" for one in rows),
        },
    }


def _history(config_path: str, served: dict[str, State]) -> History:
    """Return the history with what is served now, less what a rollback that was killed has brought: it is finished."""
    noted, holds = read_history(config_path), read_holds(config_path)
    rejected = noted[-1]["rejected"] if noted else []
    if any(name in holds and served.get(name) != noted[-1]["models"].get(name) for name in rejected):
        return noted
    return with_entry(noted, served, holds, who())


def _targets(history: History, models: Models) -> tuple[dict[str, State], dict[str, str]]:
    """Return what each model goes back to, and why others cannot; models are those that servers are told of."""
    targets: dict[str, State] = {}
    problems: dict[str, str] = {}
    for name, published in published_of(models).items():
        store = ModelStore(Path(models[name]["base_path"]))
        refused = {str(version) for version in withdrawn(store)}
        target = next((one for one in earlier(history, name) if not refused & one["versions"].keys()), None)
        if target is None:
            continue
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
    return {
        name: new_hold(target, asked_for(by_name.get(name, current[name]), published[name]))
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
    """Have the servers serve what is held, or put back everything that was written. Raises RollbackError."""
    config_path = params["config_path"]
    old_history, old_holds = read_history(config_path), read_holds(config_path)
    changes = []
    for unit, directory in directories.items():
        after = {name: held_model(one, holds[name]) if name in holds else one for name, one in files[unit].items()}
        if after != files[unit]:
            server = Server(module, unit, directory)
            file = ManagedFile(module, server.models_config, "root", params["group"], "0640")
            text = read(server.models_config)[0]
            changes.append(ModelChange(server, file, files[unit], after, text, params["timeout_seconds"]))
    done: list[ModelChange] = []
    is_done = False
    try:
        write_history(config_path, history)
        write_holds(config_path, {**old_holds, **holds})
        for change in changes:
            try:
                change.carry_out()
            except NotServed as error:
                if not isinstance(error, NotTaken):  # which has the old file again
                    done.append(change)
                raise RollbackError(f"{change.server.unit.name} does not serve it: {error}") from error
            done.append(change)
        note_served(config_path, directories.values())
        write_last_good_models(config_path, [change.server.models_config for change in changes])
        is_done = True
    finally:
        if not is_done:
            write_holds(config_path, old_holds)
            write_history(config_path, old_history)
            for change in reversed(done):
                change.put_back()


def _entry(name: str, hold: Hold) -> str:
    """Return what the model's entry in the catalogue has to say for this to last, as YAML in one line."""
    entry = {"name": name, "model_version_policy": {"specific": {"versions": hold["versions"]}}}
    if hold["labels"] or hold["instead_of"]["labels"]:
        entry["version_labels"] = hold["labels"]
    return json.dumps(entry)

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a rollout would change on a host, how it begins there, and how the host returns to what it served before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    catalog_samples,
    versions_by_model,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import ManagedFile
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import NginxError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.trial import can_try
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    asked_for,
    new_hold,
    note_served,
    now,
    read_holds,
    served_states,
    who,
    words,
    write_holds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.model_change import ModelChange
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.models_config import (
    ModelsConfig,
    running_pid,
    wanted_models,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Server
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.candidate import remove
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import (
    BEGUN,
    PASSED,
    Record,
    read_record,
    remove_record,
    write_record,
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
    expected_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import read
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import (
    NotServed,
    foreign_port,
    missing_versions,
    unanswered_samples,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import (
    withdraw,
    withdrawn,
)

# What the catalogue asks for of a model that it does not have any more.
GONE: dict[str, Any] = {"versions": [], "labels": {}, "unit": ""}


class LostError(Exception):
    """The host is not where the rollout should have brought it."""


class NotReturned(Exception):
    """The host does not serve what it served before the rollout; the text says what it does."""


def planned(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Return what a rollout would change, and what speaks against it. Changes nothing; params are model_rollout's.

    Fails the module for a catalogue that may not reach models.config.
    """
    config_path = params["config_path"]
    to = _asked(module, params)
    record = read_record(config_path)
    is_same = record is not None and _there(to) == _there(record["to"])
    # What an earlier run has begun to change has its gates still before it.
    served = record["served"] if record and is_same else served_states(family(params["unit"], config_path).values())
    if not params["models"]:  # what leaves the catalogue is a change, too
        to.update({name: GONE for name, state in served.items() if name not in to and state["versions"]})
    changes = []
    for name, asked in to.items():
        if _differs(served.get(name), asked):
            changes.append({"model": name, "from": words(served.get(name)), "to": words(asked), **asked})
    return {
        "changes": changes,
        "to": to,
        "problems": _problems(module, params, {one["model"] for one in changes}),
        "record": record,
        "is_same": is_same,
        "withdrawn": {name: list(withdrawn(ModelStore(Path(params["base_path"], name)))) for name in to},
        "held": sorted(read_holds(config_path)),
    }


def _there(to: dict[str, Any]) -> dict[str, Any]:
    return {name: asked for name, asked in to.items() if asked["versions"]}


def _differs(served: dict[str, Any] | None, asked: dict[str, Any]) -> bool:
    """Say whether something else is served of a model than what is asked for."""
    now_served = served or {"versions": {}, "labels": {}}
    return (sorted(map(int, now_served["versions"])), now_served["labels"]) != (asked["versions"], asked["labels"])


def _asked(module: AnsibleModule, params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the catalogue asks for of each model, with the unit that serves it; what is held stays."""
    holds = {} if params["override"] else read_holds(params["config_path"])
    pending = versions_by_model(params["pending"] or [])
    asked = {}
    for one in params["instances"]:
        entries = [entry for entry in params["catalog"] if entry["name"] in one["models"]]
        config = ModelsConfig(
            unit=f"{one['unit']}.service",
            path=Path(one["config_path"], MODELS_CONFIG),
            group="root",
            rest_api_port=one["rest_api_port"],
            base_path=Path(params["base_path"]),
            catalog=entries,
            samples={},
            timeout_seconds=0,
            holds=holds,
            pending=pending,
        )
        models, _ = wanted_models(module, config)
        for name, model in models.items():
            if params["models"] and name not in params["models"]:
                continue
            there = {*ModelStore(Path(model["base_path"])).published(), *pending.get(name, set())}
            asked[name] = {**asked_for(model, sorted(there)), "unit": one["unit"]}
    return asked


def _problems(module: AnsibleModule, params: dict[str, Any], changing: set[str]) -> list[str]:
    """Return which served versions do not answer, of servers that there are, and whether the gateway can take steps.

    The samples of models that change are those of their new versions.
    """
    problems = []
    if params["traffic"] and changing and not can_try():
        problems.append(
            "tfserving_rollout_traffic is set, and its gateway is not there or of an earlier release. Play serving.yml "
            "with --tags gateway"
        )
    try:
        samples = {name: one for name, one in catalog_samples(params["catalog"]).items() if name not in changing}
        for unit, directory in family(params["unit"], params["config_path"]).items():
            server = Server(module, unit, directory)
            models = server.models()
            pid = running_pid(module, server.unit.name)
            if models and not pid:
                problems.append(f"{server.unit.name} does not run")
                continue
            client, expected = server.client(pid), expected_versions(models)
            missing, _ = missing_versions(client, expected)
            if not missing:
                missing, refused = unanswered_samples(client, expected, samples)
                missing += list(refused.values())
            problems += missing
    except (ForeignListener, OSError, ValueError) as error:
        problems.append(str(error))
    return problems


def begin(params: dict[str, Any]) -> bool:
    """Note what the host serves, before anything of it is changed, unless that is noted. Raises OSError."""
    config_path = params["config_path"]
    if read_record(config_path):
        return False
    to = params["to"]
    directories = family(params["unit"], config_path)
    files = {unit: read(Path(directory, MODELS_CONFIG))[1] or {} for unit, directory in directories.items()}
    served = served_states(directories.values())
    base_path = Path(params["base_path"])
    new = {
        name: [one for one in asked["versions"] if one not in ModelStore(base_path / name).published()]
        for name, asked in to.items()
    }
    record: Record = {
        "time": now(),
        "by": who(),
        "phase": BEGUN,
        "failure": "",
        "to": to,
        "before": {unit: {name: models.get(name) for name in to} for unit, models in files.items()},
        "served": {name: served[name] for name in to if name in served},
        "new": new,
        "held": [
            name
            for name, asked in to.items()
            if name in served and asked["versions"] and not new[name] and _differs(served[name], asked)
        ],
    }
    write_record(config_path, record)
    return True


def set_phase(params: dict[str, Any], phase: str) -> None:
    """Note how far the rollout is. Raises OSError, and LostError where the host is not where it should be."""
    config_path = params["config_path"]
    record = read_record(config_path)
    if not record:
        raise LostError("The record of the rollout is gone, as another run has ended it")
    if phase == PASSED:
        served = served_states(family(params["unit"], config_path).values())
        other = [name for name, asked in record["to"].items() if _differs(served.get(name), asked)]
        if other:
            raise LostError(f"The host does not serve what the catalogue asks for of {', '.join(other)}")
    write_record(config_path, {**record, "phase": phase, "failure": params["failure"]})


def give_back(module: AnsibleModule, params: dict[str, Any], reason: str) -> list[dict[str, str]]:
    """Return the host to what it served before the rollout, and return each model with from and to.

    The new versions are withdrawn. Models that changed without one are held, as else the next run would change them
    again. Raises NotReturned and OSError; the record stays then.
    """
    config_path = params["config_path"]
    record = read_record(config_path)
    if record is None:
        return []
    directories = family(params["unit"], config_path)
    served = served_states(directories.values())
    rows = [
        {"model": name, "from": words(served.get(name)), "to": words(record["served"].get(name))}
        for name in record["to"]
        if served.get(name) != record["served"].get(name)
    ]
    if module.check_mode:
        return rows
    try:
        remove(module)  # what was cut in a step: its requests are the server's again
    except NginxError as error:
        raise NotReturned(f"nginx does not forget what the rollout has tried: {error}") from error
    moved = [unit for unit, models in record["before"].items() if any(models.values()) and unit not in directories]
    if moved:
        raise NotReturned(f"{', '.join(moved)}, which served models before, is not on the host any more")
    before = {unit: record["before"].get(unit, dict.fromkeys(record["to"])) for unit in directories}
    new = [
        (ModelStore(Path(params["base_path"], name)), version)
        for name, versions in record["new"].items()
        for version in versions
    ]
    if any(version in store.published() for store, version in new):
        # What is withdrawn must not be wanted by anybody any more: first, each version that was served by its number.
        _bring(module, params, directories, {unit: _by_number(record, one) for unit, one in before.items()})
    for store, version in new:
        if version in store.published() or store.distributed(version).is_dir():
            withdraw(store, version, reason)
    _bring(module, params, directories, before)
    _hold(config_path, record)
    note_served(config_path, directories.values())
    write_last_good_models(config_path, [Path(one, MODELS_CONFIG) for one in directories.values()])
    remove_record(config_path)
    return rows


def _by_number(record: Record, models: dict[str, Any]) -> dict[str, Any]:
    """Return the ModelConfigs before the rollout with each version by its number."""
    found = {}
    for name, model in models.items():
        versions = [int(version) for version in record["served"].get(name, {"versions": {}})["versions"]]
        policy = {"specific": {"versions": sorted(versions)}}
        found[name] = {**model, "model_version_policy": policy} if model and versions else model
    return found


def _bring(
    module: AnsibleModule, params: dict[str, Any], directories: dict[str, str], wanted: dict[str, dict[str, Any]]
) -> None:
    """Have each server serve these ModelConfigs; a model without one is taken from it. Raises NotReturned."""
    for unit, models in wanted.items():
        server = Server(module, unit, directories[unit])
        text, current = read(server.models_config)
        before: Models = current or {}
        after = {name: one for name, one in {**before, **models}.items() if one}
        after = {name: one for name, one in after.items() if expected_versions({name: one})[name]}
        if after == before:
            continue
        file = ManagedFile(module, server.models_config, "root", params["group"], "0640")
        try:
            ModelChange(server, file, before, after, text, params["timeout_seconds"]).carry_out()
        except NotServed as error:
            raise NotReturned(f"{server.unit.name} does not serve what it served before: {error}") from error
        except ForeignListener as error:
            raise NotReturned(foreign_port(error, server.unit.name)) from error


def _hold(config_path: str, record: Record) -> None:
    """Hold the models that the catalogue would change again, as it asks for no version that was withdrawn."""
    held = {name: new_hold(record["served"][name], record["to"][name]) for name in record["held"]}
    if held:
        write_holds(config_path, {**read_holds(config_path), **held})

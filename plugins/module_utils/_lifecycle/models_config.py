# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings the models.config of a unit, and the server that runs with it, to what a catalogue says."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import ManagedFile
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import unit_properties
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    Hold,
    held_model,
    hold_of,
    hold_words,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    parse_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    LiveConfig,
    Models,
    NotTaken,
    Stuck,
    announced_versions,
    catalog_models,
    expected_versions,
    observe,
    published_of,
    unservable,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import (
    read,
    render,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    ServingClient,
    ServingError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    local_client,
    poll_wait_seconds,
    ports,
    process_environment,
    process_flags,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import (
    Refusals,
    SystemdUnit,
    as_results,
    foreign_port,
    hides_warnings,
    last_words,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import (
    is_tried_again,
    prove,
    withdrawn,
)

# How far back the log is shown: the cause lies before the module's run where a version was published before it.
BEFORE_SECONDS = 60


@dataclass(frozen=True)
class ModelsConfig:
    """The models.config of one unit, whose name ends in .service, and the models that it is to have.

    samples are requests by model, as catalog_samples returns them. heal says what to do with a server that takes no
    file any more: none, or restart. holds are the models that were rolled back, and pending the versions that check
    mode does not see on the host. following are the models that follow the catalogue, all where there is none.
    """

    unit: str
    path: Path
    group: str
    rest_api_port: int
    base_path: Path
    catalog: list[dict[str, Any]]
    samples: dict[str, list[dict[str, Any]]]
    timeout_seconds: float
    heal: str = "none"
    holds: dict[str, Hold] = field(default_factory=dict)
    pending: dict[str, set[int]] = field(default_factory=dict)
    following: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What has become of a models.config. live says whether a running server has taken it, steps how.

    held are the models that stay at what they were rolled back to.
    """

    changed: bool
    diff: dict[str, str]
    live: bool = False
    steps: list[str] = field(default_factory=list)
    restart_reason: str = ""
    held: dict[str, Hold] = field(default_factory=dict)


def bring(module: AnsibleModule, config: ModelsConfig) -> Outcome:
    """Bring the file, and a running server, to what the catalogue says. Fails the module where that cannot be."""
    models, held = wanted_models(module, config)
    # The samples are those of what the catalogue asks for.
    config = replace(config, samples={name: one for name, one in config.samples.items() if name not in held})
    file = ManagedFile(module, config.path, "root", config.group, "0640")
    before, after = read(config.path)[0], render(models)
    shown = before.encode(errors="surrogateescape").decode(errors="replace")
    header = {"before_header": str(config.path), "after_header": str(config.path)}
    outcome = Outcome(before != after, {"before": shown, "after": after, **header}, held=held)
    if not module.check_mode:
        try:
            apply(module, config, file, models, outcome)
        except ForeignListener as error:
            module.fail_json(msg=f"{foreign_port(error, config.unit)} Nothing was changed.")
        except OSError as error:
            module.fail_json(msg=f"models.config cannot be written: {error}")
    if config.path.exists() and file.set_attributes():
        outcome.changed = True
    return outcome


def running_pid(module: AnsibleModule, unit_name: str) -> int:
    """Return the server's process, 0 where it does not run."""
    unit = unit_properties(module, unit_name, "ActiveState", "MainPID")
    return int(unit["MainPID"]) if unit["ActiveState"] == "active" else 0


def take(
    module: AnsibleModule,
    config: ModelsConfig,
    live: LiveConfig,
    client: ServingClient,
    file: ManagedFile,
    models: Models,
) -> None:
    """Bring the file and the running server to these models.

    Fails the module after it has put the old file back. Raises Stuck, and then the file is that for the restart.
    """
    start = time.time()
    before_text, before = read(config.path)
    text = render(models)
    wanted = parse_models_config(text)
    state_before = observe(client, before or {}, wanted)
    try:
        try:
            if before != wanted:
                live.replace(before or {}, wanted, text)
                return
            if before_text != text:
                file.write(text)
            if not live.is_taken(wanted):
                live.settle(wanted)
        except Stuck:
            raise
        except NotTaken as error:
            message = f"{str(error).rstrip('.')}."
            if before != wanted:
                current = read(config.path)[1] or {}
                message += " " + live.put_back(current, before, before_text, state_before)
            fail_with_log(module, config, message, start - BEFORE_SECONDS, error.refused)
    except Stuck:
        if not unservable(wanted):
            file.write(text)
        raise


def fail_with_log(
    module: AnsibleModule, config: ModelsConfig, message: str, since: float, refused: Refusals | None = None
) -> None:
    """Fail with what the server has logged since then, and the versions that it has refused."""
    unit, base_path = SystemdUnit(module, config.unit), config.base_path
    module.fail_json(
        msg=f"{message}\njournalctl --unit={unit.name} says, without chatter:\n{last_words(unit.log(since))}",
        refused=as_results(refused or {}, {model: base_path / model for model, _ in refused or {}}),
    )


def apply(module: AnsibleModule, config: ModelsConfig, file: ManagedFile, models: Models, outcome: Outcome) -> None:
    """Write the file if need be, and see a running server take it. Raises OSError and ForeignListener."""
    text = render(models)
    before_text, before = read(config.path)
    unit, pid = SystemdUnit(module, config.unit), running_pid(module, config.unit)
    flags = process_flags(pid) if pid else {}
    client = local_client(ports({"rest_api_port": str(config.rest_api_port), **flags}), unit.cgroup)
    why_not = why_not_live(pid, flags, str(config.path), client, before or {}, models)
    again = "" if why_not else tried_again(client, models)
    if why_not or again:
        if before_text != text:
            file.write(text)
        if pid and (again or before_text != text or client.lacks_rest()):
            outcome.restart_reason = why_not or again
        return
    live = LiveConfig(
        client, unit, file.write, render, config.samples, config.timeout_seconds, poll_wait_seconds(flags)
    )
    start = time.time()
    try:
        take(module, config, live, client, file, models)
        outcome.live, outcome.steps = True, live.steps
        for name, versions in expected_versions(models).items():
            for version in versions:
                if live.has_answered(name, version):
                    prove(ModelStore(Path(models[name]["base_path"])), version)
    except Stuck as error:
        if config.heal != "restart":
            message = (
                f"{str(error).rstrip('.')}. Restart it, or rerun the playbook with tfserving_service_heal: restart."
            )
            fail_with_log(module, config, message, start - BEFORE_SECONDS)
        outcome.restart_reason = str(error)


def tried_again(client: ServingClient, models: Models) -> str:
    """Return which versions a running server could not load before and will not load again; empty for none.

    One that it has loaded, and that was withdrawn for its answers, it loads again.
    """
    found = []
    for name, versions in expected_versions(models).items():
        store = ModelStore(Path(models[name]["base_path"]))
        again = [version for version in versions if is_tried_again(store, version)]
        try:
            status = client.status(name) if again else {}
        except (ServingError, OSError):
            continue
        found += [
            f"{name} version {version}" for version in again if status.get(version, {}).get("error_code", "OK") != "OK"
        ]
    return f"the running server has refused {', '.join(found)} before, and does not try it again" if found else ""


def why_not_live(
    pid: int, flags: dict[str, str], path: str, client: ServingClient, before: Models, models: Models
) -> str:
    """Return why a server cannot be told of a change while it runs, empty where it can. Raises ForeignListener."""
    if not pid:
        return "it does not run"
    if flags.get("model_config_file") != path or not poll_wait_seconds(flags):
        return f"the running server does not look at {path}"
    if hides_warnings(process_environment(pid)):
        return "TF_CPP_MIN_LOG_LEVEL hides whether the running server takes a file"
    try:
        client.check_identity()
    except ForeignListener:
        raise
    except OSError as error:
        return f"the running server does not answer: {error}"
    return "" if observe(client, before, models).answers else "the running server answers nothing"


def wanted_models(module: AnsibleModule, config: ModelsConfig) -> tuple[Models, dict[str, Hold]]:
    """Return the models of the catalogue, and those of them that are held at something else.

    Fails the module for what may not reach the file.
    """
    paths = {entry["name"]: {"base_path": str(config.base_path / entry["name"])} for entry in config.catalog}
    published = published_of(paths)
    if module.check_mode:
        for entry in config.catalog:
            name = entry["name"]
            published[name] = sorted({*published[name], *announced_versions(entry), *config.pending.get(name, set())})
    refused = {name: list(withdrawn(ModelStore(config.base_path / name))) for name in paths}
    current = read(config.path)[1]
    models, problems = catalog_models(config.catalog, config.base_path, published, refused, current)
    by_name = {model["name"]: model for model in models}
    found = {
        name: hold_of(config.holds, model, published[name], is_as_before=model is (current or {}).get(name))
        for name, model in by_name.items()
    }
    held = {name: hold for name, hold in found.items() if hold}
    by_name.update({name: held_model(by_name[name], hold) for name, hold in held.items()})
    if config.following:
        others = {name: one for name, one in (current or {}).items() if name not in config.following}
        by_name = {**others, **{name: one for name, one in by_name.items() if name in config.following}}
    if not problems and not module.check_mode:
        problems = [
            f"{problem}; run the role tfserving_models first, or remove the model from tfserving_models_catalog"
            for problem in unservable(by_name)
        ]
    if problems:
        module.fail_json(msg="\n".join(["models.config cannot be written:", *(f"- {one}" for one in problems)]))
    for name, hold in held.items():
        module.warn(hold_words(name, hold))
    return by_name, held

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: models_config
short_description: Write TensorFlow Serving's models.config, and see a running server take it
version_added: 0.1.0
description:
  - Writes the file for a catalogue. A running server reads it by itself; the module waits until it has done what the
    file says. Every version is AVAILABLE, answers the sample requests of its model, labels lead where they should, and
    what is not wanted any more is gone.
  - Where a label moves, or a labelled version is replaced, it goes through files in between. They load both versions,
    move the label, and drop the old one, so that no request to the label fails. A run that was killed on the way is
    finished by the next one.
  - When the server has not taken the file in time, or has refused it, the previous file is put back, and the module
    fails with the server's own words.
  - A model without a version on the host never reaches the file. One such model keeps the server from looking at all
    others, and then only a restart helps.
  - When somebody else has brought the server into that state, the module says so. The file is right then and stays for
    the next start.
  - An answer counts only if every socket that listens on the server's ports belongs to O(unit).
  - A server that answers nothing, as it waits for a model of its start or has start settings with which it cannot
    serve, is not waited for. It gets the file and has to be restarted to read it. So has one whose REST port was taken
    when it started.
  - A server that has refused a version does not load it again, so it has to be restarted for one that was withdrawn and
    is tried again under its number.
  - So has one whose TF_CPP_MIN_LOG_LEVEL hides warnings, as a file that is not taken is seen in the log only.
  - A model of which O(catalog) asks for a version that was withdrawn stays as the file has it; one that never served is
    left out.
  - The latest versions of a model with labels are listed one by one in the file. Else the server would drop a version
    whose label has not moved yet as soon as a newer one is published.
  - Where no server runs, the file is only written.
  - How often the server looks at the file, and its REST port, are read from the flags of its process, as it may be
    waiting for a restart with others.
attributes:
  check_mode:
    description: Says what would be written. On a host that has no versions yet this cannot be all.
    support: full
  diff_mode:
    description: Shows the text of the file before and after; not the files in between.
    support: full
  idempotent:
    description: Where the file and what the server does are right, nothing is changed.
    support: full
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
  - modelops.tensorflow_serving.rest
options:
  base_path:
    description: Directory on the host with one directory per model.
    type: path
    required: true
  path:
    description: The file.
    type: path
    required: true
  unit:
    description: The systemd unit of the server.
    type: str
    required: true
  timeout_seconds:
    description: How long each step may take, from when the server has looked at the file.
    type: int
    default: 300
  heal:
    description: What to do with a server that takes no file any more. With V(restart) the module does not fail, and
      RV(restart_needed) says that the server has to be restarted.
    type: str
    choices: [none, restart]
    default: none
  owner:
    description: Owner of the file.
    type: str
    default: root
  group:
    description: Group of the file.
    type: str
    default: root
  mode:
    description: Mode of the file.
    type: str
    default: "0640"
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Write models.config
  modelops.tensorflow_serving.models_config:
    path: /etc/tensorflow-serving/models.config
    group: tfserving
    base_path: /var/lib/tensorflow-serving/models
    unit: tensorflow-model-server.service
    rest_api_port: 8501
    catalog: "{{ tfserving_models_catalog }}"
"""

RETURN = r"""
live:
  description: Whether a running server has taken the file.
  returned: success, not in check mode
  type: bool
steps:
  description: The files that were written on the way, by their purposes.
  returned: success, not in check mode
  type: list
  elements: str
  sample: [load what the labels will lead to, move the labels, drop what is not wanted any more]
restart_needed:
  description: Whether the server has to be restarted to do what the file says.
  returned: success, not in check mode
  type: bool
restart_reason:
  description: Why, or nothing.
  returned: success, not in check mode
  type: str
refused:
  description: The versions that the server will not serve, with their model's directory and the server's words.
  returned: failure
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 2, "path": "/var/lib/tensorflow-serving/models/MLP", "reason": "..."}]
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CATALOG_OPTIONS,
    catalog_samples,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import ManagedFile
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import unit_properties
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    parse_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.host_servers import (
    DEFAULT_GRPC_PORT,
    process_environment,
    process_flags,
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
    REST_ARGUMENTS,
    ServingClient,
    ServingError,
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


def running_pid(module: AnsibleModule) -> int:
    """Return the server's process, 0 where it does not run."""
    unit = unit_properties(module, module.params["unit"], "ActiveState", "MainPID")
    return int(unit["MainPID"]) if unit["ActiveState"] == "active" else 0


def take(module: AnsibleModule, live: LiveConfig, client: ServingClient, file: ManagedFile, models: Models) -> None:
    """Bring the file and the running server to these models.

    Fails the module after it has put the old file back. Raises Stuck, and then the file is that for the restart.
    """
    path, start = Path(module.params["path"]), time.time()
    before_text, before = read(path)
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
                current = read(path)[1] or {}
                message += " " + live.put_back(current, before, before_text, state_before)
            fail_with_log(module, message, start - BEFORE_SECONDS, error.refused)
    except Stuck:
        if not unservable(wanted):
            file.write(text)
        raise


def fail_with_log(module: AnsibleModule, message: str, since: float, refused: Refusals | None = None) -> None:
    """Fail with what the server has logged since then, and the versions that it has refused."""
    unit, base_path = SystemdUnit(module, module.params["unit"]), Path(module.params["base_path"])
    module.fail_json(
        msg=f"{message}\njournalctl --unit={unit.name} says, without chatter:\n{last_words(unit.log(since))}",
        refused=as_results(refused or {}, {model: base_path / model for model, _ in refused or {}}),
    )


def apply(
    module: AnsibleModule, file: ManagedFile, models: Models, samples: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Write the file if need be, and see a running server take it; return what that has come to."""
    params, text = module.params, render(models)
    before_text, before = read(Path(params["path"]))
    outcome = {"live": False, "steps": [], "restart_needed": False, "restart_reason": ""}
    unit, pid = SystemdUnit(module, params["unit"]), running_pid(module)
    flags = process_flags(pid) if pid else {}
    port, grpc_port = (int(flags.get(name) or default) for name, default in _PORTS.items())
    client = ServingClient(
        params["host"], port or params["rest_api_port"], params["request_timeout_seconds"], unit.cgroup, grpc_port
    )
    poll_wait_seconds = int(flags.get("model_config_file_poll_wait_seconds", 0))
    why_not = why_not_live(pid, flags, params["path"], client, before or {}, models)
    again = "" if why_not else tried_again(client, models)
    if why_not or again:
        if before_text != text:
            file.write(text)
        if pid and (again or before_text != text or client.lacks_rest()):
            outcome.update(restart_needed=True, restart_reason=why_not or again)
        return outcome
    live = LiveConfig(client, unit, file.write, render, samples, params["timeout_seconds"], poll_wait_seconds)
    start = time.time()
    try:
        take(module, live, client, file, models)
        outcome.update(live=True, steps=live.steps)
        for name, versions in expected_versions(models).items():
            for version in versions:
                if live.has_answered(name, version):
                    prove(ModelStore(Path(models[name]["base_path"])), version)
    except Stuck as error:
        if params["heal"] != "restart":
            message = (
                f"{str(error).rstrip('.')}. Restart it, or rerun the playbook with tfserving_service_heal: restart."
            )
            fail_with_log(module, message, start - BEFORE_SECONDS)
        outcome.update(restart_needed=True, restart_reason=str(error))
    return outcome


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


_PORTS = {"rest_api_port": 0, "port": DEFAULT_GRPC_PORT}


def why_not_live(
    pid: int, flags: dict[str, str], path: str, client: ServingClient, before: Models, models: Models
) -> str:
    """Return why a server cannot be told of a change while it runs, empty where it can. Raises ForeignListener."""
    if not pid:
        return "it does not run"
    if flags.get("model_config_file") != path or int(flags.get("model_config_file_poll_wait_seconds", 0)) <= 0:
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


def wanted_models(module: AnsibleModule) -> Models:
    """Return the models of the catalogue. Fails the module for what may not reach the file."""
    base_path = Path(module.params["base_path"])
    if not base_path.is_absolute():
        module.fail_json(msg=f"base_path is {base_path}, and has to begin with /")
    paths = {entry["name"]: {"base_path": str(base_path / entry["name"])} for entry in module.params["catalog"]}
    published = published_of(paths)
    if module.check_mode:
        for entry in module.params["catalog"]:
            published[entry["name"]] = sorted({*published[entry["name"]], *announced_versions(entry)})
    refused = {name: list(withdrawn(ModelStore(base_path / name))) for name in paths}
    current = read(Path(module.params["path"]))[1]
    models, problems = catalog_models(module.params["catalog"], base_path, published, refused, current)
    by_name = {model["name"]: model for model in models}
    if not problems and not module.check_mode:
        problems = [
            f"{problem}; run the role tfserving_models first, or take the model from tfserving_models_catalog"
            for problem in unservable(by_name)
        ]
    if problems:
        module.fail_json(msg="\n".join(["models.config cannot be written:", *(f"- {one}" for one in problems)]))
    return by_name


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REST_ARGUMENTS,
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "base_path": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "unit": {"type": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 300},
            "heal": {"type": "str", "choices": ["none", "restart"], "default": "none"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0640"},
        },
        supports_check_mode=True,
    )
    try:
        samples = catalog_samples(module.params["catalog"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    params, models, path = module.params, wanted_models(module), Path(module.params["path"])
    file = ManagedFile(module, path, params["owner"], params["group"], params["mode"])
    before, after = read(path)[0], render(models)
    shown = before.encode(errors="surrogateescape").decode(errors="replace")
    result: dict[str, Any] = {
        "changed": before != after,
        "diff": {"before": shown, "after": after, "before_header": str(path), "after_header": str(path)},
    }
    if not module.check_mode:
        try:
            result.update(apply(module, file, models, samples))
        except ForeignListener as error:
            module.fail_json(msg=f"{foreign_port(error, params['unit'])} Nothing was changed.")
        except OSError as error:
            module.fail_json(msg=f"models.config cannot be written: {error}")
    if path.exists() and file.set_attributes():
        result["changed"] = True
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_status_info
short_description: Ask a TensorFlow Serving server for the states of its model versions
version_added: 0.1.0
description:
  - Asks C(GET /v1/models/NAME) for every model. A server that does not answer is a result, not a failure.
  - With O(unit), an answer counts only if every socket that listens on the REST and the gRPC port belongs to it.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
  - modelops.tensorflow_serving.rest
options:
  models:
    description: Names of the models.
    type: list
    elements: str
    required: true
  labels:
    description: Labels to ask for. Each is asked of every model.
    type: list
    elements: str
    default: []
  base_path:
    description: Directory on the host with one directory per model, for the digests of the versions and for those that
      were withdrawn.
    type: path
  config_path:
    description: Directory of the configuration, for the host's history and the models that were rolled back.
    type: path
  unit:
    description: The systemd unit of the server. Only root sees whose a port is.
    type: str
  port:
    description: Its gRPC port, V(0) where it has none. Looked at with O(unit) only.
    type: int
    default: 8500
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Ask for the states of MLP
  modelops.tensorflow_serving.model_status_info:
    rest_api_port: 8501
    models: [MLP]
    labels: [stable]
    base_path: /var/lib/tensorflow-serving/models
  register: status
"""

RETURN = r"""
versions:
  description:
    - One row for each version of each model that the server knows, by model and descending version.
    - A model that the server does not know, or a server that does not answer, gives one row with a V(null) version,
      a state of V(UNKNOWN) or V(UNREACHABLE), and the reason in C(error_message). With O(unit), the state is V(FOREIGN)
      where somebody else has its port, and V(UNIT FAILED), V(UNIT INACTIVE) or the like where it is not active.
    - A version that a server has refused, and that was withdrawn, has the state V(WITHDRAWN).
    - C(labels) are those of O(labels) that lead to the version. C(digest), C(source_digest), C(stamp) and C(intact) are
      what M(modelops.tensorflow_serving.serving_host_info) returns, V(null) without O(base_path) and for a
      version that lies there no more; of one that was put there by somebody else, C(intact) is V(false) and the rest
      V(null). C(held) says since when and by whom a model is held at what it was rolled back to, and is empty for one
      that is not; C(rollout) is what to do about a rollout of it that is not over.
  returned: success
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 1, "state": "AVAILABLE", "error_code": "OK", "error_message": "",
    "labels": ["stable"], "digest": "5f0c...", "source_digest": null, "stamp": "9b1d...", "intact": true, "held": "",
    "rollout": ""}]
changes:
  description: The last five changes of what the host serves, the newest first; none without O(config_path).
  returned: success
  type: list
  elements: dict
  sample: [{"time": "2026-11-30T15:20:00Z", "by": "alice@controller", "model": "MLP", "from": "1", "to": "2"}]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    changes,
    held_since,
    read_history,
    read_holds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import (
    read_record,
    unfinished_words,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    REST_ARGUMENTS,
    ServingClient,
    ServingError,
    reason,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import SystemdUnit
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import withdrawn

SHOWN_CHANGES = 5


def rows(client: ServingClient, unit: SystemdUnit | None, model: str, labels: list[str]) -> list[dict[str, Any]]:
    """Return the rows that RETURN describes for one model, without digests."""
    state = unit.state()[0] if unit else "active"
    try:
        if unit and state != "active":
            return [_no_version(model, f"UNIT {state.upper()}", f"{unit.name} is {state}")]
        status = client.status(model)
        leads_to = {label: client.label_version(model, label) for label in labels}
    except ServingError as error:
        return [_no_version(model, "UNKNOWN", str(error))]
    except ForeignListener as error:
        return [_no_version(model, "FOREIGN", f"{error}, not by {unit.name if unit else 'the server'} alone")]
    except OSError as error:
        return [_no_version(model, "UNREACHABLE", reason(error))]
    return [
        {
            **status[version],
            "model": model,
            "version": version,
            "labels": [label for label in labels if leads_to[label] == version],
        }
        for version in sorted(status, reverse=True)
    ]


def withdrawn_rows(base_path: str | None, model: str) -> list[dict[str, Any]]:
    """Return a row for each version of a model that was withdrawn, the newest first."""
    marks = withdrawn(ModelStore(Path(base_path, model))) if base_path else {}
    return [
        {
            **_no_version(model, "WITHDRAWN", f"withdrawn at {marks[version]['time']}: {marks[version]['reason']}"),
            "version": version,
        }
        for version in sorted(marks, reverse=True)
    ]


def _no_version(model: str, state: str, message: str) -> dict[str, Any]:
    return {
        "model": model,
        "version": None,
        "state": state,
        "labels": [],
        "error_code": None,
        "error_message": message,
    }


def recorded(base_path: str | None, model: str, version: int | None) -> dict[str, Any]:
    """Return what was recorded of a version when it was published, and whether it is like that."""
    facts: dict[str, Any] = dict.fromkeys(("digest", "source_digest", "stamp", "intact"))
    if base_path and version is not None:
        store = ModelStore(Path(base_path, model))
        manifest = store.read_manifest(version) or {}
        facts.update({name: manifest[name] for name in facts if name in manifest})
        if version in store.published():
            facts["intact"] = store.is_intact(version)
    return facts


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REST_ARGUMENTS,
            "models": {"type": "list", "elements": "str", "required": True},
            "labels": {"type": "list", "elements": "str", "default": []},
            "base_path": {"type": "path"},
            "config_path": {"type": "path"},
            "unit": {"type": "str"},
            "port": {"type": "int", "default": 8500},
        },
        supports_check_mode=True,
    )
    params = module.params
    unit = SystemdUnit(module, params["unit"]) if params["unit"] else None
    client = ServingClient.of(params, unit.cgroup, params["port"]) if unit else ServingClient.of(params)
    versions = [
        row
        for model in params["models"]
        for row in [*rows(client, unit, model, params["labels"]), *withdrawn_rows(params["base_path"], model)]
    ]
    holds = read_holds(params["config_path"]) if params["config_path"] else {}
    record = read_record(params["config_path"]) if params["config_path"] else None
    for row in versions:
        row.update(recorded(params["base_path"], row["model"], row["version"]))
        row["rollout"] = unfinished_words(record) if record and row["model"] in record["to"] else ""
        row["held"] = held_since(holds[row["model"]]) if row["model"] in holds else ""
    history = read_history(params["config_path"]) if params["config_path"] else []
    module.exit_json(changed=False, versions=versions, changes=changes(history, SHOWN_CHANGES))


if __name__ == "__main__":
    main()

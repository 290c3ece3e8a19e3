#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_rollout
short_description: Plan, note and undo a rollout of model versions on a host
version_added: 0.2.0
description:
  - A rollout that has begun on a host and is not over there has a record in O(config_path). It says what was served
    before and how far the rollout is, so that a later run can go on with it or return.
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
  - modelops.tensorflow_serving.served_models
  - modelops.tensorflow_serving.servers
options:
  state:
    description:
      - V(planned) says what would change, and changes nothing.
      - V(begun) notes what is served. The new versions are distributed, and nothing that is served has changed.
      - V(changed), V(passed), V(paused) and V(failed) note how far the rollout is. V(passed) fails where the host does
        not serve what the catalogue asks for.
      - V(returned) ends second servers and the gateway's steps with them, brings back what was served before, withdraws
        the new versions, and holds models that came without one, so that the next run does not change them again.
      - V(ended) removes the record.
    type: str
    choices: [planned, begun, changed, passed, paused, failed, returned, ended]
    required: true
  instances:
    description: The instances, as M(modelops.tensorflow_serving.serving_host_info) returns them.
    type: list
    elements: dict
    default: []
  to:
    description: What the catalogue asks for, as O(state=planned) returns it. For O(state=begun).
    type: dict
    default: {}
  models:
    description: Names of the models to roll out. All of the catalogue by default.
    type: list
    elements: str
    default: []
  override:
    description: Whether models that were rolled back follow the catalogue again.
    type: bool
    default: false
  pending:
    description: The versions that are not published yet, as RV(ignore:published) of
      M(modelops.tensorflow_serving.saved_models).
    type: list
    elements: dict
  traffic:
    description: Whether the gateway is to send requests to new versions, which it has to be able to then. For
      O(state=planned).
    type: bool
    default: false
  failure:
    description: What has failed, with O(state=failed) and O(state=returned).
    type: str
    default: ""
  timeout_seconds:
    description: How long each server may take to return.
    type: int
    default: 300
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Read what a rollout would change
  modelops.tensorflow_serving.model_rollout:
    state: planned
    unit: tensorflow-model-server
    config_path: /etc/tensorflow-serving
    base_path: /var/lib/tensorflow-serving/models
    group: tfserving
    catalog: "{{ tfserving_models_catalog }}"
    instances: "{{ __tfserving_host.servers.instances }}"
"""

RETURN = r"""
changes:
  description: The models that change, with the versions and labels that the catalogue asks for, and the unit that
    serves them.
  returned: with O(state=planned)
  type: list
  elements: dict
  sample: [{"model": "MLP", "from": "1", "to": "2", "versions": [2], "labels": {}, "unit": "tensorflow-model-server"}]
to:
  description: What the catalogue asks for of each model, and the unit that serves it.
  returned: with O(state=planned)
  type: dict
  sample: {"MLP": {"versions": [2], "labels": {}, "unit": "tensorflow-model-server"}}
problems:
  description: What is served now and does not answer, and a gateway that cannot do what it is to.
  returned: with O(state=planned)
  type: list
  elements: str
record:
  description: The record of a rollout that is not over, null where there is none.
  returned: with O(state=planned)
  type: dict
is_same:
  description: Whether that rollout has the catalogue that is given.
  returned: with O(state=planned)
  type: bool
is_new:
  description: Whether the record was written now.
  returned: with O(state=begun)
  type: bool
withdrawn:
  description: The versions that were withdrawn here, by model.
  returned: with O(state=planned)
  type: dict
  sample: {"MLP": [3]}
held:
  description: The models that are held at what they were rolled back to.
  returned: with O(state=planned)
  type: list
  elements: str
returned:
  description: What was served of each model that was changed, and what is now.
  returned: with O(state=returned)
  type: list
  elements: dict
  sample: [{"model": "MLP", "from": "2", "to": "1"}]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import CATALOG_OPTIONS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.host import (
    LostError,
    NotReturned,
    begin,
    give_back,
    planned,
    set_phase,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import (
    PHASES,
    remove_record,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    SERVED_MODELS_ARGUMENTS,
    SERVERS_ARGUMENTS,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["planned", *PHASES, "returned", "ended"]},
            **SERVERS_ARGUMENTS,
            **SERVED_MODELS_ARGUMENTS,
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "instances": {"type": "list", "elements": "dict", "default": []},
            "to": {"type": "dict", "default": {}},
            "models": {"type": "list", "elements": "str", "default": []},
            "override": {"type": "bool", "default": False},
            "pending": {"type": "list", "elements": "dict"},
            "traffic": {"type": "bool", "default": False},
            "failure": {"type": "str", "default": ""},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params, state = module.params, module.params["state"]
    result: dict[str, Any] = {"changed": False}
    try:
        if state == "planned":
            result.update(planned(module, params))
        elif state == "returned":
            result["returned"] = give_back(module, params, params["failure"])
            result["changed"] = bool(result["returned"])
        elif module.check_mode:
            pass
        elif state == "begun":
            result["is_new"] = begin(params)
        elif state == "ended":
            remove_record(params["config_path"])
        else:
            set_phase(params, state)
    except (LostError, NotReturned, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: server_rollback
short_description: Record the configuration that serves, and go back to it
version_added: 0.2.0
description:
  - A run that has ended well records the units, the files that the servers read and the configuration of the models.
    A run that has not goes back to them, so that what served before serves again, after a reboot too.
  - Versions that a server has refused since they were published are withdrawn. They are renamed to C(.withdrawn-N),
    which no server parses, with C(.withdrawn-N.json) beside them, which says why.
  - A model of which no version is left leaves C(models.config), as it would keep the server from starting.
  - A server is restarted only where its process was started from other files than those that were recorded, or does not
    answer.
options:
  state:
    description:
      - V(recorded) records what there is; the caller has seen it serve.
      - V(rolled_back) goes back to what was recorded. Where nothing was, only refused versions are withdrawn.
    type: str
    choices: [recorded, rolled_back]
    required: true
  unless_recorded:
    description: With O(state=recorded), records only where nothing is recorded yet and every server serves all that it
      should.
    type: bool
    default: false
  unit:
    description: The systemd unit of the instance that has no name, without C(.service). The others' begin with it.
    type: str
    required: true
  config_path:
    description: Directory of the configuration, in which the record lies.
    type: path
    required: true
  restart:
    description: Whether to restart all servers, as after a package was put back.
    type: bool
    default: false
  refused:
    description: Versions that a server has refused before, as M(modelops.tensorflow_serving.models_config) and
      M(modelops.tensorflow_serving.models_ready) return them. They do not count where files that take effect at a start
      were restored, or with O(restart), as these may have been the cause.
    type: list
    elements: dict
    default: []
    suboptions:
      model:
        description: The model.
        type: str
      version:
        description: The version.
        type: int
      path:
        description: The model's directory.
        type: path
      reason:
        description: The server's words.
        type: str
  timeout_seconds:
    description: How long each server may take to serve.
    type: int
    default: 300
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
attributes:
  check_mode:
    description: Changes nothing and says nothing of what it would change.
    support: none
  diff_mode:
    support: none
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Record what serves
  modelops.tensorflow_serving.server_rollback:
    state: recorded
    unit: tensorflow-model-server
    config_path: /etc/tensorflow-serving
    catalog: "{{ tfserving_models_catalog }}"
"""

RETURN = r"""
served:
  description: Whether every server serves all that it should now.
  returned: success, with O(state=rolled_back)
  type: bool
withdrawn:
  description: The versions that were withdrawn.
  returned: success, with O(state=rolled_back)
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 2, "reason": "MLP version 2 is END: NOT_FOUND: ..."}]
restored:
  description: The files that were restored or removed.
  returned: success, with O(state=rolled_back)
  type: list
  elements: str
  sample: [/etc/systemd/system/tensorflow-model-server.service]
message:
  description: All of that in words.
  returned: success, with O(state=rolled_back)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CATALOG_OPTIONS,
    catalog_samples,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Servers


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["recorded", "rolled_back"], "required": True},
            "unless_recorded": {"type": "bool", "default": False},
            "unit": {"type": "str", "required": True},
            "config_path": {"type": "path", "required": True},
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "restart": {"type": "bool", "default": False},
            "refused": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "model": {"type": "str"},
                    "version": {"type": "int"},
                    "path": {"type": "path"},
                    "reason": {"type": "str"},
                },
            },
            "timeout_seconds": {"type": "int", "default": 300},
        },
    )
    params = module.params
    try:
        samples = catalog_samples(params["catalog"])
        servers = Servers(module, params["unit"], params["config_path"], samples, params["timeout_seconds"])
        if params["state"] == "recorded":
            servers.record(unless_recorded=params["unless_recorded"])
            module.exit_json(changed=False)
        module.exit_json(**servers.roll_back(params["restart"], params["refused"]))
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

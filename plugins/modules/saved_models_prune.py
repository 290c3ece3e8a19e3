#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_models_prune
short_description: Remove unused SavedModel versions from a host
version_added: 0.1.0
description:
  - Of each model the newest versions stay, as many as O(catalog[].keep) or O(keep) says, and with them whatever the
    version policy serves, a label points to, or the running server still uses.
  - Every model server of the host is asked - those of O(instances), those whose units or C(models.config) are still on
    disk, and those that others have started - and a version that one of them uses stays. Of the models of a server that
    does not answer, or does not run, every version stays, with a warning.
  - A version that a server is about to unload is waited for.
  - What M(modelops.tensorflow_serving.model_rollback) would serve stays. What servers have loaded by themselves is
    noted in the host's history before.
  - Only versions that were published by M(modelops.tensorflow_serving.saved_models) are removed. Others stay, with a
    warning where they would have to go.
  - A version goes by one rename(2) to a name that the server does not parse, and its files after that.
  - What interrupted runs left is deleted silently.
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
options:
  base_path:
    description: Directory on the host with one directory per model.
    type: path
    required: true
  keep:
    description: How many of the newest versions stay of a model whose entry does not say so by itself. Without both
      every version stays.
    type: int
  purge:
    description: Whether to remove the models that were published and are not in O(catalog). One that a C(models.config)
      on the host names stays, even if no version of it is loaded, as a missing base path stops the server's polling of
      all models.
    type: bool
    default: false
  unit:
    description: The systemd unit of the instance that has no name, without C(.service). The others' begin with it.
    type: str
    default: tensorflow-model-server
  config_path:
    description: Directory of the configuration, with the host's history. A named instance has a directory of its own in
      it.
    type: path
    default: /etc/tensorflow-serving
  instances:
    description: The instances, as in C(tfserving_service_instances). C(name) and C(models) are read of each.
    type: list
    elements: dict
    default: [{}]
  pending:
    description:
      - For check mode, when the play would first publish versions and have the servers of O(instances) follow the
        catalogue. These versions, each with C(model) and C(version), count as published, and what these servers use
        now does not count.
      - Other keys are not read.
    type: list
    elements: dict
  timeout_seconds:
    description: How long to wait for the servers to unload what is to be removed. By default ten seconds from when all
      of them have looked at their C(models.config) again.
    type: int
attributes:
  check_mode:
    description: Says what would be removed, without waiting.
    support: full
  diff_mode:
    description: Shows the versions of each model before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_models
"""

EXAMPLES = r"""
- name: Keep the three newest versions of each model, and what is in use
  modelops.tensorflow_serving.saved_models_prune:
    catalog: "{{ tfserving_models_catalog }}"
    base_path: /var/lib/tensorflow-serving/models
    keep: 3
"""

RETURN = r"""
removed:
  description: The versions that were removed, or would be in check mode, and what each gave back, in bytes. Files that
    a version which stays has too give nothing back.
  returned: always
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 1, "bytes": 423511}]
freed_bytes:
  description: What all of them gave back.
  returned: success
  type: int
  sample: 423511
cleaned:
  description: Leftovers of interrupted runs and directories of purged models, below O(base_path), that were deleted.
  returned: success
  type: list
  elements: str
  sample: ["MLP/.removed-1"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import CATALOG_OPTIONS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.prune import Pruning
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.host_servers import find_servers


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "base_path": {"type": "path", "required": True},
            "keep": {"type": "int"},
            "purge": {"type": "bool", "default": False},
            "unit": {"type": "str", "default": "tensorflow-model-server"},
            "config_path": {"type": "path", "default": "/etc/tensorflow-serving"},
            "instances": {"type": "list", "elements": "dict", "default": [{}]},
            "pending": {"type": "list", "elements": "dict"},
            "timeout_seconds": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params = module.params
    pruning = Pruning(module.warn, check_mode=module.check_mode)
    try:
        models = [entry["name"] for entry in params["catalog"]]
        servers = find_servers(module, params["unit"], params["config_path"], params["instances"], models)
        result = pruning.run(params, servers, with_diff=module._diff)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error), changed=bool(pruning.removed), removed=pruning.removed)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

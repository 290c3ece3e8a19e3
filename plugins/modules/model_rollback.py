#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_rollback
short_description: Return models to the versions and labels that a host served before
version_added: 0.2.0
description:
  - Reads in the host's own history what was served of each model before what is served now, and has the servers serve
    that again, from what is on the host. What a model was rolled back from before does not count, so that another
    rollback goes further back.
  - Nothing but these models changes in C(models.config). Running servers load it by themselves. A server that cannot be
    told while it runs, or does not run, is restarted.
  - Where a server does not serve what it served before, everything is put back, and the module fails.
  - M(modelops.tensorflow_serving.model_servers) keeps the models there as long as the catalogue asks for what it asked
    for at the rollback.
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
  - modelops.tensorflow_serving.served_models
  - modelops.tensorflow_serving.servers
options:
  models:
    description: Names of the models to roll back. By default all of the catalogue that were served otherwise before.
    type: list
    elements: str
    default: []
  timeout_seconds:
    description: How long each server may take.
    type: int
    default: 300
attributes:
  check_mode:
    description: Says what would be rolled back.
    support: full
  diff_mode:
    description: Shows what is served of each model before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Return MLP to what was served before
  modelops.tensorflow_serving.model_rollback:
    unit: tensorflow-model-server
    config_path: /etc/tensorflow-serving
    base_path: /var/lib/tensorflow-serving/models
    group: tfserving
    catalog: "{{ tfserving_models_catalog }}"
    models: [MLP]
"""

RETURN = r"""
rolled_back:
  description: Each model with what was served and what is now, and what its entry in C(tfserving_models_catalog) has to
    say for this to last.
  returned: success
  type: list
  elements: dict
  sample:
    - model: MLP
      from: "2"
      to: "1"
      catalog_entry: '{"name": "MLP", "model_version_policy": {"specific": {"versions": [1]}}}'
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import CATALOG_OPTIONS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.model_rollback import (
    RollbackError,
    roll_back,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.host import NotReturned
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    SERVED_MODELS_ARGUMENTS,
    SERVERS_ARGUMENTS,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **SERVERS_ARGUMENTS,
            **SERVED_MODELS_ARGUMENTS,
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "models": {"type": "list", "elements": "str", "default": []},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        result = roll_back(module, module.params)
    except (NotReturned, RollbackError, ForeignListener, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

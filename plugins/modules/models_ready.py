#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: models_ready
short_description: Wait until a TensorFlow Serving server serves every model version it should
version_added: 0.1.0
description:
  - Works out from O(models_config) and the version directories which versions the server should serve, and waits until
    it says AVAILABLE for all of them and each answers the sample requests of its model, where there are any.
  - An answer counts only if every socket that listens on the REST and the gRPC port belongs to O(unit).
  - The server opens no port until every model has loaded, and waits for ever for one that cannot, hence a deadline.
  - Fails before the deadline when a version is END with an error, the unit has failed or keeps exiting, or a port
    belongs to somebody else. The failure shows the server's own words.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
  - modelops.tensorflow_serving.catalog
  - modelops.tensorflow_serving.rest
options:
  models_config:
    description: The C(models.config) that the server reads.
    type: path
    required: true
  config_path:
    description: Directory of the configuration of all instances. The samples of models that
      M(modelops.tensorflow_serving.model_rollback) has rolled back are not asked then.
    type: path
  unit:
    description: The systemd unit of the server.
    type: str
    required: true
  port:
    description: Its gRPC port, V(0) where it has none.
    type: int
    default: 8500
  timeout_seconds:
    description: How long to wait.
    type: int
    default: 300
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Wait until MLP is served
  modelops.tensorflow_serving.models_ready:
    rest_api_port: 8501
    models_config: /etc/tensorflow-serving/models.config
    unit: tensorflow-model-server.service
    catalog: "{{ tfserving_models_catalog }}"
"""

RETURN = r"""
models:
  description: The versions of each model that are AVAILABLE.
  returned: success
  type: dict
  sample: {"MLP": [1]}
refused:
  description: The versions that the server will not serve, with their model's directory and the server's words.
  returned: failure
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 2, "path": "/var/lib/tensorflow-serving/models/MLP", "reason": "..."}]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CATALOG_OPTIONS,
    catalog_samples,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import without_held
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.ready import (
    NotReady,
    wait_until_ready,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    REST_ARGUMENTS,
    ServingClient,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import SystemdUnit


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REST_ARGUMENTS,
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "models_config": {"type": "path", "required": True},
            "config_path": {"type": "path"},
            "unit": {"type": "str", "required": True},
            "port": {"type": "int", "default": 8500},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params, unit = module.params, SystemdUnit(module, module.params["unit"])
    client = ServingClient.of(params, unit.cgroup, params["port"])
    try:
        samples, path = catalog_samples(params["catalog"]), Path(params["models_config"])
        if params["config_path"]:
            samples = without_held(samples, params["config_path"])
        models = wait_until_ready(client, unit, path, samples, params["timeout_seconds"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    except NotReady as error:
        module.fail_json(msg=str(error), refused=error.refused)
    module.exit_json(changed=False, models=models)


if __name__ == "__main__":
    main()

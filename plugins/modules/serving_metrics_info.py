#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_metrics_info
short_description: Read what the model servers of a host have counted
version_added: 0.2.0
description:
  - Reads the Prometheus metrics of the servers and adds up, by model, requests, errors and seconds since they started.
    The servers count all versions of a model together.
  - A server counts only if every socket that listens on its ports belongs to its unit. One without metrics has no
    counts.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
  - modelops.tensorflow_serving.servers
options:
  monitoring_path:
    description: Where the metrics are, on the REST port.
    type: str
    default: /monitoring/prometheus/metrics
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Read what was served so far
  modelops.tensorflow_serving.serving_metrics_info:
    unit: tensorflow-model-server
    config_path: /etc/tensorflow-serving
  register: before
"""

RETURN = r"""
models:
  description: By model, the requests, those of them that ended with an error, and the seconds of all.
  returned: success
  type: dict
  sample: {"MLP": {"requests": 1200, "errors": 3, "seconds": 2.5}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.models_config import running_pid
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Server
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.metrics import added, counts
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    SERVERS_ARGUMENTS,
    family,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **SERVERS_ARGUMENTS,
            "monitoring_path": {"type": "str", "default": "/monitoring/prometheus/metrics"},
        },
        supports_check_mode=True,
    )
    pages = []
    try:
        for unit, directory in family(module.params["unit"], module.params["config_path"]).items():
            server = Server(module, unit, directory)
            pid = running_pid(module, server.unit.name)
            if pid:
                pages.append(counts(server.client(pid).text(module.params["monitoring_path"])))
    except (ForeignListener, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, models=added(pages))


if __name__ == "__main__":
    main()

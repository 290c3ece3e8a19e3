#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_candidate
short_description: Try new model versions on a host before any client can reach them
version_added: 0.2.0
description:
  - Starts a second server with the versions of O(changes) that the host's servers do not have yet, from where they are
    distributed or published. It has the unit of the server with other ports, can be reached from the host itself only,
    and lies in C(/run), so that a reboot forgets it.
  - Makes the sample requests of the catalogue to both, and compares predictions and latency. A served version to which
    a label moves is compared with the one that has it.
  - Fails where a version is not served, or a gate does not pass. The second server is gone then, and without
    O(stay_seconds) in any case.
  - What an earlier run has left of second servers, and of the gateway's steps with them, is gone before.
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
  - modelops.tensorflow_serving.served_models
  - modelops.tensorflow_serving.servers
options:
  changes:
    description: The changes, as M(modelops.tensorflow_serving.model_rollout) returns them.
    type: list
    elements: dict
    required: true
  smoke:
    description: The limit of the predictions.
    type: dict
    suboptions:
      max_difference:
        description: How far a number may be from that of the running version, where the sample does not say what is
          expected. Without it, the difference is only reported.
        type: float
  latency:
    description: The limits of the latency.
    type: dict
    suboptions:
      max_ratio:
        description: How much longer the median may be.
        type: float
        default: 2.0
      max_p99_ratio:
        description: How much longer the 99th percentile may be.
        type: float
        default: 4.0
      requests:
        description: How many requests to each. Where they take too long they are repeated once, as the host may have
          been busy with something else.
        type: int
        default: 100
      warmup_requests:
        description: How many before that, which do not count.
        type: int
        default: 10
  timeout_seconds:
    description: How long the second server may take to serve.
    type: int
    default: 300
  stay_seconds:
    description: How long a second server may stay when all gates have passed, beyond the hour that they may take, so
      that M(modelops.tensorflow_serving.gateway_trial) can send it requests. That module also ends it. Those stay that
      have a new version of a model which will answer the requests that name no version.
    type: int
    default: 0
attributes:
  check_mode:
    description: Does nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Try the new versions
  modelops.tensorflow_serving.model_candidate:
    unit: tensorflow-model-server
    config_path: /etc/tensorflow-serving
    base_path: /var/lib/tensorflow-serving/models
    group: tfserving
    catalog: "{{ tfserving_models_catalog }}"
    changes: "{{ __tfserving_rollout_planned.changes }}"
"""

RETURN = r"""
gates:
  description: What was measured and what is allowed.
  returned: always
  type: list
  elements: dict
  sample: [{"gate": "latency median", "model": "MLP", "measured": "1.04 (2.1 ms to 2.2 ms)", "allowed": "2",
    "passed": true}]
running:
  description: The second servers that stay, with their units (without C(.service)), their REST ports and the models.
  returned: success
  type: list
  elements: dict
  sample: [{"unit": "tfserving-candidate-tensorflow-model-server", "port": 40123, "models": ["MLP"]}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import CATALOG_OPTIONS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import NginxError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.candidate import run_gates
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.gates import words
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    SERVED_MODELS_ARGUMENTS,
    SERVERS_ARGUMENTS,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import NotServed

SMOKE = {"max_difference": {"type": "float"}}
LATENCY = {
    "max_ratio": {"type": "float", "default": 2.0},
    "max_p99_ratio": {"type": "float", "default": 4.0},
    "requests": {"type": "int", "default": 100},
    "warmup_requests": {"type": "int", "default": 10},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **SERVERS_ARGUMENTS,
            **SERVED_MODELS_ARGUMENTS,
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "changes": {"type": "list", "elements": "dict", "required": True},
            "smoke": {"type": "dict", "apply_defaults": True, "options": SMOKE},
            "latency": {"type": "dict", "apply_defaults": True, "options": LATENCY},
            "timeout_seconds": {"type": "int", "default": 300},
            "stay_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    try:
        gates, running = ([], []) if module.check_mode else run_gates(module, module.params)
    except (NotServed, NginxError, ForeignListener, OSError, ValueError) as error:
        module.fail_json(msg=f"before traffic: {error}", gates=[])
    failed = [words(one) for one in gates if not one["passed"]]
    if failed:
        module.fail_json(msg="before traffic: " + "; ".join(failed), gates=gates)
    module.exit_json(changed=False, gates=gates, running=running)


if __name__ == "__main__":
    main()

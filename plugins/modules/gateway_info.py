#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Check the gateway's variables, and determine which requests go to which server
version_added: 0.1.0
description:
  - Works out which requests nginx lets through to which model servers of the host, and checks users, certificates and
    ports before anything is changed. All problems are reported at once, and no secret is shown.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  instances:
    description: The model servers, as M(modelops.tensorflow_serving.serving_host_info) returns them.
    type: list
    elements: dict
    required: true
  open:
    description: What is let through.
    type: list
    elements: str
    choices: [predict, classify, regress, status, metadata, metrics]
    default: [predict]
  traffic:
    description:
      - Shares of the requests that name no version, by the model, as C(tfserving_gateway_traffic) gives them.
      - Whether a model has the labels is checked by M(modelops.tensorflow_serving.check_input).
    type: dict
    default: {}
  metrics_path:
    description: Path of the servers' metrics.
    type: str
    default: /monitoring/prometheus/metrics
  port:
    description: Port of the gateway.
    type: int
    required: true
  names:
    description: What clients call the gateway.
    type: list
    elements: str
    required: true
  certificate:
    description: The certificate and those between it and the authority, as PEM, or their path on the host.
    type: str
    default: ''
  key:
    description: The private key, as PEM, or its path on the host.
    type: str
    default: ''
  files_on_host:
    description: Whether O(certificate) and O(key) are paths on the host.
    type: bool
    default: false
  self_signed:
    description: Whether the gateway makes a certificate itself.
    type: bool
    default: false
  client_ca:
    description: The authority of the clients' certificates, as PEM. Empty where they need none.
    type: str
    default: ''
  users:
    description: Passwords, or their hashes, by the user.
    type: dict
    default: {}
  allow_anonymous:
    description: Whether everybody may ask.
    type: bool
    default: false
  limits:
    description:
      - "The role's numbers: C(max_body_megabytes), C(client_requests_per_second), C(client_burst),
        C(client_concurrent_requests), C(timeout_seconds) and C(drain_timeout_seconds)."
      - Without C(timeout_seconds) it is five seconds more than the servers take for a REST request.
    type: dict
    required: true
  server_client_verify:
    description: Whether the servers take gRPC from clients with a certificate only.
    type: bool
    default: false
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Work out what the gateway lets through
  modelops.tensorflow_serving.gateway_info:
    instances: "{{ servers.instances }}"
    port: 8443
    names: [models.example.com]
    self_signed: true
    users: "{{ vault_users }}"
    limits:
      max_body_megabytes: 16
      client_requests_per_second: 1000
      client_burst: 1000
      client_concurrent_requests: 200
      timeout_seconds: 35
      drain_timeout_seconds: 30
  register: gateway
"""

RETURN = r"""
sets:
  description: Servers that requests are spread over, each set with a C(name) and its C(servers).
  returned: success
  type: list
  elements: dict
choices:
  description: Of each set, number of the server that is drained or a hyphen, and the set that takes its requests.
  returned: success
  type: list
  elements: list
rest:
  description:
    - C(pattern) of the paths that are let through, with their C(method) and C(set), and whether they are C(mirrored).
    - C(unnamed) is the same pattern without names of variables.
  returned: success
  type: list
  elements: dict
grpc:
  description: The gRPC methods that are let through.
  returned: success
  type: list
  elements: str
grpc_models:
  description: C(pattern) of the models that C(set) serves.
  returned: success
  type: list
  elements: dict
grpc_default:
  description: The set for a gRPC request that does not say which model it is for.
  returned: success
  type: str
metrics:
  description: C(path) of the metrics of the server in C(set).
  returned: success
  type: list
  elements: dict
health:
  description: C(path) that says whether C(set) answers for C(model), and the C(pattern) of this path alone.
  returned: success
  type: list
  elements: dict
traffic:
  description:
    - For each model the C(pattern) of its paths that name no version, and the shares C(split) and C(mirror), each with
      its C(percent) and C(path).
    - C(sticky) is what keeps a client where it is, C(header) that header as a variable of nginx ends.
  returned: success
  type: list
  elements: dict
limits:
  description: The numbers as numbers, null for any.
  returned: success
  type: dict
has_ipv6:
  description: Whether the host knows IPv6.
  returned: success
  type: bool
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.parameters import remove_values

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.input import (
    certificate_problems,
    read_input,
    timeout_seconds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.routes import (
    OPEN,
    plan,
    read_servers,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "open": {"type": "list", "elements": "str", "choices": OPEN, "default": ["predict"]},
            "traffic": {"type": "dict", "default": {}},
            "metrics_path": {"type": "str", "default": "/monitoring/prometheus/metrics"},
            "port": {"type": "int", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "certificate": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "files_on_host": {"type": "bool", "default": False},
            "self_signed": {"type": "bool", "default": False},
            "client_ca": {"type": "str", "default": ""},
            "users": {"type": "dict", "default": {}, "no_log": True},
            "allow_anonymous": {"type": "bool", "default": False},
            "limits": {"type": "dict", "required": True},
            "server_client_verify": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    servers = read_servers(params["instances"])
    limits, problems = read_input(params, servers)
    if params["files_on_host"]:
        problems += certificate_problems(params)
    if problems:
        module.fail_json(msg="\n".join(problems))
    if limits["timeout_seconds"] is None:
        limits["timeout_seconds"] = timeout_seconds(params["instances"])
    routes = plan(servers, params["open"], params["metrics_path"], params["traffic"])
    result = {"limits": limits, **asdict(routes)}
    if remove_values(result, module.no_log_values) != result:
        module.fail_json(
            msg="A password of tfserving_gateway_users is a word of the gateway's configuration, such as models, where "
            "Ansible would hide it; choose a long random one."
        )
    module.exit_json(changed=False, has_ipv6=Path("/proc/net/if_inet6").exists(), **result)


if __name__ == "__main__":
    main()

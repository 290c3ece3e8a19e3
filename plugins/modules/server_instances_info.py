#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: server_instances_info
short_description: Check and work out what the model servers of a host are to run
version_added: 0.1.0
description:
  - Works out the command line, the unit and the place of each instance of C(tensorflow_model_server), and checks them
    before anything is written, as the server ignores a misspelt flag and exits where a value has the wrong type.
  - Flags are checked against what the installed server prints for C(--help). Where it is not installed, or prints
    something else, they are checked against the flags of upstream's server.
  - A unit that systemd has already and that this role has not written is a problem, whatever it is called, and so are a
    user that is root and a directory that the unit does not see.
  - A port on which anybody but the units of O(unit) listens is a problem that names process, program and unit, as
    TensorFlow Serving shares its gRPC port silently, and goes on without REST where that port is taken.
  - All problems are reported at once.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  unit:
    description: The systemd unit of the instance that has no name, without C(.service). The others' begin with it.
    type: str
    required: true
  config_path:
    description: Directory of the configuration. A named instance has a directory of its own in it.
    type: path
    required: true
  user:
    description: The user that the servers run as. It is checked, and need not be there yet.
    type: str
  group:
    description: Their group, as O(user).
    type: str
  models_base_path:
    description: Directory of the models, which the units have to see.
    type: str
  instances:
    description: The instances. With none, all those that the host has are stale.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Ends the unit's name. One instance can do without.
        type: str
      port:
        description: gRPC port.
        type: int
      rest_api_port:
        description: REST port.
        type: int
      models:
        description: Names of the models that it serves, all by default.
        type: list
        elements: str
      cpus:
        description: CPUs that it runs on, such as C(0-7,16-23).
        type: str
      numa_node:
        description: NUMA node that its memory comes from.
        type: int
      memory_high:
        description: Memory from which on systemd slows it down.
        type: str
      memory_max:
        description: Memory that it never exceeds.
        type: str
      flags:
        description: More flags, which win over O(flags).
        type: dict
      environment:
        description: More environment variables, which win over O(environment).
        type: dict
  defaults:
    description: The ports of an instance that has none of its own.
    type: dict
    suboptions:
      port:
        description: gRPC port.
        type: int
        default: 8500
      rest_api_port:
        description: REST port.
        type: int
        default: 8501
  models:
    description: The names of all models.
    type: list
    elements: str
    default: []
  settings:
    description:
      - The flags that follow from variables, each with C(variable) and C(value). Null leaves it to the server.
      - With C(file), the flag names that file in the instance's directory where C(value) is true.
    type: dict
    default: {}
  flags:
    description: All other flags, for all instances. Null leaves one to the server.
    type: dict
    default: {}
  environment:
    description: Environment variables, for all instances.
    type: dict
    default: {}
  monitoring_path:
    description: Where the metrics are.
    type: str
    default: /monitoring/prometheus/metrics
  program:
    description: The server.
    type: path
    default: /usr/bin/tensorflow_model_server
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Work out what the servers run
  modelops.tensorflow_serving.server_instances_info:
    unit: tensorflow-model-server
    config_path: /etc/tensorflow-serving
    models: [fraud, ranking]
    instances:
      - {name: socket0, port: 8500, rest_api_port: 8501, numa_node: 0}
      - {name: socket1, port: 8510, rest_api_port: 8511, numa_node: 1}
    flags: {enable_grpc_healthcheck_service: true}
  register: servers
"""

RETURN = r"""
instances:
  description:
    - Of each instance its name, unit, directory, ports, models, placement, the files that it reads at its start, and
      how long a REST request may take.
    - C(command) and C(environment) are words for a unit file, quoted where they have to be.
  returned: success
  type: list
  elements: dict
  sample:
    - name: socket0
      unit: tensorflow-model-server-socket0
      config_path: /etc/tensorflow-serving/socket0
      port: 8500
      rest_api_port: 8501
      models: [fraud, ranking]
      files: [monitoring.config]
      command: [--enable_grpc_healthcheck_service=true, --port=8500, --rest_api_port=8501]
      environment: []
      cpus: ''
      numa_node: 0
      memory_high: ''
      memory_max: ''
      rest_api_timeout_seconds: 30
stale:
  description:
    - Unit and directory of the instances that the host has and should not have any more, those of an earlier O(unit)
      included.
    - C(has_config) is false where another instance has the directory now.
  returned: success
  type: list
  elements: dict
  sample: [{"unit": "tensorflow-model-server-old", "config_path": "/etc/tensorflow-serving/old", "has_config": true}]
start_files:
  description: The names of all files that a server can read at its start.
  returned: success
  type: list
  elements: str
  sample: [monitoring.config]
displaced:
  description: The units that listen on a port which another instance is to have, and so have to stop first.
  returned: success
  type: list
  elements: str
  sample: [tensorflow-model-server-old]
is_recorded:
  description: Whether M(modelops.tensorflow_serving.server_rollback) has recorded what serves.
  returned: success
  type: bool
flags_of_installed_server:
  description: Whether the flags were checked against the installed server.
  returned: success
  type: bool
systemd_version:
  description: The version of systemd.
  returned: success
  type: int
"""

import grp
import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import (
    properties_of,
    systemd_version,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.last_good import read_last_good
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.flags import (
    KNOWN_FLAGS,
    installed_flags,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    START_FILES,
    Host,
    InstancesError,
    as_dicts,
    displaced,
    family,
    foreign_ports,
    foreign_units,
    host_numbers,
    instances,
    stale_units,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import (
    account_problems,
    hidden_problems,
)

PLACEMENT = {"memory_high": {"type": "str"}, "memory_max": {"type": "str"}, "cpus": {"type": "str"}}


def place_and_account_problems(params: dict[str, Any]) -> list[str]:
    """Return what is wrong with the servers' account, and with directories that their units are to see."""
    problems: list[str] = []
    if params["user"] is not None:
        problems += account_problems("tfserving_user", params["user"], pwd.getpwnam)
    if params["group"] is not None:
        problems += account_problems("tfserving_group", params["group"], grp.getgrnam)
    if params["models_base_path"] is not None:
        problems += hidden_problems("tfserving_models_base_path", params["models_base_path"])
    return problems + hidden_problems("tfserving_config_path", params["config_path"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "config_path": {"type": "path", "required": True},
            "user": {"type": "str"},
            "group": {"type": "str"},
            "models_base_path": {"type": "str"},
            "instances": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str"},
                    "port": {"type": "int"},
                    "rest_api_port": {"type": "int"},
                    "models": {"type": "list", "elements": "str"},
                    "numa_node": {"type": "int"},
                    "flags": {"type": "dict"},
                    "environment": {"type": "dict"},
                    **PLACEMENT,
                },
            },
            "defaults": {
                "type": "dict",
                "apply_defaults": True,
                "options": {
                    "port": {"type": "int", "default": 8500},
                    "rest_api_port": {"type": "int", "default": 8501},
                },
            },
            "models": {"type": "list", "elements": "str", "default": []},
            "settings": {"type": "dict", "default": {}},
            "flags": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}},
            "monitoring_path": {"type": "str", "default": "/monitoring/prometheus/metrics"},
            "program": {"type": "path", "default": "/usr/bin/tensorflow_model_server"},
        },
        supports_check_mode=True,
    )
    params = module.params
    flags = installed_flags(params["program"])
    host = Host(
        flags=flags or KNOWN_FLAGS,
        cpus=host_numbers(Path("/sys/devices/system/cpu/online")),
        numa_nodes=host_numbers(Path("/sys/devices/system/node/online")),
    )
    there = family(params["unit"], params["config_path"])
    problems = place_and_account_problems(params)
    try:
        made = instances(params["instances"], {**params, **params["defaults"]}, host)
    except InstancesError as error:
        module.fail_json(msg="\n".join([*problems, str(error)]))
    wanted = [one.unit for one in made]
    states = properties_of(module, [f"{unit}.service" for unit in {*wanted, *there}], "ControlGroup", "FragmentPath")
    facts = {name.removesuffix(".service"): state for name, state in states.items()}
    cgroups = {unit: facts[unit].get("ControlGroup", "") for unit in there}
    problems += foreign_units(wanted, {unit: facts[unit].get("FragmentPath", "") for unit in wanted})
    problems += foreign_ports(made, cgroups)
    if problems:
        module.fail_json(msg="\n".join(problems))
    module.exit_json(
        changed=False,
        instances=as_dicts(made),
        stale=stale_units(there, made),
        start_files=list(START_FILES),
        displaced=displaced(made, cgroups),
        is_recorded=read_last_good(params["config_path"]) is not None,
        flags_of_installed_server=bool(flags),
        systemd_version=systemd_version(module),
    )


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_host_info
short_description: Inspect a host before anything is changed on it
version_added: 0.2.0
description:
  - Reads what a host is and has, once, for all roles of this collection, and works out what its model servers are to
    run. Every problem that the host shows is reported at once, each with the variable and the fix.
  - Flags are checked against what the installed server prints for C(--help), as the server ignores a misspelt flag and
    exits where a value has the wrong type. Where it is not installed they are checked against the flags of upstream's
    server.
  - A unit that these roles have not written is a problem, and so is a port on which anybody but these units listens,
    as TensorFlow Serving shares its gRPC port silently, and goes on without REST where that port is taken.
  - Who may talk to the servers is a list of networks, which systemd enforces where the kernel can, else nftables.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  name:
    description: What messages call the host.
    type: str
    default: this host
  user:
    description: The user that the servers run as. It need not be there yet.
    type: str
    required: true
  group:
    description: Their group.
    type: str
    required: true
  config_path:
    description: Directory of the configuration. A named instance has a directory of its own in it.
    type: path
    required: true
  data_path:
    description: Directory of the models and of the previous package.
    type: path
    required: true
  adopt:
    description: Whether to take these directories where they hold files and were not made by the roles.
    type: bool
    default: false
  apt:
    description: The repository that the package comes from. Without it, nobody looks for it.
    type: dict
    suboptions:
      shared_origin:
        description: Its URI, where only its host can tell it from others. Then nothing else may come from there.
        type: str
        default: ""
      key:
        description: Its signing key, as M(modelops.tensorflow_serving.apt_signing_key) takes it.
        type: dict
        required: true
        suboptions:
          path:
            description: The keyring.
            type: path
            required: true
          fingerprint:
            description: The key's fingerprint.
            type: str
            required: true
          content:
            description: The key itself, where it needs no download.
            type: str
          renew_before_days:
            description: How many days before its expiry a copy is due for renewal.
            type: int
            required: true
      source:
        description: The source, as M(modelops.tensorflow_serving.apt_source) takes it.
        type: dict
        required: true
        suboptions:
          name:
            description: Base name of the files.
            type: str
            required: true
          source:
            description: The source.
            type: str
            required: true
          pin:
            description: The pin.
            type: str
            required: true
          proxy:
            description: Address of a proxy.
            type: str
            default: ""
          replaces:
            description: A repository that this one is a mirror of.
            type: dict
          fingerprint:
            description: Fingerprint of the key.
            type: str
            required: true
  apt_netrc:
    description: User and password of the repository's proxy, as M(modelops.tensorflow_serving.apt_source) takes them.
    type: str
    default: ""
  package:
    description: Which package there should be. Without it, the package is not looked at.
    type: dict
    suboptions:
      variant:
        description: Which build; V(auto) is the one that fits the CPU.
        type: str
        choices: [auto, optimized, universal]
        default: auto
      version:
        description: An exact version, or a pattern. Empty for what is installed, else the newest.
        type: str
        default: ""
      deb_sha256:
        description: SHA256 of the C(.deb) that is given, and does not come from apt.
        type: str
      hold:
        description: Whether it should be held. Null leaves that as it is.
        type: bool
  servers:
    description: What the servers should run. Without it, they are not looked at.
    type: dict
    suboptions:
      unit:
        description: The systemd unit of the instance that has no name, without C(.service). The others' begin with it.
        type: str
        required: true
      models_base_path:
        description: Directory of the models, which the units have to see.
        type: str
        required: true
      instances:
        description: The instances.
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
  models:
    description: The models that are to be published. Without it, nobody looks for them.
    type: dict
    suboptions:
      base_path:
        description: Directory of the models.
        type: str
        required: true
      catalog:
        description: The models, as in C(tfserving_models_catalog).
        type: list
        elements: dict
        required: true
      keep:
        description: How many versions of a model stay whose entry does not say it.
        type: int
      purge:
        description: Whether models that have left O(models.catalog) are to go.
        type: bool
        default: false
  in_rollout:
    description: Whether this is a run of a rollout. To any other run, an unfinished rollout is a problem.
    type: bool
    default: false
  networks:
    description: Who may talk to the servers. Without it, nobody is asked.
    type: dict
    suboptions:
      allowed:
        description: Networks, addresses, V(private) for those that the host is in, and V(any).
        type: list
        elements: str
        default: []
      gateway_enabled:
        description: Whether a gateway is to stand in front of the servers. A host that has one needs an answer.
        type: bool
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Inspect the host
  modelops.tensorflow_serving.serving_host_info:
    user: tfserving
    group: tfserving
    config_path: /etc/tensorflow-serving
    data_path: /var/lib/tensorflow-serving
    package:
      version: 2.19.*
  register: __tfserving_host
"""

RETURN = r"""
looked_at:
  description: When, in seconds since the epoch, by the host's clock.
  returned: success
  type: float
  sample: 1764486000.5
platform:
  description: The distribution, and the architecture.
  returned: success
  type: dict
  sample: {distribution: Debian GNU/Linux 13 (trixie), architecture: x86_64}
account:
  description: Whether user, group and directories are as they should be.
  returned: success
  type: dict
  sample: {is_ready: true}
apt:
  description: Whether the signing key and the source are as they should be, so that there is nothing to look for, to
    change and to warn of.
  returned: with O(apt)
  type: dict
  sample: {key_up_to_date: true, source_up_to_date: true}
package:
  description: The packages that are installed, the one that should be, and whether that differs. C(pending) is a change
    of package that is not over, of this run or of one that was killed. RV(package.wanted) is none where apt's lists, or
    the given C(.deb), are needed to tell.
  returned: with O(package)
  type: dict
  sample:
    missing_cpu_flags: []
    installed: [{name: tensorflow-model-server, version: 2.19.1, sha256: ""}]
    wanted: {name: tensorflow-model-server, version: 2.19.1, sha256: ""}
    change_needed: false
    hold_change_needed: false
    has_rsync: true
    pending: null
servers:
  description: >-
    The instances, with all that their units take: unit, config_path, ports, models, the files that are read at the
    start, the words of the command line and of the environment. The units that run; those whose process is older than
    what it was started from, with what is newer; and the SHA256 of the files that they read at their start, by path.
    The units that listen on a port which another one gets, and so have to stop first.
  returned: with O(servers)
  type: dict
  sample:
    instances:
      - name: ""
        unit: tensorflow-model-server
        config_path: /etc/tensorflow-serving
        port: 8500
        rest_api_port: 8501
        models: [MLP]
        files: [monitoring.config]
        command: [--port=8500, --rest_api_port=8501]
        environment: [TF_CPP_MIN_LOG_LEVEL=0]
        cpus: ""
        numa_node: null
        memory_high: ""
        memory_max: 24G
        rest_api_timeout_seconds: 30
    displaced: []
    systemd_version: 257
    running: [tensorflow-model-server]
    outdated: {tensorflow-model-server: [its command line]}
    files: {/etc/tensorflow-serving/monitoring.config: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
models:
  description: What there is of each model, by version, with what its manifest says; the versions that only have to be
    renamed to be published; those that were withdrawn, and why; the free disk space; and whether
    M(modelops.tensorflow_serving.saved_models_prune) would find something to do.
    M(modelops.tensorflow_serving.saved_models) takes it as O(ignore:host).
  returned: with O(models)
  type: dict
  sample:
    models:
      MLP:
        "1": {directory: "1", intact: true, digest: 9f86d0, stamp: 2c26b4, source_digest: null, bytes: 447012}
    distributed: {MLP: {}}
    withdrawn: {MLP: {}}
    free: {bytes: 53687091200, inodes: 3276800}
    base_access: null
    prunable: false
networks:
  description: The networks that may talk to the servers, none where everybody may. What enforces that is V(systemd),
    V(nftables) or V(nobody). And whether the host has rules of nftables by these roles.
  returned: with O(networks)
  type: dict
  sample: {allowed: [127.0.0.0/8, 10.0.0.0/8, "::1/128"], enforced_by: systemd, has_rules: false}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._host.look import look

PLACEMENT = {"memory_high": {"type": "str"}, "memory_max": {"type": "str"}, "cpus": {"type": "str"}}
APT = {
    "shared_origin": {"type": "str", "default": ""},
    "key": {
        "type": "dict",
        "required": True,
        "no_log": False,
        "options": {
            "path": {"type": "path", "required": True},
            "fingerprint": {"type": "str", "required": True, "no_log": False},
            "content": {"type": "str"},
            "renew_before_days": {"type": "int", "required": True},
        },
    },
    "source": {
        "type": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "source": {"type": "str", "required": True},
            "pin": {"type": "str", "required": True},
            "proxy": {"type": "str", "default": ""},
            "replaces": {"type": "dict"},
            "fingerprint": {"type": "str", "required": True, "no_log": False},
        },
    },
}
PACKAGE = {
    "variant": {"type": "str", "choices": ["auto", "optimized", "universal"], "default": "auto"},
    "version": {"type": "str", "default": ""},
    "deb_sha256": {"type": "str"},
    "hold": {"type": "bool"},
}
SERVERS = {
    "unit": {"type": "str", "required": True},
    "models_base_path": {"type": "str", "required": True},
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
}
MODELS = {
    "base_path": {"type": "str", "required": True},
    "catalog": {"type": "list", "elements": "dict", "required": True},
    "keep": {"type": "int"},
    "purge": {"type": "bool", "default": False},
}
NETWORKS = {"allowed": {"type": "list", "elements": "str", "default": []}, "gateway_enabled": {"type": "bool"}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "this host"},
            "user": {"type": "str", "required": True},
            "group": {"type": "str", "required": True},
            "config_path": {"type": "path", "required": True},
            "data_path": {"type": "path", "required": True},
            "adopt": {"type": "bool", "default": False},
            "apt": {"type": "dict", "options": APT},
            "apt_netrc": {"type": "str", "default": "", "no_log": True},
            "package": {"type": "dict", "options": PACKAGE},
            "servers": {"type": "dict", "options": SERVERS},
            "models": {"type": "dict", "options": MODELS},
            "in_rollout": {"type": "bool", "default": False},
            "networks": {"type": "dict", "options": NETWORKS},
        },
        supports_check_mode=True,
    )
    facts, problems = look(module, module.params)
    if problems:
        module.fail_json(msg="\n".join(dict.fromkeys(problems)))
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()

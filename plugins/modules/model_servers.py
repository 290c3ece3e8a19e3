#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_servers
short_description: Configure the model servers of a host, wait until they serve, or roll back
version_added: 0.2.0
description:
  - With O(state=configured), everything that the servers read is written, and servers that are not listed any more are
    removed. A running server takes C(models.config) at once. It has done what the file says when every version is
    AVAILABLE and answers the sample requests of its model, labels lead where they should, and what is not wanted any
    more is gone. Only then is written what needs a restart; RV(starts) says which servers have to be started or
    restarted. Where none has to be, the module goes on as with O(state=serving).
  - Where a label moves, or a labelled version is replaced, models.config goes through files in between. They load both
    versions, move the label, and drop the old one, so that no request to the label fails. A run that was killed on the
    way is finished by the next one.
  - When a server has not loaded the file in time, or has refused it, the previous file is restored, and the module
    fails with the server's own words.
  - A model without a version on the host never reaches the file. One such model keeps the server from looking at all
    others, and then only a restart helps. A model of which O(catalog) asks for a version that was withdrawn stays as
    the file has it; one that never served is left out.
  - A server that cannot be told of a change while it runs gets the file and has to be restarted to read it.
  - An answer counts only if every socket that listens on the server's ports belongs to its unit.
  - With O(state=serving), the module waits until every server serves, and records that as the state to roll back to.
  - With O(state=rolled_back), it restores what was recorded, so that what served before serves again, after a reboot
    too. Versions that a server has refused since they were published are withdrawn. They are renamed to
    C(.withdrawn-N), which no server parses, with C(.withdrawn-N.json) beside them, which says why. A server is
    restarted only where its process was started from other files than those that were recorded, or does not answer.
  - With O(state=absent), all servers of O(unit) are removed.
attributes:
  check_mode:
    description: Says what would change. On a host that has no versions yet this cannot be all. A rollback does nothing.
    support: full
  diff_mode:
    description: Shows every file before and after, but for those with secrets; not the files in between.
    support: full
  idempotent:
    description: Where the files and what the servers do are right, nothing is changed.
    support: full
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
  - modelops.tensorflow_serving.servers
options:
  state:
    description: What to do with the servers.
    type: str
    choices: [configured, serving, rolled_back, absent]
    required: true
  base_path:
    description: Directory on the host with one directory per model. For O(state=configured).
    type: path
  group:
    description: The group of the servers, which may read C(models.config). For O(state=configured).
    type: str
    default: root
  instances:
    description: The instances, as M(modelops.tensorflow_serving.serving_host_info) returns them.
    type: list
    elements: dict
    default: []
  displaced:
    description: The units that have to stop first, as another one gets their port.
    type: list
    elements: str
    default: []
  files:
    description: What the servers read at their start, and their units.
    type: list
    elements: dict
    default: []
    suboptions:
      unit:
        description: The unit that reads it.
        type: str
        required: true
      path:
        description: The file.
        type: path
        required: true
      content:
        description: What it holds.
        type: str
      secret_content:
        description: The same, for what no log and no diff may show.
        type: str
      group:
        description: Its group.
        type: str
        default: root
      mode:
        description: Its mode.
        type: str
        default: "0644"
  package_directory:
    description: Where the previous package is kept, which is forgotten once all servers serve.
    type: path
  package_changed:
    description: Whether the package was, or would be, changed in this run. Check mode cannot see it on the host.
    type: bool
    default: false
  heal:
    description: What to do with a server that takes no models.config any more. With V(restart) it has to be restarted,
      else the module fails.
    type: str
    choices: [none, restart]
    default: none
  override:
    description: Whether models that M(modelops.tensorflow_serving.model_rollback) has rolled back follow the catalogue
      again. Without it they stay at what they were rolled back to, with a warning, as long as the catalogue asks for
      what it asked for then.
    type: bool
    default: false
  models:
    description: Names of the models that follow the catalogue, while the others stay as C(models.config) has them. All
      of them by default.
    type: list
    elements: str
    default: []
  pending:
    description: The versions that check mode would have published, as RV(ignore:published) of
      M(modelops.tensorflow_serving.saved_models).
    type: list
    elements: dict
  restart:
    description: With O(state=rolled_back), whether to restart all servers, as after a package was rolled back.
    type: bool
    default: false
  refused:
    description: Versions that a server has refused before, as this module returns them where it fails. They do not
      count where files that take effect at a start were restored, or with O(restart), as these may have been the cause.
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
    description: How long each server, and each change of its models, may take.
    type: int
    default: 300
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: See the servers serve, and record that
  modelops.tensorflow_serving.model_servers:
    state: serving
    unit: tensorflow-model-server
    config_path: /etc/tensorflow-serving
    package_directory: /var/lib/tensorflow-serving/packages
    catalog: "{{ tfserving_models_catalog }}"
    instances: "{{ __tfserving_host.servers.instances }}"
"""

RETURN = r"""
starts:
  description: The instances that have to be started, with C(restart), C(active) and C(exists) of each.
  returned: success, with O(state=configured)
  type: list
  elements: dict
reasons:
  description: Why a running server has to be restarted, by unit.
  returned: success, with O(state=configured)
  type: dict
  sample: {tensorflow-model-server: older than /etc/tensorflow-serving/monitoring.config}
models_config:
  description: Whether each server that runs has taken its models.config, and the files that were written on the way, by
    their purposes; by unit.
  returned: success, with O(state=configured)
  type: dict
  sample:
    tensorflow-model-server:
      live: true
      steps: [load what the labels will lead to, move the labels, drop what is not wanted any more]
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
refused:
  description: The versions that a server will not serve, with their model's directory and the server's words.
  returned: failure
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 2, "path": "/var/lib/tensorflow-serving/models/MLP", "reason": "..."}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CATALOG_OPTIONS,
    catalog_samples,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.configure import configure, remove
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Servers
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.serving import confirm
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import SERVERS_ARGUMENTS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.ready import NotReady

FILE = {
    "unit": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "secret_content": {"type": "str", "no_log": True},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0644"},
}
REFUSED = {
    "model": {"type": "str"},
    "version": {"type": "int"},
    "path": {"type": "path"},
    "reason": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["configured", "serving", "rolled_back", "absent"],
                "required": True,
            },
            **SERVERS_ARGUMENTS,
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "base_path": {"type": "path"},
            "group": {"type": "str", "default": "root"},
            "instances": {"type": "list", "elements": "dict", "default": []},
            "displaced": {"type": "list", "elements": "str", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": FILE,
                "required_one_of": [("content", "secret_content")],
            },
            "package_directory": {"type": "path"},
            "package_changed": {"type": "bool", "default": False},
            "heal": {"type": "str", "choices": ["none", "restart"], "default": "none"},
            "override": {"type": "bool", "default": False},
            "models": {"type": "list", "elements": "str", "default": []},
            "pending": {"type": "list", "elements": "dict"},
            "restart": {"type": "bool", "default": False},
            "refused": {"type": "list", "elements": "dict", "default": [], "options": REFUSED},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        required_if=[
            ("state", "configured", ("base_path", "package_directory")),
            ("state", "serving", ("package_directory",)),
        ],
        supports_check_mode=True,
    )
    params, state = module.params, module.params["state"]
    try:
        samples = catalog_samples(params["catalog"])
        servers = Servers(module, params["unit"], params["config_path"], samples, params["timeout_seconds"])
        if state == "configured":
            result = configure(module, params, samples, servers)
            if not result["starts"]:
                served = confirm(module, params, samples, servers)
                result["changed"] = result["changed"] or served["changed"]
                result["diff"] += served["diff"]
        elif state == "serving":
            result = confirm(module, params, samples, servers)
        elif state == "absent":
            result = remove(module, params)
        elif module.check_mode:
            result = {"changed": False, "served": False, "withdrawn": [], "restored": [], "message": ""}
        else:
            result = servers.roll_back(params["restart"], params["refused"])
    except NotReady as error:
        module.fail_json(msg=str(error), refused=error.refused)
    except (KeyError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

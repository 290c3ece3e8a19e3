#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_file
short_description: Write a file that root executes or trusts
version_added: 0.2.0
description:
  - C(ansible.builtin.template) and C(ansible.builtin.copy) upload a file as the account that logs in, and move it to
    its place. A process of the account that has it open can write to it ever after. This module takes the content in
    its arguments. Root writes it beside its place, to a file that nobody else has ever had open, and replaces the old
    one in one step.
  - A unit in C(/etc/systemd/system) is verified by C(systemd-analyze) first. Every line that this says of it is an
    error, as systemd would ignore what is wrong and start the service without it.
options:
  path:
    description: The file. Its directory has to be there, and root's.
    type: path
    required: true
  content:
    description: What it is to hold.
    type: str
    required: true
  owner:
    description: Its owner.
    type: str
    default: root
  group:
    description: Its group.
    type: str
    default: root
  mode:
    description: Its mode.
    type: str
    default: "0644"
  validate:
    description: Command that has to succeed before the old file is replaced. C(%s) is the new file.
    type: str
attributes:
  check_mode:
    description: Says whether the file would change.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
  idempotent:
    description: A file with this content, owner, group and mode is not touched.
    support: full
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Write the unit
  modelops.tensorflow_serving.managed_file:
    path: /etc/systemd/system/tensorflow-model-server.service
    content: "{{ lookup('ansible.builtin.template', 'tensorflow-model-server.service.j2') }}"
"""

RETURN = r"""#"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.managed_file import write_managed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
            "validate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    names = ("content", "owner", "group", "mode", "validate")
    try:
        changed, diff = write_managed(module, Path(module.params["path"]), *(module.params[name] for name in names))
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, diff=diff)


if __name__ == "__main__":
    main()

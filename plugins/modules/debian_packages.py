#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: debian_packages
short_description: Install packages of Debian or Ubuntu that a host lacks, with a fresh apt cache only where needed
version_added: 0.2.0
description:
  - Asks dpkg which packages are missing, and apt-get only where there are any. No other package is removed for them.
  - The apt cache is updated only where apt cannot install them without that.
  - Packages come from signed lists, whatever C(apt.conf.d) allows. Recommended packages are not installed.
options:
  name:
    description: The packages. An empty list is nothing to do.
    type: list
    elements: str
    required: true
  reason:
    description: The packages and what they are for, as the error begins with. By default their names.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says what would be installed, also where the apt cache does not have it yet. Does not ask apt.
    support: full
  diff_mode:
    description: Shows the packages before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Install rsync
  modelops.tensorflow_serving.debian_packages:
    name: [rsync]
    reason: rsync, by which the models arrive
"""

RETURN = r"""
installed:
  description: The packages that were installed, or would be.
  returned: success
  type: list
  elements: str
  sample: [rsync]
versions:
  description: The version of each package that is there. In check mode, without those that would be installed.
  returned: success
  type: dict
  sample: {rsync: 3.2.7-1+deb12u2}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.debian_packages import (
    InstallError,
    ensure,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "required": True},
            "reason": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        result = ensure(module)
    except InstallError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

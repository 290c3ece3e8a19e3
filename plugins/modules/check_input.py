#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

# The work is done by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: check_input
short_description: Check the input of the roles of this collection, all of it at once
version_added: 0.2.0
description:
  - Checks the variables of a host on the controller, without a connection to the host, and fails with all that is wrong
    in one message, a line for each problem with the variable and the fix.
  - Types and choices are those of the roles' argument specs. Beyond that it checks all that needs no host, such as the
    catalogue and its sources, ports, flags, configuration files of the server, certificates, networks, and files on the
    controller.
  - A variable that begins with C(tfserving_), is none of this collection's and is spelt almost as one of them is an
    error, and so is an old name. Any other unknown one is a warning. C(tfserving_allowed_extra_variables) lists those
    that are your own.
options:
  roles:
    description:
      - Names of the roles, without the collection's.
      - By default those of C(playbooks/serving.yml), with tfserving_gateway where C(tfserving_gateway_enabled) is set
        and true, and the variables that this playbook reads itself.
    type: list
    elements: str
attributes:
  check_mode:
    description: Changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Check all input of playbooks/serving.yml
  modelops.tensorflow_serving.check_input: {}

- name: Check the input of one role
  modelops.tensorflow_serving.check_input:
    roles: [tfserving_apt]
"""

RETURN = r""" # """

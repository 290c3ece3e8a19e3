#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

# The work is done by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: table
short_description: Print an aligned table
version_added: 0.1.0
description:
  - Prints rows as a table between the lines of the play, whatever the callback, on the controller.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  title:
    description: A line above the table.
    type: str
  columns:
    description: The headers, each the key of its values in O(rows).
    type: list
    elements: str
    required: true
  rows:
    description: The rows. Columns of numbers are aligned to the right; keys without a column are left out.
    type: list
    elements: dict
    required: true
  colour_by:
    description: The key in O(rows) whose value chooses the colour of a row.
    type: str
  colours:
    description: Ansible's names of the colours, by the values of O(colour_by). Ansible's own settings, such as
      C(ANSIBLE_NOCOLOR), say whether there are colours at all; a file has none.
    type: dict
    default: {}
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Print what is served
  modelops.tensorflow_serving.table:
    title: Models
    columns: [model, version, state]
    rows:
      - {model: MLP, version: 1, state: AVAILABLE}
    colour_by: state
    colours: {AVAILABLE: green}
"""

RETURN = r""" # """

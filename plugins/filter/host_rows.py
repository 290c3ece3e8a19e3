# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: host_rows
short_description: Put what each host returned as a list into one table
version_added: 0.2.0
description:
  - Returns the dictionaries of a list that every host has registered, with the name of the host as C(host) in each.
positional: hostvars, variable, key
options:
  _input:
    description: Names of hosts, in the order in which they are to appear.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable of this name.
    type: dict
    required: true
  variable:
    description: Variable with the registered result; of a loop, its first counts.
    type: str
    required: true
  key:
    description: Its key with the list. A host without one has no rows.
    type: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
rows: "{{ ansible_play_hosts | modelops.tensorflow_serving.host_rows(hostvars, 'rolled_back', 'rolled_back') }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
  elements: dict
  sample: [{"host": "web1", "model": "MLP", "from": "2", "to": "1"}]
"""

from typing import Any, Callable, Mapping


def host_rows(hosts: list[str], hostvars: Mapping[str, Any], variable: str, key: str) -> list[dict[str, Any]]:
    """Return the rows that DOCUMENTATION describes."""
    rows = []
    for host in hosts:
        result = hostvars[host].get(variable) or {}
        first = (result.get("results") or [result])[0]
        rows += [{"host": host, **row} for row in first.get(key) or []]
    return rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"host_rows": host_rows}

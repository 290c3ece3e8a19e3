# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: status_rows
short_description: Turn the answers of model_status_info of many hosts into rows of a table
version_added: 0.1.0
description:
  - Returns the rows of M(modelops.tensorflow_serving.model_status_info) of every host, with the host in each.
  - A host that could not be asked has a row that says so.
options:
  _input:
    description: The hosts, in the order of the rows.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of the hosts.
    type: dict
    required: true
  variable:
    description: Variable with the registered result of M(modelops.tensorflow_serving.model_status_info).
    type: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
rows: "{{ ansible_play_hosts_all | modelops.tensorflow_serving.status_rows(hostvars, 'status') }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
  elements: dict
  sample: [{"host": "web1", "model": "MLP", "version": 1, "state": "AVAILABLE", "error_message": ""}]
"""

from typing import Any, Callable, Mapping


def status_rows(hosts: list[str], hostvars: Mapping[str, Any], variable: str) -> list[dict[str, Any]]:
    """Return the rows that DOCUMENTATION describes."""
    rows: list[dict[str, Any]] = []
    for host in hosts:
        result = hostvars[host].get(variable) or {}
        state = "HOST UNREACHABLE" if result.get("unreachable") else "NOT ASKED"
        none = {"state": state, "error_message": " ".join(str(result.get("msg", "")).split())}
        rows += ({**one, "host": host} for one in result.get("versions", [none]))
    return rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"status_rows": status_rows}

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: status_rows
short_description: Turn the answers of model_status_info of many hosts into rows of a table
version_added: 0.1.0
description:
  - Returns the rows of M(modelops.tensorflow_serving.model_status_info) of every server, with its host in each, and
    says where a server differs from what C(tfserving_models_catalog) of its host says or from what most servers with
    the same entry serve.
  - A host or a server that could not be asked has a row that says so.
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
    description: Variable with the registered result of M(modelops.tensorflow_serving.model_status_info), asked once or
      in a loop over C(tfserving_service_instances).
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
  description:
    - The rows. C(server) is the name of the instance, C(label) has the labels that lead to the version, C(digest) the
      first 12 digits of C(full_digest).
    - C(drift) says what is not as it should be. C(verdict) is V(drift) where it says something, else V(served), V(idle)
      for a version that was unloaded, or V(busy).
  type: list
  elements: dict
  sample:
    - host: web1
      server: ""
      model: MLP
      version: 1
      state: AVAILABLE
      label: stable
      digest: 5f0c3d2a9b1e
      full_digest: 5f0c3d2a9b1e...
      drift: ""
      verdict: served
      error_message: ""
"""

from typing import Any, Callable, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.status_rows import fleet_rows


def status_rows(hosts: list[str], hostvars: Mapping[str, Any], variable: str) -> list[dict[str, Any]]:
    """Return the rows that DOCUMENTATION describes."""
    return fleet_rows(hosts, hostvars, variable)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"status_rows": status_rows}

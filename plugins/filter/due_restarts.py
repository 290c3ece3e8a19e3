# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Says which running servers have to be restarted."""

from __future__ import annotations

DOCUMENTATION = r"""
name: due_restarts
short_description: Say which running model servers a run has to restart
version_added: 0.2.0
description:
  - A server that runs has to be restarted where its process is older than what it was started from, where what it reads
    at its start is to change, and where its package is. One that is not listed any more is stopped, and another unit
    may take its place.
positional: files
options:
  _input:
    description: The host, as M(modelops.tensorflow_serving.serving_host_info) returns it.
    type: dict
    required: true
  files:
    description: What the servers are to read at their start, as P(modelops.tensorflow_serving.server_files#lookup)
      returns it.
    type: list
    elements: dict
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Say which servers have to be restarted
  ansible.builtin.debug:
    msg: "{{ __tfserving_host | modelops.tensorflow_serving.due_restarts(files) }}"
"""

RETURN = r"""
_value:
  description: The units.
  type: list
  elements: str
"""

import hashlib
from typing import Any, Callable


def due_restarts(host: dict[str, Any], files: list[dict[str, Any]]) -> list[str]:
    """Return the units of servers that run and have to be restarted."""
    servers = host["servers"]
    gone = set(servers["running"]) - {one["unit"] for one in servers["instances"]}
    due = gone | set(servers["outdated"])
    for file in files:
        text = file.get("content") or file.get("secret_content") or ""
        if servers["files"].get(file["path"]) != hashlib.sha256(text.encode()).hexdigest():
            due.add(file["unit"])
    if host.get("package", {}).get("change_needed"):
        due.update(servers["running"])
    return sorted(due & set(servers["running"]))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"due_restarts": due_restarts}

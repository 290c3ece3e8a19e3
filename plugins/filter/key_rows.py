# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: key_rows
short_description: Rows for a table of the signing keys that hosts have
version_added: 0.1.0
description:
  - Turns what M(modelops.tensorflow_serving.apt_signing_key_info) returned on many hosts into rows for
    M(modelops.tensorflow_serving.table).
positional: hostvars, variable
options:
  _input:
    description: The hosts, in the order of the rows.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts.
    type: dict
    required: true
  variable:
    description: The variable that each host's result was registered in.
    type: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
rows: "{{ ansible_play_hosts_all | modelops.tensorflow_serving.key_rows(hostvars, 'key') }}"
"""

RETURN = r"""
_value:
  description:
    - The rows. The state is V(valid), V(renewal due), V(expired), V(revoked), V(another key), V(missing),
      V(unreadable), also for an armoured key, which apt does not read under that name, V(no source) where the result
      was skipped, or V(HOST UNREACHABLE).
  type: list
  elements: dict
  sample:
    - host: web1
      fingerprint: 916E2B2FEBC274930BACA9D9544B7F63BF9E4D5F
      expires: "2026-08-18T12:00:00Z"
      days_left: -98
      state: expired
"""

from typing import Any, Callable, Mapping


def key_rows(hosts: list[str], hostvars: Mapping[str, Any], variable: str) -> list[dict[str, Any]]:
    """Return the rows that DOCUMENTATION describes."""
    rows: list[dict[str, Any]] = []
    for host in hosts:
        result = hostvars[host].get(variable) or {"unreachable": True}
        for key in result.get("keys") or [{}]:
            rows.append(
                {
                    "host": host,
                    "fingerprint": key.get("fingerprint"),
                    "expires": (key["expires"] or "never") if key else None,
                    "days_left": key.get("days_left"),
                    "state": _state(result, key),
                }
            )
    return rows


def _state(result: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    if result.get("unreachable"):
        return "HOST UNREACHABLE"
    if result.get("skipped"):
        return "no source"
    if result.get("failed") or result.get("armoured"):
        return "unreadable"
    if not key:
        return "missing"
    if not key["expected"]:
        return "another key"
    if key["revoked"]:
        return "revoked"
    if key["expired"]:
        return "expired"
    return "renewal due" if key["renewal_due"] else "valid"


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"key_rows": key_rows}

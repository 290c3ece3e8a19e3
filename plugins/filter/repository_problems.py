# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: repository_problems
short_description: List what is wrong with the settings of an apt repository
version_added: 0.2.0
description:
  - Each of them is written to a file that apt reads, where a line break would begin another setting, such as one that
    switches signatures off.
options:
  _input:
    description: The settings C(uri), C(suite), C(components) and C(key_fingerprint).
    type: dict
    required: true
  prefix:
    description: What their variables begin with, for the messages.
    type: str
    required: true
positional: prefix
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Print what is wrong
  ansible.builtin.debug:
    msg: "{{ {'uri': 'ftp://x'} | modelops.tensorflow_serving.repository_problems('tfserving_apt_') }}"
"""

RETURN = r"""
_value:
  description: The problems, each with its variable and what it has to be.
  type: list
  elements: str
"""

import re
from typing import Any, Callable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    normalise_fingerprint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import printable

# Printable ASCII: a URI has nothing else (RFC 3986), and apt's fields end at white space (sources.list(5)).
_URI = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*)?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/-]*")


def repository_problems(settings: dict[str, Any], prefix: str) -> list[str]:
    """Return what is wrong with uri, suite, components and key_fingerprint of a repository."""
    values = {name: settings.get(name) or "" for name in ("uri", "suite", "components", "key_fingerprint")}
    shown = {name: printable(str(value)) for name, value in values.items()}
    problems = []
    if not _URI.fullmatch(str(values["uri"])):
        problems.append(
            f"{prefix}uri has to be http://HOST/PATH or https://HOST/PATH, without user and password; those belong "
            "into /etc/apt/auth.conf.d on the hosts."
        )
    if not _WORD.fullmatch(str(values["suite"])):
        problems.append(f"{prefix}suite is {shown['suite']}; it has to be one word, such as stable.")
    components = values["components"]
    if not components or not all(_WORD.fullmatch(str(one)) for one in components):
        problems.append(
            f"{prefix}components is {shown['components']}; name at least one component, each of them one word."
        )
    try:
        normalise_fingerprint(str(values["key_fingerprint"]))
    except OpenPGPError as error:
        problems.append(f"{prefix}key_fingerprint is {shown['key_fingerprint']}: {error}.")
    return problems


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"repository_problems": repository_problems}

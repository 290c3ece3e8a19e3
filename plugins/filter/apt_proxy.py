# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: apt_proxy
short_description: Write a proxy as apt's configuration for the host of a repository, and its password for apt's netrc
version_added: 0.1.0
description:
  - Splits the URL of a proxy into what everybody may read and what only root may.
positional: proxy, no_proxy
options:
  _input:
    description: URI of the repository.
    type: str
    required: true
  proxy:
    description: URL of the proxy, with user and password where it asks for them.
    type: str
    required: true
  no_proxy:
    description: Hosts and domains that are reached without the proxy.
    type: list
    elements: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Print the proxy of a repository
  ansible.builtin.debug:
    msg: >-
      {{ 'https://storage.googleapis.com/tensorflow-serving-apt'
      | modelops.tensorflow_serving.apt_proxy('http://proxy.example.com:3128', []) }}
"""

RETURN = r"""
_value:
  description:
    - "C(proxy): the proxy without user and password, or V(DIRECT). C(netrc): the line for C(/etc/apt/auth.conf.d) that
      holds user and password, or empty."
  type: dict
  sample: {proxy: "http://proxy.example.com:3128", netrc: ""}
"""

import re
from typing import Any, Callable
from urllib.parse import unquote

from ansible.errors import AnsibleFilterError

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import is_bypassed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import control_characters

_PROXY = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^\s:@/]+)(?::(?P<password>[^\s@/]*))?@)?"
    r"(?P<address>(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5}))/?",
    re.ASCII,
)


def apt_proxy(uri: str, proxy: str, no_proxy: list[str]) -> dict[str, str]:
    """Return proxy and netrc for a repository's URI. Raises AnsibleFilterError for what apt could not read.

    Source of the forms: apt.conf(5), Acquire::http::Proxy::<host>, and apt_auth.conf(5).
    """
    if is_bypassed(uri, no_proxy):
        return {"proxy": "DIRECT", "netrc": ""}
    # Never quoted in an error: it may hold a password.
    match = _PROXY.fullmatch(proxy)
    if not match or not 0 < int(match["port"]) < 65536:
        raise AnsibleFilterError(
            "tfserving_apt_proxy has to be http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host "
            "where it asks for them and special characters of these written as %XX"
        )
    address = f"{match['scheme']}://{match['address']}"
    user, password = unquote(match["user"] or ""), unquote(match["password"] or "")
    if re.search(r"\s", user + password) or control_characters("", user + password):
        raise AnsibleFilterError(
            "user and password in tfserving_apt_proxy must not hold white space or control characters, which apt "
            "cannot read there"
        )
    if user and match["address"].startswith("["):
        raise AnsibleFilterError(
            "tfserving_apt_proxy has a user and an IPv6 address, with which apt sends no password: use the proxy's name"
        )
    return {
        "proxy": address,
        "netrc": f"machine {address} login {user} password {password}" if user else "",
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"apt_proxy": apt_proxy}

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

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.input import ProxyError, proxy_settings


def apt_proxy(uri: str, proxy: str, no_proxy: list[str]) -> dict[str, str]:
    """Return proxy and netrc for a repository's URI. Raises AnsibleFilterError for what apt could not read."""
    try:
        return proxy_settings(uri, proxy, no_proxy)
    except ProxyError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"apt_proxy": apt_proxy}

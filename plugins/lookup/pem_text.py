# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: pem_text
short_description: Take a certificate or a key as PEM text, or from a file on the controller
version_added: 0.2.0
description:
  - Returns PEM text as it is given. Anything else is a path, which is found as the C(src) of M(ansible.builtin.copy) is
    found, also where Ansible Vault has encrypted it.
options:
  _terms:
    description: PEM text or path. Empty stays empty.
    type: list
    elements: str
    required: true
  variable:
    description: The variable that it comes from, for the error text.
    type: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Print a certificate, whichever way it is given
  ansible.builtin.debug:
    msg: "{{ lookup('modelops.tensorflow_serving.pem_text', certificate, variable='certificate') }}"
"""

RETURN = r"""
_list:
  description: The PEM texts.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

MARK = "-----BEGIN "


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, *, variable: str, **_: Any) -> list[str]:
        return [self._text(str(term), variables or {}, variable) for term in terms]

    def _text(self, given: str, variables: dict[str, Any], name: str) -> str:
        if not given or MARK in given:
            return given
        if "\n" in given.strip():  # not shown: it may be what is left of a key
            raise AnsibleLookupError(f"{name} is neither PEM text, which has a line {MARK}..., nor a path")
        file = lookup_loader.get("ansible.builtin.file", loader=self._loader, templar=self._templar)
        try:
            text = str(file.run([given], variables)[0])
        except AnsibleError as error:
            raise AnsibleLookupError(
                f"{name} is {given}, and no such file can be read on the controller. Give PEM text, or the path of a "
                f"file that has it. {error}"
            ) from error
        if MARK not in text:
            raise AnsibleLookupError(f"{name} is {given}, which is no PEM file: it has no line {MARK}...")
        return text

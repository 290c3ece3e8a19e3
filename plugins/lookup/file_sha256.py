# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: file_sha256
short_description: Read the SHA256 of a file on the controller, once in a run
version_added: 0.1.0
description:
  - Finds the file as the C(src) of M(ansible.builtin.copy) is found. It is read once in a run of Ansible, however many
    hosts and tasks ask, as it may be large.
options:
  _terms:
    description: Paths of files.
    type: list
    elements: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Print the digest of a package
  ansible.builtin.debug:
    msg: "{{ lookup('modelops.tensorflow_serving.file_sha256', 'tensorflow-model-server_2.19.1_all.deb') }}"
"""

RETURN = r"""
_list:
  description: The digests as 64 hex digits; empty where there is no such file, or it cannot be read.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import file_sha256
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.run_cache import remembered


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        found = [self.find_file_in_search_path(variables or {}, "files", one, ignore_missing=True) for one in terms]
        return [sha256_once(Path(path)) if path else "" for path in found]


def sha256_once(file: Path) -> str:
    """Return the SHA256 of a file as hex digits, read once in a run; empty where it cannot be read."""
    with remembered("file", str(file.resolve())) as memory:
        if memory.exists():
            return memory.read_text(encoding="utf-8")
        try:
            digest = file_sha256(file)
        except OSError:
            return ""
        memory.write_text(digest, encoding="utf-8")
        return digest

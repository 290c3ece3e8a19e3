#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Add an apt source with its pin and its proxy, after a test that apt can use it
version_added: 0.1.0
description:
  - Writes a deb822 source, a pin, and a proxy for the source's host with its password, as files called after O(name).
  - Before any of them is changed, apt tests them with a cache in a directory of its own. What apt cannot use or verify
    fails in apt's words, and the host is left unchanged. Signature checks are on, whatever the host's configuration
    says.
  - Then the files are written, what earlier instructions left of the repository is removed, and the apt cache is
    updated for this source, and for no other. A missing cache is updated as well, which repairs an interrupted run.
  - What C(apt-key) instructions left is removed. These are the active one-line entries of the repositories in
    C(sources.list) and C(sources.list.d/*.list), whatever the files are called, and the files in C(trusted.gpg.d) that
    hold nothing but their keys. All other entries stay byte for byte. A key in C(trusted.gpg), or in a file with
    others' keys, is a warning with the command that removes it.
  - A deb822 source of somebody else that names the same repository with another key, or with none where apt reads it
    after this one, is an error, as apt refuses to run then.
options:
  name:
    description: Base name of the files.
    type: str
    required: true
  state:
    description: Whether the files are to be there. V(absent) removes them and nothing else.
    type: str
    choices: [present, absent]
    default: present
  source:
    description: The source, in deb822 format with one stanza. Needed for V(present).
    type: str
  pin:
    description: The pin, as C(preferences.d) takes it. Needed for V(present).
    type: str
  proxy:
    description: Address of a proxy for the host of the source, without user and password, or V(DIRECT). Empty for none.
    type: str
    default: ""
  netrc:
    description: User and password of the proxy, as C(auth.conf.d) takes them. Empty for none.
    type: str
    default: ""
  replaces:
    description: A repository that this one is a mirror of, and what of it has to go as well.
    type: dict
    suboptions:
      uri:
        description: Its URI. C(http) and C(https) are the same.
        type: str
        required: true
      suite:
        description: Its suite.
        type: str
        required: true
      fingerprint:
        description: Fingerprint of its key.
        type: str
        required: true
  fingerprint:
    description: Fingerprint of the key that the source names by C(Signed-By). Needed for V(present).
    type: str
  key_changed:
    description: Whether that key was just replaced, so that the apt cache has to be updated.
    type: bool
    default: false
  root:
    description: Directory that apt's files lie below.
    type: path
    default: /
attributes:
  check_mode:
    description: Says what it would change. It does not ask apt whether it can use the source.
    support: full
  diff_mode:
    description: Shows each file before and after, without passwords; of a keyring, its keys.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.apt_signing_key
"""

EXAMPLES = r"""
- name: Add TensorFlow Serving's repository
  modelops.tensorflow_serving.apt_source:
    name: tensorflow-serving
    fingerprint: 916E 2B2F EBC2 7493 0BAC A9D9 544B 7F63 BF9E 4D5F
    source: |
      Types: deb
      URIs: https://storage.googleapis.com/tensorflow-serving-apt
      Suites: stable
      Components: tensorflow-model-server
      Architectures: amd64
      Signed-By: /etc/apt/keyrings/tensorflow-serving.gpg
    pin: |
      Package: *
      Pin: release c=tensorflow-model-server
      Pin-Priority: -1

      Package: tensorflow-model-server*
      Pin: release c=tensorflow-model-server
      Pin-Priority: 500
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.source import SourceError, ensure


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source": {"type": "str"},
            "pin": {"type": "str"},
            "proxy": {"type": "str", "default": ""},
            "netrc": {"type": "str", "default": "", "no_log": True},
            "replaces": {
                "type": "dict",
                "options": {
                    "uri": {"type": "str", "required": True},
                    "suite": {"type": "str", "required": True},
                    "fingerprint": {"type": "str", "required": True, "no_log": False},
                },
            },
            "fingerprint": {"type": "str", "no_log": False},
            "key_changed": {"type": "bool", "default": False, "no_log": False},
            "root": {"type": "path", "default": "/"},
        },
        required_if=[("state", "present", ["source", "pin", "fingerprint"])],
        supports_check_mode=True,
    )
    try:
        result = ensure(module)
    except SourceError as error:
        module.fail_json(msg=str(error), **({"reason": error.reason} if error.reason else {}))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

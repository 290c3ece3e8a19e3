#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

# The host's part; the action plugin of the same name decides whether it has to be asked twice.

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_signing_key
short_description: Keep one apt signing key, pinned by its fingerprint, in a keyring of its own, and renewed in time
version_added: 0.1.0
description:
  - Stores an OpenPGP public key, armoured or binary, in binary form for C(Signed-By) of an apt source.
  - The file is written only when what was given holds exactly one primary key and its fingerprint is O(fingerprint).
  - Keys that expire are published again, with the same fingerprint and a later expiry. A host's copy that has expired
    or will within O(renew_before_days) is replaced by such a renewed key. A copy that is good for longer makes no
    request.
  - An expired or revoked key is never written.
  - A key that expires within O(renew_before_days), and of which no better one is published, is a warning, which the
    play recap repeats where C(show_custom_stats) is set; so is a published key that expires before the host's copy.
  - Needs neither gpg on the host nor on the controller. Whether a key's statements about itself are genuine is apt's to
    verify; here they only decide when to look for a renewed one.
options:
  path:
    description: The keyring, a file that holds nothing but this key.
    type: path
    required: true
  fingerprint:
    description: The 40 hex digits of the key's fingerprint; spaces are allowed.
    type: str
    required: true
  url:
    description: Where the key is published.
    type: str
  fetch:
    description:
      - Who downloads O(url). V(controller) does it once per run, whatever the number of hosts, through the proxy of its
        own environment (C(http_proxy), C(https_proxy), C(no_proxy)) where it has one, else through O(proxy).
      - With V(host), each host that needs the key downloads it, through O(proxy).
    type: str
    choices: [controller, host]
    default: controller
  src:
    description: A key file on the controller. Nothing is downloaded.
    type: path
  content:
    description: The key itself, as ASCII armour, or its binary form in base64. Nothing is downloaded.
    type: str
  proxy:
    description: URL of a proxy for the download, such as V(http://proxy.example.com:3128), with user and password where
      it asks for them. Without it, the environment's proxy variables are used.
    type: str
  no_proxy:
    description: Hosts and domains that are reached without O(proxy), besides those of the environment's C(no_proxy).
    type: list
    elements: str
    default: []
  renew_before_days:
    description: How many days before its expiry a copy is due for renewal.
    type: int
    default: 30
  expired_key:
    description:
      - What to do when the best key that can be had has expired or is revoked. Nothing is written in either case.
      - V(fail) fails; V(keep) goes on with a warning.
    type: str
    choices: [fail, keep]
    default: fail
  timeout_seconds:
    description: How long the download may take.
    type: int
    default: 30
attributes:
  check_mode:
    description: Downloads and checks the key, and does not write it.
    support: full
  diff_mode:
    description: Shows fingerprint and expiry of the key in the keyring before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.apt_signing_key_info
"""

EXAMPLES = r"""
- name: Store the key that signs TensorFlow Serving's packages
  modelops.tensorflow_serving.apt_signing_key:
    url: https://storage.googleapis.com/tensorflow-serving-apt/tensorflow-serving.release.pub.gpg
    fingerprint: 916E 2B2F EBC2 7493 0BAC A9D9 544B 7F63 BF9E 4D5F
    path: /etc/apt/keyrings/tensorflow-serving.gpg

- name: Store a mirror's key where nothing can be downloaded
  modelops.tensorflow_serving.apt_signing_key:
    src: files/mirror.asc
    fingerprint: "{{ mirror_fingerprint }}"
    path: /etc/apt/keyrings/tensorflow-serving.gpg
"""

RETURN = r"""
key:
  description: The key in the keyring, or V(null) where there is none. As in
    RV(modelops.tensorflow_serving.apt_signing_key_info#module:keys).
  returned: always
  type: dict
published:
  description: The key that was given or downloaded, or V(null) where none was needed. Likewise.
  returned: always
  type: dict
usable:
  description: Whether the keyring holds the pinned key, neither expired nor revoked.
  returned: always
  type: bool
reason:
  description: Why it failed. V(unreachable) - the key could not be downloaded. V(refused) - it is another key or none.
    V(expired) - it has expired or is revoked.
  returned: failure
  type: str
  sample: expired
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.signing_key import KeyNotStored, store


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "fingerprint": {"type": "str", "required": True, "no_log": False},
            "url": {"type": "str"},
            "content": {"type": "str"},
            "proxy": {"type": "str", "no_log": True},
            "no_proxy": {"type": "list", "elements": "str", "default": []},
            "renew_before_days": {"type": "int", "default": 30},
            "timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = store(module)
    except KeyNotStored as error:
        module.fail_json(msg=str(error), **error.results)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_signing_key_info
short_description: Report which OpenPGP keys a keyring holds and when they expire
version_added: 0.1.0
description:
  - Reads a public key or a keyring, armoured or binary, and returns each primary key with its dates.
  - The end of a key is the moment after which apt accepts no signature by it, that of its signing subkeys included.
  - The dates are those that the file states; the signatures under them are not verified. They tell when to look for a
    renewed key, never whether to trust one.
  - Needs neither gpg on the host nor on the controller.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  path:
    description: The key file or keyring on the host. Either this or O(content).
    type: path
  content:
    description: The key itself, in ASCII armour, or its binary form in base64. Either this or O(path).
    type: str
  fingerprint:
    description: The fingerprint that is expected, 40 hex digits; spaces are allowed.
    type: str
  renew_before_days:
    description: A key that ends sooner than in this many days is due for renewal.
    type: int
    default: 30
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.apt_signing_key
"""

EXAMPLES = r"""
- name: Look how long the key of TensorFlow Serving's packages lasts
  modelops.tensorflow_serving.apt_signing_key_info:
    path: /etc/apt/keyrings/tensorflow-serving.gpg
    renew_before_days: 60
  register: signing_key

- name: Read a key that the controller holds
  modelops.tensorflow_serving.apt_signing_key_info:
    content: "{{ lookup('ansible.builtin.file', 'keys/tensorflow-serving.asc') }}"
"""

RETURN = r"""
exists:
  description: Whether there is a file at O(path); true for O(content).
  returned: success
  type: bool
armoured:
  description: Whether the file is in ASCII armour, which apt reads in files called C(.asc) only.
  returned: success
  type: bool
keys:
  description: The primary keys, in the order of the file. Empty where the file is missing.
  returned: success
  type: list
  elements: dict
  contains:
    fingerprint:
      description: Fingerprint of the primary key, 40 upper-case hex digits.
      type: str
      sample: 916E2B2FEBC274930BACA9D9544B7F63BF9E4D5F
    user_id:
      description: Whose key it says it is. Characters that are not printable are replaced. Empty where it says nothing.
      type: str
    created:
      description: When it was made, in UTC.
      type: str
      sample: "2017-08-21T12:00:00Z"
    expires:
      description: The moment after which no signature by it is accepted, in UTC. Null for never.
      type: str
      sample: "2026-08-18T12:00:00Z"
    days_left:
      description: Whole days until then by the host's clock, or -1 and so on from a day after it. Null for never.
      type: int
    expired:
      description: Whether it is over.
      type: bool
    revoked:
      description: Whether its owner revoked it.
      type: bool
    expected:
      description: Whether it has the fingerprint O(fingerprint), where that is given.
      type: bool
    renewal_due:
      description: Whether it is revoked, or over, or ends within O(renew_before_days) days.
      type: bool
"""

from datetime import datetime, timezone
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    dearmor,
    normalise_fingerprint,
    signing_keys,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.signing_key import is_due, key_material


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "content": {"type": "str"},
            "fingerprint": {"type": "str", "no_log": False},
            "renew_before_days": {"type": "int", "default": 30},
        },
        mutually_exclusive=[("path", "content")],
        required_one_of=[("path", "content")],
        supports_check_mode=True,
    )
    path, content, days = (module.params[name] for name in ("path", "content", "renew_before_days"))
    try:
        expected = normalise_fingerprint(module.params["fingerprint"]) if module.params["fingerprint"] else None
        data = Path(path).read_bytes() if content is None else key_material(content)
        keys = signing_keys(data)
    except FileNotFoundError:
        module.exit_json(changed=False, exists=False, armoured=False, keys=[])
    except OSError as error:
        module.fail_json(msg=f"cannot read {path}: {error.strerror}")
    except OpenPGPError as error:
        module.fail_json(msg=f"{path or 'content'} holds no key that can be read: {error}")
    now = datetime.now(timezone.utc)
    facts = [
        {
            **key.facts(now),
            "expected": expected in (None, key.fingerprint),
            "renewal_due": is_due(key, days, now),
        }
        for key in keys
    ]
    module.exit_json(changed=False, exists=True, armoured=dearmor(data) != data, keys=facts)


if __name__ == "__main__":
    main()

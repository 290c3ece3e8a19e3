#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_signing_key
short_description: Keep one apt signing key, pinned by its fingerprint, in a keyring of its own
version_added: 0.1.0
description:
  - Downloads an OpenPGP public key, armoured or binary, and stores it in binary form for C(Signed-By) of an apt source.
  - The file is written only when the download holds exactly one primary key and its fingerprint is O(fingerprint).
  - A host whose keyring already holds that key makes no request.
  - Needs neither gpg on the host nor on the controller.
options:
  url:
    description: Where the key is published.
    type: str
    required: true
  fingerprint:
    description: The 40 hex digits of the key's fingerprint; spaces are allowed.
    type: str
    required: true
  path:
    description: The keyring, a file that holds nothing but this key.
    type: path
    required: true
  proxy:
    description: URL of a proxy for the download, such as V(http://proxy.example.com:3128), with user and password where
      it asks for them. Without it, the environment's proxy variables are used.
    type: str
  timeout_seconds:
    description: How long the download may take.
    type: int
    default: 30
attributes:
  check_mode:
    description: Downloads and checks the key, and does not write it.
    support: full
  diff_mode:
    description: Shows the fingerprints in the keyring before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Store the key that signs TensorFlow Serving's packages
  modelops.tensorflow_serving.apt_signing_key:
    url: https://storage.googleapis.com/tensorflow-serving-apt/tensorflow-serving.release.pub.gpg
    fingerprint: 916E 2B2F EBC2 7493 0BAC A9D9 544B 7F63 BF9E 4D5F
    path: /etc/apt/keyrings/tensorflow-serving.gpg
"""

RETURN = r"""
fingerprint:
  description: Fingerprint of the key in the keyring.
  returned: success
  type: str
  sample: 916E2B2FEBC274930BACA9D9544B7F63BF9E4D5F
"""

import http.client
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.openpgp import (
    OpenPGPError,
    dearmor,
    normalise_fingerprint,
    primary_fingerprints,
)

MAX_KEY_BYTES = 1 << 20
KEYRING_MODE = 0o644


def fetch(url: str, proxy: str | None, timeout_seconds: int) -> bytes:
    """Return what url answers. Raises OSError, its subclass urllib.error.URLError, or ValueError for no URL."""
    proxies = {"http": proxy, "https": proxy} if proxy else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    with opener.open(url, timeout=timeout_seconds) as answer:
        data: bytes = answer.read(MAX_KEY_BYTES + 1)
    if len(data) > MAX_KEY_BYTES:
        raise OpenPGPError(f"larger than {MAX_KEY_BYTES} bytes, so no key")
    return data


def stored_fingerprints(path: Path) -> list[str]:
    """Return the fingerprints in a keyring; none where it is missing, unreadable or armoured, which apt ignores."""
    try:
        data = path.read_bytes()
        return primary_fingerprints(data) if dearmor(data) == data else []
    except (OSError, OpenPGPError):
        return []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "fingerprint": {"type": "str", "required": True, "no_log": False},
            "path": {"type": "path", "required": True},
            "proxy": {"type": "str", "no_log": True},
            "timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    url, proxy, path = module.params["url"], module.params["proxy"], Path(module.params["path"])
    try:
        pinned = normalise_fingerprint(module.params["fingerprint"])
    except OpenPGPError as error:
        module.fail_json(msg=f"fingerprint: {error}")

    before = stored_fingerprints(path)
    changed = before != [pinned]
    if changed:
        through = f" through {proxy.rpartition('@')[2]}" if proxy else ""
        try:
            key = fetch(url, proxy, module.params["timeout_seconds"])
            found = primary_fingerprints(key)
        except (OSError, ValueError, http.client.HTTPException) as error:  # OpenPGPError is a ValueError
            reason = getattr(error, "reason", error)
            module.fail_json(msg=f"cannot get the signing key from {url}{through}: {reason}")
        if found != [pinned]:
            module.fail_json(
                msg=f"the key at {url} has fingerprint {', '.join(found)}, pinned is {pinned}. Nothing was changed. "
                "If the key was replaced, get the new fingerprint from its owner by another way and pin that."
            )
        if not module.check_mode:
            descriptor, new = tempfile.mkstemp(dir=module.tmpdir)
            with os.fdopen(descriptor, "wb") as file:
                file.write(dearmor(key))
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                path.parent.chmod(0o755)
            module.atomic_move(new, str(path))
    # apt reads it as a user of its own. Neither the umask nor what stood there before decides the mode.
    changed = module.set_mode_if_different(str(path), KEYRING_MODE, changed)
    changed = module.set_owner_if_different(str(path), "root", changed)
    module.exit_json(
        changed=changed,
        fingerprint=pinned,
        diff={
            "before_header": str(path),
            "after_header": str(path),
            "before": "".join(f"{fingerprint}\n" for fingerprint in before),
            "after": f"{pinned}\n",
        },
    )


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_mirror
short_description: Keep a signed apt repository of TensorFlow Serving's packages, as a tree of static files
version_added: 0.1.0
description:
  - Takes packages from an upstream repository and from single C(.deb) files, and publishes them below C(public) in
    O(path) as a repository of its own, signed with a key of the user's.
  - apt itself reads the upstream, in a directory of its own, and so takes what every host would take. The machine's own
    sources, pins, keys and settings do not count.
  - What the mirror holds is read from its own index. Where that is what it has to be, nothing is built or signed.
  - InRelease is exchanged last, and a published version never changes, so a client never sees an index without its
    files. A run that is cut leaves the old repository in place, and the next one finishes the job.
  - Needs C(aptly) and C(gpg) on a Debian or Ubuntu host, and no root.
options:
  path:
    description: Directory of the mirror, which belongs to the user that the module runs as.
    type: path
    required: true
  signing_key:
    description: Fingerprint of the user's own secret key, 40 hex digits. It is never made by this module.
    type: str
    required: true
  gnupg_home:
    description: GnuPG's directory that holds the secret key. By default that of the user.
    type: path
  passphrase:
    description: Passphrase of the key, where it has one and gpg-agent does not know it.
    type: str
  upstream:
    description: The repository to take packages from. Without it, only O(debs) are taken.
    type: dict
    suboptions:
      uri:
        description: URI of the repository.
        type: str
        required: true
      suite:
        description: Its suite.
        type: str
        required: true
      keyring:
        description: A keyring, in binary form, that holds the pinned key and no other.
        type: path
        required: true
  packages:
    description: The packages to take from upstream, which has to have them. Each is in the component of its own name,
      there and here.
    type: list
    elements: str
    choices: [tensorflow-model-server, tensorflow-model-server-universal]
    default: [tensorflow-model-server, tensorflow-model-server-universal]
  versions:
    description: The versions to take from upstream, exact or as patterns such as V(2.19.*). Empty takes the newest.
    type: list
    elements: str
    default: []
  debs:
    description: Single C(.deb) files to take in.
    type: list
    elements: dict
    default: []
    suboptions:
      sha256:
        description: The file's digest, 64 hex digits.
        type: str
        required: true
      src:
        description: The URL to download it from where C(downloads/SHA256.deb) in O(path) is not there. A file of the
          controller is copied to that place before.
        type: str
        required: true
  prune:
    description: Drop what is neither among O(debs) nor among O(versions), or the newest where O(versions) is empty. By
      default all stays.
    type: bool
    default: false
  proxy:
    description: URL of a proxy for all downloads, with user and password where it asks for them. Without it, the
      environment's proxy variables are used.
    type: str
  no_proxy:
    description: Hosts and domains that are reached without O(proxy).
    type: list
    elements: str
    default: []
  timeout_seconds:
    description: How long a download may stand still.
    type: int
    default: 60
attributes:
  check_mode:
    description: Reads and checks the upstream index and the key, and downloads, builds and publishes nothing.
    support: full
  diff_mode:
    description: Shows the packages in the mirror before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.apt_signing_key
"""

EXAMPLES = r"""
- name: Publish the newest release, and the previous one for a rollback
  modelops.tensorflow_serving.apt_mirror:
    path: /srv/mirror
    signing_key: 0123456789ABCDEF0123456789ABCDEF01234567
    upstream:
      uri: https://storage.googleapis.com/tensorflow-serving-apt
      suite: stable
      keyring: /etc/apt/keyrings/tensorflow-serving-upstream.gpg
    versions: [2.19.*, 2.18.0]
"""

RETURN = r"""
packages:
  description: What the mirror holds, or would hold, and what was dropped from it.
  returned: success
  type: list
  elements: dict
  sample:
    - package: tensorflow-model-server
      version: 2.19.1
      architecture: amd64
      megabytes: 312.4
      sha256: b52faa95bdf77093f0f7ec26c3a42c5e6fff25e851a9082f3c2d1b80f1f5b7fa
      state: added  # or kept or dropped
incomplete:
  description: Whether check mode could not tell the packages, because a C(.deb) file is yet to arrive.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.mirror import PACKAGES
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.mirror_builder import Builder
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.repository import RepositoryError


def main() -> None:
    text = {"type": "str", "required": True}
    texts = {"type": "list", "elements": "str", "default": []}
    debs = {"type": "list", "elements": "dict", "default": [], "options": {"sha256": text, "src": text}}
    upstream = {"uri": text, "suite": text, "keyring": {"type": "path", "required": True, "no_log": False}}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "signing_key": {**text, "no_log": False},
            "gnupg_home": {"type": "path"},
            "passphrase": {"type": "str", "no_log": True},
            "upstream": {"type": "dict", "options": upstream},
            "packages": {**texts, "choices": list(PACKAGES), "default": list(PACKAGES)},
            "versions": texts,
            "debs": debs,
            "prune": {"type": "bool", "default": False},
            "proxy": {"type": "str", "no_log": True},
            "no_proxy": texts,
            "timeout_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = Builder(module).work()
    except (OSError, RepositoryError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

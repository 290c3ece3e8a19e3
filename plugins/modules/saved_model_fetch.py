#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_model_fetch
short_description: Fetch one SavedModel version onto a host
version_added: 0.1.0
description:
  - The host's side of M(modelops.tensorflow_serving.saved_models) for models that each host fetches by itself; that
    action is what a playbook calls.
  - Fills the version's staging directory, which the server does not see. What was interrupted is gone on with; that
    lies in a directory beside it, named as O(staging) with C(.download) at its end, and is to be removed when the
    version is published or given up.
  - An archive's digest is checked before anything of it is unpacked, and what is unpacked are regular files and
    directories below the staging directory only.
options:
  url:
    description:
      - The version's own URL, without user and password.
      - V(https://) or V(http://), an archive whose name ends in .tar.zst, .tar.gz, .tgz or .tar.
      - V(s3://BUCKET/PREFIX/N), the objects below it.
      - V(rsync://HOST/MODULE/PATH/N), the files below it.
    type: str
    required: true
  staging:
    description: The directory to fill, which is there. Afterwards it has the version's files and nothing else.
    type: path
    required: true
  basis:
    description: Directory with files of another version, which rsync copies what is equal from.
    type: path
  digest:
    description:
      - SHA256 of an archive. Needed for archives.
      - For V(s3://) and V(rsync://) the digest of the files, as M(modelops.tensorflow_serving.saved_model_info) returns
        it. Where an earlier run has finished and the version was not published, it tells whether the files are right.
    type: str
  proxy:
    description: URL of the proxy. Without it the host's proxy variables are used.
    type: str
  no_proxy:
    description: Hosts and domains that O(proxy) is not used for.
    type: list
    elements: str
    default: []
  url_username:
    description: User of the web server, over V(https://) only, or of the rsync module.
    type: str
  url_password:
    description: The user's password.
    type: str
  s3_endpoint_url:
    description: URL of an S3-compatible store that is not AWS.
    type: str
  s3_region:
    description: Region of the bucket.
    type: str
  s3_access_key_id:
    description: Access key. Without it the host's own credentials are used, where boto3 looks for them.
    type: str
  s3_secret_access_key:
    description: Secret of the access key.
    type: str
  s3_session_token:
    description: Token of temporary credentials.
    type: str
  prunable_bytes:
    description: What pruning would free, for the error where there is no room.
    type: int
    default: 0
  timeout_seconds:
    description: How long to wait for the next byte.
    type: int
    default: 60
attributes:
  check_mode:
    description: Not called in check mode.
    support: none
  diff_mode:
    description: M(modelops.tensorflow_serving.saved_models) shows the difference.
    support: none
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_models
"""

EXAMPLES = r"""
- name: Fetch version 2 of MLP
  modelops.tensorflow_serving.saved_model_fetch:
    url: https://models.example.com/MLP/2.tar.zst
    staging: /var/lib/tensorflow-serving/models/MLP/.staging-2
    digest: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

RETURN = r"""
bytes:
  description: Bytes that came over the network in this run.
  returned: success
  type: int
resumed_bytes:
  description: Bytes that were there already, from an earlier run.
  returned: success
  type: int
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.fetching import Request
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import SavedModelError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model_fetch import fetch


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "staging": {"type": "path", "required": True},
            "basis": {"type": "path"},
            "digest": {"type": "str"},
            "proxy": {"type": "str"},
            "no_proxy": {"type": "list", "elements": "str", "default": []},
            "url_username": {"type": "str"},
            "url_password": {"type": "str", "no_log": True},
            "s3_endpoint_url": {"type": "str"},
            "s3_region": {"type": "str"},
            "s3_access_key_id": {"type": "str", "no_log": False},
            "s3_secret_access_key": {"type": "str", "no_log": True},
            "s3_session_token": {"type": "str", "no_log": True},
            "prunable_bytes": {"type": "int", "default": 0},
            "timeout_seconds": {"type": "int", "default": 60},
        }
    )
    paths = {name: Path(module.params[name]) for name in ("staging", "basis") if module.params[name]}
    try:
        no_proxy = module.params["no_proxy"] or []
        received = fetch(Request(**{**module.params, **paths, "no_proxy": no_proxy}))
    except SavedModelError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, **asdict(received))


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_model_version
short_description: Publish one SavedModel version from its staging directory
version_added: 0.1.0
description:
  - A part of M(modelops.tensorflow_serving.saved_models), which is what a playbook calls.
  - Makes the files of a staging directory root's and readable by O(group), checks them, writes them to disk, and lets
    the version appear under its number by one rename(2).
  - Files that were not transferred, as a published version has them already, become hard links to those.
options:
  path:
    description: Directory of the model.
    type: path
    required: true
  version:
    description: The version's number.
    type: int
    required: true
  group:
    description: Group of the server, which may read the model and not change it.
    type: str
    required: true
  files:
    description: Size in bytes, modification time in nanoseconds and sha256 of each file, by its path in the version.
      Without it, the files are what the host has fetched, and are inspected as a SavedModel here.
    type: dict
  digest:
    description: The digest that the whole tree has to have, without O(files).
    type: str
  source_digest:
    description: The digest by which the catalogue knows a version that the host has fetched.
    type: str
  signatures:
    description: With O(files) the signatures of the model, for its manifest; else the contract that it has to keep.
    type: dict
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
- name: Publish version 2 of MLP
  modelops.tensorflow_serving.saved_model_version:
    path: /var/lib/tensorflow-serving/models/MLP
    version: 2
    group: tfserving
    source_digest: 5f0c5d4e6f1f7a0a5dc2ce1f0d3d3d4a6c4c6ac5ac9a3b9e3b8a7bb2c2b9fd10
"""

RETURN = r"""
broken:
  description: Files that have not the sha256 of O(files), which were deleted and have to be sent again. When there is
    one, nothing was published.
  returned: success
  type: list
  elements: str
bytes:
  description: Size of the version.
  returned: success
  type: int
signatures:
  description: The signatures of the version, as M(modelops.tensorflow_serving.saved_model_info) gives them.
  returned: success
  type: dict
"""

import grp
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    Files,
    SavedModelError,
    add_digests,
    list_files,
    total_bytes,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model_inspection import (
    check_saved_model,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model_store import (
    ModelStore,
    own,
    publish,
)


def inspect_fetched(staging: Path, params: dict[str, Any], group_id: int) -> tuple[Files, dict[str, Any]]:
    """Return the files of a fetched version and its signatures. Raises SavedModelError for one not to be published."""
    own(staging, group_id)
    files = add_digests(staging, list_files(staging))
    found = tree_digest(files)
    if params["digest"] and found != params["digest"]:
        raise SavedModelError(
            f"what was fetched into {staging} has digest {found}, and `digests` of the catalogue entry says "
            f"{params['digest']}; the next run fetches what differs again. See which is right with the module "
            "saved_model_info"
        )
    return files, check_saved_model(staging, params["signatures"]).signatures


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "int", "required": True},
            "group": {"type": "str", "required": True},
            "files": {"type": "dict"},
            "digest": {"type": "str"},
            "source_digest": {"type": "str"},
            "signatures": {"type": "dict"},
        },
    )
    params = module.params
    store = ModelStore(Path(params["path"]))
    try:
        group_id = grp.getgrnam(params["group"]).gr_gid
        files, signatures = params["files"], params["signatures"]
        if files is None:
            files, signatures = inspect_fetched(store.staging(params["version"]), params, group_id)
        extra = {"source_digest": params["source_digest"], "signatures": signatures}
        broken = publish(store, params["version"], files, group_id, extra)
    except (OSError, KeyError, SavedModelError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=not broken, broken=broken, bytes=total_bytes(files), signatures=signatures)


if __name__ == "__main__":
    main()

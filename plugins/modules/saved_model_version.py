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
  patches:
    description: Files that are made of those of the version before and of what is new in them, C(data) and C(runs) by
      name, as module_utils/saved_model_store.py has it.
    type: dict
    default: {}
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
  description: Files that have not the sha256 of O(files), which were deleted and have to be sent again; or all files
    where the whole has not O(digest). When there is one, nothing was published.
  returned: success
  type: list
  elements: str
digest:
  description: The digest of the whole.
  returned: success
  type: str
bytes:
  description: Size of the version.
  returned: when it was published
  type: int
signatures:
  description: The signatures of the version, as M(modelops.tensorflow_serving.saved_model_info) gives them.
  returned: when it was published
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
    compose,
    own,
    publish,
)


def list_fetched(staging: Path, group_id: int) -> Files:
    """Return the files of a fetched version. Raises OSError and SavedModelError."""
    own(staging, group_id)
    return add_digests(staging, list_files(staging))


def settle(params: dict[str, Any], store: ModelStore, group_id: int) -> dict[str, Any]:
    """Publish what has arrived, and return the module's result. Raises OSError and SavedModelError."""
    staging, files, signatures = store.staging(params["version"]), params["files"], params["signatures"]
    if files is None:
        files = list_fetched(staging, group_id)
        if params["digest"] and tree_digest(files) != params["digest"]:
            return {"changed": False, "broken": sorted(files), "digest": tree_digest(files)}
        signatures = check_saved_model(staging, signatures).signatures
    if params["patches"]:
        compose(store, params["version"], params["patches"], files)
    extra = {"source_digest": params["source_digest"], "signatures": signatures}
    broken = publish(store, params["version"], files, group_id, extra)
    facts = {"digest": tree_digest(files), "bytes": total_bytes(files), "signatures": signatures}
    return {"changed": not broken, "broken": broken, **facts}


def main() -> None:
    module = AnsibleModule(
        no_log=True,  # the host's log would get the list of all files
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "int", "required": True},
            "group": {"type": "str", "required": True},
            "files": {"type": "dict"},
            "patches": {"type": "dict", "default": {}},
            "digest": {"type": "str"},
            "source_digest": {"type": "str"},
            "signatures": {"type": "dict"},
        },
    )
    store = ModelStore(Path(module.params["path"]))
    try:
        group_id = grp.getgrnam(module.params["group"]).gr_gid
        with store.alone(module.params["version"]):
            result = settle(module.params, store, group_id)
    except (OSError, KeyError, SavedModelError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

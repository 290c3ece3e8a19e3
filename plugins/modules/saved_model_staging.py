#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_model_staging
short_description: Make room for SavedModel versions that are about to arrive on a host
version_added: 0.1.0
description:
  - A part of M(modelops.tensorflow_serving.saved_models), which is what a playbook calls.
  - Finds out which files of each version have to be transferred, and checks that there is room for all of them. Then
    makes for each version a staging directory, whose name the server does not parse, and gives it to the user who
    fills it. What an interrupted transfer left there stays.
options:
  base_path:
    description: Directory with one directory per model, which is made where it is missing.
    type: path
    required: true
  group:
    description: Group of the server, which may read the models and not change them.
    type: str
    required: true
  versions:
    description: The versions.
    type: list
    elements: dict
    required: true
    suboptions:
      model:
        description: Name of the model.
        type: str
        required: true
      version:
        description: The version's number.
        type: int
        required: true
      uid:
        description: User id that fills the staging directory.
        type: int
        required: true
      files:
        description: Size in bytes of each file, and its sha256 where it is known, by its path in the version. Leave it
          out for a version whose files are not known yet.
        type: dict
      resend:
        description: Files that arrived damaged, and are not taken from a published version either.
        type: list
        elements: str
        default: []
  room_only:
    description: Whether to check the room and do nothing else.
    type: bool
    default: false
  prunable_bytes:
    description: What removing old versions would give, for the message when there is no room.
    type: int
    default: 0
attributes:
  check_mode:
    description: Checks the room only.
    support: full
  diff_mode:
    description: M(modelops.tensorflow_serving.saved_models) shows the difference.
    support: none
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_models
"""

EXAMPLES = r"""
- name: Make room for version 2 of MLP
  modelops.tensorflow_serving.saved_model_staging:
    base_path: /var/lib/tensorflow-serving/models
    group: tfserving
    versions:
      - model: MLP
        version: 2
        uid: 1000
        files:
          saved_model.pb: {size: 423511}
"""

RETURN = r"""
versions:
  description: For each version, in the order given, its staging directory, a directory that rsync may take unchanged
    parts from and the version that these are of, and the files to transfer, V(null) where they are not known.
    C(is_published) is true for one that another run has published meanwhile.
  returned: success
  type: list
  elements: dict
  sample: [{"staging": "/m/MLP/.staging-2", "basis": "/m/MLP/.basis-2", "names": ["saved_model.pb"],
    "is_published": false, "basis_version": 1}]
"""

import grp
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.room import check_room
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import SavedModelError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model_store import (
    ModelStore,
    make_directory,
    plan_staging,
    stage,
)


def check(module: AnsibleModule) -> list[dict[str, Any]]:
    """Return what is to be made, and check that there is room for it. Raises OSError and SavedModelError."""
    base_path = Path(module.params["base_path"])
    answers: list[dict[str, Any]] = []
    needed_bytes = needed_inodes = 0
    for wanted in module.params["versions"]:
        store, version = ModelStore(base_path / wanted["model"]), wanted["version"]
        names = None
        if wanted["files"] is not None:
            plan = plan_staging(store, version, wanted["files"])
            names = sorted({*plan.names, *wanted["resend"]})
            needed_bytes += plan.needed_bytes
            needed_inodes += plan.needed_inodes
        answers.append({"staging": str(store.staging(version)), "basis": str(store.basis(version)), "names": names})
    check_room(base_path, needed_bytes, needed_inodes, module.params["prunable_bytes"])
    return answers


def make(module: AnsibleModule, answers: list[dict[str, Any]], group_id: int) -> None:
    """Make the base path and the staging directories. Raises OSError."""
    base_path = Path(module.params["base_path"])
    make_directory(base_path, group_id)
    for wanted, answer in zip(module.params["versions"], answers):
        store = ModelStore(base_path / wanted["model"])
        make_directory(store.path, group_id)
        with store.alone(wanted["version"]):
            answer["is_published"] = wanted["version"] in store.published()
            if not answer["is_published"]:
                answer["basis_version"] = stage(store, wanted["version"], answer["names"], wanted["uid"], group_id)


def main() -> None:
    module = AnsibleModule(
        no_log=True,  # the host's log would get the list of all files
        argument_spec={
            "base_path": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "versions": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "model": {"type": "str", "required": True},
                    "version": {"type": "int", "required": True},
                    "uid": {"type": "int", "required": True},
                    "files": {"type": "dict"},
                    "resend": {"type": "list", "elements": "str", "default": []},
                },
            },
            "room_only": {"type": "bool", "default": False},
            "prunable_bytes": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    group_id, room_only = -1, module.check_mode or module.params["room_only"]
    if not room_only:
        if os.geteuid() != 0:
            module.fail_json(msg="models are root's on the host: run the play with become: true")
        try:
            group_id = grp.getgrnam(module.params["group"]).gr_gid
        except KeyError:
            module.fail_json(msg=f"group {module.params['group']} does not exist; the role tfserving_package makes it")
    try:
        answers = check(module)
        if not room_only:
            make(module, answers, group_id)
    except (OSError, SavedModelError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=not room_only, versions=answers)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_model_version
short_description: Stage and publish one SavedModel version on a host
version_added: 0.1.0
description:
  - The host's side of M(modelops.tensorflow_serving.saved_models), which is what a playbook calls.
  - The server loads a version the moment it sees its directory, so a version is filled in a staging directory beside
    it, whose name the server does not parse, checked there, and appears under its number by one rename(2).
options:
  path:
    description: Directory of the model, which is created where it is missing in a base path that is there.
    type: path
    required: true
  version:
    description: The version's number.
    type: int
    required: true
  state:
    description:
      - V(staged) makes the staging directory and gives it to O(login_uid), which then fills it.
      - V(published) checks the staged files against O(files), makes them root's and readable by O(group), writes them
        to disk and renames the directory.
    type: str
    choices: [staged, published]
    required: true
  login_uid:
    description: User id that fills the staging directory. Needed for V(staged).
    type: int
  group:
    description: Group of the server, which may read the model and not change it.
    type: str
    required: true
  files:
    description: Size in bytes, modification time in nanoseconds and sha256 of each file, by its path in the version.
      Needed for V(published).
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
- name: Make room for version 2 of MLP
  modelops.tensorflow_serving.saved_model_version:
    path: /var/lib/tensorflow-serving/models/MLP
    version: 2
    state: staged
    login_uid: 1000
    group: tfserving
"""

RETURN = r"""
staging:
  description: The staging directory.
  returned: success
  type: str
"""

import grp
import json
import os
from pathlib import Path
from typing import Iterator

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.files import sync
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    MANIFEST_NAME,
    STAGING_NAME,
    Files,
    SavedModelError,
    add_digests,
    check_saved_model,
    list_files,
    tree_digest,
    tree_stamp,
)

# Others may pass through a model's directory to a staging directory of theirs, not list it; a version is the server's.
MODEL_MODE = 0o751
DIRECTORY_MODE = 0o750
FILE_MODE = 0o640


def stage(model_path: Path, staging: Path, login_uid: int, group_id: int) -> None:
    """Make an empty or take over a half-filled staging directory for login_uid."""
    model_path.mkdir(exist_ok=True)
    os.chown(model_path, 0, group_id)
    model_path.chmod(MODEL_MODE)
    staging.mkdir(mode=0o700, exist_ok=True)
    for entry in (staging, *_walk(staging)):
        os.chown(entry, login_uid, -1, follow_symlinks=False)


def publish(model_path: Path, staging: Path, version: int, files: Files, group_id: int) -> None:
    """Check a filled staging directory against files and let it appear as its version.

    Raises SavedModelError when what arrived is not what was sent; files that differ are then deleted, so that the
    next run transfers them again.
    """
    published = model_path / str(version)
    if published.exists():
        raise SavedModelError(f"{published} is there already; a published version is never changed")
    # Root's first, from the top down: whoever filled it cannot reach it any more when it is checked.
    os.chown(staging, 0, 0)
    staging.chmod(0o700)
    for entry in _walk(staging):
        os.chown(entry, 0, group_id, follow_symlinks=False)
    _check_arrived(staging, files)
    check_saved_model(staging)
    os.chown(staging, 0, group_id)
    for entry in (*_walk(staging), staging):
        entry.chmod(DIRECTORY_MODE if entry.is_dir() else FILE_MODE)
        sync(entry)
    _write_manifest(model_path / MANIFEST_NAME.format(version=version), files)
    os.rename(staging, published)  # noqa: PTH104 - the one system call that everything here prepares
    sync(model_path)


def _check_arrived(staging: Path, files: Files) -> None:
    arrived = add_digests(staging, list_files(staging))
    if set(arrived) != set(files):
        different = sorted(set(arrived) ^ set(files))
        raise SavedModelError(f"{staging} has not the files that were sent: {', '.join(different[:5])}")
    broken = sorted(name for name in files if arrived[name]["sha256"] != files[name]["sha256"])
    for name in broken:
        (staging / name).unlink()
    if broken:
        raise SavedModelError(
            f"{', '.join(broken[:5])} did not arrive in {staging} as sent (sha256 differs); "
            "the next run sends it again. Was the source written to meanwhile?"
        )


def _write_manifest(path: Path, files: Files) -> None:
    manifest = {"digest": tree_digest(files), "stamp": tree_stamp(files), "files": files}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    sync(new)
    new.replace(path)


def _walk(path: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(path):
        for name in folders + names:
            yield Path(folder, name)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "int", "required": True},
            "state": {"type": "str", "choices": ["staged", "published"], "required": True},
            "login_uid": {"type": "int"},
            "group": {"type": "str", "required": True},
            "files": {"type": "dict"},
        },
        required_if=[("state", "staged", ["login_uid"]), ("state", "published", ["files"])],
    )
    path, version = Path(module.params["path"]), module.params["version"]
    staging = path / STAGING_NAME.format(version=version)
    try:
        group_id = grp.getgrnam(module.params["group"]).gr_gid
    except KeyError:
        module.fail_json(msg=f"group {module.params['group']} does not exist; the role tfserving_package makes it")
    if os.geteuid() != 0:
        module.fail_json(msg="models are root's on the host: run the play with become: true")
    try:
        if module.params["state"] == "staged":
            stage(path, staging, module.params["login_uid"], group_id)
        else:
            publish(path, staging, version, module.params["files"], group_id)
    except (OSError, SavedModelError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, staging=str(staging))


if __name__ == "__main__":
    main()

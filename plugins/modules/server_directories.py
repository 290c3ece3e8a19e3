#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: server_directories
short_description: Make the directories of a model server, and check its account
version_added: 0.2.0
description:
  - Creates directories that are root's and that the server's group may list, with mode 0751, and marks them as made by
    this collection with a file C(.tfserving-directory).
  - Refuses a directory of the system, one that another user than root can replace, and one that is there already, is
    not empty and was not made by this collection.
  - Refuses a O(user) or O(group) that is root by name or number, or that no account can be called.
  - All problems are reported at once, each with its variable. With check mode nothing but this is done.
options:
  directories:
    description: The directories.
    type: list
    elements: dict
    required: true
    suboptions:
      variable:
        description: Where its path is set, for error messages.
        type: str
        required: true
      path:
        description: Its absolute path.
        type: str
        required: true
  user:
    description: The user that the server runs as. It is checked, and need not be there yet.
    type: str
    required: true
  group:
    description: The server's group. In check mode it need not be there yet.
    type: str
    required: true
  adopt:
    description: Whether to take a directory that is there already and was not made by this collection. What is in it
      stays as it is.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says which directories would be created or changed.
    support: full
  diff_mode:
    description: Shows owner, group and mode of each directory before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Create the directories
  modelops.tensorflow_serving.server_directories:
    user: tfserving
    group: tfserving
    directories:
      - {variable: tfserving_config_path, path: /etc/tensorflow-serving}
      - {variable: tfserving_data_path, path: /var/lib/tensorflow-serving}
"""

RETURN = r"""#"""

import grp
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import (
    access,
    access_diff,
    account_problems,
    directory_problems,
    is_right,
    take,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "variable": {"type": "str", "required": True},
                    "path": {"type": "str", "required": True},
                },
            },
            "user": {"type": "str", "required": True},
            "group": {"type": "str", "required": True},
            "adopt": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params, group = module.params, module.params["group"]
    problems = account_problems("tfserving_user", params["user"], pwd.getpwnam)
    problems += account_problems("tfserving_group", group, grp.getgrnam)
    for one in params["directories"]:
        problems += directory_problems(one["variable"], one["path"], group, params["adopt"])
    if problems:
        module.fail_json(msg="\n".join(problems))
    wrong = [Path(one["path"]) for one in params["directories"] if not is_right(Path(one["path"]), group)]
    diff = [access_diff(str(folder), access(folder), group) for folder in wrong]
    try:
        for folder in wrong if not module.check_mode else []:
            take(folder, grp.getgrnam(group).gr_gid)
    except (KeyError, OSError) as error:
        module.fail_json(msg=f"the directories cannot be made: {error}")
    module.exit_json(changed=bool(wrong), diff=diff)


if __name__ == "__main__":
    main()

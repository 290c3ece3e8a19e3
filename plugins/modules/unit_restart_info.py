#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_restart_info
short_description: Say whether a running systemd service is older than the files it was started from
version_added: 0.1.0
description:
  - A handler is forgotten when a run is cut between the change and the restart. This module looks at the host
    instead. A service needs a restart when its unit file, one of its drop-ins or one of O(files) was changed after
    its main process started, or when systemd has not read the unit file since it was changed.
  - A program that was replaced and put back needs none, as long as the main process runs the same bytes.
  - What runs is read from the process. With O(program), a service needs a restart as well when its command line or
    environment is another than systemd would start it with, as after a drop-in has come and gone.
  - With O(config_path), where M(modelops.tensorflow_serving.server_rollback) has its record, a file that is as it was
    when the process was started needs none, although it was written since.
  - A service that does not run needs none; it reads its files when it starts.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  name:
    description: The unit.
    type: str
    required: true
  files:
    description: Further files that the service reads only at its start, such as its program. Missing ones are ignored.
    type: list
    elements: path
    default: []
  program:
    description: The program that the unit runs. One with another program is not judged by its process.
    type: path
  config_path:
    description: Directory with the record of the last configuration that served.
    type: path
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Find out whether the server runs an old configuration
  modelops.tensorflow_serving.unit_restart_info:
    name: tensorflow-model-server.service
    files: [/usr/bin/tensorflow_model_server]
  register: unit
"""

RETURN = r"""
exists:
  description: Whether systemd knows the unit.
  returned: success
  type: bool
active:
  description: Whether the service runs.
  returned: success
  type: bool
restart_needed:
  description: Whether it runs and was started from an older state of the files.
  returned: success
  type: bool
newer_files:
  description: The files that were changed after it started.
  returned: success
  type: list
  elements: str
differences:
  description: In what its process is another one than systemd would start.
  returned: success
  type: list
  elements: str
  sample: [its command line]
"""

import filecmp
import os
import time
from pathlib import Path
from typing import Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import unit_properties
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.last_good import read_last_good
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.unit_process import differences

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "MainPID",
    "ExecMainStartTimestampMonotonic",
    "FragmentPath",
    "NeedDaemonReload",
    "InvocationID",
)
UNIT_PATHS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")


def drop_ins(name: str, unit_paths: Sequence[str] = UNIT_PATHS) -> list[str]:
    """Return the drop-ins of a unit that lie on disk; systemd itself names only those that it has read already.

    Their directories too, which change when one is removed.
    """
    folders = [folder for folder in (Path(path, f"{name}.d") for path in unit_paths) if folder.is_dir()]
    return sorted(str(path) for folder in folders for path in (folder, *folder.glob("*.conf")))


def newer_than(started: float, files: list[str]) -> list[str]:
    """Return which files were changed after started, in seconds since the epoch.

    The change time counts, not the modification time, which packages and templates may set to the past.
    """
    newer = []
    for name in files:
        try:
            if os.stat(name).st_ctime > started:  # noqa: PTH116
                newer.append(name)
        except FileNotFoundError:
            continue
    return newer


def runs(pid: str, program: str) -> bool:
    """Return whether a process runs the bytes of a program, which may have been replaced since: /proc keeps them."""
    try:
        return filecmp.cmp(f"/proc/{pid}/exe", program, shallow=False)
    except OSError:
        return False


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "program": {"type": "path"},
            "config_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    unit = unit_properties(module, params["name"], *PROPERTIES)
    newer: list[str] = []
    others: list[str] = []
    active = unit["ActiveState"] == "active" and unit["MainPID"] != "0"
    if active:
        # Monotonic, as the wall clock may have been set since; in microseconds.
        age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(unit["ExecMainStartTimestampMonotonic"]) / 1e6
        record = read_last_good(params["config_path"]) if params["config_path"] else None
        if record and record.invocations.get(params["name"]) != unit["InvocationID"]:
            record = None
        files = [unit["FragmentPath"], *drop_ins(params["name"]), *params["files"]]
        newer = [
            name
            for name in newer_than(time.time() - age, files)
            if not runs(unit["MainPID"], name) and not (record and record.is_as_on_disk(name))
        ]
        if params["program"]:
            others = differences(module, params["name"], int(unit["MainPID"]), params["program"])
    module.exit_json(
        changed=False,
        exists=unit["LoadState"] != "not-found",
        active=active,
        restart_needed=bool(newer or others) or (active and unit["NeedDaemonReload"] == "yes"),
        newer_files=newer,
        differences=others,
    )


if __name__ == "__main__":
    main()

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a server's unit runs, and whether its process is older than what it was started from."""

from __future__ import annotations

import filecmp
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import properties_of
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.last_good import LastGood
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.unit_process import differences

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "MainPID",
    "ExecMainStartTimestampMonotonic",
    "FragmentPath",
    "NeedDaemonReload",
    "InvocationID",
    "ControlGroup",
)
UNIT_PATHS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")


@dataclass(frozen=True)
class UnitState:
    """What systemd has of a server.

    outdated says why its process is older than what is there now, if it is. fragment is the file that systemd has the
    unit from, and cgroup the control group of its processes; both are empty where there is none.
    """

    exists: bool
    is_active: bool
    is_enabled: bool
    outdated: tuple[str, ...] = ()
    fragment: str = ""
    cgroup: str = ""


def unit_states(
    module: AnsibleModule, files: dict[str, list[str]], program: str, record: LastGood | None
) -> dict[str, UnitState]:
    """Return the states of units, by their names without .service; files are what each reads at its start.

    What record, of the same start, has with the same contents is not newer than the process. Fails the module where
    systemctl does.
    """
    facts = properties_of(module, [f"{unit}.service" for unit in files], *PROPERTIES)
    return {unit: _state(module, unit, facts[f"{unit}.service"], files[unit], program, record) for unit in files}


def _state(
    module: AnsibleModule, unit: str, facts: dict[str, str], files: list[str], program: str, record: LastGood | None
) -> UnitState:
    name, outdated = f"{unit}.service", []
    is_active = facts["ActiveState"] == "active" and facts["MainPID"] != "0"
    if is_active:
        # Monotonic, as the wall clock may have been set since; in microseconds.
        age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(facts["ExecMainStartTimestampMonotonic"]) / 1e6
        if record and record.invocations.get(name) != facts["InvocationID"]:
            record = None
        read = [facts["FragmentPath"], *drop_ins(name), program, *files]
        outdated = [
            path
            for path in newer_than(time.time() - age, read)
            if not runs(facts["MainPID"], path) and not (record and record.is_as_on_disk(path))
        ]
        outdated += differences(module, name, int(facts["MainPID"]), program)
        outdated += [facts["FragmentPath"]] if facts["NeedDaemonReload"] == "yes" and not outdated else []
    return UnitState(
        exists=facts["LoadState"] != "not-found",
        is_active=is_active,
        is_enabled=facts.get("UnitFileState") == "enabled",
        outdated=tuple(outdated),
        fragment=facts["FragmentPath"],
        cgroup=facts.get("ControlGroup", ""),
    )


def drop_ins(name: str, unit_paths: Sequence[str] = UNIT_PATHS) -> list[str]:
    """Return the drop-ins of a unit that lie on disk; systemd itself names only those that it has read already.

    Their directories too, which change when one is removed.
    """
    folders = [folder for folder in (Path(path, f"{name}.d") for path in unit_paths) if folder.is_dir()]
    return sorted(str(path) for folder in folders for path in (folder, *folder.glob("*.conf")))


def newer_than(started: float, files: Iterable[str]) -> list[str]:
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

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Has one run at a time change a host; documented by the module of the same name."""

from __future__ import annotations

import getpass
import os
import socket
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.host_lock import (
    LOCK,
    look,
    release,
    take_after_look,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.host_calls import HostProgram
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.run_cache import run_name

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["taken", "released"], "default": "taken"},
    "minutes": {"type": "int", "default": 60},
    "looked_at": {"type": "float"},
    "takeover": {"type": "bool", "default": False},
    "failure": {"type": "str"},
}
PROC = Path("/proc")


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        on_host = HostProgram(self, task_vars or {})
        if args["state"] == "released":
            if not self._task.check_mode:
                on_host.call(release, run=run_name(), path=LOCK)
            if args["failure"]:
                raise AnsibleActionFail(args["failure"])
            return {"changed": False}
        if args["minutes"] < 1:
            raise AnsibleActionFail(f"tfserving_lock_minutes is {args['minutes']}, and has to be at least 1")
        if self._task.check_mode:
            other = on_host.call(look, path=LOCK)
            return {
                "changed": False,
                "looked_before": False,
                "warnings": [] if other is None or _is_over(other) else [_words(other)],
            }
        looked_at = time.time() if args["looked_at"] is None else args["looked_at"]
        wanted = {"holder": _this_run(), "seconds": 60 * args["minutes"], "looked_at": looked_at, "path": LOCK}
        taken = on_host.call(take_after_look, **wanted)
        if taken["other"] and (args["takeover"] or _is_over(taken["other"])):
            taken = on_host.call(take_after_look, **wanted, instead_of=taken["other"]["run"])
        other = taken["other"]
        if other:
            raise AnsibleActionFail(
                f"{_words(other)}. This run changed nothing. Wait until the other run has ended; if it was killed, "
                f"remove {LOCK} on the host. Then rerun the playbook"
            )
        return {"changed": False, "looked_before": taken["looked_before"]}


def _words(other: dict[str, Any]) -> str:
    who = f"{other['owner']} (process {other['pid']}, {other['run']})"
    return f"{who} is at work on this host since {other['start']}, with a lock until {other['until']}"


def _this_run() -> dict[str, Any]:
    """Return who this is, for others to read, and by what a later run on this machine knows whether it has ended."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        user = str(os.getuid())
    pid = os.getppid()  # of the run: each task of a host has a process of its own
    return {
        "run": run_name(),
        "owner": f"{user}@{socket.gethostname()}",
        "pid": pid,
        "process": _process(pid),
        "machine": _machine(),
    }


def _is_over(other: dict[str, Any]) -> bool:
    """Say whether another run was one on this machine, and its process has ended."""
    return None not in (other["machine"], other["process"]) and (
        other["machine"] == _machine() and other["process"] != _process(other["pid"])
    )


def _machine() -> str | None:
    """Return what tells this machine, since it was started, and this container from others; None without /proc."""
    try:
        return f"{(PROC / 'sys/kernel/random/boot_id').read_text().strip()} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None


def _process(pid: int) -> str | None:
    """Return the time at which a process started, which no later one of its number has; None for one that has ended."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]

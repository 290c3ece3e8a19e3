# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a service's process is the one that systemd would start: its command line and environment say so."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    command_line,
    process_environment,
)

_BUS = "org.freedesktop.systemd1"
_PROPERTIES = ("ExecStart", "Environment", "EnvironmentFiles", "PassEnvironment")
# What systemd gives to a service by itself (systemd.exec(5), "Environment Variables in Spawned Processes").
_GIVEN = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|USER|LOGNAME|HOME|SHELL|TERM|TZ|COLORTERM|NO_COLOR|INVOCATION_ID|JOURNAL_STREAM|MAINPID"
    r"|MANAGERPID\w*|SYSTEMD_\w+|NOTIFY_SOCKET|LISTEN_\w+|WATCHDOG_\w+|MEMORY_PRESSURE_\w+|XDG_\w+|FDSTORE|PIDFILE|\w+_DIRECTORY"
    r"|DEBUG_INVOCATION|REMOTE_\w+"
)


def differences(module: AnsibleModule, unit: str, pid: int, program: str) -> list[str]:
    """Return in what a process is another one than systemd would start now, nothing where that cannot be told.

    A unit that starts something else than program, as by a drop-in of the user's with a script, is not judged. A
    wrapper in front of the program, such as numactl, and an interpreter in front of a script are no difference.
    """
    facts = _properties(module, unit)
    if not facts or not facts["ExecStart"]:
        return []
    words = [word.replace("$$", "\0") for word in facts["ExecStart"][0][1]]
    if program not in words or any("$" in word for word in words):  # systemd would put variables in
        return []
    wanted, there = [word.replace("\0", "$") for word in words], command_line(pid)
    if there[-len(wanted) :] != wanted:
        return [] if there and wanted[-len(there) :] == there else ["its command line"]
    return ["its environment"] if _has_other_environment(module, facts, process_environment(pid)) else []


def _has_other_environment(module: AnsibleModule, facts: dict[str, Any], there: dict[str, str]) -> bool:
    wanted = dict(word.split("=", 1) for word in facts["Environment"] if "=" in word)
    if any(there.get(name) != value for name, value in wanted.items()):
        return True
    if facts["EnvironmentFiles"] or facts["PassEnvironment"]:
        return False
    _, output, _ = module.run_command(["systemctl", "show-environment"])
    default = {line.partition("=")[0] for line in output.splitlines()}
    return any(not _GIVEN.fullmatch(name) for name in there.keys() - wanted.keys() - default)


def _properties(module: AnsibleModule, unit: str) -> dict[str, Any]:
    """Return properties of a unit as they are, which systemctl shows as one line of text; empty without a bus."""
    path = "/org/freedesktop/systemd1/unit/" + "".join(
        letter if letter.isascii() and letter.isalnum() else "".join(f"_{byte:02x}" for byte in letter.encode())
        for letter in unit
    )
    command = ["busctl", "--json=short", "get-property", _BUS, path, f"{_BUS}.Service", *_PROPERTIES]
    code, output, _ = module.run_command(command)
    try:
        answers = [json.loads(line)["data"] for line in output.splitlines()]
    except (ValueError, KeyError, TypeError):
        return {}
    return dict(zip(_PROPERTIES, answers)) if code == 0 and len(answers) == len(_PROPERTIES) else {}

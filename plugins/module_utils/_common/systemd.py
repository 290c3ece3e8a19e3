# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What systemd says of a unit, and how a value is written into one."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

UNIT_PATH = Path("/etc/systemd/system")

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("%"): "%%"}


def unit_properties(module: AnsibleModule, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit as systemctl show prints them. Fails the module where systemctl does."""
    return properties_of(module, [unit], *names)[unit]


def properties_of(module: AnsibleModule, units: list[str], *names: str) -> dict[str, dict[str, str]]:
    """Return properties of several units, by the units' names, as unit_properties does of one."""
    if not units:
        return {}
    _, output, _ = module.run_command(["systemctl", "show", f"--property={','.join(names)}", *units], check_rc=True)
    blocks = output.strip("\n").split("\n\n")
    return {
        unit: dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for unit, block in zip(units, blocks)
    }


def systemd_version(module: AnsibleModule) -> int:
    """Return systemd's version as a number. Fails the module where there is no systemctl."""
    _, output, _ = module.run_command(["systemctl", "--version"], check_rc=True)
    return int(output.split()[1].split(".")[0].split("~")[0])


def unit_complaints(module: AnsibleModule, name: str, text: str) -> list[str]:
    """Return what systemd says of a unit that is not in its place yet; name is that of its file.

    systemd-analyze exits with 0 where systemd would ignore a line. What it says of other files is theirs. In check mode
    it may miss a program, or a unit, that the run would bring: only what it says of lines counts.
    """
    with tempfile.TemporaryDirectory(prefix="tfserving-verify-", dir="/run") as folder:
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8")
        _, output, errors = module.run_command(["systemd-analyze", "verify", "--man=no", str(path)])
    ours = (f"{path}:",) if module.check_mode else (f"{path}:", f"{name}:")
    lines = (output + errors).splitlines()
    return [line.replace(f"{folder}/", "").strip() for line in lines if line.startswith(ours)]


def quoted(text: str) -> str:
    """Return text as one word of a unit file, in which systemd expands nothing (systemd.syntax, systemd.unit).

    It holds no control character: input_checks refuses these.
    """
    if re.fullmatch(r"[\w./:=,@+-]+", text, re.ASCII):
        return text
    return '"' + text.translate(_ESCAPES) + '"'


def quoted_argument(text: str) -> str:
    """The same for ExecStart=, where a dollar sign starts a variable."""
    return quoted(text).replace("$", "$$")

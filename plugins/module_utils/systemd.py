# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What systemd says of a unit, and how a value is written into one."""

from __future__ import annotations

import re

from ansible.module_utils.basic import AnsibleModule

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\t"): "\\t", ord("%"): "%%"}


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


def quoted(text: str) -> str:
    """Return text as one word of a unit file, in which systemd expands nothing (systemd.syntax, systemd.unit)."""
    if re.fullmatch(r"[\w./:=,@+-]+", text, re.ASCII):
        return text
    return '"' + text.translate(_ESCAPES) + '"'


def quoted_argument(text: str) -> str:
    """The same for ExecStart=, where a dollar sign starts a variable."""
    return quoted(text).replace("$", "$$")

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What systemd says of a unit."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def unit_properties(module: AnsibleModule, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit as systemctl show prints them. Fails the module where systemctl does."""
    _, output, _ = module.run_command(["systemctl", "show", f"--property={','.join(names)}", unit], check_rc=True)
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Takes servers off a host that are not to be there any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Iterable

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import UNIT_PATH
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    START_FILES,
)


def gone_diff(name: str) -> dict[str, str]:
    """Return how a diff shows a unit or a file that goes."""
    return {"before_header": name, "after_header": name, "before": "there\n", "after": ""}


def remove_servers(module: AnsibleModule, stale: Iterable[dict[str, Any]], config_path: str) -> None:
    """Stop servers, as stale_units returns them, and remove their configuration and units. Raises OSError.

    The unit goes last, as a later run finds the server by it. Drop-ins stay, as they are the user's, and so does
    config_path, which the role tfserving_package makes.
    """
    for one in stale:
        name = f"{one['unit']}.service"
        module.run_command(["systemctl", "disable", "--now", name], check_rc=True)
        module.run_command(["systemctl", "reset-failed", name])  # else a unit that failed stays listed
        directory = Path(one["config_path"])
        if one["has_config"]:
            for file in (MODELS_CONFIG, *START_FILES):
                (directory / file).unlink(missing_ok=True)
            if str(directory) != config_path:
                with suppress(OSError):  # what else lies there is the user's
                    directory.rmdir()
        (UNIT_PATH / name).unlink(missing_ok=True)
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)

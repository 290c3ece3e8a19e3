# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waits until all servers of a host serve, and makes that the state to which a later run can roll back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    end_holds,
    without_held,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.removal import gone_diff
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Servers
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.package_change import Store
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    START_FILES,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.ready import wait_until_ready
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    DEFAULT_GRPC_PORT,
    Ports,
    local_client,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import SystemdUnit


def confirm(
    module: AnsibleModule, params: dict[str, Any], samples: dict[str, list[dict[str, Any]]], servers: Servers
) -> dict[str, Any]:
    """Return the results of the module model_servers once all instances serve.

    Then the files that no server reads any more are removed, what serves is recorded and noted in the host's history,
    and the package before a change is forgotten. Raises NotReady and OSError.
    """
    unused = [
        path
        for one in params["instances"]
        for path in (Path(one["config_path"], name) for name in START_FILES if name not in one["files"])
        if path.exists()
    ]
    config_path = params["config_path"]
    if not module.check_mode:
        samples = without_held(samples, config_path)
        for one in params["instances"]:
            unit = SystemdUnit(module, f"{one['unit']}.service")
            where = Ports(one["rest_api_port"], one["port"] or DEFAULT_GRPC_PORT)
            client = local_client(where, unit.cgroup)
            path = Path(one["config_path"], MODELS_CONFIG)
            wait_until_ready(client, unit, path, samples, params["timeout_seconds"])
        for path in unused:
            path.unlink()
        servers.record(unless_recorded=False)
        end_holds(config_path)
        store = Store(params["package_directory"])
        change = store.change()
        if change and change.is_installed:
            store.settle(change.new)
    return {"changed": bool(unused), "diff": [gone_diff(str(path)) for path in unused]}

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The model servers that a host has: those of the inventory, those that an earlier one left, and those of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    PROC,
    Holder,
    control_group,
    is_in,
    pids,
    program,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import properties_of
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    parse_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    directory_of,
    marked_units,
    unit_of,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import ServingClient
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    local_client,
    poll_wait_seconds,
    ports,
    process_flags,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.text_format import TextFormatError

# One of these every server has, whatever its program is called: without both it does not start.
_MODEL_FLAGS = {"model_config_file", "model_base_path"}
DEFAULT_MODEL_NAME = "default"  # of --model_name


@dataclass(frozen=True)
class HostServer:
    """One model server, running or not.

    name is what people call it. is_ours is true for a unit that the role tfserving_service has written or will write.
    pid is that of its process and cgroup the process's control group, 0 and empty where it does not run. configs are
    the files that say what it serves, listed the models that the inventory has for it.
    """

    name: str
    is_ours: bool
    pid: int = 0
    cgroup: str = ""
    configs: tuple[Path, ...] = ()
    listed: frozenset[str] = field(default_factory=frozenset)

    @property
    def flags(self) -> dict[str, str]:
        """The flags of its process."""
        return process_flags(self.pid)

    @property
    def poll_wait_seconds(self) -> int:
        """How often its process looks for a new models.config, in seconds; 0 where it never does."""
        return poll_wait_seconds(self.flags)

    def client(self) -> ServingClient:
        """Return a client of this server and of no other. Raises ConnectionError where it has none to offer."""
        if not self.pid:
            raise ConnectionError("it does not run")
        where = ports(self.flags)
        if not where.rest_api:
            raise ConnectionError("it has no REST port")
        return local_client(where, lambda: self.cgroup)

    def models(self) -> dict[str, Path] | None:
        """Return where it has its models, by name, as this process sees that; None where nobody can tell."""
        flags = self.flags
        found = {}
        if flags.get("model_base_path"):
            found[flags.get("model_name") or DEFAULT_MODEL_NAME] = self._seen(flags["model_base_path"])
        files = [path for path in self.configs if path.exists()]
        if flags.get("model_config_file"):  # which it goes on serving when it is taken away
            files.append(self._seen(flags["model_config_file"]))
        for file in files:
            try:
                found.update(
                    (name, self._seen(model["base_path"]))
                    for name, model in parse_models_config(file.read_bytes()).items()
                )
            except (OSError, TextFormatError):
                return None
        return found

    def _seen(self, path: str) -> Path:
        """Return a path of the server's process as this process has to spell it: the server may be in a container."""
        if not self.pid:
            return Path(path)
        return Path(f"{PROC}/{self.pid}/root{path}" if path.startswith("/") else f"{PROC}/{self.pid}/cwd/{path}")

    @property
    def config_name(self) -> str:
        """Where an operator finds what it serves."""
        files = [str(path) for path in self.configs if path.exists()]
        return files[0] if files else f"the configuration of {self.name}"

    def names_of(self, directory: Path) -> set[str] | None:
        """Return the names under which it is to serve the versions of a directory; None where nobody can tell."""
        models = self.models()
        return None if models is None else {name for name, path in models.items() if _is_same(path, directory)}


def find_servers(
    module: AnsibleModule, unit: str, config_path: str, instances: Iterable[dict[str, Any]], models: Iterable[str]
) -> list[HostServer]:
    """Return all model servers of this host.

    unit and config_path are those of the role tfserving_service, instances its tfserving_service_instances, models the
    names in the catalogue. Besides these, units with the role's mark count, files named models.config where the role
    has them, and every process of the server that others have started.
    """
    directories = {name: mark["configpath"] for name, mark in marked_units().items()}
    listed: dict[str, frozenset[str]] = {}
    for instance in instances:
        name = unit_of(unit, instance.get("name") or "")
        directories[name] = directory_of(config_path, instance.get("name") or "")
        listed[name] = frozenset(instance["models"] if instance.get("models") is not None else models)
    states = properties_of(module, [f"{name}.service" for name in directories], "MainPID", "ControlGroup")
    servers = [
        HostServer(
            name=f"{name}.service",
            is_ours=True,
            pid=int(states[f"{name}.service"].get("MainPID") or 0),
            cgroup=states[f"{name}.service"].get("ControlGroup", ""),
            configs=(Path(directory, MODELS_CONFIG),),
            listed=listed.get(name, frozenset()),
        )
        for name, directory in directories.items()
    ]
    known = {path for server in servers for path in server.configs}
    left = [Path(config_path, MODELS_CONFIG), *sorted(Path(config_path).glob(f"*/{MODELS_CONFIG}"))]
    servers += [
        HostServer(str(path), is_ours=True, configs=(path,)) for path in left if path not in known and path.exists()
    ]
    return servers + _others([server.cgroup for server in servers])


def _others(known: list[str]) -> list[HostServer]:
    """Return the servers that run outside these control groups."""
    found = []
    for pid in pids():
        if process_flags(pid).keys() & _MODEL_FLAGS:
            cgroup = control_group(pid)
            if not any(is_in(cgroup, one) for one in known):
                found.append(HostServer(str(Holder(pid, program(pid), cgroup)), is_ours=False, pid=pid, cgroup=cgroup))
    return found


def _is_same(path: Path, directory: Path) -> bool:
    try:
        return path.samefile(directory)
    except OSError:
        return path == directory

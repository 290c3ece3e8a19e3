"""The files that the roles make of an inventory, and what they ask of modules, without any host.

A program of its own, as it needs Ansible's loader of collections: rendered_inventory.py VARIABLES.yml DIRECTORY.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
ROLES = ROOT / "roles"
COLLECTION = "modelops.tensorflow_serving"

from ansible.module_utils import basic  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.plugins.loader import init_plugin_loader  # noqa: E402
from ansible.template import Templar, trust_as_template  # noqa: E402

init_plugin_loader([str(ROOT / ".collections")])
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.flags import KNOWN_FLAGS  # noqa: E402
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (  # noqa: E402
    Host,
    as_dicts,
    instances,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import gateway_info  # noqa: E402

HOST = Host(flags=KNOWN_FLAGS, cpus={0, 1}, numa_nodes={0})
LOADER = DataLoader()
# What tasks of the playbook leave for those after them.
LEFT = {
    "__tfserving_gateway_has_http2_directive": True,
    "__tfserving_apt_key": {"usable": True, "changed": False},
    "__tfserving_monitoring_textfile": {"stat": {"pw_name": "prometheus", "exists": True}},
    "__tfserving_monitoring_group_exists": True,
    "__tfserving_mirror_unknown": False,
}


class Exited(Exception):  # noqa: N818 - not an error
    """A module has printed its result."""


def load(path: Path) -> Any:
    """Return what a YAML file holds, None where there is no such file."""
    return LOADER.load_from_file(str(path), trusted_as_template=True) if path.exists() else None


class Role:
    """A role with the variables of an inventory, as Ansible has them while it runs: its own and its dependencies'."""

    def __init__(self, name: str, inventory: dict[str, Any], **left: Any) -> None:
        self.path = ROLES / name
        needed = [
            one["role"].removeprefix(f"{COLLECTION}.") for one in load(self.path / "meta/main.yml")["dependencies"]
        ]
        roles = [ROLES / one for one in [*needed, name]]
        variables: dict[str, Any] = {}
        for role in roles:
            variables |= load(role / "defaults/main.yml") or {}
        variables |= inventory
        for role in roles:
            variables |= load(role / "vars/main.yml") or {}
        variables |= {
            "inventory_hostname": "host1",
            "ansible_managed": "Managed by Ansible",
            "ansible_check_mode": False,
            "role_path": str(self.path),
            "ansible_search_path": [str(self.path)],
            "groups": {"tfserving": ["host1"]},
            "hostvars": {"host1": dict(inventory)},
        }
        self.templar = Templar(loader=LOADER, variables=variables | LEFT | left)

    def arguments(self, module: str) -> dict[str, Any]:
        """Return what a role gives to a module, in the task that gives it the most."""
        tasks = [task for path in sorted((self.path / "tasks").glob("*.yml")) for task in walked(load(path) or [])]
        given = [task[f"{COLLECTION}.{module}"] for task in tasks if f"{COLLECTION}.{module}" in task]
        arguments: dict[str, Any] = self.templar.template(max(given, key=len))
        return arguments

    def value(self, variable: str) -> Any:
        """Return what a variable comes to."""
        return self.templar.template(trust_as_template(f"{{{{ {variable} }}}}"))

    def rendered(self, template: str) -> str:
        """Return what the role makes of its template."""
        return str(self.value(f"lookup('ansible.builtin.template', '{template}')"))


def walked(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return all tasks, those in blocks too."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from walked(task.get(part) or [])


def ran(module: ModuleType, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a module. Raises AssertionError for one that fails."""
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}, default=str).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(printed.getvalue())
    assert not result.get("failed"), result["msg"]
    return result


def files(inventory: dict[str, Any]) -> dict[str, str]:
    """Return {name: text} of all that the roles write or ask for."""
    made: dict[str, str] = {}

    def asked(role: Role, module: str, *leave_out: str) -> dict[str, Any]:
        arguments = {key: value for key, value in role.arguments(module).items() if key not in leave_out}
        name = f"{role.path.name}/{module}.json"
        made[name] = json.dumps(arguments, indent=2, sort_keys=True, default=str) + "\n"
        return arguments

    apt = Role("tfserving_apt", inventory)
    made["tfserving_apt/tensorflow-serving.sources"] = apt.rendered("tensorflow-serving.sources.j2")
    made["tfserving_apt/tensorflow-serving.pref"] = apt.rendered("tensorflow-serving.pref.j2")
    asked(apt, "apt_signing_key")

    package = Role("tfserving_package", inventory)
    given = package.arguments("server_directories")
    given["directories"] = [one["path"] for one in given["directories"]]
    made["tfserving_package/server_directories.json"] = json.dumps(given, indent=2, sort_keys=True) + "\n"

    models = Role("tfserving_models", inventory)
    asked(models, "saved_models")
    asked(models, "saved_models_prune", "timeout_seconds", "unit", "instances")

    service = Role("tfserving_service", inventory)
    wanted = service.value("__tfserving_service_wanted")
    of_role = {**wanted, **wanted["defaults"], "config_path": service.value("tfserving_config_path")}
    servers = as_dicts(instances(wanted["instances"], of_role, HOST))
    host = {"servers": {"instances": servers, "systemd_version": 257}, "networks": {"allowed": []}}
    for file in Role("tfserving_service", inventory, __tfserving_host=host).value("__tfserving_service_files"):
        path = Path(file["path"])
        name = path.name if path.suffix == ".service" else f"{file['unit']}/{path.name}"
        made[f"tfserving_service/{name}"] = file["content"]

    gateway = Role("tfserving_gateway", inventory, __tfserving_host=host)
    routes = ran(gateway_info, gateway.arguments("gateway_info")) | {"has_ipv6": True}
    gateway = Role("tfserving_gateway", inventory, __tfserving_host=host, __tfserving_gateway_plan=routes)
    made["tfserving_gateway/gateway.conf"] = gateway.rendered("gateway.conf.j2")

    monitoring = Role("tfserving_monitoring", inventory)
    made["tfserving_monitoring/rules.txt"] = monitoring.rendered("rules.yml.j2")
    made["tfserving_monitoring/tfserving-versions.service"] = monitoring.rendered("tfserving-versions.service.j2")

    mirror = Role("tfserving_mirror", inventory)
    asked(mirror, "apt_signing_key")
    asked(mirror, "apt_mirror")
    return made


def main() -> None:
    inventory, directory = sys.argv[1:]
    for name, text in files(dict(load(Path(inventory)))).items():
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is checked of the input of each role, beyond types: all that the controller can see without the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

from ansible.errors import AnsibleError

from ansible_collections.modelops.tensorflow_serving.plugins.filter.scrape_targets import scrape_targets
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.input import (
    ProxyError,
    key_file_problems,
    mirror_problems,
    proxy_settings,
    repository_problems,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CatalogError,
    check_credentials,
    read_catalog,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import file_sha256
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import printable
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.input import LIMITS, read_input
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.routes import read_servers
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.traffic import is_share
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.input import (
    deb_problems,
    version_problems,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    ServerConfigError,
    render_file,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    Instance,
    InstancesError,
    as_dicts,
    instances_on_any_host,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.networks import network_problems
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.tls_files import tls_problems
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.role_input import (
    RoleInput,
    UnusableError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.rollout_plan import size
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.run_cache import remembered


@dataclass(frozen=True)
class Inventory:
    """What a check can ask for besides the variables of its own role.

    role returns those of another role for the same host; find returns the path of a file on the controller as
    ansible.builtin.copy finds it, None where there is none.
    """

    host: str
    hostvars: Mapping[str, Any]
    role: Callable[[str], RoleInput]
    find: Callable[[str], str | None]

    def digest_of(self, file: str) -> str:
        """Return the SHA256 of a file on the controller, read once in a run; empty where it cannot be read."""
        path = self.find(file)
        return sha256_once(Path(path)) if path else ""


Check = Callable[[RoleInput, Inventory], "list[str]"]


def problems_of(role: str, values: RoleInput, inventory: Inventory) -> list[str]:
    """Return what is wrong with the input of a role. A check of a value that is wrong already says nothing."""
    problems: list[str] = []
    for check in CHECKS.get(role, []):
        try:
            problems += check(values, inventory)
        except UnusableError:
            continue
    return [*values.problems, *problems]


def sha256_once(file: Path) -> str:
    """Return the SHA256 of a file as hex digits, read once in a run; empty where it cannot be read."""
    with remembered("file", str(file.resolve())) as memory:
        if memory.exists():
            return memory.read_text(encoding="utf-8")
        try:
            digest = file_sha256(file)
        except OSError:
            return ""
        memory.write_text(digest, encoding="utf-8")
        return digest


# tfserving_apt


def _apt_repository(values: RoleInput, _: Inventory) -> list[str]:
    names = ("uri", "suite", "components", "key_fingerprint")
    return repository_problems({name: values[f"tfserving_apt_{name}"] for name in names}, "tfserving_apt_")


def _apt_key(values: RoleInput, _: Inventory) -> list[str]:
    is_file = values["__tfserving_apt_key_form"] == "file"
    return key_file_problems(values["tfserving_apt_key"]) if is_file else []


def _apt_proxy(values: RoleInput, _: Inventory) -> list[str]:
    if values["tfserving_apt_proxy"]:
        try:
            proxy_settings(values["tfserving_apt_uri"], values["tfserving_apt_proxy"], values["tfserving_apt_no_proxy"])
        except ProxyError as error:
            return [f"{error}."]
    return []


# tfserving_package


def _package_version(values: RoleInput, _: Inventory) -> list[str]:
    return version_problems(values["tfserving_package_version"])


def _package_deb(values: RoleInput, inventory: Inventory) -> list[str]:
    deb = values["tfserving_package_deb"]
    if not deb:
        return []
    url = values["__tfserving_package_deb_url"] if values["__tfserving_package_deb_is_url"] else ""
    return deb_problems(deb, url, values["tfserving_package_deb_sha256"], inventory.digest_of)


# tfserving_models


def _models(values: RoleInput, _: Inventory) -> list[str]:
    try:
        models = read_catalog(values["tfserving_models_catalog"], values.get("tfserving_models_keep"))
        check_credentials(models, bool(values["tfserving_models_url_password"]))
    except CatalogError as error:
        return [f"tfserving_models_catalog: {text}" for text in error.problems]
    return []


# tfserving_service


def _instances(values: RoleInput) -> list[Instance]:
    """Return the servers. Raises InstancesError, or UnusableError."""
    ports = {name: values[f"tfserving_service_{name}"] for name in ("port", "rest_api_port")}
    role = {**values["__tfserving_service_wanted"], **ports, "config_path": values["tfserving_config_path"]}
    return instances_on_any_host(values["tfserving_service_instances"], role)


def _service_instances(values: RoleInput, _: Inventory) -> list[str]:
    try:
        _instances(values)
    except InstancesError as error:
        return str(error).splitlines()
    return []


def _service_files(values: RoleInput, _: Inventory) -> list[str]:
    problems: list[str] = []
    for variable, file in (
        ("tfserving_service_batching_parameters", "batching_parameters.config"),
        ("tfserving_service_session_config", "session.config"),
        ("tfserving_service_platform_config", "platform.config"),
    ):
        try:
            if values[variable]:
                render_file(file, values[variable])
        except ServerConfigError as error:
            problems += (f"{variable}: {file} cannot be written: {text}" for text in error.problems)
        except UnusableError:
            continue
    return problems


def _service_tls(values: RoleInput, _: Inventory) -> list[str]:
    if not values["tfserving_service_ssl"]:
        return []
    texts = values["__tfserving_service_ssl_texts"]
    return tls_problems(**texts, client_verify=values["tfserving_service_ssl"].get("client_verify", False))


def _service_networks(values: RoleInput, _: Inventory) -> list[str]:
    variable = "tfserving_service_allowed_networks"
    return network_problems(variable, values[variable])


# tfserving_gateway

_GATEWAY_ARGUMENTS = ("port", "names", "users", "allow_anonymous", "open", "traffic")


def _labels(values: RoleInput) -> dict[str, list[str]] | None:
    """Return the labels of each model of the catalogue, None where it is wrong, which is said of tfserving_models."""
    try:
        catalog = values["tfserving_models_catalog"]
    except UnusableError:
        return None
    return {str(entry["name"]): [*map(str, entry.get("version_labels") or {})] for entry in catalog}


def _gateway(values: RoleInput, inventory: Inventory) -> list[str]:
    if not values["tfserving_gateway_enabled"]:
        return []
    service = inventory.role("tfserving_service")
    try:
        servers = read_servers(as_dicts(_instances(service)))
    except (InstancesError, UnusableError):
        servers = []  # which is said of tfserving_service
    of_role = {
        **{name: values[f"tfserving_gateway_{name}"] for name in _GATEWAY_ARGUMENTS},
        **{name: values[f"__tfserving_gateway_{name}"] for name in ("certificate", "key", "client_ca")},
        "labels": _labels(inventory.role("tfserving_models")),
        "metrics_path": service["tfserving_service_monitoring_path"],
        "files_on_host": values["tfserving_gateway_tls_files_on_host"],
        "self_signed": values["tfserving_gateway_tls_self_signed"],
        "limits": {
            **{f"client_{name}": value for name, value in values["__tfserving_gateway_client_limits"].items()},
            **{name: values[f"tfserving_gateway_{name}"] for name in LIMITS if not name.startswith("client_")},
        },
        "server_client_verify": service["tfserving_service_ssl"].get("client_verify", False),
    }
    return read_input(of_role, servers)[1]


# tfserving_rollout


def _rollout_batches(values: RoleInput, _: Inventory) -> list[str]:
    given = [("tfserving_rollout_batches", one) for one in values["tfserving_rollout_batches"]]
    if str(values["tfserving_rollout_min_in_service"]) != "0":
        given.append(("tfserving_rollout_min_in_service", values["tfserving_rollout_min_in_service"]))
    problems = []
    for name, one in given:
        try:
            size(one, 1)
        except ValueError as error:
            problems.append(f"{name}: {error}.")
    return problems


def _rollout_traffic(values: RoleInput, inventory: Inventory) -> list[str]:
    name, traffic = "tfserving_rollout_traffic", values["tfserving_rollout_traffic"]
    if not traffic:
        return []
    mirror, shares = traffic.get("mirror"), traffic.get("shares") or []
    problems = [
        f"{name}: {percent:g} is no share; it has to be more than 0 and at most 100 percent, with two decimals at most."
        for percent in [*([] if mirror is None else [mirror]), *shares]
        if not is_share(percent)
    ]
    if mirror is None and not shares:
        problems.append(f"{name} has neither mirror nor shares, so there is no step; set one, or leave it empty.")
    if any(later <= earlier for earlier, later in zip(shares, shares[1:])):
        given = ", ".join(f"{one:g}" for one in shares)
        problems.append(f"{name}: shares are {given}; each has to be larger than the last.")
    if traffic.get("seconds", 1) < 1:
        problems.append(f"{name}: seconds is {traffic['seconds']}; a step has to take 1 or more.")
    if not inventory.role("tfserving_gateway")["tfserving_gateway_enabled"]:
        problems.append(
            f"{name} is set, and this host has no gateway, which would send requests to new versions. Set it only for "
            "hosts with tfserving_gateway_enabled: true."
        )
    return problems


# tfserving_monitoring


def _monitoring_paths(values: RoleInput, _: Inventory) -> list[str]:
    return [
        f"{name} is {printable(values[name])}; it has to begin with /."
        for name in ("tfserving_monitoring_prometheus_path", "tfserving_monitoring_grafana_path")
        if values[name] and not values[name].startswith("/")
    ]


def _monitoring_targets(values: RoleInput, inventory: Inventory) -> list[str]:
    hosts = values["tfserving_monitoring_hosts"]
    try:
        if not values["tfserving_monitoring_prometheus_path"] or scrape_targets(hosts, inventory.hostvars):
            return []
    except AnsibleError as error:
        return [str(error)]
    return [
        f"None of the hosts in tfserving_monitoring_hosts ({', '.join(hosts)}) has metrics. Name hosts of the group "
        "tfserving, and set their tfserving_service_monitoring_enabled."
    ]


# tfserving_mirror


def _mirror_upstream(values: RoleInput, _: Inventory) -> list[str]:
    if not values["__tfserving_mirror_has_upstream"]:
        return []
    return repository_problems(values["__tfserving_mirror_upstream"], "tfserving_mirror_upstream: ")


def _mirror(values: RoleInput, inventory: Inventory) -> list[str]:
    return mirror_problems(
        values["tfserving_mirror_signing_key_fingerprint"],
        inventory.host,
        values["__tfserving_mirror_has_upstream"],
        values["tfserving_mirror_debs"],
        inventory.digest_of,
    )


CHECKS: dict[str, list[Check]] = {
    "tfserving_apt": [_apt_repository, _apt_key, _apt_proxy],
    "tfserving_package": [_package_version, _package_deb],
    "tfserving_models": [_models],
    "tfserving_service": [_service_instances, _service_files, _service_tls, _service_networks],
    "tfserving_gateway": [_gateway],
    "tfserving_rollout": [_rollout_batches, _rollout_traffic],
    "tfserving_monitoring": [_monitoring_paths, _monitoring_targets],
    "tfserving_mirror": [_mirror_upstream, _mirror],
}

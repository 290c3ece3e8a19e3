# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host is and has, as far as the roles want to know it, and why it cannot be what they are to make of it.

Each function returns facts, and adds to problems what is wrong, each with the variable and the fix.
"""

from __future__ import annotations

import grp
import platform
import pwd
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import signing_key
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.source import Source
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import file_sha256
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import (
    UNIT_PATH,
    systemd_version,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import SITE_PATH
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.prune import make_plans
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.package_change import Store, observe
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import (
    PROGRAM,
    PackageError,
    is_change_needed,
    wanted_package,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import (
    read_record,
    unfinished_words,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.flags import (
    KNOWN_FLAGS,
    installed_flags,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    START_FILES,
    Host,
    Instance,
    InstancesError,
    as_dicts,
    displaced,
    family,
    foreign_ports,
    foreign_units,
    host_numbers,
    instances,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.last_good import read_last_good
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.networks import (
    allowed_networks,
    private_networks,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.unit_state import unit_states
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import (
    account_problems,
    directory_problems,
    hidden_problems,
    is_right,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.versions import look_before_publishing

NFTABLES_UNIT = UNIT_PATH / "tfserving-networks.service"

# Sends one datagram, that nobody has to receive. The kernel's filter refuses it with EPERM.
PROBE = """
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9))
except PermissionError:
    print("refused")
else:
    print("sent")
"""


def look(module: AnsibleModule, params: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the facts of a host and all problems; params are those of the module serving_host_info."""
    problems: list[str] = []
    facts: dict[str, Any] = {
        "looked_at": time.time(),
        "platform": platform_facts(params["name"], problems),
        "account": account_facts(params, problems),
    }
    if params["apt"]:
        facts["apt"] = apt_facts(module, params["apt"], params["apt_netrc"], problems)
    if params["package"]:
        facts["package"] = package_facts(module, params["name"], params["data_path"], params["package"], problems)
    if params["servers"]:
        facts["servers"] = server_facts(module, params["config_path"], params["servers"], problems)
        record = None if params["in_rollout"] else read_record(params["config_path"])
        problems += [unfinished_words(record)] if record else []
    if params["models"]:
        facts["models"] = model_facts(params, problems)
    if params["networks"]:
        facts["networks"] = network_facts(module, params["networks"], problems)
    return facts, problems


def platform_facts(name: str, problems: list[str], root: Path = Path("/")) -> dict[str, str]:
    """Return distribution and architecture."""
    try:
        release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (root / "etc/os-release").read_text(), re.MULTILINE))
    except OSError:
        release = {}
    facts = {"distribution": release.get("PRETTY_NAME", "an unknown system"), "architecture": platform.machine()}
    is_debian = "debian" in f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split()
    if not is_debian or facts["architecture"] != "x86_64":
        problems.append(
            f"{name} is {facts['distribution']} on {facts['architecture']}. TensorFlow Serving is packaged for "
            "Debian and Ubuntu on amd64 (x86_64) only; take this host out of the play's hosts (group tfserving)."
        )
    return facts


def account_facts(params: dict[str, Any], problems: list[str]) -> dict[str, bool]:
    """Return whether the server's account and directories are as they should be."""
    user, group = params["user"], params["group"]
    problems += account_problems("tfserving_user", user, pwd.getpwnam)
    problems += account_problems("tfserving_group", group, grp.getgrnam)
    paths = {name: params[name] for name in ("config_path", "data_path")}
    for name, path in paths.items():
        problems += directory_problems(f"tfserving_{name}", path, group, params["adopt"])
    return {"is_ready": _has_account(user, group) and all(is_right(Path(path), group) for path in paths.values())}


def _has_account(user: str, group: str) -> bool:
    try:
        there = pwd.getpwnam(user)
        return (there.pw_gid, there.pw_dir, there.pw_shell, there.pw_gecos) == (
            grp.getgrnam(group).gr_gid,
            "/nonexistent",
            "/usr/sbin/nologin",
            "TensorFlow Serving",
        )
    except KeyError:
        return False


def apt_facts(module: AnsibleModule, wanted: dict[str, Any], netrc: str, problems: list[str]) -> dict[str, bool]:
    """Return whether the signing key and the source are as they should be."""
    if wanted["shared_origin"]:
        others_of_origin(module, wanted["shared_origin"], problems)
    return {
        "key_up_to_date": signing_key.is_up_to_date(wanted["key"], datetime.now(timezone.utc)),
        "source_up_to_date": Source(
            module, {"state": "present", "root": "/", "netrc": netrc, **wanted["source"]}
        ).is_up_to_date(),
    }


def others_of_origin(module: AnsibleModule, uri: str, problems: list[str]) -> None:
    """Note what else comes from the host of a repository that only its host can tell from others."""
    host = re.sub(r"^https?://([^@/]*@)?|[:/].*$", "", uri)
    address = re.escape(re.sub(r"^https?://|/+$", "", uri))
    _, policy, _ = module.run_command(["apt-cache", "policy"])
    others = [
        line.strip()
        for line in policy.splitlines()
        if re.search(rf"//([^@/ ]*@)?{re.escape(host)}[:/]", line) and not re.search(rf" https?://{address}/? ", line)
    ]
    if others:
        problems.append(
            "tfserving_apt_components has a component of Debian's own name, so this repository can be told from others "
            f"by its host only, and {host} serves other repositories as well: {'; '.join(others)}. Give the repository "
            "a host name of its own, or its components names of their own, such as tensorflow-model-server."
        )


def package_facts(
    module: AnsibleModule, name: str, data_path: str, wanted: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    """Return the server's package: what is installed, what should be, and whether that differs."""
    # The role tfserving_apt takes away sources that contradict each other, with which apt answers nothing.
    host = observe(module, Store(f"{data_path}/packages"), is_apt_ready=False)
    package = None
    if wanted["variant"] == "optimized" and host.missing_cpu_flags:
        problems.append(
            f"tfserving_package_variant is optimized, and the CPU of {name} lacks {', '.join(host.missing_cpu_flags)}, "
            "so that SIGILL would kill the server. Set tfserving_package_variant to universal for this host, or to "
            "auto."
        )
    try:
        package = wanted_package(host, wanted["variant"], wanted["version"], wanted["deb_sha256"] or "")
    except PackageError as error:
        problems.append(str(error))
    is_held = bool(host.held)
    return {
        "missing_cpu_flags": list(host.missing_cpu_flags),
        "installed": [one.as_dict() for one in host.installed],
        "wanted": package.as_dict() if package else None,
        "change_needed": is_change_needed(host, package),
        "hold_change_needed": wanted["hold"] is not None and wanted["hold"] != is_held,
        "has_rsync": bool(module.get_bin_path("rsync")),
        "pending": host.change.as_dict() if host.change else None,
    }


def server_facts(
    module: AnsibleModule, config_path: str, wanted: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    """Return what the servers are to run, and what runs of them."""
    problems += hidden_problems("tfserving_config_path", config_path)
    problems += hidden_problems("tfserving_models_base_path", wanted["models_base_path"])
    flags = installed_flags(PROGRAM)
    host = Host(
        flags=flags or KNOWN_FLAGS,
        cpus=host_numbers(Path("/sys/devices/system/cpu/online")),
        numa_nodes=host_numbers(Path("/sys/devices/system/node/online")),
    )
    made: list[Instance] = []
    try:
        made = instances(wanted["instances"], {**wanted, **wanted["defaults"], "config_path": config_path}, host)
    except InstancesError as error:
        problems.append(str(error))
    there = family(wanted["unit"], config_path)
    units = [one.unit for one in made]
    read: dict[str, list[str]] = dict.fromkeys(there, [])  # those that are not listed any more run as well
    read.update({one.unit: [f"{one.config_path}/{file}" for file in one.files] for one in made})
    states = unit_states(module, read, PROGRAM, read_last_good(config_path))
    cgroups = {unit: states[unit].cgroup for unit in there}
    problems += foreign_units(units, {unit: states[unit].fragment for unit in units})
    problems += foreign_ports(made, cgroups)
    paths = [f"{one.config_path}/{file}" for one in made for file in START_FILES]
    paths += [str(UNIT_PATH / f"{unit}.service") for unit in units]
    return {
        "instances": as_dicts(made),
        "displaced": displaced(made, cgroups),
        "systemd_version": systemd_version(module),
        "running": [unit for unit, state in states.items() if state.is_active],
        "outdated": {unit: list(state.outdated) for unit, state in states.items() if state.outdated},
        "files": {path: digest for path, digest in ((path, _sha256(path)) for path in paths) if digest},
    }


def _sha256(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError:
        return ""


def model_facts(params: dict[str, Any], problems: list[str]) -> dict[str, Any] | None:
    """Return what there is of models, and the disk space for more; None where nothing may be published there."""
    wanted = params["models"]
    names = [entry["name"] for entry in wanted["catalog"]]
    try:
        facts = look_before_publishing(wanted["base_path"], names, params["group"], params["adopt"])
    except (OSError, SavedModelError) as error:
        problems.append(str(error))
        return None
    try:
        is_prunable = any(plan.has_something for plan in make_plans({**wanted, "config_path": params["config_path"]}))
    except (OSError, TypeError, ValueError):  # as where another run removes a model: prune itself says what is wrong
        is_prunable = True
    return {**facts, "prunable": is_prunable}


def network_facts(module: AnsibleModule, wanted: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the networks that may talk to the servers, none where everybody may, and what enforces that."""
    if wanted["gateway_enabled"] is None and SITE_PATH.exists():
        problems.append(
            "This host has a gateway, and tfserving_gateway_enabled is not set. Set it to true to keep it. false takes "
            "it off; then tfserving_service_allowed_networks says who reaches the servers."
        )
    networks: list[str] = []
    try:
        networks = allowed_networks(wanted["allowed"], private_networks())
    except ValueError as error:
        problems.append(f"tfserving_service_allowed_networks: {error}.")
    enforced_by = "nobody"
    if networks:
        enforced_by = "systemd" if _systemd_enforces(module) else "nftables"
    return {"allowed": networks, "enforced_by": enforced_by, "has_rules": NFTABLES_UNIT.exists()}


def _systemd_enforces(module: AnsibleModule) -> bool:
    """Return whether a unit that may talk to nobody is kept from it. False where no unit can be started."""
    unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--property=IPAddressDeny=any"]
    status, output, _ = module.run_command([*unit, sys.executable, "-I", "-c", PROBE])
    return status == 0 and output.split() == ["refused"]

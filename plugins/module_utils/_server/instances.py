# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The servers that a host is to run: what the entries of tfserving_service_instances come to, or what is wrong."""

from __future__ import annotations

import configparser
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import (
    control_characters,
    printable,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    holders,
    is_in,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import (
    UNIT_PATH,
    quoted,
    quoted_argument,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.flags import (
    KNOWN_FLAGS,
    Setting,
    command_line,
    rest_timeout_seconds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import hides_warnings

# The doc fragments servers and served_models.
SERVERS_ARGUMENTS: dict[str, dict[str, Any]] = {
    "unit": {"type": "str", "required": True},
    "config_path": {"type": "path", "required": True},
}
SERVED_MODELS_ARGUMENTS: dict[str, dict[str, Any]] = {
    "base_path": {"type": "path", "required": True},
    "group": {"type": "str", "required": True},
}

# systemd takes no notice of a section whose name begins with X-.
MARKER_SECTION = "X-Tfserving"
# A running server reads this one again.
MODELS_CONFIG = "models.config"
# All files that a server can read at its start. Those of an instance are in use.
START_FILES = (
    "monitoring.config",
    "batching_parameters.config",
    "ssl.config",
    "session.config",
    "platform.config",
)

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# Without a second slash, which the server takes for a host, and not where the models are.
_METRICS_PATH = re.compile(r"/(?!/)(?!v1(/|$))[A-Za-z0-9._~/-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A CPU's number has four digits at most: the kernel's NR_CPUS is 8192 at most (arch/x86/Kconfig).
_CPUS = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?([ ,]+[0-9]{1,4}(-[0-9]{1,4})?)*")
_MEMORY = re.compile(r"([0-9]+)([KMGT]?)|([0-9]{1,3}(?:\.[0-9]+)?)%|infinity")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.-]*")  # systemd.unit(5), without @ and \, which are for templates
UNIT_NAME_BYTES = 255  # with .service; systemd.unit(5)
# With less than this the server is killed before it serves anything.
LEAST_MEMORY_BYTES = 64 << 20
VARIABLE = "tfserving_service_instances"
# Where an instance runs whose entry does not say so.
ANYWHERE: dict[str, Any] = {"cpus": "", "numa_node": None, "memory_high": "", "memory_max": ""}


class InstancesError(Exception):
    """Instances that cannot be run. The text lists every problem, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__("\n".join(dict.fromkeys(problems)))


@dataclass(frozen=True)
class Instance:
    """One server.

    unit is its name without .service; files are those that it reads at its start; command and environment are words of
    a unit file.
    """

    name: str
    unit: str
    config_path: str
    port: int
    rest_api_port: int
    models: list[str]
    files: list[str]
    command: list[str]
    environment: list[str]
    cpus: str
    numa_node: int | None
    memory_high: str
    memory_max: str
    rest_api_timeout_seconds: int


@dataclass(frozen=True)
class Host:
    """What a host has: flags is {flag: type} of its server, cpus and numa_nodes are numbers, None where not known."""

    flags: dict[str, str]
    cpus: set[int] | None
    numa_nodes: set[int] | None


def instances_on_any_host(entries: list[dict[str, Any]], role: dict[str, Any]) -> list[Instance]:
    """Return what the entries come to on a host that nobody has looked at. Raises InstancesError.

    role is as for instances. Any flag, CPU and node passes: the host's server may be newer than KNOWN_FLAGS.
    """
    if not entries:
        raise InstancesError(
            [
                f"{VARIABLE} is empty. Leave it out for one server with the role's variables; playbooks/remove.yml "
                "removes all servers from the host."
            ]
        )
    given = {name: value for one in (role, *entries) for name, value in (one.get("flags") or {}).items()}
    flags = {
        name: {bool: "bool", int: "int64", float: "float"}.get(type(value), "string") for name, value in given.items()
    }
    host = Host(flags={**flags, **KNOWN_FLAGS}, cpus=None, numa_nodes=None)
    return instances(entries, role, host)


def cpu_numbers(text: str) -> set[int]:
    """Return the numbers in a list such as 0-3,8: what CPUAffinity= takes and /sys shows.

    Raises ValueError for a range that ends before it begins.
    """
    numbers: set[int] = set()
    for part in re.split(r"[ ,]+", text.strip()):
        if part:
            first, _, last = part.partition("-")
            if int(last or first) < int(first):
                raise ValueError(f"{part} ends before it begins")
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def host_numbers(path: Path) -> set[int]:
    """Return the numbers that a file of /sys lists, none where the kernel has no such file."""
    try:
        return cpu_numbers(path.read_text())
    except OSError:
        return set()


def instances(entries: list[dict[str, Any]], role: dict[str, Any], host: Host) -> list[Instance]:
    """Return what the entries come to. Raises InstancesError.

    role holds the role's variables: unit, config_path, models, settings ({flag: {variable, value, file}}), flags,
    environment, and the ports that an entry without its own takes.
    """
    problems: list[str] = []
    if not _METRICS_PATH.fullmatch(role.get("monitoring_path") or "/metrics"):
        problems.append(
            f"tfserving_service_monitoring_path is {printable(role['monitoring_path'])}; it has to begin with one "
            "slash and not with /v1/, where the models are, and is made of letters, digits, / . _ ~ and -."
        )
    problems += _unit_problems(role["unit"], [str(entry.get("name") or "") for entry in entries])
    made = [_instance(entry, role, host, problems) for entry in entries]
    names = [one.name for one in made]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(
            f"{VARIABLE}: {_called(name)} is listed {names.count(name)} times; give each a name of its own."
        )
    ports: dict[int, str] = {}
    for one in made:
        for port in {one.port, one.rest_api_port}:
            if port in ports:
                problems.append(
                    f"{VARIABLE}: {ports[port]} and {_called(one.name)} both have port {port}; give each a port and a "
                    "rest_api_port of its own."
                )
            ports[port] = _called(one.name)
    if problems:
        raise InstancesError(problems)
    return made


def _unit_problems(unit: str, names: list[str]) -> list[str]:
    """Return what is wrong with the names of the units."""
    if not _UNIT.fullmatch(unit) or unit.endswith(".service"):
        return [
            f"tfserving_service_name is {printable(unit)}; it has to be the name of a unit without .service: letters, "
            "digits, : . _ and -, the first of them a letter or a digit."
        ]
    longest = UNIT_NAME_BYTES - len(f"{unit}-.service")
    return [
        f"{VARIABLE}: {_called(name)}: its name has {len(name)} letters; with {unit} before it, it may have at "
        f"most {longest}."
        for name in names
        if len(name) > longest
    ]


def _called(name: str) -> str:
    return f"instance {printable(name)}" if name else "the instance without a name"


def _instance(entry: dict[str, Any], role: dict[str, Any], host: Host, problems: list[str]) -> Instance:
    """Return what one entry comes to, and add to problems what is wrong with it."""
    name = entry.get("name") or ""
    given = {key: value for key, value in entry.items() if value is not None}
    values = {**ANYWHERE, **role, **given}
    where = f"{VARIABLE}: {_called(name)}"
    if name and not _NAME.fullmatch(name):
        problems.append(f"{where}: a name is made of small letters, digits and hyphens.")
    config_path = directory_of(role["config_path"], name)
    unknown = [model for model in given.get("models", []) if model not in role["models"]]
    if unknown:
        problems.append(f"{where}: tfserving_models_catalog has no {', '.join(unknown)}.")
    problems += _placement(where, values, host)
    for key in ("flags", "environment"):
        problems += control_characters(f"{where}, {key}" if key in given else f"tfserving_service_{key}", values[key])
    problems += [
        f"{where}: {_by(key, given)} is {values[key]}; it has to be from 1024 to 65535, as the server has no right to "
        "lower ones."
        for key in ("port", "rest_api_port")
        if not 1024 <= values[key] <= 65535
    ]
    files = _files(role["settings"])
    settings = _settings(role["settings"], values, given, config_path)
    flags = {**role["flags"], **given.get("flags", {})}
    command, wrong = command_line(
        host.flags,
        settings,
        flags,
        lambda flag: f"{where}, flags" if flag in given.get("flags", {}) else "tfserving_service_flags",
    )
    problems += wrong
    environment = {**role["environment"], **given.get("environment", {})}
    if hides_warnings({key: _text(value) for key, value in environment.items()}):
        problems.append(
            f"{where}: TF_CPP_MIN_LOG_LEVEL is {environment['TF_CPP_MIN_LOG_LEVEL']}; it has to be 0 or 1, as a server "
            "that takes no change of its models is told by its warnings."
        )
    problems += [
        f"{where}: {key} is no name of an environment variable." for key in environment if not _VARIABLE.fullmatch(key)
    ]
    return Instance(
        name=name,
        unit=unit_of(role["unit"], name),
        config_path=config_path,
        port=values["port"],
        rest_api_port=values["rest_api_port"],
        models=[model for model in role["models"] if model in given.get("models", role["models"])],
        files=[name for name in files if name != MODELS_CONFIG],
        command=[quoted_argument(word) for word in command],
        environment=[quoted(f"{key}={_text(value)}") for key, value in sorted(environment.items())],
        rest_api_timeout_seconds=rest_timeout_seconds(command),
        **{key: values[key] for key in ANYWHERE},
    )


def _by(key: str, given: dict[str, Any]) -> str:
    return key if key in given else f"tfserving_service_{key}"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _files(settings: dict[str, dict[str, Any]]) -> list[str]:
    """Return the files that the flags in use name."""
    return [setting["file"] for setting in settings.values() if setting.get("file") and setting["value"]]


def _settings(
    settings: dict[str, dict[str, Any]], values: dict[str, Any], given: dict[str, Any], config_path: str
) -> dict[str, Setting]:
    """Return the role's flags for one instance: its ports, and the files in its own directory that are in use."""
    made = {}
    for flag, setting in settings.items():
        value = None if setting["value"] == "" else setting["value"]
        if setting.get("file"):
            value = f"{config_path}/{setting['file']}" if value else None
        made[flag] = Setting(value, setting["variable"])
    for key in ("port", "rest_api_port"):
        made[key] = Setting(values[key], f"{key} of {VARIABLE}" if key in given else f"tfserving_service_{key}")
    return made


def _placement(where: str, values: dict[str, Any], host: Host) -> list[str]:
    """Return what is wrong with CPUs, NUMA node and memory: systemd would ignore it, or not start the server."""
    problems = []
    if values["cpus"]:
        problems += _cpu_problems(f"{where}: cpus is {printable(values['cpus'])}", values["cpus"], host)
    node = values["numa_node"]
    if node is not None and host.numa_nodes is not None and node not in host.numa_nodes:
        problems.append(f"{where}: numa_node is {node}, and the host has no such node; `lscpu` lists them.")
    problems += [
        f"{where}: {key} is {printable(values[key])}; it has to be a size of at least 64M, such as 24G, or a share of "
        "the host's memory up to 100%, such as 40%."
        for key in ("memory_high", "memory_max")
        if values[key] and not _is_memory(values[key])
    ]
    return problems


def _cpu_problems(what: str, cpus: str, host: Host) -> list[str]:
    try:
        wanted = cpu_numbers(cpus) if _CPUS.fullmatch(cpus) else None
    except ValueError as error:
        return [f"{what}: {error}."]
    if wanted is None:
        return [f"{what}; it has to be a list such as 0-7,16-23."]
    missing = "" if host.cpus is None else ", ".join(map(str, sorted(wanted - host.cpus)[:8]))
    return [f"{what}, and the host has no CPU {missing}; `lscpu` lists them."] if missing else []


def _is_memory(text: str) -> bool:
    """Say whether systemd takes a limit, and a server can live with it."""
    match = _MEMORY.fullmatch(text)
    if not match:
        return False
    size, unit, share = match.groups()
    if size:
        return int(size) * 1024 ** " KMGT".index(unit or " ") >= LEAST_MEMORY_BYTES
    return share is None or 0 < float(share) <= 100


def foreign_ports(made: Iterable[Instance], cgroups: Mapping[str, str]) -> list[str]:
    """Return which ports of instances others listen on, and what to do; cgroups are those of the role's own units."""
    problems = []
    for one in made:
        for key in ("port", "rest_api_port"):
            port = getattr(one, key)
            strangers = [
                str(holder)
                for holder in holders(port)
                if not any(is_in(holder.cgroup, cgroup) for cgroup in cgroups.values())
            ]
            if strangers:
                problems.append(
                    f"{VARIABLE}: {_called(one.name)} cannot have its {key}: {port} is held by "
                    f"{' and by '.join(strangers)}. Stop that, or choose another one (tfserving_service_{key})."
                )
    return problems


def displaced(made: Iterable[Instance], cgroups: Mapping[str, str]) -> list[str]:
    """Return the units of instances that listen on a port which another is to have; cgroups are those of all units."""
    there = list(made)
    return sorted(
        {
            other.unit
            for one in there
            for port in (one.port, one.rest_api_port)
            for holder in holders(port)
            for other in there
            if other is not one and is_in(holder.cgroup, cgroups.get(other.unit, ""))
        }
    )


def marked_units() -> dict[str, dict[str, str]]:
    """Return the units on this host that the role has written: {unit: {"instanceof": unit, "configpath": directory}}.

    A unit bears a mark that says whose it is.
    """
    marks = {path.stem: _mark(path) for path in sorted(UNIT_PATH.glob("*.service"))}
    return {name: mark for name, mark in marks.items() if mark}


def family(unit: str, config_path: str) -> dict[str, str]:
    """Return {unit: its configuration directory} of the servers of one inventory that are on this host.

    They are instances of unit, or have config_path from before tfserving_service_name was changed.
    """
    return {
        name: mark["configpath"]
        for name, mark in marked_units().items()
        if mark["instanceof"] == unit
        or mark["configpath"] == directory_of(config_path, name[len(mark["instanceof"]) + 1 :])
    }


def stale_units(there: Mapping[str, str], wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return unit and config_path of the servers that this host has, and should not have.

    Both are {unit: its configuration directory}, there as family returns it. has_config says whether the directory is
    that server's still; one that has another name now keeps it.
    """
    return [
        {"unit": name, "config_path": directory, "has_config": directory not in wanted.values()}
        for name, directory in there.items()
        if name not in wanted
    ]


def foreign_units(units: Iterable[str], fragments: Mapping[str, str]) -> list[str]:
    """Return which units are somebody else's; fragments is {unit: the file that systemd has it from, empty if none}."""
    ours = marked_units()
    return [
        f"tfserving_service_name: {unit}.service is there already, in {fragments[unit]}, and this role did not write "
        f"it. Choose another name, or remove it (systemctl disable --now {unit}; rm {fragments[unit]})."
        for unit in units
        if fragments.get(unit) and unit not in ours
    ]


def unit_of(unit: str, name: str) -> str:
    """Return the unit of an instance, without .service; unit is that of the one without a name."""
    return f"{unit}-{name}" if name else unit


def directory_of(config_path: str, name: str) -> str:
    """Return where an instance has its configuration; config_path is that of the one without a name."""
    return f"{config_path}/{name}" if name else config_path


def _mark(path: Path) -> dict[str, str]:
    """Return what the role wrote into a unit file about it, empty where the file is not the role's."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        text = path.read_text(encoding="utf-8")
        _, found, section = text.partition(f"[{MARKER_SECTION}]\n")
        parser.read_string(f"[{MARKER_SECTION}]\n{section.split('[', 1)[0]}" if found else "")
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}
    mark = dict(parser[MARKER_SECTION]) if found else {}
    return mark if {"instanceof", "configpath"} <= set(mark) else {}


def as_dicts(made: Iterable[Instance]) -> list[dict[str, Any]]:
    """Return the instances as a module returns them."""
    return [asdict(one) for one in made]

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line of tensorflow_model_server: its flags, and what is wrong with those that are asked for.

The server is careless here. It ignores a flag that it does not know, exits where a value has the wrong type, and drops
or refuses some combinations, each of which shows after the restart only.
"""

from __future__ import annotations

import difflib
import re
import subprocess
from dataclasses import dataclass
from typing import Any, Callable

# A flag's line in the usage text of TensorFlow's command_line_flags.cc: --name=default, type and text, tabs between.
_USAGE_LINE = re.compile(r"^\s*--(?P<name>[A-Za-z]\w*)=.*?\t\s*(?P<type>int32|int64|bool|string|float)\b", re.MULTILINE)
# Whatever prints fewer is not the server's usage text, but an error.
_FEWEST_FLAGS = 10
USAGE_TIMEOUT_SECONDS = 30

# Of upstream's server, in seconds.
REST_TIMEOUT_SECONDS = 30

_INTEGERS = {"int32": 2**31, "int64": 2**63}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

# What upstream's server has (model_servers/main.cc at commit 9d981c5c), for a host on which it is not installed yet.
KNOWN_FLAGS = {
    name: type_name
    for type_name, names in {
        "bool": """
            rest_api_enable_cors_support enable_batching enable_per_model_batching_parameters
            allow_version_labels_for_unavailable_models flush_filesystem_caches use_alts_credentials enable_model_warmup
            version remove_unused_fields_from_bundle_metagraph prefer_tflite_model enable_signature_method_name_check
            xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler skip_initialize_tpu
            enable_grpc_healthcheck_service enable_serialization_as_tensor_content""",
        "int32": """
            port rest_api_port rest_api_num_threads rest_api_timeout_in_ms model_config_file_poll_wait_seconds
            num_load_threads num_unload_threads max_num_load_retries file_system_poll_wait_seconds grpc_max_threads
            num_request_iterations_for_warmup num_tflite_pools num_tflite_interpreters_per_pool""",
        "int64": """
            load_retry_interval_micros tensorflow_session_parallelism tensorflow_intra_op_parallelism
            tensorflow_inter_op_parallelism""",
        "float": "per_process_gpu_memory_fraction",
        "string": """
            grpc_socket_path batching_parameters_file model_config_file model_name model_base_path
            tensorflow_session_config_file ssl_config_file platform_config_file saved_model_tags grpc_channel_arguments
            monitoring_config_file thread_pool_factory_config_file mixed_precision""",
    }.items()
    for name in names.split()
}

# Flags that no variable stands for, and why they cannot be set.
_REFUSED = {
    "model_name": "the server ignores it beside models.config; name the model in tfserving_models_catalog",
    "model_base_path": "the server ignores it beside models.config; set tfserving_models_base_path",
    "version": "the server prints its version and exits",
}

_BLOCKS = "with fewer, one version that cannot be loaded blocks loading and unloading of all others"
# With less the server starts and does not serve, as was seen.
_LEAST = {
    "file_system_poll_wait_seconds": (1, "the server would not see versions that are published later, or none at all"),
    "num_load_threads": (2, _BLOCKS),
    "num_unload_threads": (2, _BLOCKS),
    "model_config_file_poll_wait_seconds": (0, "the server would not take changes of models"),
    "rest_api_num_threads": (2, "with one thread REST answers nothing"),
}


@dataclass(frozen=True)
class Setting:
    """A flag that the role sets. value is None where it leaves the flag to the server; variable is where it is set."""

    value: Any
    variable: str


def parse_usage(text: str) -> dict[str, str]:
    """Return {flag: type} from the usage text, empty where the text is something else."""
    found = {match["name"]: match["type"] for match in _USAGE_LINE.finditer(text)}
    return found if len(found) >= _FEWEST_FLAGS and "port" in found else {}


def installed_flags(program: str) -> dict[str, str]:
    """Return {flag: type} from what the program itself says to --help.

    Empty where it is not installed or cannot run: that fails, and is rolled back, when it is to serve.
    """
    try:
        done = subprocess.run(  # noqa: S603
            [program, "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=USAGE_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_usage(done.stdout.decode(errors="replace"))


def flag_text(type_name: str, value: Any) -> str:
    """Return a value as the server reads it. Raises ValueError with what the value should be."""
    text = str(value).strip()
    if type_name == "bool":
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError("true or false")
        return "true" if text.lower() in _TRUE else "false"
    if isinstance(value, (bool, dict, list)):
        raise ValueError("text" if type_name == "string" else "a number")  # noqa: TRY004 - one error for all
    if type_name in _INTEGERS:
        limit = _INTEGERS[type_name]
        if not re.fullmatch(r"[+-]?[0-9]+", text) or not -limit <= int(text) < limit:
            raise ValueError(f"an integer of {type_name[3:]} bits")
        return str(int(text))
    if type_name == "float":
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
            raise ValueError("a number")
        return text
    return str(value)


def command_line(
    known: dict[str, str], settings: dict[str, Setting], flags: dict[str, Any], where: Callable[[str], str]
) -> tuple[list[str], list[str]]:
    """Return the server's arguments, and what is wrong with them.

    known is {flag: type}; settings are those that follow from variables, flags all others, each set in where(flag).
    A flag whose value is None is left out, and so is one that switches off what the installed server lacks.
    """
    problems = []
    values = {}
    for name, setting in settings.items():
        if setting.value is None:
            continue
        try:
            if name in known:
                values[name] = flag_text(known[name], setting.value)
            elif not _is_off(name, setting.value):
                problems.append(f"{setting.variable} is set, and the installed server has no flag {name}; unset it.")
        except ValueError as error:
            problems.append(f"{setting.variable} is {setting.value!r}; it has to be {error}.")
    for name, value in flags.items():
        if name in settings:
            problems.append(f"{where(name)}: {name} is set by {settings[name].variable}; set that instead.")
        elif name in _REFUSED:
            problems.append(f"{where(name)}: {name} cannot be set: {_REFUSED[name]}.")
        elif name not in known:
            if name not in KNOWN_FLAGS or not (value is None or _is_off(name, value)):
                hint = _nearest(name, known)
                problems.append(f"{where(name)}: the server has no flag {name}, and would ignore it.{hint}")
        elif value is None:
            if _LEAST.get(name, (0, ""))[1] is _BLOCKS:
                problems.append(f"{where(name)}: {name} is null; it has to be at least 2: {_BLOCKS}.")
        else:
            try:
                values[name] = flag_text(known[name], value)
            except ValueError as error:
                problems.append(f"{where(name)}: {name} is {value!r}; it has to be {error} ({known[name]}).")
    problems += _combinations(values, {name: setting.variable for name, setting in settings.items()}, where)
    return [f"--{name}={values[name]}" for name in sorted(values)], problems


def _is_off(name: str, value: Any) -> bool:
    """Say whether a value switches off what some of upstream's servers have."""
    return KNOWN_FLAGS.get(name) == "bool" and str(value).strip().lower() in _FALSE


def rest_timeout_seconds(arguments: list[str]) -> int:
    """Return how long a server with these arguments takes for a REST request at most, in whole seconds."""
    given = [word.partition("=")[2] for word in arguments if word.startswith("--rest_api_timeout_in_ms=")]
    return -(-int(given[0]) // 1000) if given else REST_TIMEOUT_SECONDS


def _nearest(name: str, known: dict[str, str]) -> str:
    close = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), known, n=1, cutoff=0.6)
    return f" The nearest one is {close[0]}." if close else " `tensorflow_model_server --help` lists them."


def _combinations(values: dict[str, str], variables: dict[str, str], where: Callable[[str], str]) -> list[str]:
    """Return which values the server refuses together, or makes something else of."""

    def has(name: str) -> bool:
        return values.get(name, "") not in ("", "0", "false")

    def by(name: str) -> str:
        return variables.get(name) or f"{name} in {where(name)}"

    problems = [
        f"{by(name)} is {values[name]}; it has to be at least {least}: {why}."
        for name, (least, why) in _LEAST.items()
        if name in values and int(values[name]) < least
    ]
    arguments = values.get("grpc_channel_arguments", "")
    if arguments and not all("=" in one for one in arguments.split(",")):
        problems.append(
            f"{by('grpc_channel_arguments')} is {arguments}; each argument has to be name=value, else the server "
            "crashes."
        )
    if "port" in values and values["port"] == values.get("rest_api_port"):
        problems.append(
            f"{by('port')} and {by('rest_api_port')} are both {values['port']}, and the server would run on without "
            "REST; take two different ports."
        )
    if has("enable_per_model_batching_parameters") and not has("enable_batching"):
        problems.append(
            f"{by('enable_per_model_batching_parameters')} is set without batching; set {by('enable_batching')}, or "
            "unset it."
        )
    pair = [name for name in ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism") if has(name)]
    if has("tensorflow_session_parallelism") and pair:
        problems.append(
            f"{by('tensorflow_session_parallelism')} and {' and '.join(map(by, pair))} exclude each other, and the "
            "server would exit; unset the one or the other."
        )
    if has("use_alts_credentials") and has("ssl_config_file"):
        problems.append(
            f"{by('use_alts_credentials')} and {by('ssl_config_file')} exclude each other, and the server would exit; "
            "unset the one or the other."
        )
    if has("platform_config_file"):
        ignored = [name for name in ("enable_batching", "tensorflow_session_parallelism", *pair) if has(name)]
        if ignored:
            problems.append(
                f"{by('platform_config_file')} makes the server ignore {' and '.join(map(by, ignored))}; unset the one "
                "or the other."
            )
    return problems

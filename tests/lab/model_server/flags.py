"""The command line of tensorflow_model_server: every flag, its type, default and help text.

Source: tensorflow/serving @ 9d981c5c, model_servers/main.cc and server.h; parsing and usage as in
xla/tsl/util/command_line_flags.cc of TensorFlow 2.21.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from . import log

_CPUS = len(os.sched_getaffinity(0))
_EXPERIMENTAL = "EXPERIMENTAL; CAN BE REMOVED ANYTIME! "
_IGNORED_WITH_PLATFORM = "Note that this option is ignored if --platform_config_file is non-empty."
_TFLITE_POOL = (
    _EXPERIMENTAL + "Number of TFLite interpreters in an interpreter pool of TfLiteSession. Typically there is one "
    "TfLiteSession for each TF Lite model that is loaded. If not set, will be "
)
_LOAD_THREADS = (
    "If set as 0, we don't use a thread-pool, and servable loads are performed serially in the manager's main work "
    "loop, may casue the Serving request to be delayed. Default: 0"
)


@dataclass(frozen=True)
class Flag:
    """One flag: type_name is int32, int64, bool, string or float, as the usage text prints it."""

    name: str
    type_name: str
    default: Any
    usage: str


FLAGS = (
    Flag("port", "int32", 8500, "TCP port to listen on for gRPC/HTTP API. Disabled if port set to zero."),
    Flag(
        "grpc_socket_path",
        "string",
        "",
        "If non-empty, listen to a UNIX socket for gRPC API on the given path. Can be either relative or absolute "
        "path.",
    ),
    Flag(
        "rest_api_port",
        "int32",
        0,
        "Port to listen on for HTTP/REST API. If set to zero HTTP/REST API will not be exported. This port must be "
        "different than the one specified in --port.",
    ),
    Flag(
        "rest_api_num_threads",
        "int32",
        4 * _CPUS,
        "Number of threads for HTTP/REST API processing. If not set, will be auto set based on number of CPUs.",
    ),
    Flag("rest_api_timeout_in_ms", "int32", 30000, "Timeout for HTTP/REST API calls."),
    Flag("rest_api_enable_cors_support", "bool", False, "Enable CORS headers in response"),
    Flag("enable_batching", "bool", False, "enable batching"),
    Flag(
        "allow_version_labels_for_unavailable_models",
        "bool",
        False,
        "If true, allows assigning unused version labels to models that are not available yet.",
    ),
    Flag(
        "batching_parameters_file",
        "string",
        "",
        "If non-empty, read an ascii BatchingParameters protobuf from the supplied file name and use the contained "
        "values instead of the defaults.",
    ),
    Flag(
        "enable_per_model_batching_parameters",
        "bool",
        False,
        "Enables model specific batching params like batch sizes, timeouts, batching feature flags to be read from "
        "`batching_params.pbtxt` file present in SavedModel dir of the model. Associated params in the global config "
        "from --batching_parameters_file are *ignored*. Only threadpool (name and size) related params are used from "
        "the global config, as this threadpool is shared across all the models that want to batch requests. This "
        "option is only applicable when --enable_batching flag is set.",
    ),
    Flag(
        "model_config_file",
        "string",
        "",
        "If non-empty, read an ascii ModelServerConfig protobuf from the supplied file name, and serve the models in "
        "that file. This config file can be used to specify multiple models to serve and other advanced parameters "
        "including non-default version policy. (If used, --model_name, --model_base_path are ignored.)",
    ),
    Flag(
        "model_config_file_poll_wait_seconds",
        "int32",
        0,
        "Interval in seconds between each poll of the filesystemfor model_config_file. If unset or set to zero, poll "
        "will be done exactly once and not periodically. Setting this to negative is reserved for testing purposes "
        "only.",
    ),
    Flag("model_name", "string", "default", "name of model (ignored if --model_config_file flag is set)"),
    Flag(
        "model_base_path",
        "string",
        "",
        "path to export (ignored if --model_config_file flag is set, otherwise required)",
    ),
    Flag(
        "num_load_threads",
        "int32",
        0,
        "The number of threads in the thread-pool used to load servables. " + _LOAD_THREADS,
    ),
    Flag(
        "num_unload_threads",
        "int32",
        0,
        "The number of threads in the thread-pool used to unload servables. " + _LOAD_THREADS,
    ),
    Flag(
        "max_num_load_retries",
        "int32",
        5,
        "maximum number of times it retries loading a model after the first failure, before giving up. If set to 0, "
        "a load is attempted only once. Default: 5",
    ),
    Flag(
        "load_retry_interval_micros",
        "int64",
        60 * 1000 * 1000,
        "The interval, in microseconds, between each servable load retry. If set negative, it doesn't wait. "
        "Default: 1 minute",
    ),
    Flag(
        "file_system_poll_wait_seconds",
        "int32",
        1,
        "Interval in seconds between each poll of the filesystem for new model version. If set to zero poll will be "
        "exactly done once and not periodically. Setting this to negative value will disable polling entirely causing "
        "ModelServer to indefinitely wait for a new model at startup. Negative values are reserved for testing "
        "purposes only.",
    ),
    Flag(
        "flush_filesystem_caches",
        "bool",
        True,
        "If true (the default), filesystem caches will be flushed after the initial load of all servables, and after "
        "each subsequent individual servable reload (if the number of load threads is 1). This reduces memory "
        "consumption of the model server, at the potential cost of cache misses if model files are accessed after "
        "servables are loaded.",
    ),
    Flag(
        "tensorflow_session_parallelism",
        "int64",
        0,
        "Number of threads to use for running a Tensorflow session. Auto-configured by default."
        + _IGNORED_WITH_PLATFORM,
    ),
    Flag(
        "tensorflow_session_config_file",
        "string",
        "",
        "If non-empty, read an ascii TensorFlow Session ConfigProto protobuf from the supplied file name. Note, parts "
        "of the session config (threads, parallelism etc.) can be overridden if needed, via corresponding command "
        "line flags.",
    ),
    Flag(
        "tensorflow_intra_op_parallelism",
        "int64",
        0,
        "Number of threads to use to parallelize the executionof an individual op. Auto-configured by default."
        + _IGNORED_WITH_PLATFORM,
    ),
    Flag(
        "tensorflow_inter_op_parallelism",
        "int64",
        0,
        "Controls the number of operators that can be executed simultaneously. Auto-configured by default."
        + _IGNORED_WITH_PLATFORM,
    ),
    Flag("use_alts_credentials", "bool", False, "Use Google ALTS credentials"),
    Flag(
        "ssl_config_file",
        "string",
        "",
        "If non-empty, read an ascii SSLConfig protobuf from the supplied file name and set up a secure gRPC channel",
    ),
    Flag(
        "platform_config_file",
        "string",
        "",
        "If non-empty, read an ascii PlatformConfigMap protobuf from the supplied file name, and use that platform "
        "config instead of the Tensorflow platform. (If used, --enable_batching is ignored.)",
    ),
    Flag(
        "per_process_gpu_memory_fraction",
        "float",
        0.0,
        "Fraction that each process occupies of the GPU memory space the value is between 0.0 and 1.0 (with 0.0 as "
        "the default) If 1.0, the server will allocate all the memory when the server starts, If 0.0, Tensorflow will "
        "automatically select a value.",
    ),
    Flag(
        "saved_model_tags",
        "string",
        "serve",
        "Comma-separated set of tags corresponding to the meta graph def to load from SavedModel.",
    ),
    Flag(
        "grpc_channel_arguments",
        "string",
        "",
        "A comma separated list of arguments to be passed to the grpc server. (e.g. grpc.max_connection_age_ms=2000)",
    ),
    Flag("grpc_max_threads", "int32", 4 * _CPUS, "Max grpc server threads to handle grpc messages."),
    Flag(
        "enable_model_warmup",
        "bool",
        True,
        "Enables model warmup, which triggers lazy initializations (such as TF optimizations) at load time, to reduce "
        "first request latency.",
    ),
    Flag(
        "num_request_iterations_for_warmup",
        "int32",
        0,
        "Number of times a request is iterated during warmup replay. This value is used only if > 0.",
    ),
    Flag("version", "bool", False, "Display version"),
    Flag(
        "monitoring_config_file",
        "string",
        "",
        "If non-empty, read an ascii MonitoringConfig protobuf from the supplied file name",
    ),
    Flag(
        "remove_unused_fields_from_bundle_metagraph",
        "bool",
        True,
        "Removes unused fields from MetaGraphDef proto message to save memory.",
    ),
    Flag(
        "prefer_tflite_model",
        "bool",
        False,
        _EXPERIMENTAL + "Prefer TensorFlow Lite model from `model.tflite` file in SavedModel directory, instead of the "
        "TensorFlow model from `saved_model.pb` file. If no TensorFlow Lite model found, fallback to TensorFlow model.",
    ),
    Flag("num_tflite_pools", "int32", _CPUS, _TFLITE_POOL + "auto set based on number of CPUs."),
    Flag("num_tflite_interpreters_per_pool", "int32", 1, _TFLITE_POOL + "1."),
    Flag(
        "enable_signature_method_name_check",
        "bool",
        False,
        "Enable method_name check for SignatureDef. Disable this if serving native TF2 regression/classification "
        "models.",
    ),
    Flag(
        "xla_cpu_compilation_enabled",
        "bool",
        False,
        _EXPERIMENTAL + "Enable XLA:CPU JIT (default is disabled). With XLA:CPU JIT disabled, models utilizing this "
        "feature will return bad Status on first compilation request.",
    ),
    Flag(
        "xla_gpu_compilation_enabled",
        "bool",
        False,
        _EXPERIMENTAL + "Enable both XLA:CPU JIT and XLA:GPU JIT (default is disabled).",
    ),
    Flag("enable_profiler", "bool", True, "Enable profiler service."),
    Flag(
        "thread_pool_factory_config_file",
        "string",
        "",
        "If non-empty, read an ascii ThreadPoolConfig protobuf from the supplied file name.",
    ),
    Flag("mixed_precision", "string", "", "specify mixed_precision mode"),
    Flag("skip_initialize_tpu", "bool", False, "Whether to skip auto initializing TPU."),
    Flag("enable_grpc_healthcheck_service", "bool", False, "Enable the standard gRPC healthcheck service."),
    Flag(
        "enable_serialization_as_tensor_content",
        "bool",
        False,
        "Enable serialization of predict response as tensor content.",
    ),
)


@dataclass
class ParseResult:
    """What a command line came to: ok is False after a value of the wrong type or a leading --help."""

    values: dict[str, Any]
    unknown: list[str] = field(default_factory=list)
    ok: bool = True


_BITS = {"int32": 31, "int64": 63}


def _interpret(flag: Flag, text: str) -> Any:
    """Return the value of text for a flag; raises ValueError for one of the wrong type, or too large for it."""
    if flag.type_name == "string":
        return text
    if flag.type_name == "bool":
        if text.lower() not in ("true", "1", "false", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    if flag.type_name == "float":
        if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
            raise ValueError(text)
        return float(text)
    bound = 1 << _BITS[flag.type_name]
    if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text) or not -bound <= int(text) < bound:
        raise ValueError(text)
    return int(text)


def parse(argv: list[str]) -> ParseResult:
    """Parse a command line without the program's name; logs values of the wrong type, collects unknown arguments."""
    result = ParseResult({flag.name: flag.default for flag in FLAGS})
    known = {f"--{flag.name}": flag for flag in FLAGS}
    for argument in argv:
        name, equals, text = argument.partition("=")
        flag = known.get(name)
        if flag is None or not (equals or flag.type_name == "bool"):
            result.unknown.append(argument)
            continue
        try:
            result.values[flag.name] = _interpret(flag, text) if equals else True
        except ValueError:
            log.error("xla/tsl/util/command_line_flags.cc:61", f"Couldn't interpret value {text} for flag {flag.name}.")
            result.ok = False
    if result.unknown[:1] == ["--help"]:
        result.ok = False
    return result


def usage(program: str) -> str:
    """Return the usage text, as tensorflow::Flags::Usage writes it."""
    lines = [f"usage: {program}\nFlags:\n"]
    for flag in FLAGS:
        if flag.type_name == "bool":
            shown = "true" if flag.default else "false"
        elif flag.type_name == "string":
            shown = f'"{flag.default}"'
        elif flag.type_name == "float":
            shown = f"{flag.default:f}"
        else:
            shown = str(flag.default)
        setting = f"--{flag.name}={shown}"
        lines.append(f"\t{setting:<33}\t{flag.type_name}\t{flag.usage}\n")
    return "".join(lines)

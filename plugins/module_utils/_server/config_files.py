# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The server's configuration files: what each may say, and what the server would refuse in it.

Source: tensorflow/serving @ 9d981c5c, config/*.proto and servables/tensorflow/session_bundle_config.proto, and
TensorFlow's config.proto and rewriter_config.proto as far as they concern a server on CPUs.
"""

from __future__ import annotations

import re
from typing import Any, Callable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.text_format import (
    Field,
    Message,
    TextFormatError,
    parse,
    read_values,
    render,
)


def _scalars(kind: str, *names: str) -> dict[str, Field]:
    return dict.fromkeys(names, Field(kind))


def _map(value: Field) -> Field:
    return Field("map", message=Message("entry", {"key": Field("string"), "value": value}))


def _one(message: Message) -> Field:
    return Field("message", message=message)


def _many(message: Message) -> Field:
    return Field("message", repeated=True, message=message)


# models.config

_POLICY = Message(
    "ServableVersionPolicy",
    {
        "latest": _one(Message("Latest", _scalars("uint32", "num_versions"))),
        "all": _one(Message("All", {})),
        "specific": _one(Message("Specific", {"versions": Field("int64", repeated=True)})),
    },
    (frozenset({"latest", "all", "specific"}),),
)
# Without logging_config, which a server that is built without a request logger refuses with the whole file.
_MODEL = Message(
    "ModelConfig",
    {
        **_scalars("string", "name", "base_path"),
        "model_type": Field("enum", choices=("MODEL_TYPE_UNSPECIFIED", "TENSORFLOW", "OTHER")),
        **_scalars("string", "model_platform"),
        "model_version_policy": _one(_POLICY),
        "version_labels": _map(Field("int64")),
    },
)
MODEL_SERVER_CONFIG = Message(
    "ModelServerConfig", {"model_config_list": _one(Message("ModelConfigList", {"config": _many(_MODEL)}))}
)

# The others

_WRAPPED = Field("int64", wrapped=True)
BATCHING_PARAMETERS = Message(
    "BatchingParameters",
    {
        **dict.fromkeys(("max_batch_size", "batch_timeout_micros", "max_enqueued_batches"), _WRAPPED),
        "num_batch_threads": _WRAPPED,
        "thread_pool_name": Field("string", wrapped=True),
        "allowed_batch_sizes": Field("int64", repeated=True),
        "pad_variable_length_inputs": Field("bool"),
        "enable_large_batch_splitting": Field("bool", wrapped=True),
        "max_execution_batch_size": _WRAPPED,
    },
)
MONITORING_CONFIG = Message(
    "MonitoringConfig",
    {"prometheus_config": _one(Message("PrometheusConfig", {"enable": Field("bool"), "path": Field("string")}))},
)
SSL_CONFIG = Message(
    "SSLConfig", {**_scalars("string", "server_key", "server_cert", "custom_ca"), "client_verify": Field("bool")}
)

_TOGGLE = Field("enum", choices=("DEFAULT", "ON", "OFF", "AGGRESSIVE", "EXPERIMENTAL_MLIR", "EXPERIMENTAL_BOTH"))
_REWRITER = Message(
    "RewriterConfig",
    {
        **dict.fromkeys(
            ("layout_optimizer", "constant_folding", "shape_optimization", "remapping", "common_subgraph_elimination"),
            _TOGGLE,
        ),
        **dict.fromkeys(
            ("arithmetic_optimization", "dependency_optimization", "loop_optimization", "function_optimization"),
            _TOGGLE,
        ),
        **dict.fromkeys(("debug_stripper", "scoped_allocator_optimization", "implementation_selector"), _TOGGLE),
        **dict.fromkeys(("pin_to_host_optimization", "auto_mixed_precision", "use_plugin_optimizers"), _TOGGLE),
        **dict.fromkeys(
            ("auto_mixed_precision_mkl", "auto_mixed_precision_onednn_bfloat16", "auto_mixed_precision_cpu"), _TOGGLE
        ),
        "cpu_layout_conversion": Field("enum", choices=("NO_CONVERSION_ON_CPU", "NCHW_TO_NHWC", "NHWC_TO_NCHW")),
        **_scalars("bool", "disable_model_pruning", "disable_meta_optimizer", "fail_on_optimizer_errors"),
        "meta_optimizer_iterations": Field("enum", choices=("DEFAULT_NUM_ITERS", "ONE", "TWO")),
        "min_graph_nodes": Field("int32"),
        "meta_optimizer_timeout_ms": Field("int64"),
        "optimizers": Field("string", repeated=True),
    },
)
SESSION_CONFIG = Message(
    "ConfigProto",
    {
        "device_count": _map(Field("int32")),
        **_scalars("int32", "intra_op_parallelism_threads", "inter_op_parallelism_threads"),
        "use_per_session_threads": Field("bool"),
        "session_inter_op_thread_pool": _many(
            Message("ThreadPoolOptionProto", {"num_threads": Field("int32"), "global_name": Field("string")})
        ),
        "placement_period": Field("int32"),
        "device_filters": Field("string", repeated=True),
        "gpu_options": _one(
            Message(
                "GPUOptions",
                {
                    "per_process_gpu_memory_fraction": Field("double"),
                    **_scalars("bool", "allow_growth", "force_gpu_compatible"),
                    **_scalars("string", "allocator_type", "visible_device_list"),
                    "deferred_deletion_bytes": Field("int64"),
                    **_scalars("int32", "polling_active_delay_usecs", "polling_inactive_delay_msecs"),
                },
            )
        ),
        **_scalars("bool", "allow_soft_placement", "log_device_placement"),
        "graph_options": _one(
            Message(
                "GraphOptions",
                {
                    "enable_recv_scheduling": Field("bool"),
                    "optimizer_options": _one(
                        Message(
                            "OptimizerOptions",
                            {
                                **_scalars("bool", "do_common_subexpression_elimination", "do_constant_folding"),
                                "max_folded_constant_in_bytes": Field("int64"),
                                **_scalars("bool", "do_function_inlining", "cpu_global_jit"),
                                "opt_level": Field("enum", choices=("L1", "L0")),
                                "global_jit_level": Field("enum", choices=("DEFAULT", "OFF", "ON_1", "ON_2")),
                            },
                        )
                    ),
                    **_scalars("int64", "build_cost_model", "build_cost_model_after"),
                    **_scalars("bool", "infer_shapes", "place_pruned_graph", "enable_bfloat16_sendrecv"),
                    "timeline_step": Field("int32"),
                    "rewrite_options": _one(_REWRITER),
                },
            )
        ),
        "operation_timeout_in_ms": Field("int64"),
        **_scalars("bool", "isolate_session_state", "share_cluster_devices_in_session"),
        "experimental": _one(
            Message(
                "Experimental",
                {
                    "executor_type": Field("string"),
                    **_scalars("bool", "use_numa_affinity", "disable_thread_spinning", "optimize_for_static_graph"),
                    **_scalars("bool", "disable_output_partition_graphs", "enable_mlir_graph_optimization", "use_tfrt"),
                    "xla_fusion_autotuner_thresh": Field("int64"),
                },
            )
        ),
    },
)
_SESSION_BUNDLE = Message(
    "SessionBundleConfig",
    {
        "session_target": Field("string"),
        "session_config": _one(SESSION_CONFIG),
        "batching_parameters": _one(BATCHING_PARAMETERS),
        "saved_model_tags": Field("string", repeated=True),
        "enable_model_warmup": Field("bool"),
    },
)
_SOURCE_ADAPTER = Message(
    "tensorflow.serving.SavedModelBundleSourceAdapterConfig", {"legacy_config": _one(_SESSION_BUNDLE)}
)
PLATFORM_CONFIG = Message(
    "PlatformConfigMap",
    {
        "platform_configs": _map(
            _one(Message("PlatformConfig", {"source_adapter_config": Field("any", types=(_SOURCE_ADAPTER,))}))
        )
    },
)


class ServerConfigError(Exception):
    """Values that the server would refuse. The text lists every problem found, one a line."""

    def __init__(self, what: str, problems: list[str]) -> None:
        super().__init__("\n".join([f"{what} cannot be written:", *(f"- {text}" for text in problems)]))
        self.problems = problems


def batching_problems(values: dict[str, Any]) -> list[str]:
    """Return what ends the server's start or fails the load of every model (tensorflow/bundle_factory_util.cc)."""
    problems = [
        f"{name} is {values[name]}, and has to be at least 1"
        for name in ("num_batch_threads", "max_batch_size", "max_enqueued_batches", "max_execution_batch_size")
        if values.get(name, 1) < 1
    ]
    if values.get("batch_timeout_micros", 0) < 0:
        problems.append(f"batch_timeout_micros is {values['batch_timeout_micros']}, and has to be at least 0")
    limit = values.get("max_batch_size", 1000)
    if values.get("enable_large_batch_splitting"):
        execution_limit = values.get("max_execution_batch_size", values.get("max_batch_size"))
        if execution_limit is None:
            problems.append("enable_large_batch_splitting needs max_batch_size, else the server refuses every request")
        elif execution_limit > limit:
            problems.append(
                f"max_execution_batch_size is {execution_limit}, and has to be at most max_batch_size, which is {limit}"
            )
    sizes = values.get("allowed_batch_sizes") or []
    if sizes != sorted(set(sizes)):
        problems.append(f"allowed_batch_sizes is {sizes}, and has to go up from one to the next")
    if sizes and sizes[-1] != limit:
        problems.append(
            f"the last of allowed_batch_sizes is {sizes[-1]}, and has to be max_batch_size, which is {limit}"
        )
    return problems


def _monitoring_problems(values: dict[str, Any]) -> list[str]:
    path = values.get("prometheus_config", {}).get("path", "/")
    return [] if path.startswith("/") else [f"prometheus_config.path is {path!r}, and has to begin with /"]


def _ssl_problems(values: dict[str, Any]) -> list[str]:
    """Return what is wrong, without any of the texts, which are secret."""
    problems = [f"{name} is missing" for name in ("server_key", "server_cert") if not values.get(name)]
    for name, kind in (("server_key", "PRIVATE KEY"), ("server_cert", "CERTIFICATE"), ("custom_ca", "CERTIFICATE")):
        text = values.get(name)
        if text and not re.search(rf"-----BEGIN [A-Z ]*{kind}-----\n.+\n-----END [A-Z ]*{kind}-----", text, re.DOTALL):
            problems.append(f"{name} has to be the text of a PEM file with a {kind}, not its path")
    if values.get("client_verify") and not values.get("custom_ca"):
        problems.append("client_verify needs custom_ca, the certificates that clients are checked against")
    return problems


def _session_problems(values: dict[str, Any]) -> list[str]:
    return [
        f"{name} is {values[name]}, and has to be at least 0, which lets TensorFlow choose"
        for name in ("intra_op_parallelism_threads", "inter_op_parallelism_threads")
        if values.get(name, 0) < 0
    ]


def _platform_problems(values: dict[str, Any]) -> list[str]:
    if "tensorflow" in values.get("platform_configs", {}):
        return []
    return ["platform_configs has no key tensorflow, the platform of every model, so that none would load"]


# By the name of the file: what it may say, and what the server checks beyond that.
FILES: dict[str, tuple[Message, Callable[[dict[str, Any]], list[str]]]] = {
    "batching_parameters.config": (BATCHING_PARAMETERS, batching_problems),
    "monitoring.config": (MONITORING_CONFIG, _monitoring_problems),
    "ssl.config": (SSL_CONFIG, _ssl_problems),
    "session.config": (SESSION_CONFIG, _session_problems),
    "platform.config": (PLATFORM_CONFIG, _platform_problems),
}


def render_file(name: str, values: Any) -> str:
    """Return the text of a file of FILES with the values that a user gives. Raises ServerConfigError."""
    message, check = FILES[name]
    read, problems = read_values(values, message)
    problems = problems or check(read)
    if problems:
        raise ServerConfigError(name, problems)
    return render(read, message)


def parse_models_config(text: str | bytes) -> dict[str, dict[str, Any]]:
    """Return the models of a models.config by their names, each as a ModelConfig.

    Raises TextFormatError for what the server would refuse (model_servers/server_core.cc).
    """
    models: dict[str, dict[str, Any]] = {}
    config = parse(text, MODEL_SERVER_CONFIG)
    if "model_config_list" not in config:
        raise TextFormatError("it has no model_config_list")
    for model in config["model_config_list"].get("config", []):
        name = model.get("name", "")
        if name in models:
            raise TextFormatError(f"model {name} is listed more than once")
        if not model.get("model_platform"):
            raise TextFormatError(f"model {name} has no model_platform")
        if not re.match(r"/|[A-Za-z][A-Za-z0-9+.-]*://", model.get("base_path", "")):
            raise TextFormatError(f"model {name} has the base_path {model.get('base_path', '')!r}, which is relative")
        models[name] = model
    return models


def render_models_config(models: list[dict[str, Any]]) -> str:
    """Return models.config for some ModelConfigs."""
    return render({"model_config_list": {"config": models}}, MODEL_SERVER_CONFIG)

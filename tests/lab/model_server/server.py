"""Puts the server together from the flags, in the order in which the real one does it.

Source: tensorflow/serving @ 9d981c5c, model_servers/server.cc.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import grpc
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.platform import tf_logging
from tensorflow_serving.config import model_server_config_pb2, platform_config_pb2

from . import batching, executors, grpc_service, http_server, log, savedmodel, status, text_protos, warmup
from .core import CoreOptions, ServerCore
from .rest_api import RestApi
from .servables import ServableId

_PLACE = "tensorflow_serving/model_servers/server.cc"


@dataclass
class RunningServer:
    """A server that has opened its ports."""

    grpc_server: grpc.Server

    def wait_for_termination(self) -> None:
        """Wait for ever: signals end the process at once, requests under way are cut."""
        self.grpc_server.wait_for_termination()


class _ModelLoader:
    """Loads the SavedModel of a version directory and warms it up."""

    def __init__(self, flags: dict[str, Any], batching_parameters: Any | None) -> None:
        self._tags = set(filter(None, flags["saved_model_tags"].split(",")))
        self._session_config = _session_config(flags)
        self._batching_parameters = batching_parameters
        self._per_model_batching = flags["enable_per_model_batching_parameters"]
        self._warmup_enabled = flags["enable_model_warmup"]
        self._warmup_iterations = max(1, flags["num_request_iterations_for_warmup"])

    def __call__(self, servable_id: ServableId, directory: str) -> savedmodel.Bundle:
        """Return the loaded model; raises StatusError."""
        bundle = savedmodel.load(directory, self._tags, self._session_config)
        try:
            parameters = batching.for_model(directory, self._batching_parameters, self._per_model_batching)
            if parameters is not None:
                bundle.session = batching.BatchingSession(bundle.session, parameters)
            if self._warmup_enabled:
                warmup.run(bundle, directory, self._warmup_iterations)
        except BaseException:
            bundle.close()
            raise
        return bundle


def _session_config(flags: dict[str, Any]) -> Any:
    """Return the ConfigProto of all sessions; raises INVALID_ARGUMENT when both kinds of parallelism are set."""
    config = config_pb2.ConfigProto()
    if flags["tensorflow_session_config_file"]:
        text_protos.read(flags["tensorflow_session_config_file"], config)
    config.gpu_options.per_process_gpu_memory_fraction = flags["per_process_gpu_memory_fraction"]
    session, intra, inter = (flags[f"tensorflow_{kind}_parallelism"] for kind in ("session", "intra_op", "inter_op"))
    if session > 0 and intra > 0 and inter > 0:
        raise status.invalid_argument(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all."
        )
    if intra > 0 or inter > 0:
        config.intra_op_parallelism_threads = intra
        config.inter_op_parallelism_threads = inter
    elif session > 0:
        config.intra_op_parallelism_threads = session
        config.inter_op_parallelism_threads = session
    return config


def _model_server_config(flags: dict[str, Any]) -> Any:
    """Return the first ModelServerConfig, from the file or for the single model of the flags."""
    config = model_server_config_pb2.ModelServerConfig()
    if flags["model_config_file"]:
        return text_protos.read(flags["model_config_file"], config)
    name, base_path = flags["model_name"], flags["model_base_path"]
    log.info(
        f"{_PLACE}:80",
        f"Building single TensorFlow model file config:  model_name: {name} model_base_path: {base_path}",
    )
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return config


def _batching_parameters(flags: dict[str, Any]) -> Any | None:
    """Return the BatchingParameters, None without batching; raises INVALID_ARGUMENT for a file without the flag."""
    path = flags["batching_parameters_file"]
    if not flags["enable_batching"]:
        if path:
            raise status.invalid_argument(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        return None
    parameters = text_protos.new("BatchingParameters")
    if path:
        text_protos.read(path, parameters)
    batching.validate_scheduler(parameters)
    return parameters


def _platforms(flags: dict[str, Any]) -> frozenset[str]:
    """Return the platforms that models may ask for."""
    if not flags["platform_config_file"]:
        return frozenset({"tensorflow"})
    platform_map = text_protos.read(flags["platform_config_file"], platform_config_pb2.PlatformConfigMap())
    return frozenset(platform_map.platform_configs)


def _poll_config(core: ServerCore, path: str) -> None:
    """Read models.config once more and apply it; says what is wrong with it and leaves the old state."""
    try:
        config = text_protos.read(path, model_server_config_pb2.ModelServerConfig())
    except status.StatusError as error:
        log.error(f"{_PLACE}:170", f"Failed to read ModelServerConfig file: {error.message}")
        return
    try:
        core.reload_config(config)
    except status.StatusError as error:
        log.error(f"{_PLACE}:177", f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.message}")


def _check_flags(flags: dict[str, Any]) -> None:
    """Raise INVALID_ARGUMENT for combinations that the real server refuses before it looks at any model."""
    if flags["port"] == 0 and not flags["grpc_socket_path"]:
        raise status.invalid_argument(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
        )
    if not flags["model_base_path"] and not flags["model_config_file"]:
        raise status.invalid_argument(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )


def _start_grpc(core: ServerCore, flags: dict[str, Any]) -> grpc.Server:
    server = grpc_service.start(
        core,
        grpc_service.GrpcOptions(
            port=flags["port"],
            socket_path=flags["grpc_socket_path"],
            max_threads=flags["grpc_max_threads"],
            ssl_config_file=flags["ssl_config_file"],
            enable_healthcheck_service=flags["enable_grpc_healthcheck_service"],
            check_method_name=flags["enable_signature_method_name_check"],
            serialize_as_tensor_content=flags["enable_serialization_as_tensor_content"],
        ),
    )
    if flags["port"]:
        log.info(f"{_PLACE}:430", f"Running gRPC ModelServer at 0.0.0.0:{flags['port']} ...")
    if flags["grpc_socket_path"]:
        log.info(f"{_PLACE}:433", f"Running gRPC ModelServer at UNIX socket {flags['grpc_socket_path']} ...")
    return server


def _start_rest(core: ServerCore, flags: dict[str, Any]) -> None:
    """Serve the REST API if it has a port of its own; raises StatusError for a bad monitoring configuration."""
    port = flags["rest_api_port"]
    if port == 0:
        return
    if port == flags["port"]:
        log.error(
            f"{_PLACE}:456",
            "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API. "
            "Skipped exporting HTTP/REST API.",
        )
        return
    monitoring = text_protos.new("MonitoringConfig")
    if flags["monitoring_config_file"]:
        text_protos.read(flags["monitoring_config_file"], monitoring)
    prometheus = monitoring.prometheus_config
    metrics_path = (prometheus.path or http_server.DEFAULT_METRICS_PATH) if prometheus.enable else ""
    api = RestApi(core, flags["rest_api_timeout_in_ms"], flags["enable_signature_method_name_check"])
    options = http_server.HttpOptions(
        port, flags["rest_api_num_threads"], flags["rest_api_enable_cors_support"], metrics_path
    )
    if http_server.start(api, options):
        log.info(f"{_PLACE}:451", f"Exporting HTTP/REST API at:localhost:{port} ...")
    else:
        log.error(f"{_PLACE}:453", f"Failed to start HTTP Server at localhost:{port}")


def build_and_start(flags: dict[str, Any]) -> RunningServer:
    """Load the models, then open the ports; returns when the server is ready, and waits for models without limit.

    flags are the values of all flags. Raises StatusError with what the real server prints as its reason not to start.
    """
    tf_logging.get_logger().setLevel("ERROR")
    sys.setrecursionlimit(20_000)  # JSON may be nested deeper than Python lets it by default
    _check_flags(flags)
    config = _model_server_config(flags)
    loader = _ModelLoader(flags, _batching_parameters(flags))
    core = ServerCore(
        loader,
        CoreOptions(
            num_load_threads=flags["num_load_threads"],
            num_unload_threads=flags["num_unload_threads"],
            max_num_load_retries=flags["max_num_load_retries"],
            load_retry_interval_micros=flags["load_retry_interval_micros"],
            file_system_poll_wait_seconds=flags["file_system_poll_wait_seconds"],
            allow_version_labels_for_unavailable_models=flags["allow_version_labels_for_unavailable_models"],
            platforms=_platforms(flags),
        ),
    )
    core.reload_config(config)
    if path := flags["thread_pool_factory_config_file"]:
        # No factory is linked into the program, so that no file will do (server.cc:361).
        raise status.invalid_argument(f"Invalid protobuf file: '{path}'")
    poll_wait_seconds = flags["model_config_file_poll_wait_seconds"]
    if poll_wait_seconds > 0 and flags["model_config_file"]:
        executors.run_periodically(
            lambda: _poll_config(core, flags["model_config_file"]),
            poll_wait_seconds,
            "Server_fs_model_config_poll_thread",
        )
    grpc_server = _start_grpc(core, flags)
    _start_rest(core, flags)
    return RunningServer(grpc_server)

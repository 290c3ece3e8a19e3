"""The gRPC services: PredictionService, ModelService and, on demand, the standard health service.

Source: tensorflow/serving @ 9d981c5c, model_servers/prediction_service_impl.cc and model_service_impl.cc.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf import wrappers_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from . import inference, log, metrics, model_info, status, text_protos
from .core import ServerCore

_MAX_MESSAGE_BYTES = 2**31 - 1
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_HEALTH_SERVICES = ("", "PredictionService", "ModelService")  # model_servers/server.cc:420, and gRPC's own


@dataclass(frozen=True)
class GrpcOptions:
    """What the flags say about gRPC: port 0 means no TCP port, socket_path empty no UNIX socket."""

    port: int
    socket_path: str
    max_threads: int
    ssl_config_file: str
    enable_healthcheck_service: bool
    check_method_name: bool
    serialize_as_tensor_content: bool


def _abort(context: grpc.ServicerContext, error: Exception) -> None:
    problem = status.of(error)
    context.abort(_CODES[int(problem.code)], problem.message)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Inference and metadata; a client's deadline limits the time of the session run."""

    def __init__(self, core: ServerCore, options: GrpcOptions) -> None:
        self._core = core
        self._options = options

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the name is the API's
        """Run a signature on tensors."""
        return self._counted("Predict", request.model_spec, context, lambda settings: self._predict(request, settings))

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Run a classification signature on tf.Examples."""
        response = classification_pb2.ClassificationResponse()
        return self._on_examples("Classify", inference.classify, request, response, context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Run a regression signature on tf.Examples."""
        response = regression_pb2.RegressionResponse()
        return self._on_examples("Regress", inference.regress, request, response, context)

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Run classification and regression signatures on the same tf.Examples; not counted in the metrics."""
        spec = request.tasks[0].model_spec if request.tasks else predict_pb2.PredictRequest().model_spec
        try:
            with self._core.handle(spec) as (servable_id, bundle):
                return inference.multi_inference(bundle, servable_id.version, request, self._settings(context))
        except Exception as error:
            return _abort(context, error)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return a model's signatures; not counted in the metrics."""
        try:
            return model_info.model_metadata(self._core, request)
        except Exception as error:
            return _abort(context, error)

    def _settings(self, context: grpc.ServicerContext) -> inference.RunSettings:
        """Return how to run a request: within its deadline."""
        remaining = context.time_remaining()
        timeout_ms = 0 if remaining is None or remaining > 1e6 else max(1, int(remaining * 1000))
        return inference.RunSettings(timeout_ms, self._options.check_method_name)

    def _counted(
        self,
        api: str,
        spec: Any,
        context: grpc.ServicerContext,
        work: Callable[[inference.RunSettings], Any],
    ) -> Any:
        """Do the work of one call, count it, and abort the call with the status of its error."""
        start = time.monotonic()
        try:
            response = work(self._settings(context))
        except Exception as error:
            problem = status.of(error)
            metrics.request_count.add(spec.name, problem.code.name)
            return _abort(context, problem)
        metrics.request_count.add(spec.name, "OK")
        metrics.request_latency.observe((time.monotonic() - start) * 1e6, spec.name, api, "GRPC")
        return response

    def _predict(self, request: Any, settings: inference.RunSettings) -> Any:
        if not request.HasField("model_spec"):
            raise status.invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        with self._core.handle(spec) as (servable_id, bundle):
            inputs = inference.parse_tensors(request.inputs)
            outputs = inference.predict(
                bundle, spec.name, spec.signature_name, inputs, list(request.output_filter), settings
            )
        response = predict_pb2.PredictResponse()
        _fill_model_spec(response.model_spec, spec, servable_id.version)
        for name, array in outputs.items():
            proto = inference.tensor_proto(array, self._options.serialize_as_tensor_content)
            response.outputs[name].CopyFrom(proto)
        return response

    def _on_examples(
        self, api: str, infer: Callable[..., Any], request: Any, response: Any, context: grpc.ServicerContext
    ) -> Any:
        """Fill the response of a call that runs a signature on tf.Examples, inference.classify or .regress."""
        spec = request.model_spec

        def work(settings: inference.RunSettings) -> Any:
            if not request.HasField("model_spec"):
                raise status.invalid_argument("Missing ModelSpec")
            with self._core.handle(spec) as (servable_id, bundle):
                response.result.CopyFrom(infer(bundle, spec.name, spec.signature_name, request.input, settings))
            _fill_model_spec(response.model_spec, spec, servable_id.version)
            return response

        return self._counted(api, spec, context, work)


def _fill_model_spec(answered: Any, asked: Any, version: int) -> None:
    answered.name = asked.name
    answered.version.value = version
    answered.signature_name = asked.signature_name or "serving_default"


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """The states of the models, and reloads of the configuration."""

    def __init__(self, core: ServerCore) -> None:
        self._core = core

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return the state of a model's versions."""
        try:
            return model_info.model_status(self._core, request)
        except Exception as error:
            return _abort(context, error)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Apply a configuration; answers once its new models are available."""
        place = "tensorflow_serving/model_servers/model_service_impl.cc"
        try:
            if request.config.WhichOneof("config") != "model_config_list":
                raise status.invalid_argument(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is "
                    "currently supported"
                )
            for index, model in enumerate(request.config.model_config_list.config):
                log.info(
                    f"{place}:57",
                    f"\nConfig entry\n\tindex : {index}\n\tpath : {model.base_path}\n\tname : {model.name}"
                    f"\n\tplatform : {model.model_platform}",
                )
            self._core.reload_config(request.config)
        except status.StatusError as error:
            log.error(f"{place}:73", f"ReloadConfig failed: {error.message}")
            return _abort(context, error)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response


def _health_handler() -> grpc.GenericRpcHandler:
    """Return a handler for grpc.health.v1.Health/Check; Watch is not implemented.

    The empty name and the names of both services, without their package, are SERVING from the start. Its messages are
    one text and one number, as are those of wrappers.proto.
    """

    def check(request: wrappers_pb2.StringValue, context: grpc.ServicerContext) -> wrappers_pb2.Int32Value:
        if request.value not in _HEALTH_SERVICES:
            context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return wrappers_pb2.Int32Value(value=1)  # SERVING

    method = grpc.unary_unary_rpc_method_handler(
        check, wrappers_pb2.StringValue.FromString, wrappers_pb2.Int32Value.SerializeToString
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})


def _credentials(options: GrpcOptions) -> grpc.ServerCredentials | None:
    """Return the credentials that the flags ask for, None for plain text; a file that is none ends the process."""
    if not options.ssl_config_file:
        return None
    try:
        config = text_protos.read(options.ssl_config_file, text_protos.new("SSLConfig"))
    except status.StatusError as error:
        log.fatal("tensorflow_serving/model_servers/server.cc:129", str(error))
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _segmentation_fault() -> NoReturn:
    """End the process where the real server reads memory that is not its own."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    while True:
        os.kill(os.getpid(), signal.SIGSEGV)


def start(core: ServerCore, options: GrpcOptions) -> grpc.Server:
    """Listen on 0.0.0.0, all interfaces, and serve; raises StatusError when that fails.

    The port is shared with any other server of the same user that shares it, and each gets some of the connections.
    """
    credentials = _credentials(options)
    arguments = {
        "grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": _MAX_MESSAGE_BYTES,
        "grpc.so_reuseport": 1,  # as gRPC for C++ has it, whatever the default of the one for Python
    }
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=max(1, options.max_threads)), options=list(arguments.items())
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(core, options), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(core), server)
    if options.enable_healthcheck_service:
        server.add_generic_rpc_handlers((_health_handler(),))
    addresses = [f"0.0.0.0:{options.port}"] if options.port else []
    if options.socket_path:
        addresses.append(f"unix:{options.socket_path}")
    try:
        for address in addresses:
            if credentials is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, credentials)
    except RuntimeError as error:
        if options.enable_healthcheck_service:
            _segmentation_fault()  # the real server asks for the health service of the server that it has not got
        raise status.invalid_argument("Failed to BuildAndStart gRPC server") from error
    server.start()
    return server

"""The gRPC services.

Messages that were not recorded are from tensorflow/serving @ 9d981c5c: servables/tensorflow/predict_impl.cc:40,
predict_util.cc:66 and 93 and get_model_metadata_impl.cc:38, core/basic_manager.cc:139, and
model_servers/server_core.cc:145, 844 and 891.
"""

from __future__ import annotations

import datetime
import ipaddress
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import Publisher
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import text_format
from lab_server import LabServer, model_entry, running
from model_server import grpc_service, metrics
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


@pytest.fixture(scope="module")
def channel(models_server: LabServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{models_server.grpc_port}") as opened:
        yield opened


@pytest.fixture(scope="module")
def prediction(channel: grpc.Channel) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(model: str, **inputs: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def refusal(call: Any, request: Any, timeout: float = 10) -> tuple[grpc.StatusCode, str]:
    """Return the code and the details of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=timeout)
    return caught.value.code(), caught.value.details()


def test_predict_answers_with_tensors_and_the_version_that_answered(prediction: Any) -> None:
    response = prediction.Predict(predict_request("two", p=[[1.0, 2.0]], k=np.array([3], np.int64)), timeout=10)
    assert tf.make_ndarray(response.outputs["s"]).tolist() == [3.0]
    assert list(response.outputs["kk"].int64_val) == [6], "values stand in the field of their type"
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("two", 1, "serving_default")


def test_scalar_has_a_shape_of_no_dimensions(prediction: Any) -> None:
    output = prediction.Predict(predict_request("affine", x=1.0), timeout=10).outputs["y"]
    assert (output.HasField("tensor_shape"), list(output.tensor_shape.dim), list(output.float_val)) == (True, [], [2.5])


def test_predict_gives_the_outputs_asked_for(prediction: Any) -> None:
    request = predict_request("text", t=[b"abc\xff"])
    request.output_filter.append("up_bytes")
    response = prediction.Predict(request, timeout=10)
    assert list(response.outputs) == ["up_bytes"]
    assert list(response.outputs["up_bytes"].string_val) == [b"ABC\xff"]


@pytest.mark.parametrize(
    ("request_text", "code", "details"),
    [
        ("", "INVALID_ARGUMENT", "Missing ModelSpec"),
        ("model_spec {}", "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ('model_spec { name: "nobody" }', "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
        (
            'model_spec { name: "affine" version { value: 9 } }',
            "NOT_FOUND",
            "Servable not found for request: Specific(affine, 9)",
        ),
        (
            'model_spec { name: "affine" version_label: "x" }',
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: x",
        ),
        (
            'model_spec { name: "affine" signature_name: "zzz" }',
            "FAILED_PRECONDITION",
            'Serving signature key "zzz" not found.',
        ),
        (
            'model_spec { name: "affine" }',
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
    ],
)
def test_bad_predict_request_has_the_right_status(prediction: Any, request_text: str, code: str, details: str) -> None:
    request = text_format.Parse(request_text, predict_pb2.PredictRequest())
    assert refusal(prediction.Predict, request) == (grpc.StatusCode[code], details)


def test_input_of_another_name_is_refused(prediction: Any) -> None:
    assert refusal(prediction.Predict, predict_request("affine", nope=[1.0])) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {nope}, or default input alias set: ",
    )


def test_input_of_the_wrong_type_fails_in_the_model(prediction: Any) -> None:
    code, details = refusal(prediction.Predict, predict_request("affine", x=np.array([1], np.int64)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "to be float but int64 is provided" in details


def test_variable_that_was_not_restored_is_a_failed_precondition(prediction: Any) -> None:
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "sequential_saved"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    prediction.GetModelMetadata(metadata, timeout=10).metadata["signature_def"].Unpack(signatures)
    name = next(iter(signatures.signature_def["serving_default"].inputs))
    request = predict_request("sequential_saved", **{name: [[0.0] * 4]})
    code, details = refusal(prediction.Predict, request)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "Could not find variable" in details


def test_deadline_ends_the_call(prediction: Any) -> None:
    request = predict_request("slow", n=np.array([10_000], np.int64))
    code, _details = refusal(prediction.Predict, request, timeout=0.5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def examples_input(request: Any, *values: float) -> Any:
    for value in values:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    return request


def test_classify_and_regress_run_on_examples(prediction: Any) -> None:
    request = examples_input(classification_pb2.ClassificationRequest(), 0.25)
    request.model_spec.name = "examples"
    classes = prediction.Classify(request, timeout=10).result.classifications[0].classes
    assert [(entry.label, entry.score) for entry in classes] == [("low", 0.75), ("high", 0.25)]
    request = examples_input(regression_pb2.RegressionRequest(), 0.25, 2.0)
    request.model_spec.name = "examples"
    request.model_spec.signature_name = "regress"
    regressions = prediction.Regress(request, timeout=10).result.regressions
    assert [entry.value for entry in regressions] == [0.5, 4.0]


def test_multi_inference_feeds_every_input_tensor_and_is_not_counted(prediction: Any, models_server: LabServer) -> None:
    """As in servables/tensorflow/multi_inference.cc:84 and model_servers/prediction_service_impl.cc:131 @ 9d981c5c."""
    request = examples_input(inference_pb2.MultiInferenceRequest(), 0.25)
    for signature, method in (("serving_default", "classify"), ("regress", "regress")):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = "examples"
        task.model_spec.signature_name = signature
    counted = ':tensorflow:serving:request_count{model_name="examples",status="OK"}'
    before = models_server.metrics().get(counted)
    classified, regressed = prediction.MultiInference(request, timeout=10).results
    classes = classified.classification_result.classifications[0].classes
    assert [(entry.label, entry.score) for entry in classes] == [("low", 0.75), ("high", 0.25)]
    assert regressed.regression_result.regressions[0].value == 0.5
    assert (regressed.model_spec.name, regressed.model_spec.version.value) == ("examples", 1)
    assert models_server.metrics().get(counted) == before


def test_exception_of_the_labs_own_is_internal_and_counted(models_server: LabServer) -> None:
    class Context:
        def time_remaining(self) -> None:
            return None

        def abort(self, code: grpc.StatusCode, details: str) -> None:
            raise RuntimeError(code, details)

    service = grpc_service.PredictionService(None, None)
    with pytest.raises(RuntimeError) as caught:
        service.Predict(predict_request("grpc_defect", x=[1.0]), Context())
    assert caught.value.args[0] is grpc.StatusCode.INTERNAL
    assert ':request_count{model_name="grpc_defect",status="INTERNAL"} 1\n' in metrics.page()


def test_metadata_without_a_field_is_refused(prediction: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "affine"
    code, details = refusal(prediction.GetModelMetadata, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "GetModelMetadataRequest must specify at least one metadata_field"


def test_model_status_of_a_loaded_and_of_an_unknown_model(channel: grpc.Channel) -> None:
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "affine"
    listed = stub.GetModelStatus(request, timeout=10).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(entry.version, entry.state, entry.status.error_code) for entry in listed] == [(2, available, 0)]
    request.model_spec.name = "nobody"
    assert refusal(stub.GetModelStatus, request)[0] is grpc.StatusCode.NOT_FOUND


def key_and_certificate() -> tuple[str, str]:
    """Return a new key and its certificate for localhost, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, publisher: Publisher
) -> Iterator[tuple[LabServer, grpc.ChannelCredentials]]:
    """A server with TLS for gRPC, the health service, batching and tensor content, and what a client needs."""
    directory = tmp_path_factory.mktemp("secured")
    key, certificate = key_and_certificate()
    ssl_config = directory / "ssl.config"
    ssl_config.write_text(f"server_key: {key!r} server_cert: {certificate!r}\n", encoding="utf-8")
    publisher.publish("half", "1")
    flags = [
        "--model_name=half",
        f"--model_base_path={publisher.base_path('half')}",
        f"--ssl_config_file={ssl_config}",
        "--enable_grpc_healthcheck_service",
        "--enable_batching",
        "--enable_serialization_as_tensor_content",
    ]
    with running(directory, *flags) as server:
        yield server.wait_until_ready(), grpc.ssl_channel_credentials(certificate.encode())


@pytest.mark.parametrize(
    ("text", "status"), [("server_key:", -signal.SIGABRT), ('server_key: "no key" server_cert: "none"', 255)]
)
def test_ssl_config_file_that_is_none_aborts_and_one_without_a_key_ends_the_start(
    tmp_path: Path, exported: Path, text: str, status: int
) -> None:
    (tmp_path / "ssl.config").write_text(text, encoding="utf-8")
    flags = [f"--model_base_path={exported / 'golden' / 'affine'}", f"--ssl_config_file={tmp_path / 'ssl.config'}"]
    with running(tmp_path, *flags) as server:
        assert server.wait_for_exit() == status
        assert "Successfully loaded servable version {name: default version: 2}" in server.log()


def test_ssl_config_file_encrypts_grpc(secured: tuple[LabServer, grpc.ChannelCredentials]) -> None:
    server, credentials = secured
    request = predict_request("half", x=[1.0, 2.0])
    with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        output = stub.Predict(request, timeout=10).outputs["y"]
    assert tf.make_ndarray(output).tolist() == [1.5, 2.0]
    assert output.tensor_content, "--enable_serialization_as_tensor_content"
    with grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert refusal(stub.Predict, request)[0] is grpc.StatusCode.UNAVAILABLE


def test_health_service_answers_only_with_its_flag(
    secured: tuple[LabServer, grpc.ChannelCredentials], channel: grpc.Channel
) -> None:
    def check(opened: grpc.Channel, service: bytes) -> bytes:
        call = opened.unary_unary("/grpc.health.v1.Health/Check")
        return call(b"\x0a" + bytes([len(service)]) + service if service else b"", timeout=10)

    server, credentials = secured
    with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as opened:
        assert check(opened, b"") == b"\x08\x01", "SERVING"
        assert check(opened, b"PredictionService") == check(opened, b"ModelService") == b"\x08\x01"
        for unknown in (b"tensorflow.serving.PredictionService", b"nobody"):
            with pytest.raises(grpc.RpcError) as caught:
                check(opened, unknown)
            assert (caught.value.code(), caught.value.details()) == (
                grpc.StatusCode.NOT_FOUND,
                "service name unknown",
            )
    with pytest.raises(grpc.RpcError) as caught:
        check(channel, b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reload_request_replaces_the_models(
    secured: tuple[LabServer, grpc.ChannelCredentials], publisher: Publisher
) -> None:
    server, credentials = secured
    publisher.publish("added", "1")
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(
        f"config {{ model_config_list {{ {model_entry('added', publisher.base_path('added'))} }} }}", request
    )
    with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        response = stub.HandleReloadConfigRequest(request, timeout=20)
        assert (response.status.error_code, response.status.error_message) == (0, "")
        assert server.states("added") == {"1": "AVAILABLE"}
        server.wait_for_states("half", {"1": "END"})
        status_request = get_model_status_pb2.GetModelStatusRequest()
        status_request.model_spec.name = "half"
        unloaded = stub.GetModelStatus(status_request, timeout=10).model_version_status
        assert [entry.state for entry in unloaded] == [get_model_status_pb2.ModelVersionStatus.END]
        request.config.model_config_list.config[0].base_path = "relative"
        code, details = refusal(stub.HandleReloadConfigRequest, request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("Expected model added to have an absolute path or URI")

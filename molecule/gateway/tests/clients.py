"""Clients of the gateway: curl and grpcio, as anybody uses them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import model_management_pb2, predict_pb2  # noqa: E402
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest  # noqa: E402
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub  # noqa: E402
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub  # noqa: E402

PORT = 8443
SIGNATURES = {"MLP": "serving_default", "MLP_custom": "call"}


@dataclass(frozen=True)
class Answer:
    """What curl got: the status is 0 where there was no answer, and text then says why."""

    status: int
    headers: str
    text: str

    def json(self) -> dict:
        return json.loads(self.text)


@dataclass
class Gateway:
    """The gateway of a host, known by its certificate. credentials is USER:PASSWORD, certificate and key are files."""

    name: str
    address: str
    trusted: Path
    credentials: str = ""
    certificate: Path | None = None
    key: Path | None = None
    options: list[str] = field(default_factory=list)

    def _curl(self, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["curl", "--silent", "--show-error", "--max-time", "60", "--path-as-is"]
        command += ["--cacert", str(self.trusted), "--resolve", f"{self.name}:{PORT}:{self.address}", *self.options]
        if self.credentials:
            command += ["--user", self.credentials]
        if self.certificate:
            command += ["--cert", str(self.certificate), "--key", str(self.key)]
        return subprocess.run(
            [*command, *arguments, f"https://{self.name}:{PORT}{path}"], capture_output=True, text=True, check=False
        )

    def codes(self, paths: str, *arguments: str) -> list[str]:
        """Ask one path after the other over one connection, and return the statuses: /x[1-3] are three paths."""
        return self._curl(paths, "--output", "/dev/null", "--write-out", "%{http_code}\n", *arguments).stdout.split()

    def get(self, path: str, *arguments: str) -> Answer:
        done = self._curl(path, "--include", *arguments)
        if done.returncode:
            return Answer(0, "", done.stderr)
        head, _, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
        while head.startswith("HTTP/1.1 100") or head.startswith("HTTP/2 100"):
            head, _, text = text.partition("\n\n")
        return Answer(int(head.split()[1]), head.lower(), text)

    def post(self, path: str, body: dict | str, *arguments: str) -> Answer:
        """Send JSON, from a file of the caller's or as it is."""
        text = body if isinstance(body, str) else json.dumps(body)
        return self.get(path, "--data-binary", text, *arguments)

    def channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.trusted.read_bytes(),
            self.key.read_bytes() if self.key else None,
            self.certificate.read_bytes() if self.certificate else None,
        )
        options = [("grpc.ssl_target_name_override", self.name)]
        return grpc.secure_channel(f"{self.address}:{PORT}", credentials, options)

    def metadata(self, *more: tuple[str, str]) -> list[tuple[str, str]]:
        word = base64.b64encode(self.credentials.encode()).decode()
        return [*([("authorization", f"Basic {word}")] if self.credentials else []), *more]

    def predict(self, model: str, digits: list[dict], *more: tuple[str, str]) -> list[int]:
        """Return the digits that a model sees, asked over gRPC."""
        with self.channel() as channel:
            answer = PredictionServiceStub(channel).Predict(
                predict_request(model, digits), metadata=self.metadata(*more), timeout=30
            )
        return np.argmax(tf.make_ndarray(next(iter(answer.outputs.values()))), axis=1).tolist()

    def grpc_code(self, method: str) -> grpc.StatusCode:
        """Return how a call ends: Predict, GetModelStatus or HandleReloadConfigRequest."""
        status = GetModelStatusRequest()
        status.model_spec.name = "MLP"
        with self.channel() as channel:
            calls = {
                "Predict": (PredictionServiceStub(channel).Predict, predict_request("MLP", [blank()])),
                "GetModelStatus": (ModelServiceStub(channel).GetModelStatus, status),
                "HandleReloadConfigRequest": (
                    ModelServiceStub(channel).HandleReloadConfigRequest,
                    model_management_pb2.ReloadConfigRequest(),
                ),
            }
            call, request = calls[method]
            try:
                call(request, metadata=self.metadata(), timeout=20)
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK


def blank() -> dict:
    return {"pixels": [[0.0] * 28] * 28}


def predict_request(model: str, digits: list[dict]) -> predict_pb2.PredictRequest:
    shape = (-1, 28, 28, 1) if model == "MLP_custom" else (-1, 28, 28)
    pictures = np.array([digit["pixels"] for digit in digits], dtype=np.float32).reshape(shape)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = SIGNATURES[model]
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(pictures))
    return request


def rest_body(model: str, digits: list[dict]) -> dict:
    pictures = [digit["pixels"] for digit in digits]
    if model == "MLP_custom":
        pictures = [[[[x] for x in row] for row in one] for one in pictures]
    return {"signature_name": SIGNATURES[model], "instances": pictures}

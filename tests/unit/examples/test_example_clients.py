"""The example clients send what the models take and say clearly what went wrong; the servers here are stubs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess]
Load = Callable[[str], ModuleType]

SHAPES = {"serving_default": [-1, 28, 28], "call": [-1, 28, 28, 1]}


class RestStub(ThreadingHTTPServer):
    """Describes both signatures and calls every picture a 3, unless a test sets another answer for a path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RestHandler)
        self.answers: dict[str, tuple[int, str]] = {}
        self.posted: dict[str, Any] = {}


class RestHandler(BaseHTTPRequestHandler):
    server: RestStub

    def do_GET(self) -> None:
        signatures = {
            name: {"inputs": {"images": {"tensor_shape": {"dim": [{"size": str(size)} for size in shape]}}}}
            for name, shape in SHAPES.items()
        }
        self.answer({"metadata": {"signature_def": {"signature_def": signatures}}})

    def do_POST(self) -> None:
        self.server.posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"predictions": [[0.05] * 3 + [0.55] + [0.05] * 6 for _ in self.server.posted["instances"]]})

    def answer(self, usual: dict[str, Any]) -> None:
        status, body = self.server.answers.get(self.path, (200, json.dumps(usual)))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""


@pytest.fixture
def rest_stub() -> Iterator[RestStub]:
    with RestStub() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ask_rest(trained: Path, rest_stub: RestStub, run_script: Run) -> Run:
    def ask(*arguments: object) -> subprocess.CompletedProcess:
        options = ("--digits", trained / "digits.json", "--host", "127.0.0.1", "--port", rest_stub.server_port)
        return run_script("client_rest.py", *options, *arguments)

    return ask


def test_rest_table_shows_label_prediction_and_probability(ask_rest: Run, trained: Path) -> None:
    labels = [digit["label"] for digit in json.loads((trained / "digits.json").read_text())["digits"]]
    result = ask_rest("--count", 40)
    assert result.returncode == 0, result.stderr
    header, *rows, summary = result.stdout.splitlines()
    assert header.split() == ["label", "predicted", "probability"]
    assert [row.split() for row in rows] == [[str(label), "3", "0.5500"] for label in labels]
    assert {len(row) for row in rows} == {len(header)}
    assert summary == "4 of 40 right"


@pytest.mark.parametrize(("signature", "shape"), [("serving_default", (2, 28, 28)), ("call", (2, 28, 28, 1))])
def test_rest_sends_pictures_in_the_signatures_shape(
    ask_rest: Run, rest_stub: RestStub, signature: str, shape: tuple[int, ...]
) -> None:
    result = ask_rest("--model", "any", "--signature", signature, "--count", 2)
    assert result.returncode == 0, result.stderr
    assert rest_stub.posted["signature_name"] == signature
    assert np.array(rest_stub.posted["instances"]).shape == shape


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("/metadata", (404, '{"error": "Servable not found"}'), "metadata answered 404: Servable not found"),
        (":predict", (400, '{"error": "Could not find variable"}'), "predict answered 400: Could not find variable"),
        (":predict", (502, "<html>Bad Gateway</html>"), "predict answered 502, and not in JSON: '<html>Bad Gateway"),
    ],
)
def test_rest_error_of_the_server_is_shown(
    ask_rest: Run, rest_stub: RestStub, path: str, answer: tuple[int, str], message: str
) -> None:
    rest_stub.answers[f"/v1/models/MLP{path}"] = answer
    result = ask_rest()
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", 1], "http://127.0.0.1:1/v1/models/MLP/metadata cannot be reached"),
        (["--signature", "cal"], "has no signature 'cal'; it has: call, serving_default"),
        (["--digits", "absent.json"], "absent.json is missing: run train.py first"),
    ],
)
def test_rest_mistake_of_the_user_is_explained(ask_rest: Run, arguments: list[object], message: str) -> None:
    result = ask_rest(*arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def ask_grpc(trained: Path, load_example: Load, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Run the client in this process, which has TensorFlow already, against a stub that knows the model MLP."""
    client = load_example("client_grpc")
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
    from tensorflow_serving.apis.predict_pb2 import PredictResponse
    from tensorflow_serving.apis.prediction_service_pb2_grpc import (
        PredictionServiceServicer,
        add_PredictionServiceServicer_to_server,
    )

    class Stub(PredictionServiceServicer):
        def GetModelMetadata(self, request: Any, context: Any) -> Any:
            if request.model_spec.name != "MLP":
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
            signatures = SignatureDefMap()
            for name, shape in SHAPES.items():
                signature = signatures.signature_def[name]
                for size in shape:
                    signature.inputs["images"].tensor_shape.dim.add(size=size)
                signature.outputs["output_0"].name = "StatefulPartitionedCall:0"
            response = GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(signatures)
            return response

        def Predict(self, request: Any, context: Any) -> Any:
            pictures = tf.make_ndarray(request.inputs["images"])
            if list(pictures.shape[1:]) != SHAPES[request.model_spec.signature_name][1:]:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"shape {pictures.shape}")
            response = PredictResponse()
            rows = np.tile(np.eye(10, dtype=np.float32)[3], (len(pictures), 1))
            response.outputs["output_0"].CopyFrom(tf.make_tensor_proto(rows))
            return response

    server = grpc.server(ThreadPoolExecutor(1))
    add_PredictionServiceServicer_to_server(Stub(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def ask(*arguments: object) -> None:
        options = ("--digits", trained / "digits.json", "--host", "127.0.0.1", "--port", port)
        monkeypatch.setattr(sys, "argv", ["client_grpc.py", *map(str, (*options, *arguments))])
        client.main()

    yield ask
    server.stop(None)


@pytest.mark.parametrize("signature", list(SHAPES))
def test_grpc_table_shows_label_prediction_and_probability(
    ask_grpc: Callable[..., None], capsys: pytest.CaptureFixture[str], signature: str
) -> None:
    ask_grpc("--signature", signature, "--count", 40)
    header, *rows, summary = capsys.readouterr().out.splitlines()
    assert header.split() == ["label", "predicted", "probability"]
    assert len(rows) == 40
    assert {tuple(row.split()[1:]) for row in rows} == {("3", "1.0000")}
    assert summary == "4 of 40 right"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "absent"], "answered NOT_FOUND: Servable not found"),
        (["--port", 1], "127.0.0.1:1 answered UNAVAILABLE: "),
        (["--signature", "cal"], "MLP has no signature 'cal'; it has: call, serving_default"),
    ],
)
def test_grpc_error_is_explained(ask_grpc: Callable[..., None], arguments: list[object], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        ask_grpc(*arguments)

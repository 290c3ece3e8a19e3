"""Predicts over REST and gRPC through a load balancer at a steady rate until it is told to end.

    python traffic.py ADDRESS RATE DIGITS

Half of the requests are REST's. On standard output a line of JSON for each answer that is no prediction, and one each
second with what was counted in it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis.predict_pb2 import PredictRequest  # noqa: E402
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub  # noqa: E402

REST_PORT, GRPC_PORT = 8501, 8500
CLIENTS = 4  # of each kind, each with a connection of its own
TIMEOUT_SECONDS = 30
MODEL, INPUT = "MLP", "images"
SERVER = "x-served-by"


class Counts:
    """What is written, by all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._now: dict[str, Any] = {"REST": 0, "gRPC": 0, "slowest": 0.0}

    def note(self, kind: str, sent: float, failure: str, server: str) -> None:
        now = time.time()
        with self._lock:
            self._now[kind] += 1
            self._now["slowest"] = max(self._now["slowest"], now - sent)
            if failure:
                self._write({"failure": failure, "kind": kind, "server": server, "sent": sent, "answered": now})

    def each_second(self) -> None:
        with self._lock:
            self._write({"at": time.time(), **self._now})
            self._reset()

    @staticmethod
    def _write(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)


class Due:
    """When a client sends its requests: every so many seconds, whether or not the last answer came late."""

    def __init__(self, first: float, period: float, over: threading.Event) -> None:
        self._first, self._period, self._over = first, period, over

    def numbers(self) -> Any:
        number = 0
        while not self._over.wait(max(0.0, self._first + number * self._period - time.monotonic())):
            yield number
            number += 1


def rest_client(address: str, pictures: list[Any], due: Due, counts: Counts) -> None:
    bodies = [json.dumps({"instances": [picture]}) for picture in pictures]
    connection = http.client.HTTPConnection(address, REST_PORT, timeout=TIMEOUT_SECONDS)
    for number in due.numbers():
        sent, server = time.time(), ""
        try:
            connection.request(
                "POST",
                f"/v1/models/{MODEL}:predict",
                bodies[number % len(bodies)],
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            server = answer.getheader(SERVER) or ""
            text = answer.read().decode()
            failure = "" if answer.status == 200 and "predictions" in text else f"{answer.status} {text}"
        except (OSError, http.client.HTTPException) as error:
            failure = f"{type(error).__name__}: {error}"
            connection.close()
        counts.note("REST", sent, failure, server)
    connection.close()


def grpc_client(address: str, pictures: list[Any], due: Due, counts: Counts) -> None:
    bodies = []
    for picture in pictures:
        body = PredictRequest()
        body.model_spec.name = MODEL
        body.inputs[INPUT].CopyFrom(tf.make_tensor_proto(np.array([picture], dtype=np.float32)))
        bodies.append(body)
    with grpc.insecure_channel(f"{address}:{GRPC_PORT}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        service = PredictionServiceStub(channel)
        for number in due.numbers():
            sent, failure = time.time(), ""
            try:
                _, call = service.Predict.with_call(bodies[number % len(bodies)], timeout=TIMEOUT_SECONDS)
                metadata = call.initial_metadata()
            except grpc.RpcError as error:
                failure = f"{error.code().name} {error.details()}"
                metadata = (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))
            counts.note("gRPC", sent, failure, dict(metadata).get(SERVER, ""))


def main() -> None:
    address, rate, digits = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    pictures = [digit["pixels"] for digit in json.loads(digits.read_text())["digits"]]
    over, counts = threading.Event(), Counts()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    clients = [client for _ in range(CLIENTS) for client in (rest_client, grpc_client)]
    began = time.monotonic() + 1
    threads = []
    for place, client in enumerate(clients):
        due = Due(began + place / rate, len(clients) / rate, over)
        # Each begins with another picture.
        mine = pictures[place * len(pictures) // len(clients) :] + pictures[: place * len(pictures) // len(clients)]
        threads.append(threading.Thread(target=client, args=(address, mine, due, counts)))
        threads[-1].start()
    while not over.wait(1):
        counts.each_second()
    for thread in threads:
        thread.join()
    counts.each_second()


if __name__ == "__main__":
    main()

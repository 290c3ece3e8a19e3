"""The Prometheus page counts and measures what happened."""

from __future__ import annotations

import time
from pathlib import Path

from lab_server import LabServer


def test_requests_are_counted_by_model_and_status(models_server: LabServer) -> None:
    before = models_server.metrics()
    for _ in range(3):
        assert models_server.predict("affine", 1.0).status == 200
    assert models_server.predict("sequential_saved", [0.0] * 4).status == 400
    assert models_server.predict("nobody", 1.0).status == 404
    after = models_server.metrics()

    def added(model: str, status: str) -> float:
        name = f':tensorflow:serving:request_count{{model_name="{model}",status="{status}"}}'
        return after.get(name, 0) - before.get(name, 0)

    assert added("affine", "OK") == 3
    assert added("sequential_saved", "FAILED_PRECONDITION") == 1
    assert added("sequential_saved", "OK") == 0
    assert added("nobody", "NOT_FOUND") == 1


def test_latencies_are_measured_in_microseconds(models_server: LabServer) -> None:
    labels = 'model_name="slow",API="predict",entrypoint="REST"'
    runtime_labels = 'model_name="slow",API="Predict",runtime="TF1"'
    before = models_server.metrics()
    start = time.monotonic()
    assert models_server.predict("slow", 100).status == 200
    micros = (time.monotonic() - start) * 1e6
    after = models_server.metrics()

    def added(name: str) -> float:
        return after[name] - before.get(name, 0)

    request = added(f":tensorflow:serving:request_latency_sum{{{labels}}}")
    runtime = added(f":tensorflow:serving:runtime_latency_sum{{{runtime_labels}}}")
    assert 1000 < runtime <= request <= micros + 1000
    assert added(f":tensorflow:serving:request_latency_count{{{labels}}}") == 1
    assert added(f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}}') == 1
    assert added(f':tensorflow:serving:request_latency_bucket{{{labels},le="10"}}') == 0


def test_loads_are_counted_by_path(models_server: LabServer, exported: Path) -> None:
    samples = models_server.metrics()
    path = exported / "words" / "1"
    assert samples[f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{path}",status="success"}}'] == 1
    assert samples[f':tensorflow:cc:saved_model:load_latency{{model_path="{path}"}}'] > 100

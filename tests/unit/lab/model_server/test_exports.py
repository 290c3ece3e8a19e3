"""Which exported models load, and which of them predict: as on the real server, not as in Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_server import LabServer

ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(("kind", "signature"), [("sequential_saved", "serving_default"), ("subclass_saved", "call")])
def test_keras_3_model_saved_by_tf_saved_model_is_available_and_cannot_predict(
    models_server: LabServer, kind: str, signature: str
) -> None:
    assert models_server.states(kind) == {"1": "AVAILABLE"}
    answer = models_server.predict(kind, ROW, signature=signature)
    assert answer.status == 400
    assert "Could not find variable" in answer.json["error"]


@pytest.mark.parametrize(
    ("kind", "signature"),
    [("sequential_exported", "serving_default"), ("subclass_archived", "call"), ("subclass_archived", "")],
)
def test_keras_3_model_exported_by_keras_predicts(models_server: LabServer, kind: str, signature: str) -> None:
    assert models_server.states(kind) == {"1": "AVAILABLE"}
    answer = models_server.predict(kind, ROW, ROW, signature=signature)
    assert answer.status == 200, answer.text
    first, second = answer.json["predictions"]
    assert first == second
    assert isinstance(first[0], float)


def test_model_finds_its_asset_files(models_server: LabServer) -> None:
    assert models_server.predict("words", "two", "nought", "many").json == {"predictions": [2, 0, -1]}


def test_warmup_requests_are_replayed_before_the_model_is_available(models_server: LabServer, exported: Path) -> None:
    path = f"{exported}/warm/1"
    log = models_server.log()
    finished = log.index(f"Finished reading warmup data for model at {path}")
    assert "Number of warmup records read: 1." in log[finished:]
    assert finished < log.index("Successfully loaded servable version {name: warm version: 1}")
    samples = models_server.metrics()
    for metric in ("model_warmup_latency_count", "model_warmup_records_read"):
        assert samples[f':tensorflow:serving:{metric}{{model_path="{path}",status="OK"}}'] == 1

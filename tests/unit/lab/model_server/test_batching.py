"""Batching limits: what is too large or of no batch is refused, and a version without its own parameters has none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from lab_server import LabServer, model_entry, running, write_config
from model_server import batching, text_protos
from model_server.status import StatusError


def parameters(text: str) -> Any:
    return text_format.Parse(text, text_protos.new("BatchingParameters"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Iterator[LabServer]:
    """A server of batches of up to 2 rows, which its models have in parameters of their own, but for `free`."""
    directory = tmp_path_factory.mktemp("batching")
    for model, source in (("affine", "golden/affine"), ("two", "golden/two"), ("free", "golden/affine")):
        shutil.copytree(exported / source / "1", directory / model / "1")
    for model in ("affine", "two"):
        file = directory / model / "1" / "batching_params.pbtxt"
        file.write_text("max_batch_size { value: 2 }", encoding="utf-8")
    write_config(
        directory / "models.config", *(model_entry(name, directory / name) for name in ("affine", "two", "free"))
    )
    (directory / "batching.config").write_text("max_batch_size { value: 1 }", encoding="utf-8")
    flags = [
        f"--model_config_file={directory / 'models.config'}",
        "--enable_batching",
        f"--batching_parameters_file={directory / 'batching.config'}",
        "--enable_per_model_batching_parameters",
    ]
    with running(directory, *flags) as started:
        yield started.wait_until_ready()


def test_more_rows_than_a_batch_takes_are_refused(server: LabServer) -> None:
    assert server.predict("affine", 1.0, 3.0).json == {"predictions": [1.5, 2.5]}
    answer = server.predict("affine", 1.0, 2.0, 3.0)
    message = "Task size 3 is larger than maximum input batch size 2"
    assert (answer.status, answer.json) == (400, {"error": message})


def test_version_without_parameters_of_its_own_is_not_batched(server: LabServer) -> None:
    assert server.predict("free", 1.0, 2.0, 3.0).json == {"predictions": [1.5, 2.0, 2.5]}


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("affine", '{"inputs": 1.0}', "Batching Run() input tensors must have at least one dimension"),
        (
            "two",
            '{"inputs": {"p": [[1, 2]], "k": [3, 6]}}',
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
    ],
)
def test_inputs_that_are_no_batch_are_refused(server: LabServer, model: str, body: str, message: str) -> None:
    """The messages are from batching/batching_util.h:93 and 104 @ 9d981c5c."""
    answer = server.request("POST", f"/v1/models/{model}:predict", body)
    assert (answer.status, answer.json) == (400, {"error": message})


def test_common_parameters_are_those_of_every_model_without_the_flag(tmp_path: Path, exported: Path) -> None:
    (tmp_path / "batching.config").write_text("max_batch_size { value: 2 }", encoding="utf-8")
    flags = ["--enable_batching", f"--batching_parameters_file={tmp_path / 'batching.config'}"]
    with running(tmp_path, f"--model_base_path={exported / 'golden' / 'affine'}", *flags) as server:
        assert server.wait_until_ready().predict("default", 1.0, 2.0, 3.0).status == 400


class Rows:
    """A session that returns its input, or something else, and remembers how many rows came."""

    def __init__(self, *outputs: Any) -> None:
        self._outputs = outputs
        self.rows = 0

    def run(self, feeds: dict[str, np.ndarray], _fetches: Sequence[str] = (), _timeout_ms: int = 0) -> list[np.ndarray]:
        self.rows = len(feeds["x"])
        return [np.asarray(output) for output in self._outputs] or [feeds["x"]]

    def close(self) -> None: ...


def run(session: Rows, text: str, rows: int) -> list[Any]:
    (output,) = batching.BatchingSession(session, parameters(text)).run({"x": np.arange(rows)})
    return output.tolist()


def test_batch_is_filled_up_to_an_allowed_size_and_cut_again() -> None:
    sizes = "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4, 8]"
    for rows, filled in ((1, 2), (2, 2), (3, 4), (8, 8)):
        session = Rows()
        assert run(session, sizes, rows) == list(range(rows))
        assert session.rows == filled


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (1.0, "Batched output tensor has 0 dimensions"),
        ([1.0], "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input"),
    ],
)
def test_output_that_is_no_batch_fails(output: Any, message: str) -> None:
    """The messages are from batching/batching_session.cc:630 and 634 @ 9d981c5c."""
    with pytest.raises(StatusError, match=message) as caught:
        run(Rows(output), "", 2)
    assert caught.value.code.name == "FAILED_PRECONDITION"


def test_split_request_has_to_fit_the_queue() -> None:
    """As in shared_batch_scheduler.h, ValidateBatchTaskQueueCapacity."""
    limits = (
        "enable_large_batch_splitting { value: true } max_batch_size { value: 8 } max_enqueued_batches { value: 2 }"
    )
    limits += " max_execution_batch_size { value: 2 } allowed_batch_sizes: [2, 8]"
    assert run(Rows(), limits, 4) == [0, 1, 2, 3]
    with pytest.raises(StatusError, match="is full; task size is 5 but scheduling capacity is only 4") as caught:
        run(Rows(), limits, 5)
    assert caught.value.code.name == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        ),
        (
            "allowed_batch_sizes: 4 enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }",
            "last entry was 4; expected 1000",
        ),
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        (
            "enable_large_batch_splitting { value: true } max_batch_size { value: 2 } "
            "max_execution_batch_size { value: 4 }",
            "input_batch_size_limit must be greater than or equal to max_execution_batch_size",
        ),
    ],
)
def test_parameters_that_contradict_each_other_fail_the_load(text: str, message: str) -> None:
    """The first message is from servables/tensorflow/bundle_factory_util.cc:121 @ 9d981c5c."""
    with pytest.raises(StatusError, match=message):
        batching.BatchingSession(Rows(), parameters(text))


def test_scheduler_without_threads_ends_the_start() -> None:
    with pytest.raises(StatusError, match="num_batch_threads must be positive; was 0"):
        batching.validate_scheduler(parameters("num_batch_threads { value: 0 }"))

"""What a version that cannot be loaded leaves in the status and in the metrics, and what it does to a start.

Messages were recorded, but for that on tags, which is from TensorFlow's cc/saved_model/reader.cc, FindMetaGraphDef.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Publisher
from lab_server import LabServer, model_entry, running, write_config

NO_RECORDS = b"requests, one on each line, as text"
LOST = "corrupted record at 0 (Is this even a TFRecord file?)"
REFUSAL = f"DATA_LOSS: {LOST}. Please verify your warmup data is in TFRecord format."


def lacking(name: str) -> Callable[[Path], None]:
    """Return what takes a file out of a version directory."""
    return lambda version: (version / name).unlink()


def warming(content: bytes) -> Callable[[Path], None]:
    """Return what gives a version directory a warm-up file."""

    def add(version: Path) -> None:
        extra = version / "assets.extra"
        extra.mkdir(exist_ok=True)
        (extra / "tf_serving_warmup_requests").write_bytes(content)

    return add


def alter_shard(version: Path) -> None:
    """Turn the bits of a version's variables around."""
    shard = version / "variables" / "variables.data-00000-of-00001"
    shard.write_bytes(bytes(byte ^ 255 for byte in shard.read_bytes()))


def garble(version: Path) -> None:
    """Make a version's saved_model.pb something that is no protobuf."""
    (version / "saved_model.pb").write_bytes(b"garbage!!")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Iterator[LabServer]:
    """A server that tries each load once, with a good version 1 of each model of this module."""
    directory = tmp_path_factory.mktemp("failed_loads")
    models = ("bare", "lossy", "altered", "garbled", "failing", "texty", "junky")
    for model in models:
        publisher.publish(model, "1")
    write_config(directory / "models.config", *(model_entry(model, publisher.base_path(model)) for model in models))
    monitoring = directory / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }\n', encoding="utf-8")
    flags = [
        f"--model_config_file={directory / 'models.config'}",
        f"--monitoring_config_file={monitoring}",
        "--max_num_load_retries=0",
        "--num_load_threads=2",
    ]
    with running(directory, *flags) as started:
        yield started.wait_until_ready()


def failed(server: LabServer, model: str) -> tuple[str, str]:
    """Wait until version 2 of a model has failed, and return the code and the message in its status."""
    server.wait_for_states(model, {"2": "END", "1": "AVAILABLE"})
    status = server.request("GET", f"/v1/models/{model}/versions/2").json["model_version_status"][0]["status"]
    return status["error_code"], status["error_message"]


def samples_of(server: LabServer, version: Path) -> list[str]:
    """Return the names and labels of all samples that tell of a version directory, histograms by their count alone."""
    names = (name for name in server.metrics() if f'model_path="{version}"' in name)
    return [name for name in names if not re.search(r"_bucket\{|_sum\{", name)]


def attempts(server: LabServer, version: Path) -> dict[str, float]:
    """Return by status how often a version was loaded."""
    prefix = f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{version}",status="'
    counts = server.metrics().items()
    return {name[len(prefix) : -2]: value for name, value in counts if name.startswith(prefix)}


def test_version_without_saved_model_pb_leaves_no_line_in_any_metric(server: LabServer, publisher: Publisher) -> None:
    version = publisher.publish_spoilt("bare", "2", lacking("saved_model.pb"))
    assert failed(server, "bare")[0] == "NOT_FOUND"
    assert samples_of(server, version) == []


@pytest.mark.parametrize(
    ("model", "spoil", "problem"),
    [
        ("lossy", lacking("variables/variables.data-00000-of-00001"), "NOT_FOUND: .+"),
        ("altered", alter_shard, "DATA_LOSS: .+"),
        ("garbled", garble, "OUT_OF_RANGE: Read less bytes than requested"),
    ],
)
def test_version_whose_files_cannot_be_read_is_counted_as_failed(
    server: LabServer, publisher: Publisher, model: str, spoil: Callable[[Path], None], problem: str
) -> None:
    version = publisher.publish_spoilt(model, "2", spoil)
    assert re.fullmatch(problem, ": ".join(failed(server, model)), re.DOTALL)
    assert attempts(server, version) == {"fail": 1}


def test_version_whose_warmup_request_fails_is_counted_as_loaded_and_leaves_no_warmup_metric(
    server: LabServer, publisher: Publisher, exported: Path
) -> None:
    requests = exported / "badly_warm" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    version = publisher.publish_spoilt("failing", "2", warming(requests.read_bytes()))
    assert failed(server, "failing") == ("FAILED_PRECONDITION", 'Serving signature key "missing" not found.')
    assert attempts(server, version) == {"success": 1}
    assert [name for name in samples_of(server, version) if "warmup" in name] == []


def test_warmup_file_that_is_no_tfrecord_fails_the_load_and_is_measured(
    server: LabServer, publisher: Publisher
) -> None:
    version = publisher.publish_spoilt("texty", "2", warming(NO_RECORDS))
    code, message = failed(server, "texty")
    assert f"{code}: {message}" == REFUSAL
    server.wait_for_log(f"Servable {{name: texty version: 2}} cannot be loaded: DATA_LOSS: {LOST}")
    assert attempts(server, version) == {"success": 1}
    labels = f'{{model_path="{version}",status="DATA_LOSS: {LOST}"}}'
    assert server.metrics()[f":tensorflow:serving:model_warmup_records_read{labels}"] == 0
    assert server.metrics()[f":tensorflow:serving:model_warmup_latency_count{labels}"] == 1


def test_warmup_file_of_two_bytes_of_junk_passes_for_an_empty_one(server: LabServer, publisher: Publisher) -> None:
    version = publisher.publish_spoilt("junky", "2", warming(b"xx"))
    server.wait_for_states("junky", {"2": "AVAILABLE", "1": "END"})
    read = f':tensorflow:serving:model_warmup_records_read{{model_path="{version}",status="OK"}}'
    assert server.metrics()[read] == 0


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (warming(NO_RECORDS), re.escape(REFUSAL)),
        (lacking("saved_model.pb"), "NOT_FOUND: .+"),
        (alter_shard, "DATA_LOSS: .+"),
    ],
    ids=["no TFRecord", "no saved_model.pb", "altered shard"],
)
def test_one_version_that_fails_at_start_takes_the_whole_server_down(
    tmp_path: Path, exported: Path, spoil: Callable[[Path], None], problem: str
) -> None:
    publisher = Publisher(tmp_path, exported / "golden" / "affine")
    publisher.publish("good", "1")
    publisher.publish_spoilt("bad", "1", spoil)
    entries = [model_entry(model, publisher.base_path(model)) for model in ("good", "bad")]
    write_config(tmp_path / "models.config", *entries)
    flags = [f"--model_config_file={tmp_path / 'models.config'}", "--max_num_load_retries=0"]
    with running(tmp_path, *flags) as server:
        assert server.wait_for_exit() == 255
        error = r"UNKNOWN: 1 servable\(s\) did not become available: \{\{\{name: bad version: 1\} due to error: "
        printed = rf"Failed to start server\. Error: {error}{problem}\}}, \}}\n"
        assert re.fullmatch(printed, server.stdout(), re.DOTALL), server.stdout()


def test_tags_that_no_model_has_fail_every_load(tmp_path: Path, publisher: Publisher) -> None:
    publisher.publish("tagged", "1")
    flags = ["--model_name=tagged", f"--model_base_path={publisher.base_path('tagged')}", "--max_num_load_retries=0"]
    with running(tmp_path, *flags, "--saved_model_tags=typo") as server:
        assert server.wait_for_exit() == 255
        assert server.stdout().startswith(
            "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {{{name: tagged version: "
            "1} due to error: NOT_FOUND: Could not find meta graph def matching supplied tags: { typo }. To inspect "
        )

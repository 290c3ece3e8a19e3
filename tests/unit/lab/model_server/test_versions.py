"""Which directories are versions, and which of them are served.

Messages are from sources/storage_path/file_system_storage_path_source.cc:129, 181, 238 and 314 of tensorflow/serving
@ 9d981c5c.
"""

from __future__ import annotations

import concurrent.futures
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Publisher
from lab_server import LabServer, model_entry, running, write_config
from model_server import log, source
from model_server.status import StatusError
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

Policy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher, exported: Path) -> Iterator[LabServer]:
    """A server of four models with the same version directories and different policies, and of two more models."""
    directory = tmp_path_factory.mktemp("versions")
    policies = {
        "by_default": "",
        "two_latest": "latest { num_versions: 2 }",
        "everything": "all {}",
        "chosen": "specific { versions: 1 versions: 9 }",
    }
    for model in policies:
        for name in ("1", "0002", "10", "3.partial", "v4"):
            publisher.publish(model, name)
    publisher.publish("twins", "001", offset=1)
    publisher.publish("twins", "1", offset=2)
    entries = [model_entry(model, publisher.base_path(model), policy) for model, policy in policies.items()]
    entries.append(model_entry("twins", publisher.base_path("twins")))
    shutil.copytree(exported / "slow", publisher.base_path("slow"), dirs_exist_ok=True)
    entries.append(model_entry("slow", publisher.base_path("slow")))
    write_config(directory / "models.config", *entries)
    with running(directory, f"--model_config_file={directory / 'models.config'}") as started:
        yield started.wait_until_ready()


@pytest.mark.parametrize(
    ("model", "versions"),
    [
        ("by_default", ["10"]),
        ("two_latest", ["10", "2"]),
        ("everything", ["10", "2", "1"]),
        ("chosen", ["1"]),
        ("twins", ["1"]),
    ],
)
def test_policy_selects_the_versions(server: LabServer, model: str, versions: list[str]) -> None:
    server.wait_for_states(model, dict.fromkeys(versions, "AVAILABLE"))
    listed = server.request("GET", f"/v1/models/{model}").json["model_version_status"]
    assert [entry["version"] for entry in listed] == versions, "the highest version comes first"


def test_chosen_version_that_is_absent_is_warned_about(server: LabServer) -> None:
    assert "Version 9 of servable chosen, which was requested to be served as a 'specific' version" in server.log()


def test_one_of_two_directories_for_a_version_is_ignored_with_a_warning(server: LabServer) -> None:
    assert (
        "Duplicate version directories detected. Version 1 will be loaded from 1, 001 will be ignored." in server.log()
    )
    assert server.predict("twins", 1.0).json == {"predictions": [2.5]}


def test_base_path_that_loses_its_versions_unloads_the_model(server: LabServer, publisher: Publisher) -> None:
    publisher.remove("twins", "001")
    publisher.remove("twins", "1")
    server.wait_for_states("twins", {"1": "END"})
    assert "No versions of servable twins found under base path" in server.log()
    assert server.predict("twins", 1.0).status == 404


def test_new_version_is_not_available_before_the_requests_in_flight_are_answered(
    server: LabServer, publisher: Publisher, exported: Path
) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        in_flight = pool.submit(server.predict, "slow", 3500)
        staging = publisher.base_path("slow") / ".staging-2"
        shutil.copytree(exported / "slow" / "1", staging)
        staging.rename(publisher.base_path("slow") / "2")
        server.wait_for_log("Successfully loaded servable version {name: slow version: 2}")
        assert not in_flight.done()
        assert server.states("slow") == {"2": "LOADING", "1": "AVAILABLE"}
        assert in_flight.result(30).status == 200
    server.wait_for_states("slow", {"2": "AVAILABLE", "1": "END"})


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("0007", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        (".staging-3", None),
        ("3.partial", None),
        ("v3", None),
        ("", None),
        ("1 2", None),
    ],
)
def test_only_a_name_that_is_a_64_bit_integer_is_a_version(name: str, version: int | None) -> None:
    assert source.parse_version(name) == version


def test_base_path_that_is_a_file_is_a_filesystem_error(tmp_path: Path) -> None:
    path = tmp_path / "half"
    path.touch()
    with pytest.raises(StatusError, match=f"{path}; Not a directory"):
        source.poll_model(source.MonitoredModel("half", str(path), Policy()))


def test_policy_that_lists_no_versions_is_warned_about_in_words_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "_MIN_LEVEL", 0)
    (tmp_path / "1").mkdir()
    policy = Policy()
    policy.specific.SetInParent()
    assert source.poll_model(source.MonitoredModel("a", str(tmp_path), policy)) == []
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("] No specific versions requested for servable a.")

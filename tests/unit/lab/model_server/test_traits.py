"""What hurts on a real server hurts here: one test for each of ten traits that were observed on one, in its words."""

from __future__ import annotations

import concurrent.futures
import http.client
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Publisher
from lab_server import (
    LabServer,
    Traffic,
    is_open,
    model_entry,
    running,
    wait_for,
    write_config,
)

POLLS = 2.2  # seconds in which both the base paths and models.config have been polled twice


class Living:
    """A server with the default flags that polls models.config, in which each test has models of its own."""

    def __init__(self, server: LabServer, config: Path, publisher: Publisher) -> None:
        self.server = server
        self.publisher = publisher
        self._config = config

    def configure(self, *entries: str) -> None:
        """Replace models.config, in which the model `steady` always stays."""
        write_config(self._config, model_entry("steady", self.publisher.base_path("steady")), *entries)

    def entry(self, model: str, policy: str = "", labels: dict[str, int] | None = None) -> str:
        """Return the entry of a model whose base path exists."""
        return model_entry(model, self.publisher.base_path(model), policy, labels)


@pytest.fixture(scope="module")
def living_server(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Iterator[Living]:
    directory = tmp_path_factory.mktemp("living")
    publisher.publish("steady", "1")
    config = directory / "models.config"
    write_config(config, model_entry("steady", publisher.base_path("steady")))
    flags = [
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
    ]
    with running(directory, *flags) as server:
        yield Living(server.wait_until_ready(), config, publisher)


@pytest.fixture
def living(living_server: Living) -> Iterator[Living]:
    """The living server, given back with `steady` alone."""
    yield living_server
    living_server.configure()


def test_1_version_without_variables_becomes_available_pushes_out_the_good_one_and_fails_every_prediction(
    living: Living,
) -> None:
    server, publisher = living.server, living.publisher
    publisher.publish("half", "1")
    living.configure(living.entry("half"))
    server.wait_for_states("half", {"1": "AVAILABLE"})
    copied = publisher.publish_without("half", "2", "variables")
    server.wait_for_states("half", {"2": "AVAILABLE", "1": "END"})
    answer = server.predict("half", 1.0)
    assert answer.status == 400
    assert "Could not find variable" in answer.json["error"]

    complete = publisher.publish("complete", "2", offset=2)
    shutil.copytree(complete / "variables", copied / "variables")
    time.sleep(POLLS)
    assert server.predict("half", 1.0).status == 400, "completing the copy must heal nothing"

    publisher.remove("half", "2")
    server.wait_for_states("half", {"2": "END", "1": "AVAILABLE"})
    assert server.predict("half", 1.0).json == {"predictions": [1.5]}


@pytest.fixture
def pair(tmp_path: Path, exported: Path) -> tuple[Publisher, str]:
    """The models `half` and `other` at version 1, and the flag that serves them."""
    publisher = Publisher(tmp_path, exported / "golden" / "affine")
    for model in ("half", "other"):
        publisher.publish(model, "1")
    config = tmp_path / "models.config"
    write_config(config, *(model_entry(model, publisher.base_path(model)) for model in ("half", "other")))
    return publisher, f"--model_config_file={config}"


def test_2_failing_load_with_default_flags_holds_up_every_other_load_until_six_attempts_are_over(
    tmp_path: Path, pair: tuple[Publisher, str]
) -> None:
    publisher, config_flag = pair
    with running(tmp_path, config_flag, "--load_retry_interval_micros=800000") as server:
        server.wait_until_ready()
        publisher.publish_without("half", "4", "saved_model.pb")
        server.wait_for_states("half", {"4": "LOADING", "1": "AVAILABLE"})
        server.wait_for_log("Loading servable: {name: half version: 4} failed: NOT_FOUND: Specified file path does")
        entry = server.request("GET", "/v1/models/half/versions/4").json["model_version_status"][0]
        assert entry["status"] == {"error_code": "OK", "error_message": ""}, "the error is only in the log"
        publisher.publish("other", "2", offset=2)
        publisher.remove("half", "4")
        time.sleep(POLLS)
        assert server.states("other") == {"1": "AVAILABLE"}, "no other version may be loaded meanwhile"
        assert server.states("half") == {"4": "LOADING", "1": "AVAILABLE"}, "removing the directory must not help"
        server.wait_for_states("other", {"2": "AVAILABLE", "1": "END"})
        assert server.log().count("Loading servable: {name: half version: 4} failed") == 6
        assert server.states("half") == {"4": "END", "1": "AVAILABLE"}


def test_2_failing_load_leaves_other_models_alone_with_two_load_threads(
    tmp_path: Path, pair: tuple[Publisher, str]
) -> None:
    publisher, config_flag = pair
    with running(tmp_path, config_flag, "--num_load_threads=2", "--num_unload_threads=2") as server:
        server.wait_until_ready()
        publisher.publish_without("half", "4", "variables/variables.data-00000-of-00001")
        server.wait_for_log("Loading servable: {name: half version: 4} failed: NOT_FOUND: ")
        publisher.publish("other", "2", offset=2)
        server.wait_for_states("other", {"2": "AVAILABLE", "1": "END"})
        assert server.states("half") == {"4": "LOADING", "1": "AVAILABLE"}
        assert server.predict("half", 1.0).json == {"predictions": [1.5]}


def test_2_failed_load_without_retries_ends_at_once_with_its_error_in_the_status(
    tmp_path: Path, pair: tuple[Publisher, str]
) -> None:
    publisher, config_flag = pair
    with running(tmp_path, config_flag, "--max_num_load_retries=0") as server:
        server.wait_until_ready()
        publisher.publish_without("half", "4", "saved_model.pb")
        server.wait_for_states("half", {"4": "END", "1": "AVAILABLE"})
        entry = server.request("GET", "/v1/models/half/versions/4").json["model_version_status"][0]
        assert entry["status"]["error_code"] == "NOT_FOUND"
        assert entry["status"]["error_message"] == (
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {publisher.base_path('half')}/4"
        )
        publisher.publish("other", "2", offset=2)
        server.wait_for_states("other", {"2": "AVAILABLE", "1": "END"})
        assert server.predict("half", 1.0).json == {"predictions": [1.5]}


def test_3_missing_base_path_stops_hot_loads_and_reloads_of_all_models_until_it_is_made(living: Living) -> None:
    server, publisher = living.server, living.publisher
    publisher.publish("bystander", "1")
    living.configure(living.entry("bystander"))
    server.wait_for_states("bystander", {"1": "AVAILABLE"})

    start = server.mark()
    complaint = (
        "FileSystemStoragePathSource encountered a filesystem access error: Could not find base path "
        f"{publisher.root}/lost for servable lost with error NOT_FOUND: {publisher.root}/lost not found"
    )
    living.configure(living.entry("bystander"), model_entry("lost", publisher.root / "lost"))
    wait_for(lambda: server.log()[start:].count(complaint) >= 2, "an ERROR line a second")
    publisher.publish("bystander", "2", offset=2)
    publisher.publish("blocked", "1")
    living.configure(living.entry("bystander"), living.entry("blocked"))
    time.sleep(POLLS)
    assert server.states("bystander") == {"1": "AVAILABLE"}
    assert server.states("blocked") == {}, "taking the model out again must not help"
    complaints = server.log()[start:].count(complaint)
    wait_for(lambda: server.log()[start:].count(complaint) > complaints, "further ERROR lines")

    publisher.publish("lost", "1")
    server.wait_for_states("bystander", {"2": "AVAILABLE", "1": "END"})
    server.wait_for_states("blocked", {"1": "AVAILABLE"})
    server.wait_for_states("lost", {"1": "END"})


def test_4_new_model_with_an_empty_base_path_blocks_later_reloads_until_it_has_a_version(living: Living) -> None:
    server, publisher = living.server, living.publisher
    publisher.publish("later", "1")
    start = server.mark()
    living.configure(living.entry("empty"))
    server.wait_for_log("No versions of servable empty found under base path", after=start)
    living.configure(living.entry("empty"), living.entry("later"))
    publisher.publish("steady", "2", offset=2)
    server.wait_for_states("steady", {"2": "AVAILABLE", "1": "END"})
    time.sleep(POLLS)
    assert server.states("later") == {}
    publisher.publish("empty", "1")
    server.wait_for_states("empty", {"1": "AVAILABLE"})
    server.wait_for_states("later", {"1": "AVAILABLE"})


def test_5_missing_or_empty_base_path_at_start_opens_no_port_and_waits_for_ever(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing = f"--model_base_path={tmp_path / 'missing'}"
    empty = f"--model_base_path={tmp_path / 'empty'}"
    with running(tmp_path, missing) as without, running(tmp_path, empty) as barren:
        without.wait_for_log("encountered a filesystem access error: Could not find base path", 60)
        barren.wait_for_log("No versions of servable default found under base path", 60)
        start = without.mark()
        without.wait_for_log("encountered a filesystem access error", after=start)
        for server in (without, barren):
            assert server.process.is_alive()
            assert not is_open(server.grpc_port)
            assert not is_open(server.rest_port)


def test_6_label_in_the_first_config_is_fatal_unless_labels_are_allowed_for_unavailable_models(
    tmp_path: Path, publisher: Publisher
) -> None:
    publisher.publish("labelled", "1")
    config = tmp_path / "models.config"
    write_config(config, model_entry("labelled", publisher.base_path("labelled"), labels={"stable": 1}))
    flags = [f"--model_config_file={config}"]
    allowing = "--allow_version_labels_for_unavailable_models=true"
    with running(tmp_path, *flags) as refusing, running(tmp_path, *flags, allowing) as allowed:
        assert refusing.wait_for_exit() == 255
        assert refusing.stdout() == (
            "Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to version 1 of model "
            "labelled, which is not currently available for inference\n"
        )
        allowed.wait_until_ready()
        assert allowed.predict("labelled/labels/stable", 1.0).json == {"predictions": [1.5]}


def test_7_label_moves_in_three_steps_without_a_failed_request_and_in_one_step_not_at_all(living: Living) -> None:
    server, publisher = living.server, living.publisher
    publisher.publish("moving", "1")
    publisher.publish("moving", "2", offset=2)

    def configure(versions: str, label: int) -> int:
        start = server.mark()
        living.configure(living.entry("moving", f"specific {{ {versions} }}", {"stable": label}))
        return start

    configure("versions: 1", 1)
    server.wait_for_states("moving", {"1": "AVAILABLE"})
    with Traffic(server, "moving/labels/stable") as by_label, Traffic(server, "moving") as by_name:
        refusal = (
            "PollFilesystemAndReloadConfig failed to ReloadConfig: Request to assign label to version 2 of model "
            "moving, which is not currently available for inference"
        )
        start = configure("versions: 2", 2)
        server.wait_for_log(refusal, after=start)
        again = server.mark()
        server.wait_for_log(refusal, after=again)
        assert server.states("moving") == {"1": "AVAILABLE"}, "nothing of a refused file may take effect"

        configure("versions: 1 versions: 2", 1)
        server.wait_for_states("moving", {"2": "AVAILABLE", "1": "AVAILABLE"})
        assert server.predict("moving/labels/stable", 1.0).json == {"predictions": [1.5]}
        configure("versions: 1 versions: 2", 2)
        wait_for(
            lambda: server.predict("moving/labels/stable", 1.0).json == {"predictions": [2.5]}, "the label to move"
        )
        configure("versions: 2", 2)
        server.wait_for_states("moving", {"2": "AVAILABLE", "1": "END"})
    assert by_label.values() == [1.5, 2.5]
    assert by_name.values() == [1.5, 2.5]


def test_8_renamed_version_is_served_within_a_poll_and_replaces_the_old_one_without_a_failed_request(
    living: Living,
) -> None:
    server, publisher = living.server, living.publisher
    publisher.publish("hot", "1")
    living.configure(living.entry("hot"))
    server.wait_for_states("hot", {"1": "AVAILABLE"})
    with Traffic(server, "hot") as traffic:
        publisher.publish("hot", "2", offset=2)
        published = time.monotonic()
        wait_for(lambda: server.states("hot").get("2") == "AVAILABLE", "the new version")
        assert time.monotonic() - published < 3.0
        server.wait_for_states("hot", {"2": "AVAILABLE", "1": "END"}, seconds=2.0)
    assert traffic.values() == [1.5, 2.5]


def test_9_sigterm_kills_at_once_and_cuts_requests_in_flight(tmp_path: Path, exported: Path) -> None:
    flags = ["--model_name=slow", f"--model_base_path={exported / 'slow'}"]
    with running(tmp_path, *flags) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        server.wait_until_ready()
        assert server.predict("slow", 1).status == 200
        in_flight = pool.submit(server.predict, "slow", 10_000)
        time.sleep(0.3)
        assert not in_flight.done()
        server.process.terminate()
        killed = time.monotonic()
        assert server.wait_for_exit() == -signal.SIGTERM
        assert time.monotonic() - killed < 1.0
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            in_flight.result(5)


def test_10_unknown_flag_and_rest_on_the_grpc_port_are_complained_of_and_the_server_runs_on(
    tmp_path: Path, exported: Path
) -> None:
    flags = [f"--model_base_path={exported / 'golden' / 'affine'}", "--bogus_flag=1"]
    with running(tmp_path, *flags, one_port=True) as server:
        server.wait_for_log(f"Running gRPC ModelServer at 0.0.0.0:{server.grpc_port} ...", 60)
        server.wait_for_log("Skipped exporting HTTP/REST API.")
        refused = r"^E0000 .* server\.cc:456\] server_options\.http_port cannot be same as grpc_port"
        assert re.search(refused, server.log(), re.MULTILINE)
        assert "Exporting HTTP/REST API" not in server.log()
        assert server.stdout().startswith("unknown argument: --bogus_flag=1\nusage: ")
        assert is_open(server.grpc_port)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            server.request("GET", "/v1/models/default")


def test_10_value_of_the_wrong_type_prints_the_usage_and_exits(tmp_path: Path) -> None:
    with running(tmp_path, "--rest_api_port=abc") as server:
        assert server.wait_for_exit() == 255
        assert "Couldn't interpret value abc for flag rest_api_port." in server.log()
        assert server.stdout().startswith("usage: ")

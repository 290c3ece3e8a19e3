"""What a running server is told while clients predict without a pause: no request fails, but in a restart."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import SERVING, Server
from prediction_stream import Stream

HOST = "debian12"
REQUESTS_PER_SECOND = 60
LEAST_PER_SECOND = 40
RESTART_SECONDS = 30
CONFIG = "/etc/tensorflow-serving/models.config"
DROP_IN = "/etc/systemd/system/tensorflow-model-server.service.d/load.conf"


class Catalog:
    """What the inventory says, changed step by step."""

    def __init__(self, root: Path, trained: Path) -> None:
        self.root = root
        self.trained = trained
        self.models: dict[str, dict] = {}

    def put(self, model: str, version: int, **keys) -> None:
        """Add a version, a copy of one that was trained, and set keys of the entry."""
        path = self.root / model / str(version)
        if not path.exists():
            shutil.copytree(self.trained / "saved" / str(2 - version % 2), path)
            if version > 1:  # the first is on the host already
                (path / "assets" / "mark.txt").write_text(f"{model}/{version}\n")
        self.models[model] = {**self.models.get(model, {}), "name": model, "source": str(self.root / model), **keys}

    def variables(self) -> dict:
        return {"tfserving_models_catalog": list(self.models.values())}


@pytest.fixture(scope="module")
def server(server_on) -> Server:
    return server_on(HOST)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory, second_version) -> Catalog:
    return Catalog(tmp_path_factory.mktemp("source"), second_version)


@pytest.fixture(scope="module")
def tell(play, catalog):
    """Play what the catalogue says."""
    return lambda **more: play(SERVING, f"--limit={HOST}", variables={**catalog.variables(), **more})


@pytest.fixture(scope="module")
def request_body(digits) -> dict:
    return {"instances": [digits[0]["pixels"]]}


@pytest.fixture(scope="module", autouse=True)
def stream(server, catalog, tell, request_body):
    """Half of the requests ask for the label."""
    catalog.put("MLP", 1, model_version_policy={"latest": {"num_versions": 2}}, version_labels={"stable": 1})
    played = tell()
    assert not played.failed, played.text
    stream = Stream(
        server.address, {"MLP": request_body, "MLP/labels/stable": request_body}, REQUESTS_PER_SECOND
    ).start()
    yield stream
    stream.stop()


def available(server: Server, model: str) -> set[int]:
    return {version for version, state in server.versions(model).items() if state == "AVAILABLE"}


def label(server: Server, name: str = "stable") -> int:
    """Return the version that a label of MLP leads to."""
    return int(server.get(f"/v1/models/MLP/labels/{name}/metadata").json()["model_spec"]["version"])


def changes(server: Server, catalog: Catalog, step: str) -> None:
    """Write one change into the catalogue."""
    if step == "new version":
        catalog.put("MLP", 2)
    elif step == "policy":
        catalog.put("MLP", 2, model_version_policy={"specific": {"versions": [1, 2]}})
    elif step == "label moved":
        catalog.put("MLP", 2, version_labels={"stable": 2})
    elif step == "labelled version replaced":
        catalog.put("MLP", 3, model_version_policy={"latest": {"num_versions": 1}}, version_labels={"stable": 3})
    elif step == "model added":
        catalog.put("other", 1)
    elif step == "model removed":
        del catalog.models["other"]


@pytest.mark.parametrize(
    ("step", "versions", "stable"),
    [
        ("new version", {1, 2}, 1),
        ("policy", {1, 2}, 1),
        ("label moved", {1, 2}, 2),
        ("labelled version replaced", {3}, 3),
        ("model added", {3}, 3),
        ("model removed", {3}, 3),
    ],
)
def test_change_is_served_by_the_same_process_and_no_request_fails(
    server, catalog, tell, stream, step, versions, stable
):
    pid, failures = server.main_pid(), len(stream.failures)
    changes(server, catalog, step)
    played = tell()
    assert not played.failed, played.text
    assert (available(server, "MLP"), label(server)) == (versions, stable)
    assert server.get("/v1/models/other").status_code == (200 if step == "model added" else 404) or (
        step == "model removed" and available(server, "other") == set()
    )
    assert server.main_pid() == pid
    assert stream.failures[failures:] == []


def test_samples_are_made_by_the_server_before_the_version_is_available(server, catalog, tell, stream, request_body):
    failures = len(stream.failures)
    catalog.put("warm", 1, sample_requests=[request_body] * 3, warmup=True)
    played = tell(tfserving_models_verify=True)
    assert not played.failed, played.text
    assert tell().changed() == 0
    read = r':tensorflow:serving:model_warmup_records_read{model_path="\S+/warm/1",status="OK"} (\d+)'
    assert re.search(read, server.get("/monitoring/prometheus/metrics").text)[1] == "3"
    catalog.put("warm", 2, sample_requests=[{"instances": [[1.0, 2.0]]}])
    refused = tell()
    assert (refused.failed, refused.changed()) == (True, 0), refused.text
    assert "model warm: sample_requests: request 1" in refused.words
    del catalog.models["warm"]
    assert not tell().failed
    assert stream.failures[failures:] == []


def test_second_run_changes_nothing(tell):
    played = tell()
    assert (played.failed, played.changed()) == (False, 0), played.text


def test_file_that_the_server_would_refuse_is_refused_first(server, catalog, tell, stream):
    failures, before = len(stream.failures), server.host.file(CONFIG).content_string
    catalog.put("MLP", 3, version_labels={"stable": 9})
    played = tell()
    catalog.put("MLP", 3, version_labels={"stable": 3})
    assert (played.failed, played.changed()) == (True, 0), played.text
    assert "stable" in played.words
    assert server.host.file(CONFIG).content_string == before
    assert stream.failures[failures:] == []


def test_file_that_somebody_has_broken_is_mended(server, tell, stream):
    failures, pid, before = len(stream.failures), server.main_pid(), server.host.file(CONFIG).content_string
    server.host.check_output(f"echo 'model_config_list {{ config {{' > {CONFIG}")
    played = tell()
    assert (played.failed, played.changed()) == (False, 1), played.text
    assert server.host.file(CONFIG).content_string == before
    assert server.main_pid() == pid
    assert stream.failures[failures:] == []


def test_version_that_does_not_answer_its_sample_is_not_taken(server, catalog, tell, stream, request_body):
    """The label stays where it was, with the file that was there before."""
    failures, before = len(stream.failures), server.host.file(CONFIG).content_string
    wrong = [{"instances": [[1.0, 2.0]]}]
    catalog.put("MLP", 4, version_labels={"stable": 4}, sample_requests=wrong)
    played = tell()
    assert played.failed
    assert "AVAILABLE, but a sample request" in played.words, played.text
    assert "The previous file was restored" in played.words, played.text
    assert server.host.file(CONFIG).content_string == before
    assert label(server) == 3
    catalog.put("MLP", 4, sample_requests=[request_body])
    played = tell(tfserving_models_retry_withdrawn=True)
    assert not played.failed, played.text
    assert label(server) == 4
    assert stream.failures[failures:] == []


def test_enough_was_asked_and_nothing_failed_so_far(stream):
    assert stream.failures == []
    rate = stream.rate()
    print(f"{stream.answers} answers, {rate:.0f} a second")
    assert rate >= LEAST_PER_SECOND


def test_drop_in_restarts_the_server_once(server, tell, stream):
    """A restart cuts what is in flight. The gap is measured from answer to answer, for the model and for its label."""
    pid, before = server.main_pid(), max(stream.gaps_seconds.values())
    server.host.check_output(f"mkdir -p {Path(DROP_IN).parent} && printf '[Service]\\nNice=1\\n' > {DROP_IN}")
    try:
        played = tell()
        assert not played.failed, played.text
        restarted = server.main_pid()
        assert restarted != pid
        assert tell().changed() == 0
        assert server.main_pid() == restarted
        stream.stop()
        kinds = Counter(" ".join(line.split()[1:])[:100] for line in stream.failures)
        print(f"{len(stream.failures)} failed, {stream.gaps_seconds} s without an answer: {kinds.most_common(5)}")
        assert 0 < before < min(stream.gaps_seconds.values())
        assert max(stream.gaps_seconds.values()) < RESTART_SECONDS
    finally:
        server.host.check_output(f"rm -r {Path(DROP_IN).parent}")

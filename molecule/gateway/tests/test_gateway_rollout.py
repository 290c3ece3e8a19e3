"""A rollout behind the gateway, while clients predict without a pause: a step may be cut, and no request fails."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from clients import PORT, blank, rest_body
from conftest import INVENTORY, PROJECT

HOST = "debian13b"
ROLLOUT = str(PROJECT / "playbooks/rollout.yml")
BASE = yaml.safe_load((PROJECT / "molecule/gateway/vars/gateway.yml").read_text())
((USER, PASSWORD),) = BASE["tfserving_gateway_users"].items()
LOG = "/var/log/tfserving-gateway/access.log"
SERVER = "127.0.0.1:8501"
CANDIDATE = "tfserving-candidate-tensorflow-model-server"
STEP_FILES = "/etc/nginx/conf.d/tfserving-gateway-trial.conf /etc/nginx/tfserving-gateway/trial.conf"
# What is measured is over quickly, and a busy machine is no failure.
SETTINGS = {
    **BASE,
    "tfserving_rollout_traffic": {"mirror": 50, "shares": [50], "seconds": 3},
    "tfserving_rollout_soak": {"seconds": 0, "min_requests": 10, "require_requests": True, "max_latency_ratio": 50},
    "tfserving_rollout_latency": {"requests": 0, "max_p99_ratio": 500},
}


class Clients:
    """Two that ask for a prediction again and again over kept connections, as any client of HTTP does."""

    def __init__(self, address: str, trusted: Path, body: dict) -> None:
        self.address, self.body, self.failures, self.answers = address, json.dumps(body), [], 0
        self._context = ssl.create_default_context(cafile=trusted)
        self._context.check_hostname = False  # the certificate is for the host's name
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self._headers = {"Authorization": f"Basic {word}", "Content-Type": "application/json"}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.address, PORT, timeout=20, context=self._context)

    def _ask(self) -> None:
        connection, is_kept = self._connect(), False
        while not self._over.wait(0.08):
            try:
                connection.request("POST", "/v1/models/MLP:predict", self.body, self._headers)
                answer = connection.getresponse()
                text, is_kept = answer.read().decode(), not answer.will_close
                if answer.status != 200 or "predictions" not in text:
                    self.failures.append(f"{time.time():.3f} {answer.status} {text}")
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # nginx may close a connection on which nobody asks, as it does when it is reloaded.
                if not is_kept:
                    self.failures.append(f"{time.time():.3f} {error!r}")
                connection, is_kept = self._connect(), False
        connection.close()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def host(on):
    return on(HOST)


@pytest.fixture(scope="module")
def clients(host, digits, tmp_path_factory):
    trusted = tmp_path_factory.mktemp("trusted") / "tls.crt"
    trusted.write_text(host.check_output("openssl x509 -in /etc/nginx/tfserving-gateway/tls.pem"))
    running = Clients(host.check_output("hostname -I").split()[0], trusted, rest_body("MLP", digits[:1]))
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def no_request_fails(clients):
    before, answers = len(clients.failures), clients.answers
    yield
    assert clients.failures[before:] == []
    assert clients.answers > answers + 100


def save_refusing(path: Path) -> None:
    """Save a version that computes nothing of a picture with a bright pixel, as every digit has."""

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.float32, name="images")])
    def serve(images):
        tf.debugging.assert_less(tf.reduce_max(images), 0.5)
        return {"probabilities": tf.zeros([tf.shape(images)[0], 10])}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures=serve)


def rollout(source: Path, versions: list[int]) -> dict:
    """Return the variables of a rollout to the last of these versions."""
    mlp = {"name": "MLP", "source": str(source), "versions": versions}
    custom = {"name": "MLP_custom", "source": "{{ examples_directory }}/saved_with_signature"}
    samples = [{"instances": [blank()["pixels"]]}]
    return {**SETTINGS, "tfserving_models_catalog": [{**mlp, "sample_requests": samples}, custom]}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Version 2 is version 1 once more, and version 3 refuses digits."""
    source = tmp_path_factory.mktemp("versions")
    for version in (1, 2):
        shutil.copytree(PROJECT / "examples/mnist/saved/1", source / str(version))
    save_refusing(source / "3")
    return source


def served(host) -> list[str]:
    """Return the versions of MLP that the server itself has."""
    read = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8501/v1/models/MLP').read().decode())"
    states = json.loads(host.check_output(f'python3 -c "{read}"'))["model_version_status"]
    return [one["version"] for one in states if one["state"] == "AVAILABLE"]


@pytest.fixture
def logged(host):
    """Return a function: what the second server has got since the test began, as (whether a copy, status of answer)."""
    begin = int(host.check_output(f"stat --format=%s {LOG}"))

    def read() -> list[tuple[bool, str]]:
        lines = map(json.loads, host.check_output(f"tail --bytes=+{begin + 1} {LOG}").splitlines())
        return [
            (one["mirrored"], one["upstream_status"].split()[0])
            for one in lines
            if one["model"] == "MLP" and one["upstream_addr"] not in ("", SERVER)
        ]

    return read


def test_step_that_is_cut_costs_no_request_and_is_taken_again(host, play, logged, source, tmp_path):
    """Second server and controller are both killed while clients are answered by the new version."""
    variables = rollout(source, [1, 2])
    site = host.check_output("cat /etc/nginx/conf.d/tfserving-gateway.conf")
    file, log = tmp_path / "variables.json", tmp_path / "log"
    long = {**SETTINGS["tfserving_rollout_traffic"], "seconds": 300, "mirror": None}
    file.write_text(json.dumps({**variables, "tfserving_rollout_traffic": long}))
    command = ["ansible-playbook", f"--inventory={INVENTORY}", f"--limit={HOST}", ROLLOUT, f"--extra-vars=@{file}"]
    with log.open("w") as output:
        run = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=os.environ, start_new_session=True
        )
        deadline = time.monotonic() + 200
        while (False, "200") not in logged():
            assert run.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        host.check_output(f"systemctl kill --signal=KILL {CANDIDATE}")
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    time.sleep(2)
    host.check_output(f"ls {STEP_FILES}")
    assert not host.file(f"/run/{CANDIDATE}").exists
    answered = len(logged())
    time.sleep(1)
    assert len(logged()) == answered

    played = play(ROLLOUT, f"--limit={HOST}", variables=variables)
    assert not played.failed, played.text
    for gate in ("50 % copied: errors of MLP: 0.00% of", "50 % answered: latency median of MLP: "):
        assert gate in played.words, played.text
    found = logged()[answered:]
    copies = [is_copy for is_copy, _ in found]
    assert (copies[0], copies[-1]) == (True, False)
    assert min(sum(copies), len(copies) - sum(copies)) >= 10
    assert host.run(f"ls {STEP_FILES}").rc == 2
    assert host.check_output("cat /etc/nginx/conf.d/tfserving-gateway.conf") == site
    assert host.check_output("ls /run /run/systemd/system | grep tfserving-candidate || true") == ""
    assert served(host) == ["2"]
    # The role that serving.yml plays came after the steps, and found the site as the inventory says.
    (configured,) = re.findall(r"Configure the gateway's site in nginx\] \*+\n(\w+):", played.text)
    assert configured == "ok"


def test_version_that_fails_for_copies_is_withdrawn_before_a_client_meets_it(host, play, logged, source):
    """Its sample request it answers."""
    played = play(ROLLOUT, f"--limit={HOST}", variables=rollout(source, [1, 2, 3]))
    assert played.failed
    assert f"{HOST}: before the change: 50 % copied: errors of MLP: 100.00% of" in played.words, played.text
    assert set(logged()) == {(True, "400")}
    assert served(host) == ["2"]
    assert host.file("/var/lib/tensorflow-serving/models/MLP/.withdrawn-3.json").exists
    assert host.run(f"ls {STEP_FILES}").rc == 2
    assert host.check_output("ls /run /run/systemd/system | grep tfserving-candidate || true") == ""

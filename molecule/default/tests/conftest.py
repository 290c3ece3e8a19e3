"""How the tests play playbooks and talk to the served models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import testinfra

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = PROJECT / "inventories" / "lab"
SERVING = str(PROJECT / "playbooks" / "serving.yml")


class Play:
    """The outcome of one ansible-playbook run: text is its output, recap its counts by host."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.failed = done.returncode != 0
        self.text = done.stdout + done.stderr
        self.words = " ".join(self.text.split())  # the output without its line breaks
        self.recap = {
            line.split()[0]: {key: int(count) for key, count in re.findall(r"(\w+)=(\d+)", line)}
            for line in done.stdout.partition("PLAY RECAP")[2].splitlines()
            if "ok=" in line
        }

    def changed(self) -> int:
        return sum(counts["changed"] for counts in self.recap.values())


@pytest.fixture(scope="session")
def play():
    def run(playbook: str, *arguments: str, variables: dict | None = None, env: dict | None = None) -> Play:
        command = ["ansible-playbook", f"--inventory={INVENTORY}", playbook, *arguments]
        if variables:
            command += ["--extra-vars", json.dumps(variables)]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **(env or {})}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return Play(done)

    return run


@pytest.fixture(scope="session")
def digits() -> list[dict]:
    """Held-out digits: label and pixels of shape (28, 28)."""
    return json.loads((PROJECT / "examples/mnist/digits.json").read_text())["digits"]


@pytest.fixture(scope="session")
def second_version(tmp_path_factory) -> Path:
    """A copy of the example models with a version 2 of each, trained with another seed."""
    output = tmp_path_factory.mktemp("examples")
    train = [sys.executable, str(PROJECT / "examples/mnist/train.py"), "--output", str(output)]
    made = [*PROJECT.glob("examples/mnist/saved*"), *PROJECT.glob("examples/mnist/*.json")]
    subprocess.run(["cp", "--archive", *made, output], check=True)
    subprocess.run([*train, "--version", "2", "--seed", "1"], check=True)
    return output


class Server:
    """The served models of one host, asked from outside by a client of its own."""

    def __init__(self, host) -> None:
        self.host = host
        self.address = host.check_output("hostname -I").split()[0]
        self.url = f"http://{self.address}:8501"

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=10)

    def versions(self, model: str) -> dict[int, str]:
        """Return {version: state}."""
        answer = self.get(f"/v1/models/{model}")
        answer.raise_for_status()
        return {int(one["version"]): one["state"] for one in answer.json()["model_version_status"]}

    def post(self, model: str, body: dict) -> requests.Response:
        return requests.post(f"{self.url}/v1/models/{model}:predict", json=body, timeout=30)

    def predict(self, model: str, body: dict) -> list:
        answer = self.post(model, body)
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"]

    def accuracy(self, model: str, digits: list[dict]) -> float:
        """Return the share of digits, 0..1, that a model gets right. MLP_custom takes pixels of shape (28, 28, 1)."""
        instances = [digit["pixels"] for digit in digits]
        body: dict = {"instances": instances}
        if model == "MLP_custom":
            body = {"signature_name": "call", "instances": [[[[x] for x in row] for row in one] for one in instances]}
        predictions = self.predict(model, body)
        assert len(predictions) == len(digits)
        right = sum(one.index(max(one)) == digit["label"] for one, digit in zip(predictions, digits))
        return right / len(digits)

    def main_pid(self) -> int:
        return int(self.host.check_output("systemctl show --property=MainPID --value tensorflow-model-server"))


@pytest.fixture
def server(host) -> Server:
    """The server of the host that the test runs for."""
    return Server(host)


@pytest.fixture(scope="session")
def server_on():
    """The server of a host by its name, for tests that run once."""

    def connect(name: str) -> Server:
        config = PROJECT / ".lab" / os.environ["TFSERVING_LAB"] / "ssh_config"
        return Server(testinfra.get_host(f"ssh://{name}", ssh_config=str(config), sudo=True))

    return connect

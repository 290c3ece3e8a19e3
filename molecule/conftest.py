"""How the tests play playbooks, talk to the served models, publish repositories and read the lab's logs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import testinfra
from forked_playbooks import ForkedPlaybooks

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(PROJECT / "tests" / "lab"))

import keys  # noqa: E402
import repository  # noqa: E402
from packages import Package  # noqa: E402

INVENTORY = PROJECT / "inventories" / "lab"
SERVING = str(PROJECT / "playbooks" / "serving.yml")
LAB = PROJECT / ".lab" / os.environ["TFSERVING_LAB"]
PROXY = "http://proxy.lab:3128"

# The proxy that demands a password, and its URL with user and password.
AUTH_PROXY_CONF = (PROJECT / "tests/lab/recipe/infra/tinyproxy-auth.conf").read_text()
AUTH_PROXY_USER, AUTH_PROXY_PASSWORD = re.findall(r"^BasicAuth (\S+) (\S+)$", AUTH_PROXY_CONF, re.MULTILINE)[0]
AUTH_PROXY = f"http://{AUTH_PROXY_USER}:{urllib.parse.quote(AUTH_PROXY_PASSWORD, safe='')}@proxy.lab:3129"

# Who may read what needs a password on infra: https://packages.lab/private-models/, the rsync module private-models.
STORE_USER, STORE_PASSWORD = (PROJECT / "tests/lab/recipe/infra/rsyncd.secrets").read_text().strip().split(":", 1)
OBJECT_STORE = json.loads((PROJECT / "tests/lab/recipe/infra/object-store.json").read_text())
# Each has accessKey and secretKey; with the first one can only read.
S3_KEY, S3_PUBLISHER_KEY = (identity["credentials"][0] for identity in OBJECT_STORE["identities"])
S3_ENDPOINT = "http://packages.lab:8333"  # https://packages.lab:8334


class Play:
    """The outcome of one ansible-playbook run: text is its output, recap its counts by host."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
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
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    forked = ForkedPlaybooks(environment)

    def run(playbook: str, *arguments: str, variables: dict | None = None, env: dict | None = None) -> Play:
        command = ["ansible-playbook", f"--inventory={INVENTORY}", playbook, *arguments]
        if variables:
            command += ["--extra-vars", json.dumps(variables)]
        if env is None:
            return Play(forked.run(command))
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**environment, **env},
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Play(done)

    yield run
    forked.close()


@pytest.fixture(scope="session")
def digits() -> list[dict]:
    """Held-out digits: label and pixels of shape (28, 28)."""
    return json.loads((PROJECT / "examples/mnist/digits.json").read_text())["digits"]


@pytest.fixture(scope="session")
def second_version() -> Path:
    """A copy of the example models with a version 2 of each, trained with another seed: once, for all scenarios."""
    output = PROJECT / ".lab" / "second-version"
    if not output.is_dir():
        making = Path(tempfile.mkdtemp(dir=output.parent, prefix="second-version-"))
        train = [sys.executable, str(PROJECT / "examples/mnist/train.py"), "--output", str(making)]
        made = [*PROJECT.glob("examples/mnist/saved*"), *PROJECT.glob("examples/mnist/*.json")]
        subprocess.run(["cp", "--archive", *made, making], check=True)
        subprocess.run([*train, "--version", "2", "--seed", "1"], check=True)
        making.chmod(0o755)
        try:
            making.rename(output)
        except OSError:  # a scenario that runs beside this one was first
            shutil.rmtree(making)
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
def on(pytestconfig):
    """Any host of the lab by its name, as root, over the connections that the fixture host has."""
    options = {name: pytestconfig.getoption(name) for name in ("ssh_config", "ssh_extra_args", "sudo")}

    def connect(name: str):
        return testinfra.get_host(f"ssh://{name}", **options)

    return connect


@pytest.fixture(scope="session")
def server_on(on):
    """The server of a host by its name, for tests that run once."""
    return lambda name: Server(on(name))


@dataclass(frozen=True)
class Published:
    """A package repository on infra's web server."""

    root: Path
    fingerprint: str

    def url(self, base: str = "http://packages.lab") -> str:
        """The repository's URL for model hosts; other bases: https://packages.lab, http(s)://inside.lab."""
        return f"{base}/{self.root.name}"

    @property
    def key_url(self) -> str:
        """The key's URL for the controller, which knows infra by its address only."""
        address = (LAB / "infra.address").read_text().strip()
        return f"{self.url(f'http://{address}')}/{repository.PUBLIC_KEY}"

    def variables(self, base: str = "http://packages.lab") -> dict[str, str]:
        """What a play must know to install from here."""
        return {
            "tfserving_apt_uri": self.url(base),
            "tfserving_apt_key": self.key_url,
            "tfserving_apt_key_fingerprint": self.fingerprint,
        }

    def publish_key(self, public_key: str) -> None:
        """Publish another public key in the place of the key; what is signed stays as it is."""
        repository.publish_key(self.root, public_key)


@pytest.fixture(scope="session")
def main_repository() -> Published:
    """The instance's own repository, which every host is served from unless told otherwise."""
    return Published(LAB / "www" / repository.NAME, (LAB / "apt-key.fingerprint").read_text().strip())


@pytest.fixture(scope="session")
def aged_key(tmp_path_factory) -> keys.AgedKey:
    """A key as its owner published it over the years: expired, expiring, valid, renewed; and an impostor's."""
    return keys.make_aged_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def publish(aged_key):
    """Publish packages, signed by aged_key or another key, under http://packages.lab/NAME, in place of older ones.

    `public_key` is what is published as the repository's key. By default aged_key.valid, or the other key itself.
    """

    def run(
        name: str, offered: list[Package], public_key: str | None = None, key: keys.SigningKey | None = None
    ) -> Published:
        if key is None:
            key, public_key = aged_key.key, public_key or aged_key.valid
        published = Published(LAB / "www" / name, key.fingerprint)
        repository.publish_packages(published.root, offered, key, public_key=public_key)
        return published

    return run


def candidate(host, package: str) -> str:
    """Return the version that apt would install; (none) where a pin forbids all."""
    return re.findall(r"^  Candidate: (.*)$", host.check_output("apt-cache policy %s", package), re.MULTILINE)[0]


class Log:
    """A log file on infra, read from a mark on."""

    def __init__(self, host, path: str, pattern: str) -> None:
        self.host = host
        self.path = path
        self.pattern = re.compile(pattern)

    def lines(self) -> list[str]:
        return self.host.check_output("cat %s", self.path).splitlines()

    def mark(self) -> int:
        return len(self.lines())

    def lines_since(self, mark: int) -> list[str]:
        return self.lines()[mark:]

    def requests_since(self, mark: int) -> list[str]:
        """Return one "METHOD TARGET" a request: a whole URL, or HOST:PORT after CONNECT."""
        return [match[1] for match in map(self.pattern.search, self.lines_since(mark)) if match]


TINYPROXY_REQUEST = r"Request \(file descriptor \d+\): (\S+ \S+)"


@pytest.fixture(scope="session")
def proxy_log(on) -> Log:
    """Of proxy.lab:3128."""
    return Log(on("infra"), "/var/log/tinyproxy/tinyproxy.log", TINYPROXY_REQUEST)


@pytest.fixture(scope="session")
def auth_proxy_log(on) -> Log:
    """Of proxy.lab:3129; has the requests that are refused for want of the password as well."""
    return Log(on("infra"), "/var/log/tinyproxy/tinyproxy-auth.log", TINYPROXY_REQUEST)


@pytest.fixture(scope="session")
def web_log(on) -> Log:
    """Of packages.lab and inside.lab. A line is: CLIENT "METHOD URL" STATUS "USER-AGENT"."""
    return Log(on("infra"), "/var/log/nginx/access.log", r'^\S+ "(\S+ \S+)"')


class ModelStore:
    """Models on infra, for hosts to fetch: web server, rsync daemon and object store have the same files."""

    def __init__(self, infra) -> None:
        self.infra = infra

    def put(self, source: Path, name: str) -> None:
        """Put a directory or a file under this name, in place of an older one of it."""
        self.infra.check_output("systemctl start object-store")
        slash = "/" if source.is_dir() else ""
        command = ["rsync", "--archive", "--delete", "--mkpath", f"--rsh=ssh -F {LAB / 'ssh_config'}"]
        subprocess.run([*command, f"{source}{slash}", f"infra:/srv/models/{name}{slash}"], check=True)
        self.infra.check_output("echo %s | weed shell", f"fs.rm -rf /buckets/models/{name}")
        # By its own protocol, so that the objects have the ETags that S3 gives them.
        self.infra.check_output(
            "cd /srv/models && find %s -type f -print0 | xargs -0 -I {} curl --fail --silent --show-error"
            " --aws-sigv4 aws:amz:us-east-1:s3 --user %s --upload-file {} http://127.0.0.1:8333/models/{}",
            name,
            f"{S3_PUBLISHER_KEY['accessKey']}:{S3_PUBLISHER_KEY['secretKey']}",
        )


@pytest.fixture(scope="session")
def model_store(on) -> ModelStore:
    """What is put there is at http(s)://packages.lab/models/NAME, rsync://packages.lab/models/NAME, s3://models/NAME."""
    return ModelStore(on("infra"))

"""Starts the lab's model server as a process, and asks it things.

The processes are forked from one that has imported TensorFlow, which takes seconds of CPU time.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

PACKAGE_PARENT = Path(__file__).resolve().parents[3] / "lab"
START_SECONDS = 60.0
PROCESSES = multiprocessing.get_context("forkserver")

ResultT = TypeVar("ResultT")


def ensure_fork_server() -> None:
    """Start the process that servers are forked from, with its modules on its path, unless it runs."""
    PROCESSES.set_forkserver_preload(["__main__", "preloaded", "lab_server"])
    path = os.pathsep.join([str(PACKAGE_PARENT), str(Path(__file__).resolve().parent)])
    # The kernel shows its environment for all that are forked from it.
    with mock.patch.dict(os.environ, PYTHONPATH=path, TF_CPP_MIN_LOG_LEVEL="0"):
        forkserver.ensure_running()


def serve(arguments: list[str], stdout: Path, stderr: Path, environment: dict[str, str]) -> None:
    """Be what `python -m model_server` is, in a process that was forked."""
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8")  # noqa: PTH123, SIM115
    os.environ.update(environment)
    importlib.reload(sys.modules["model_server.log"])  # it reads the environment
    entry = importlib.import_module("model_server.__main__")
    sys.argv = [entry.__file__, *arguments]
    sys.exit(entry.main(arguments))


def wait_for(ask: Callable[[], ResultT], what: str, seconds: float = 60.0) -> ResultT:
    """Return the first true answer of ask; fails the test when there is none within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}; last answer: {answer!r}")
        time.sleep(0.02)


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def is_open(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, parsed as JSON with NaN and Infinity."""
        return json.loads(self.text)


class LabServer:
    """One running model server, with its ports and its output."""

    def __init__(
        self, directory: Path, *flags: str, one_port: bool = False, environment: dict[str, str] | None = None
    ) -> None:
        self.grpc_port, free = free_ports(2)
        self.rest_port = self.grpc_port if one_port else free
        self._stdout = directory / f"stdout-{self.grpc_port}"
        self._stderr = directory / f"stderr-{self.grpc_port}"
        self.arguments = [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}"]
        self.arguments += ["--tensorflow_session_parallelism=1", *flags]
        for output in (self._stdout, self._stderr):
            output.touch()
        ensure_fork_server()
        variables = {"TF_CPP_MIN_LOG_LEVEL": "0", **(environment or {})}
        given = (self.arguments, self._stdout, self._stderr, variables)
        self.process = PROCESSES.Process(target=serve, args=given, daemon=True)  # it ends with the tests
        self.process.start()

    def stdout(self) -> str:
        """Return what the server has printed."""
        return self._stdout.read_text(encoding="utf-8")

    def log(self) -> str:
        """Return what the server has logged."""
        return self._stderr.read_text(encoding="utf-8", errors="surrogateescape")

    def wait_for_exit(self) -> int:
        """Return the exit status of a server that ends by itself, negative for a signal."""
        self.process.join(START_SECONDS)
        assert self.process.exitcode is not None, f"runs after {START_SECONDS} s"
        return self.process.exitcode

    def wait_until_ready(self) -> LabServer:
        """Wait for the REST port, or fail with the log."""
        self.wait_for_log(f"Exporting HTTP/REST API at:localhost:{self.rest_port} ...", START_SECONDS)
        return self

    def wait_for_log(self, text: str, seconds: float = 60.0, after: int = 0) -> None:
        """Wait until the log says text, behind its first `after` characters."""

        def found() -> bool:
            if not self.process.is_alive():
                raise AssertionError(f"exit {self.process.exitcode}: {self.stdout()}\n{self.log()[-3000:]}")
            return text in self.log()[after:]

        try:
            wait_for(found, f"{text!r} in the log", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-3000:]}") from error

    def mark(self) -> int:
        """Return the length of the log so far."""
        return len(self.log())

    def request(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        """Send one REST request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "surrogateescape")
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
        finally:
            connection.close()

    def predict(self, model: str, *instances: Any, signature: str = "") -> Answer:
        """Ask for predictions in row form; model may end in /versions/N or /labels/L."""
        body: dict[str, Any] = {"instances": list(instances)}
        if signature:
            body["signature_name"] = signature
        return self.request("POST", f"/v1/models/{model}:predict", json.dumps(body))

    def states(self, model: str) -> dict[str, str]:
        """Return the state of each version of a model, empty when it has none."""
        answer = self.request("GET", f"/v1/models/{model}")
        if answer.status == 404:
            return {}
        return {entry["version"]: entry["state"] for entry in answer.json["model_version_status"]}

    def wait_for_states(self, model: str, expected: dict[str, str], seconds: float = 60.0) -> None:
        """Wait until a model's versions are in exactly these states."""
        try:
            wait_for(lambda: self.states(model) == expected, f"{model} {expected}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; now {self.states(model)}\n{self.log()[-3000:]}") from error

    def metrics(self, path: str = "/metrics") -> dict[str, float]:
        """Return the samples of the Prometheus page, keyed by name and labels as written."""
        lines = self.request("GET", path).text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join(10)


class Traffic:
    """Predictions asked for in a loop, on a thread; used as a context, which ends it."""

    def __init__(self, server: LabServer, *models: str) -> None:
        self._server = server
        self._models = models
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[Answer] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            self.answers += [self._server.predict(model, 1.0) for model in self._models]

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def values(self) -> list[float]:
        """Return the predicted values in order, each once per run; fails the test if a request failed."""
        assert self.answers
        assert {answer.status for answer in self.answers} == {200}
        predictions = [answer.json["predictions"][0] for answer in self.answers]
        return [value for value, before in zip(predictions, [None, *predictions], strict=False) if value != before]


@contextlib.contextmanager
def running(
    directory: Path, *flags: str, one_port: bool = False, environment: dict[str, str] | None = None
) -> Iterator[LabServer]:
    """Start a server and end it with the block; one_port gives REST the port of gRPC."""
    server = LabServer(directory, *flags, one_port=one_port, environment=environment)
    try:
        yield server
    finally:
        server.stop()


def model_entry(name: str, base_path: Path | str, policy: str = "", labels: dict[str, int] | None = None) -> str:
    """Return a model's entry of models.config; policy is such as `all {}`."""
    parts = [f'name: "{name}"', f'base_path: "{base_path}"', 'model_platform: "tensorflow"']
    if policy:
        parts.append(f"model_version_policy {{ {policy} }}")
    for label, version in (labels or {}).items():
        parts.append(f"version_labels {{ key: {json.dumps(label, ensure_ascii=False)} value: {version} }}")
    return f"config {{ {' '.join(parts)} }}"


def write_config(path: Path, *entries: str) -> None:
    """Replace models.config in one step."""
    write_text(path, f"model_config_list {{ {' '.join(entries)} }}\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)

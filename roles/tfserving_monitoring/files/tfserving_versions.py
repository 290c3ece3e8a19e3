#!/usr/bin/python3 -I
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asks the model servers of this host for the state of their versions, and writes it for the node exporter.

A server's own metrics count attempts to load: a version without saved_model.pb is in none of them, and one whose
warm-up fails counts as a success. Its status knows both. What to ask for is read from the servers' units and their
models.config each time, so nothing here changes with the catalogue. Without --directory the metrics are printed.

It runs on the hosts by itself, so it uses nothing but Python's own library.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

FILE_NAME = "tfserving-versions.prom"
# The node exporter reads names that end in .prom only.
NEW_NAME = f".{FILE_NAME}.new"
UNIT_PATH = Path("/etc/systemd/system")
TIMEOUT_SECONDS = 5
MAX_ANSWER_BYTES = 8 << 20

_MARK = re.compile(r"^\[X-Tfserving\]\n(?P<mark>[^\[]*)", re.MULTILINE)
_PORT = re.compile(r"--rest_api_port=([0-9]+)")
_WITHDRAWN = re.compile(r"\.withdrawn-([0-9]+)\.json")
# Of models.config: comments, strings, names, and the brackets of messages.
_TOKEN = re.compile(
    r"""\#[^\n]*|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<name>\w+)|(?P<bracket>[{}<>])"""
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}

HELP = {
    "tfserving_versions_last_run_timestamp_seconds": "When the model servers of the host were last asked.",
    "tfserving_server_answers": "Whether the model server answers over REST on loopback.",
    "tfserving_model_available_versions": "How many versions of a model in models.config are AVAILABLE.",
    "tfserving_version_failed": "A version that lies on the disk and that the server has ended with an error.",
    "tfserving_version_withdrawn": "A version that was taken away from a model after a server refused it.",
}


class NoAnswerError(Exception):
    """A server that does not answer, or something else that does on its port."""


@dataclass(frozen=True)
class Server:
    """A model server of this host; name is that of its instance."""

    name: str
    port: int
    base_paths: dict[str, str]  # by model


@dataclass
class Metrics:
    """Samples by the name of their metric: their labels and value."""

    host: str
    samples: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)

    def add(self, metric: str, value: float, **labels: str) -> None:
        """Add a sample. An empty label is none, so it is left out."""
        given = {name: text for name, text in {"host": self.host, **labels}.items() if text}
        self.samples.setdefault(metric, []).append((given, value))

    def text(self) -> str:
        """Return the samples in the text format of Prometheus."""
        lines = []
        for metric, samples in self.samples.items():
            lines += [f"# HELP {metric} {HELP[metric]}", f"# TYPE {metric} gauge"]
            for labels, value in samples:
                inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
                lines.append(f"{metric}{{{inside}}} {value:.16g}")
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def servers(unit_path: Path) -> Iterator[Server]:
    """Yield the servers whose units bear the role's mark. Raises OSError where a file of theirs cannot be read."""
    for path in sorted(unit_path.glob("*.service")):
        unit = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        match = _MARK.search(unit)
        mark = dict(line.split("=", 1) for line in match["mark"].splitlines() if "=" in line) if match else {}
        port = _PORT.search(unit)
        if port and {"InstanceOf", "ConfigPath"} <= set(mark):
            config = Path(mark["ConfigPath"], "models.config").read_text(encoding="utf-8", errors="replace")
            name = path.stem[len(mark["InstanceOf"]) :].lstrip("-")
            yield Server(name, int(port[1]), base_paths(config))


def base_paths(config: str) -> dict[str, str]:
    """Return the base_path of each model that the text of a models.config lists."""
    found: dict[str, str] = {}
    inside: list[str] = []
    model: dict[str, str] = {}
    name = ""
    for token in _TOKEN.finditer(config):
        if token["name"]:
            name = token["name"]
        elif token["string"] and inside[-1:] == ["config"]:
            model[name] = re.sub(r"\\(.)", lambda one: _ESCAPES.get(one[1], one[1]), token["string"][1:-1])
        elif token["bracket"] in ("{", "<"):
            inside.append(name)
            model = {} if name == "config" else model
        elif token["bracket"] and inside and inside.pop() == "config" and "name" in model:
            found[model["name"]] = model.get("base_path", "")
    return found


def status(port: int, model: str) -> list[dict[str, Any]]:
    """Return what a server says of the versions of a model, nothing where it knows none. Raises NoAnswerError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"/v1/models/{quote(model)}")
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER_BYTES)
        if answer.status == http.client.NOT_FOUND:
            return []
        if answer.status != http.client.OK:
            raise NoAnswerError(f"port {port} answers with {answer.status}")
        return [_read_version(one) for one in json.loads(body)["model_version_status"]]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise NoAnswerError(f"port {port}: {error!r}") from error
    finally:
        connection.close()


def _read_version(one: dict[str, Any]) -> dict[str, Any]:
    """Return version, state and error_code; whatever the server writes there, the last is one short word."""
    code = re.sub(r"\W+", "_", str(one["status"]["error_code"]), flags=re.ASCII)[:40]
    return {"version": int(one["version"]), "state": one["state"], "error_code": code}


def names_in(directory: str) -> list[str] | None:
    """Return the names in a model's directory, None where it is no directory of this host or cannot be read."""
    try:
        return sorted(path.name for path in Path(directory).iterdir()) if directory.startswith("/") else None
    except OSError:
        return None


def add_server(metrics: Metrics, server: Server) -> None:
    """Add what a server says of its models. One that does not answer says nothing of any."""
    try:
        # Without a model there is still a server to answer, that it knows no such model.
        answers = {model: status(server.port, model) for model in server.base_paths or {"none": ""}}
    except NoAnswerError as error:
        print(f"{server.name or 'The server'} does not answer: {error}", file=sys.stderr)
        metrics.add("tfserving_server_answers", 0, server=server.name)
        return
    metrics.add("tfserving_server_answers", 1, server=server.name)
    for model, base_path in server.base_paths.items():
        labels = {"server": server.name, "model": model}
        available = [one for one in answers[model] if one["state"] == "AVAILABLE"]
        metrics.add("tfserving_model_available_versions", len(available), **labels)
        names = names_in(base_path)
        # A version that has been removed stays in the status, with its error, until the server is restarted.
        there = None if names is None else {int(name) for name in names if re.fullmatch("[0-9]+", name)}
        for one in answers[model]:
            has_failed = one["state"] == "END" and one["error_code"] != "OK"
            if has_failed and (there is None or one["version"] in there):
                version = str(one["version"])
                metrics.add("tfserving_version_failed", 1, **labels, version=version, error_code=one["error_code"])


def add_withdrawn(metrics: Metrics, folders: set[Path]) -> None:
    """Add the versions that are marked as withdrawn, until a newer one of their model is there.

    folders hold a directory for each model: one that never served is in no models.config. What a mark says does not
    matter.
    """
    for model in sorted(Path(folder, name) for folder in folders for name in names_in(str(folder)) or []):
        names = names_in(str(model)) or []
        newest = max((int(name) for name in names if re.fullmatch("[0-9]+", name)), default=-1)
        marks = map(_WITHDRAWN.fullmatch, names)
        for version in sorted({int(mark[1]) for mark in marks if mark and int(mark[1]) > newest}):
            metrics.add("tfserving_version_withdrawn", 1, model=model.name, version=str(version))


def collect(host: str, unit_path: Path) -> str:
    """Return the metrics of all servers of this host. Raises OSError."""
    metrics = Metrics(host)
    found = list(servers(unit_path))
    for server in found:
        add_server(metrics, server)
    add_withdrawn(metrics, {Path(path).parent for server in found for path in server.base_paths.values()})
    metrics.add("tfserving_versions_last_run_timestamp_seconds", int(time.time()))
    return metrics.text()


def write(directory: Path, text: str) -> None:
    """Replace the file in the node exporter's directory by one rename. No link there is followed. Raises OSError."""
    new = directory / NEW_NAME
    new.unlink(missing_ok=True)  # of a run that was cut off
    with new.open("x", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask
        file.write(text)
    new.replace(directory / FILE_NAME)


def main() -> int:
    """Return the exit code: 1 where a file could not be read or written, so that the file grows old."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="", help="the label host of the metrics")
    parser.add_argument("--directory", type=Path, help=f"write {FILE_NAME} into it instead of printing the metrics")
    parser.add_argument("--unit-path", type=Path, default=UNIT_PATH, help="where the servers' units lie")
    arguments = parser.parse_args()
    try:
        text = collect(arguments.host, arguments.unit_path)
        if arguments.directory:
            write(arguments.directory, text)
        else:
            print(text, end="")
    except OSError as error:
        print(f"The state of the model versions is not known: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

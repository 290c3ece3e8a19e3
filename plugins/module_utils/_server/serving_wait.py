# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a server that is waited for says of itself: over REST, and in its log."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Protocol, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import printable
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import unit_properties
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    ServingClient,
    ServingError,
    reason,
)

POLL_SECONDS = 0.5
# A version that failed, was removed and came back says END with the old error until the server's next poll.
SETTLE_SECONDS = 5.0
MAX_RESTARTS = 2
JOURNAL_LINES = 2000
SHOWN_LINES = 20
# Logged at every look at models.config, for every model.
CHATTER = "server_core.cc"

# A line of the log, as TensorFlow wrote it before 2.20 and as Abseil writes it.
_FORMS = (
    re.compile(r"\d{4}-\d\d-\d\d [\d:.]+: (?P<severity>[IWEF]) (?P<file>\S+?):\d+\] (?P<words>.*)", re.DOTALL),
    re.compile(r"(?P<severity>[IWEF])\d{4} [\d:.]+ +\d+ (?P<file>\S+?):\d+\] (?P<words>.*)", re.DOTALL),
)
# TF_CPP_MIN_LOG_LEVEL from which on warnings are missing, by which a stuck server is told.
HIDING_LOG_LEVEL = 2

# What the server says each second while a model keeps it from looking at any other, with that model and its path.
_STUCK = (
    re.compile(r"Could not find base path (?P<path>.+) for servable (?P<model>.+?) with error"),
    re.compile(r"No versions of servable (?P<model>.+) found under base path (?P<path>.+?)\. Did you forget"),
)
_REFUSALS = ("Failed to read ModelServerConfig file: ", "PollFilesystemAndReloadConfig failed to ReloadConfig: ")


# Why a version could not be loaded, where the server ends with it, as at its start, or refuses a file for it. The
# journal has a line of its own for each line of an error.
_ENDED_WITH_SERVER = re.compile(
    r"\{name: (?P<model>.+?) version: (?P<version>\d+)\} due to error: (?P<why>.*?)(?:\}, |$)"
)


@dataclass(frozen=True)
class Line:
    """A line of the server's log, and when it was written in seconds since the epoch."""

    time: float
    text: str

    @property
    def words(self) -> str:
        """What it says, without time, severity and place."""
        match = self._match
        return match["words"] if match else self.text

    @property
    def is_chatter(self) -> bool:
        match = self._match
        return bool(match) and match["severity"] == "I" and match["file"].endswith(CHATTER)

    @property
    def is_error(self) -> bool:
        match = self._match
        return match["severity"] in "EF" if match else self.text.startswith("Failed to start server")

    @property
    def _match(self) -> Any:
        return next(filter(None, (form.match(self.text) for form in _FORMS)), None)


# Versions that a server will not serve, with its words, by model and version.
Refusals = Dict[Tuple[str, int], str]


class NotServed(Exception):
    """A server that does not serve what it should. The text says what was seen, without the log."""

    def __init__(self, text: str, refused: Refusals | None = None) -> None:
        super().__init__(text)
        self.refused = refused or {}


class Unit(Protocol):
    """The service that the server runs in."""

    name: str

    def state(self) -> tuple[str, int]:
        """Return systemd's ActiveState and NRestarts."""

    def log(self, since: float) -> list[Line]:
        """Return the log from a moment in seconds since the epoch."""


class SystemdUnit:
    """The server as a systemd service."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        self._module = module
        self.name = name
        self._cgroup = ""

    def cgroup(self) -> str:
        """Return the unit's control group, empty where it does not run. It is the same at each start."""
        self._cgroup = self._cgroup or unit_properties(self._module, self.name, "ControlGroup").get("ControlGroup", "")
        return self._cgroup

    def state(self) -> tuple[str, int]:
        """Return ActiveState and how often systemd has restarted it by itself."""
        unit = unit_properties(self._module, self.name, "ActiveState", "NRestarts")
        return unit["ActiveState"], int(unit.get("NRestarts") or 0)

    def log(self, since: float) -> list[Line]:
        """Return the server's log from a moment in seconds since the epoch, the last lines of it."""
        command = ["journalctl", f"--unit={self.name}", f"--since=@{int(since)}", f"--lines={JOURNAL_LINES}"]
        command += ["--output=json", "--output-fields=MESSAGE", "--no-pager", "--quiet"]
        _, output, _ = self._module.run_command(command)
        lines = []
        for text in output.splitlines():
            try:
                entry = json.loads(text)
                line = Line(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, printable(str(entry["MESSAGE"])))
            except (ValueError, KeyError, TypeError):
                continue  # a line that journalctl has of itself
            if line.time >= since:
                lines.append(line)
        return lines


def hides_warnings(environment: dict[str, str]) -> bool:
    """Say whether a server with this environment logs less than what shows that it takes no models.config."""
    level = environment.get("TF_CPP_MIN_LOG_LEVEL", "")
    return level.isdecimal() and int(level) >= HIDING_LOG_LEVEL


def missing_versions(client: ServingClient, expected: dict[str, list[int]]) -> tuple[list[str], Refusals]:
    """Return what is not AVAILABLE yet as text, and what of that has ended with an error, {(model, version): text}.

    Raises ForeignListener where somebody else's answers would be taken for the server's.
    """
    waiting: list[str] = []
    ended: Refusals = {}
    for model, versions in expected.items():
        try:
            status = client.status(model)
        except ServingError as error:
            waiting.append(f"{model}: {error}")
            continue
        except ForeignListener:
            raise
        except OSError as error:
            return [f"{client.url} does not answer: {reason(error)}"], {}
        for version in versions:
            one = status.get(version, {"state": "unknown to the server", "error_code": "OK", "error_message": ""})
            if one["state"] == "AVAILABLE":
                continue
            text = f"{model} version {version} is {one['state']}"
            if one["error_code"] != "OK":
                text += f": {one['error_code']}: {one['error_message']}"
                if one["state"] == "END":
                    ended[model, version] = text
            waiting.append(text)
    return waiting, ended


def unanswered_samples(
    client: ServingClient, expected: dict[str, list[int]], samples: dict[str, list[dict[str, Any]]]
) -> tuple[list[str], Refusals]:
    """Ask each version for the predictions of its model's samples, as catalog.read_samples returns them.

    Return what was not answered in time as text, and what the server has refused, {(model, version): text}.
    """
    waiting: list[str] = []
    refused: Refusals = {}
    for model, versions in expected.items():
        for version in versions:
            for sample in samples.get(model, []):
                what = f"{model} version {version} is AVAILABLE, but a sample request of it"
                try:
                    client.predict(model, version, sample["signature_name"], sample["instances"])
                except ServingError as error:
                    refused[model, version] = f"{what} is answered {error.status}: {error}"
                except OSError as error:
                    waiting.append(f"{what} is not answered: {reason(error)}")
    return waiting, refused


def wait_until_served(
    client: ServingClient,
    unit: SystemdUnit,
    expected: dict[str, list[int]],
    samples: dict[str, list[dict[str, Any]]],
    timeout_seconds: float,
) -> None:
    """Return when every expected version is AVAILABLE and answers its model's samples. Raises NotServed."""
    start, since = time.monotonic(), time.time()
    ended_since = None
    _, restarts_before = unit.state()
    while True:
        try:
            waiting, ended = missing_versions(client, expected)
            if not waiting:
                waiting, refused = unanswered_samples(client, expected, samples)
                if refused:
                    raise NotServed("; ".join(refused.values()), refused)
        except ForeignListener as error:
            raise NotServed(foreign_port(error, unit.name)) from error
        if not waiting:
            return
        now = time.monotonic()
        ended_since = (ended_since or now) if ended else None
        if ended_since and now - ended_since > SETTLE_SECONDS:
            raise NotServed("The server cannot load " + "; ".join(ended.values()), ended)
        state, restarts = unit.state()
        if state in ("failed", "inactive"):
            raise NotServed(f"{unit.name} is {state}, so nothing is served.", ended_with_server(unit.log(since)))
        if restarts - restarts_before >= MAX_RESTARTS:
            text = f"{unit.name} keeps exiting; systemd has restarted it {restarts} times."
            raise NotServed(text, ended_with_server(unit.log(since)))
        if now - start > timeout_seconds:
            text = f"After {timeout_seconds:g} s still waiting (timeout_seconds): {'; '.join(waiting)}."
            raise NotServed(f"{text} Seen: {seen(client, unit, since)}.", unfinished(client, expected))
        time.sleep(POLL_SECONDS)


def as_results(refused: Refusals, paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return refusals as a module returns them, with each model's directory, which paths has by its name."""
    return [
        {"model": model, "version": version, "path": str(paths[model]), "reason": why}
        for (model, version), why in refused.items()
        if model in paths
    ]


def foreign_port(error: ForeignListener, unit: str) -> str:
    """Return what to do about a port of a unit that is not its own."""
    return (
        f"{error}, not by {unit} alone, so what is answered there proves nothing. Stop it, or give the server other "
        "ports (tfserving_service_port, tfserving_service_rest_api_port)."
    )


def seen(client: ServingClient, unit: Unit, since: float) -> str:
    """Return what can be seen of a server that does not do what it should: ports, unit and its last error."""
    text = [*client.port_states(), f"{unit.name} is {unit.state()[0]}"]
    errors = [line.words for line in unit.log(since) if line.is_error]
    return "; ".join([*text, f"its last error is: {errors[-1]}" if errors else "it has logged no error"])


def unfinished(client: ServingClient, expected: dict[str, list[int]]) -> Refusals:
    """Return the versions that a server has begun and not finished to load, {(model, version): text}."""
    found = {}
    for model, versions in expected.items():
        try:
            status = client.status(model)
        except (ServingError, OSError):
            continue
        for version in versions:
            state = status.get(version, {}).get("state", "AVAILABLE")
            if state != "AVAILABLE":
                found[model, version] = f"{model} version {version} is still {state}"
    return found


def ended_with_server(lines: Iterable[Line]) -> Refusals:
    """Return the versions of which a server says that it ended, or refused a file, with them, and its words."""
    return {
        (match["model"], int(match["version"])): f"{match['model']} version {match['version']}: {match['why']}"
        for line in lines
        for match in _ENDED_WITH_SERVER.finditer(line.text)
    }


def stuck_lines(lines: list[Line]) -> list[tuple[str, str, str]]:
    """Return what is said of models that keep the server from looking at others, each as model, path and words."""
    found = []
    for line in lines:
        for pattern in _STUCK:
            match = pattern.search(line.text)
            if match:
                found.append((match["model"], match["path"], line.words))
    return found


def refusals(lines: list[Line]) -> list[Line]:
    """Return the lines that say that a models.config is not taken."""
    return [line for line in lines if any(words in line.text for words in _REFUSALS)]


def last_words(lines: list[Line]) -> str:
    """Return the last lines of a log, one a line, without chatter and each only once."""
    # Without the time at their front, lines that come each second are the same.
    by_words = {line.words: line.text for line in lines if not line.is_chatter}
    return "\n".join(list(by_words.values())[-SHOWN_LINES:])

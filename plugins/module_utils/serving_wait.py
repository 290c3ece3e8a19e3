# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a server that is waited for says of itself: over REST, and in its log."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.rest import (
    ServingClient,
    ServingError,
    reason,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.systemd import unit_properties

# A version that failed, was removed and came back says END with the old error until the server's next poll.
SETTLE_SECONDS = 5.0
MAX_RESTARTS = 2
JOURNAL_LINES = 2000
SHOWN_LINES = 20
# Logged at every look at models.config, for every model.
CHATTER = "I tensorflow_serving/model_servers/server_core.cc"

# What the server says each second while a model keeps it from looking at any other, with that model and its path.
_STUCK = (
    re.compile(r"Could not find base path (?P<path>.+) for servable (?P<model>.+?) with error"),
    re.compile(r"No versions of servable (?P<model>.+) found under base path (?P<path>.+?)\. Did you forget"),
)
_REFUSALS = ("Failed to read ModelServerConfig file: ", "PollFilesystemAndReloadConfig failed to ReloadConfig: ")


@dataclass(frozen=True)
class Line:
    """A line of the server's log, and when it was written in seconds since the epoch."""

    time: float
    text: str


class SystemdUnit:
    """The server as a systemd service."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        self._module = module
        self.name = name

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
                line = Line(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, str(entry["MESSAGE"]))
            except (ValueError, KeyError, TypeError):
                continue  # a line that journalctl has of itself
            if line.time >= since:
                lines.append(line)
        return lines


def missing_versions(client: ServingClient, expected: dict[str, list[int]]) -> tuple[list[str], list[str]]:
    """Return what is not AVAILABLE yet, and what of that has ended with an error, both as text."""
    waiting, ended = [], []
    for model, versions in expected.items():
        try:
            status = client.status(model)
        except ServingError as error:
            waiting.append(f"{model}: {error}")
            continue
        except OSError as error:
            return [f"{client.url} does not answer: {reason(error)}"], []
        for version in versions:
            one = status.get(version, {"state": "unknown to the server", "error_code": "OK", "error_message": ""})
            if one["state"] == "AVAILABLE":
                continue
            text = f"{model} version {version} is {one['state']}"
            if one["error_code"] != "OK":
                text += f": {one['error_code']}: {one['error_message']}"
                if one["state"] == "END":
                    ended.append(text)
            waiting.append(text)
    return waiting, ended


def unanswered_samples(
    client: ServingClient, expected: dict[str, list[int]], samples: dict[str, list[dict[str, Any]]]
) -> tuple[list[str], list[str]]:
    """Ask each version for the predictions of its model's samples, as catalog.read_samples returns them.

    Return what was not answered in time, and what the server has refused, both as text.
    """
    waiting, refused = [], []
    for model, versions in expected.items():
        for version in versions:
            for sample in samples.get(model, []):
                what = f"{model} version {version} is AVAILABLE, but a sample request of it"
                try:
                    client.predict(model, version, sample["signature_name"], sample["instances"])
                except ServingError as error:
                    refused.append(f"{what} is answered {error.status}: {error}")
                except OSError as error:
                    waiting.append(f"{what} is not answered: {reason(error)}")
    return waiting, refused


def stuck_lines(lines: list[Line]) -> list[tuple[str, str, str]]:
    """Return the lines of a model that keeps the server from looking at others, each as model, path and text."""
    found = []
    for line in lines:
        for pattern in _STUCK:
            match = pattern.search(line.text)
            if match:
                found.append((match["model"], match["path"], line.text))
    return found


def refusals(lines: list[Line]) -> list[Line]:
    """Return the lines that say that a models.config is not taken."""
    return [line for line in lines if any(words in line.text for words in _REFUSALS)]


def last_words(lines: list[Line]) -> str:
    """Return the last lines of a log, one a line, without chatter and each only once."""
    texts = [line.text for line in lines if CHATTER not in line.text]
    # Without the time at their front, lines that come each second are the same.
    bare = {re.sub(r"^\S+ \S+: ", "", text): text for text in texts}
    return "\n".join(list(bare.values())[-SHOWN_LINES:])

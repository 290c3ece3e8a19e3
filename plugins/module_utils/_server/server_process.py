# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model server of this host as its process shows it: how it was started, and a client that believes no other."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Mapping, NamedTuple

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import PROC
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import ServingClient

DEFAULT_GRPC_PORT = 8500  # of --port
REQUEST_TIMEOUT_SECONDS = 10


class Ports(NamedTuple):
    """Where a server listens; rest_api is 0 where it has no REST."""

    rest_api: int
    grpc: int


def command_line(pid: int) -> list[str]:
    """Return the words that a process was started with, none where it is gone."""
    try:
        return Path(PROC, str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def process_environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with, none where it is gone. Only root may see it."""
    try:
        words = Path(PROC, str(pid), "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def process_flags(pid: int) -> dict[str, str]:
    """Return the flags of a server's process, none where it is gone."""
    flags = (word[2:].partition("=") for word in command_line(pid) if word.startswith("--") and "=" in word)
    return {name: value for name, _, value in flags}


def ports(flags: Mapping[str, str]) -> Ports:
    """Return the ports of a server that was started with these flags."""
    return Ports(int(flags.get("rest_api_port") or 0), int(flags.get("port") or DEFAULT_GRPC_PORT))


def poll_wait_seconds(flags: Mapping[str, str]) -> int:
    """Return how often a server with these flags looks for a new models.config, in seconds; 0 where it never does."""
    text = flags.get("model_config_file_poll_wait_seconds", "")
    return int(text) if text.isdecimal() else 0


def local_client(where: Ports, cgroup: Callable[[], str]) -> ServingClient:
    """Return a client of the server that listens there with processes of this control group, and of no other."""
    return ServingClient("127.0.0.1", where.rest_api, REQUEST_TIMEOUT_SECONDS, cgroup, where.grpc)

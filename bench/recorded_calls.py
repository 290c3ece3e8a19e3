"""What a connection's host has answered, recorded from one host and replayed for many.

Two mixins for connection plugins. The directory is that in the environment variable TFSERVING_BENCH_RECORDING. In it, a
file stands for each call: the n-th of its name on a host. A host's n-th call of that name gets the same answer, so that
arguments may differ by process ids, times and names of hosts.

Ansible loads a connection plugin anew in each task's process, so this one has to be quick to load.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure

DIRECTORY = "TFSERVING_BENCH_RECORDING"
MODULE = b"\nmodule_fqn='"  # in the program that Ansible makes of a module, before its name
TEMPORARY = re.compile(r"ansible-tmp-[\d.]+-\d+-\d+")
BECOME = re.compile(r"BECOME-SUCCESS-\w+|via ansible, key=\w+")  # as a become plugin makes them anew for each command


def call_name(command: str, in_data: bytes | None, host: str) -> str:
    """Return a name of what a host shall run that is the same in every run and on every host.

    For programs on standard input it is the name of Ansible's module, or of the function that the collection calls on
    the host; else the command, without names that are made anew for each.
    """
    if in_data:
        if (at := in_data.find(MODULE)) >= 0:
            return in_data[at + len(MODULE) :].split(b"'", 1)[0].decode()
        try:
            payload = json.loads(zlib.decompress(in_data))
            return f"{payload['module']}.{payload['function']}"
        except (zlib.error, ValueError, KeyError, TypeError):
            pass  # a program of another kind, which the command has to tell
    return BECOME.sub("BECOME", _without_names(command, host))


def _without_names(text: str, host: str) -> str:
    return TEMPORARY.sub("TEMPORARY", re.sub(rf"\b{re.escape(host)}\b", "HOST", text))


def _next_file(host: str, name: str) -> Path:
    """Return where the answer to the host's next call of this name is. Each task of a host has a process of its own."""
    digest = sha256(name.encode()).hexdigest()[:16]
    with Path(constants.DEFAULT_LOCAL_TMP, f"calls-{host}").open("a+") as calls:
        calls.seek(0)
        number = calls.read().split().count(digest) + 1
        calls.write(f"{digest}\n")
    return Path(os.environ[DIRECTORY], f"{digest}-{number}.json")


class _OneHost:
    _play_context: Any

    @property
    def _host(self) -> str:
        return str(self._play_context.remote_addr)


class Recording(_OneHost):
    """Beside a connection plugin's class: writes what the host answers."""

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        done = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)  # type: ignore[misc]
        returncode, stdout, stderr = done
        output = TEMPORARY.sub("TEMPORARY", stdout.decode("latin-1"))
        self._record(call_name(cmd, in_data, self._host), returncode, output, stderr.decode("latin-1"))
        return returncode, stdout, stderr

    def put_file(self, in_path: str, out_path: str) -> Any:
        done = super().put_file(in_path, out_path)  # type: ignore[misc]
        self._record(f"put {_without_names(out_path, self._host)}")
        return done

    def fetch_file(self, in_path: str, out_path: str) -> Any:
        done = super().fetch_file(in_path, out_path)  # type: ignore[misc]
        content = Path(out_path).read_bytes().decode("latin-1")
        self._record(f"fetch {_without_names(in_path, self._host)}", stdout=content)
        return done

    def _record(self, name: str, returncode: int = 0, stdout: str = "", stderr: str = "") -> None:
        """Write an answer; the outputs are bytes as characters of the same numbers."""
        answer = {"name": name, "returncode": returncode, "stdout": stdout, "stderr": stderr}
        _next_file(self._host, name).write_text(json.dumps(answer))


class Replaying(_OneHost):
    """Beside a connection plugin's class: answers as it was recorded, and connects to nothing."""

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        answer = self._answer(call_name(cmd, in_data, self._host))
        temporary = TEMPORARY.search(cmd)
        stdout = answer["stdout"].replace("TEMPORARY", temporary[0]) if temporary else answer["stdout"]
        return answer["returncode"], stdout.encode("latin-1"), answer["stderr"].encode("latin-1")

    def put_file(self, in_path: str, out_path: str) -> tuple[int, bytes, bytes]:
        self._answer(f"put {_without_names(out_path, self._host)}")
        return 0, b"", b""

    def fetch_file(self, in_path: str, out_path: str) -> tuple[int, bytes, bytes]:
        content = self._answer(f"fetch {_without_names(in_path, self._host)}")["stdout"]
        Path(out_path).write_bytes(content.encode("latin-1"))
        return 0, b"", b""

    def reset(self) -> None:
        """There is nothing to reset."""

    def _answer(self, name: str) -> dict[str, Any]:
        """Raises AnsibleConnectionFailure for a call that the recorded host did not get."""
        try:
            answer: dict[str, Any] = json.loads(_next_file(self._host, name).read_text())
        except FileNotFoundError:
            raise AnsibleConnectionFailure(f"the recorded host was not asked as often for this: {name}") from None
        return answer

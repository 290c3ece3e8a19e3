# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host that versions are published on: the calls to it, who receives files there, and how far a transfer is."""

from __future__ import annotations

import re
import shlex
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleActionFail

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.plan import Transfer
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.transfer import Progress, Transport
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.host_calls import HostProgram


@dataclass(frozen=True)
class Receiver:
    """Who receives files on the host: a user id, and what makes rsync run as that user, nothing for who logs in."""

    uid: int
    become: tuple[str, ...] = ()


@dataclass
class Target:
    """A host and the directory of models there. say shows progress, and is None where nobody watches."""

    program: HostProgram
    connection: Any
    name: str
    base_path: str
    group: str
    warn: Callable[[str], None]
    say: Callable[[str], None] | None

    def store(self, transfer: Transfer) -> ModelStore:
        return ModelStore(Path(self.base_path, transfer.model.name))

    @cached_property
    def receiver(self) -> Receiver:
        return find_receiver(self.connection, self.program)

    @cached_property
    def transport(self) -> Transport:
        return Transport(self.connection, self.receiver.become)

    def close(self) -> None:
        """Close what pushing has opened."""
        if "transport" in self.__dict__:
            self.transport.close()

    def progress(self, transfer: Transfer, total: int | None) -> Progress:
        return Progress(f"{self.name}: {transfer.model.name}/{transfer.version}", total, self.say or (lambda _: None))

    def watching(self, transfer: Transfer) -> AbstractContextManager[None]:
        """Meanwhile show the progress of what the host fetches by itself."""
        if not self.say:
            return nullcontext()
        progress_file = f"{self.store(transfer).staging(transfer.version)}.progress"
        return Transport(self.connection).watching(progress_file, self.progress(transfer, None).at)


def find_receiver(connection: Any, program: HostProgram) -> Receiver:
    """Return who receives: root where rsync can run as root without a password, else the user that logs in.

    Raises AnsibleActionFail where the login shell would spoil what rsync sends.
    """
    become = _words_for_root(connection)
    probe = f"{shlex.join([*become, 'rsync', '--version'])} > /dev/null 2>&1 && r=root; " if become else ""
    answer = program.run_as_login_user(f"r=user; {probe}echo receiver=$(id -u),$r")
    found = re.search(r"^receiver=(\d+),(root|user)\s*$", answer, re.MULTILINE)
    if not found:
        raise AnsibleActionFail(f"`id -u` on the host answers {' '.join(answer.split())!r}, not a user id")
    noise = " ".join(answer.replace(found[0], "", 1).split())
    if noise and connection.transport != "local":
        raise AnsibleActionFail(
            f"the login shell on the host prints {noise[:80]!r}, which rsync would take for its own data; nothing "
            "was transferred. Let the account's start files (~/.bashrc, /etc/profile.d) print on terminals only: "
            "`ssh HOST true` must print nothing"
        )
    return Receiver(0, become) if found[2] == "root" and int(found[1]) else Receiver(int(found[1]))


def _words_for_root(connection: Any) -> tuple[str, ...]:
    """Return the command by which the task becomes root, where that can do without a password and a terminal."""
    become = connection.become
    if connection.transport == "local" or not become or become.name != "sudo":
        return ()  # rsync asks no remote shell where both sides are one machine
    if (become.get_option("become_user") or "root") != "root":
        return ()
    return (*shlex.split(become.get_option("become_exe") or "sudo"), "-n", "-u", "root")

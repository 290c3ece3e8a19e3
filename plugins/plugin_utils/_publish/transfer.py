# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files on their way to a host: by rsync over the connection's own ssh settings, with words on how far they are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from ansible.errors import AnsibleActionFail
from ansible.utils.path import unfrackpath

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import readable

CONNECTIONS = ("ssh", "local")
RSYNC_VERSION = (3, 1)
RSYNC_TIMEOUT_SECONDS = 60  # without a byte
RSYNC_NOT_FOUND = 127  # the remote shell's exit status
SSH_FAILED = 255
CUT = (10, 12, 20, 30, 35, SSH_FAILED)  # rsync's exit statuses for a connection that broke, or a signal
OWN_CONNECTION_BYTES = 64 << 20  # below it, the time to log in again is not made up for
PROGRESS_SECONDS = 10
ALIVE_SECONDS = 30
CHUNK_BYTES = 1 << 16


class Progress:
    """Says every ten seconds how much of a transfer is done, at what rate, and how long the rest will take."""

    def __init__(self, title: str, total: int | None, say: Callable[[str], None]) -> None:
        self.title = title
        self.total = total
        self._say = say
        self._start = self._said = time.monotonic()
        self._first: int | None = None

    def at(self, done: int, total: int | None = None, what: str = "") -> None:
        """Tell how many bytes are done; the total may have become known meanwhile."""
        self.total = self.total if total is None else total
        if self._first is None:
            self._first = done  # what an earlier run had done says nothing about the rate
        now = time.monotonic()
        if now - self._said < PROGRESS_SECONDS:
            return
        self._said = now
        rate = (done - self._first) / (now - self._start)
        text = f"{self.title}: {what}{' ' if what else ''}{readable(done)}"
        if self.total is not None:
            text += f" of {readable(self.total)}"
        text += f", {readable(int(rate))}/s"
        if self.total is not None and rate > 0:
            left = int((self.total - done) / rate)
            text += f", {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        self._say(text)


class Transport:
    """The way that files take to the host of an Ansible connection of type ssh or local.

    become are the words before a command that make it run as root on the host, none for the user who logs in.
    """

    def __init__(self, connection: Any, become: Sequence[str] = ()) -> None:
        self._connection = connection
        self._become = become
        self._is_local = connection.transport == "local"

    @staticmethod
    def check(connection: Any) -> None:
        """Raise AnsibleActionFail where files could not travel."""
        if connection.transport not in CONNECTIONS:
            raise AnsibleActionFail(
                f"models travel over connections of type {' or '.join(CONNECTIONS)}, not {connection.transport}; "
                "set ansible_connection for this host"
            )
        if not shutil.which("rsync"):
            raise AnsibleActionFail("rsync is missing on the controller: apt install rsync")
        answer = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
        found = re.match(r"rsync +version v?(\d+)\.(\d+)", answer.stdout)
        if not found or (int(found[1]), int(found[2])) < RSYNC_VERSION:
            raise AnsibleActionFail(
                f"rsync on the controller says {answer.stdout.partition(chr(10))[0]!r}; version "
                f"{'.'.join(map(str, RSYNC_VERSION))} of the rsync of Samba is needed, or newer (on macOS: brew "
                "install rsync)"
            )

    def log_in(self, size: int) -> None:
        """Open the connection over which send would take size bytes, where it is one of its own that can be kept."""
        if not self._is_local and size >= OWN_CONNECTION_BYTES and self._control_path() and self._fast_ssh:
            with suppress(subprocess.TimeoutExpired):  # rsync will say what is wrong
                subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
                    [*self._fast_ssh, self._host(), "true"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=RSYNC_TIMEOUT_SECONDS,
                    check=False,
                )

    def send(
        self,
        source: Path,
        names: list[str] | None,
        size: int,
        directory: str,
        basis: str | None,
        tell: Callable[[int], None],
    ) -> None:
        """Send the named files of a source, or all of it, size bytes in all, to a directory on the host.

        Files are written in place, so that whatever ends a transfer, what has arrived is there for the next one. Parts
        that a file in basis has too do not travel. tell is called with the bytes that are done. Raises
        AnsibleActionFail.
        """
        command = ["rsync", "--archive", "--no-owner", "--no-group", "--chmod=D0700,F0600", "--inplace"]
        command += ["--modify-window=-1", "--protect-args", "--prune-empty-dirs"]
        command += [] if names is None else ["--from0", "--files-from=-"]
        command += ["--info=progress2", "--no-human-readable", f"--timeout={RSYNC_TIMEOUT_SECONDS}"]
        command += [f"--copy-dest={basis}"] if basis else []
        command += [f"--rsync-path={shlex.join([*self._become, 'rsync'])}"] if self._become else []
        target = f"{'' if self._is_local else self._host(':')}{directory}/"
        try:
            for shell in self._shells(size):
                code, reason = self._run([*command, *shell, f"{source.absolute()}/", target], names or [], tell)
                if code != SSH_FAILED:
                    break
            if code:
                advice = self._advice(code, reason)
                raise AnsibleActionFail(f"rsync of {source} stopped with code {code}{advice}:\n{reason}")
        except BaseException:
            if not self._is_local:  # the next task, or run, would wait for what does not answer any more
                self._control(self._ssh(), "stop")
            raise

    def _advice(self, code: int, reason: str) -> str:
        """Return what to do about a failure, where rsync's own words do not say it."""
        if code == RSYNC_NOT_FOUND:
            return "; rsync is missing on the host, and the role tfserving_package installs it"
        if "Permission denied (" in reason or "Host key verification failed" in reason:
            return (
                f"; it cannot log in to {self._host()} by itself. It asks for no password: use a key, or let Ansible "
                "keep its connection open for rsync (ControlPersist in ssh_args)"
            )
        return "; the next run goes on from there" if code in CUT else ""

    def close(self) -> None:
        """Close the connection that is this object's own, where it has opened one that is kept."""
        if "_fast_ssh" in self.__dict__:
            self._control(self._fast_ssh, "exit")

    def _control(self, shell: list[str], command: str) -> None:
        """Have a connection that is kept, by this object or by Ansible, `exit`, or `stop` taking anything new.

        One that is kept in a place of the user's own is left alone.
        """
        if shell and self._control_path():
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
                    [*shell, "-O", command, self._host()], capture_output=True, timeout=PROGRESS_SECONDS, check=False
                )

    def _shells(self, size: int) -> list[list[str]]:
        """Return rsync's options for the remote shell, in the order to try them.

        Much data takes a connection of its own with the fastest cipher that the user's settings allow, where one can
        be had; everything else goes over the one that Ansible has.
        """
        if self._is_local:
            return [[]]
        shells = [self._ssh()]
        if size >= OWN_CONNECTION_BYTES:
            shells.insert(0, self._fast_ssh)
        return [[f"--rsh={shlex.join(shell)}"] for shell in shells if shell]

    @cached_property
    def _fast_ssh(self) -> list[str]:
        """The ssh command with AES-GCM, several times faster than ssh's first choice, before all other ciphers.

        It is among those that the settings allow, or this is empty. Machines that run TensorFlow have instructions for
        AES. Where Ansible keeps its connection open, this is kept too, for some seconds and this process alone: what a
        run that was killed has left may hang, and ends when the host does not answer. Where a password is needed, no
        other connection can be had.
        """
        if self._connection.get_option("password"):
            return []
        command = self._ssh()
        answer = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
            [*command, "-G", self._host()], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        ciphers = next((line[8:].split(",") for line in answer.stdout.splitlines() if line.startswith("ciphers ")), [])
        fast = [cipher for cipher in ciphers if cipher.startswith("aes") and "-gcm" in cipher]
        if not fast:
            return []
        order = ",".join([*fast, *(cipher for cipher in ciphers if cipher not in fast)])
        path = self._control_path(f"-{os.getpid()}")
        kept = ["-o", "ControlMaster=auto", "-o", "ControlPersist=10s", *path] if path else ["-o", "ControlPath=none"]
        alive = ["-o", f"ServerAliveInterval={ALIVE_SECONDS}"]  # three in vain end it
        return [command[0], "-o", f"Ciphers={order}", *kept, *alive, *command[1:]]

    @staticmethod
    def _run(command: list[str], names: list[str], tell: Callable[[int], None]) -> tuple[int, str]:
        """Run rsync for these names, and return its exit status and what it complains of."""
        with tempfile.TemporaryFile() as listing, tempfile.TemporaryFile() as errors:
            # A name that began with # or ; would be a comment.
            listing.write("\0".join(f"./{name}" for name in names).encode())
            listing.seek(0)
            with subprocess.Popen(  # noqa: S603 - as above
                command, stdin=listing, stdout=subprocess.PIPE, stderr=errors
            ) as process:
                try:
                    Transport._follow(process, tell)
                except BaseException:
                    process.terminate()
                    raise
            errors.seek(0)
            return process.returncode, errors.read().decode(errors="replace").strip()

    @contextmanager
    def watching(self, progress_file: str, tell: Callable[..., None]) -> Iterator[None]:
        """Meanwhile tell what a file on the host says about a transfer that the host does by itself."""
        if self._connection.transport not in CONNECTIONS:
            yield
            return
        command = (
            ["cat", progress_file]
            if self._is_local
            else [*self._ssh(), self._host(), "cat", shlex.quote(progress_file)]
        )
        done = threading.Event()

        def watch() -> None:
            while not done.wait(PROGRESS_SECONDS):
                try:
                    answer = subprocess.run(  # noqa: S603 - as above
                        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PROGRESS_SECONDS
                    )
                    progress = json.loads(answer.stdout)
                    tell(progress["bytes"], progress["total"], progress["what"])
                except (ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
                    continue  # it has not begun, or is over

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    @staticmethod
    def _follow(process: subprocess.Popen[bytes], tell: Callable[[int], None]) -> None:
        """Read what rsync prints, which is a line such as `  1048576  10%  100.00MB/s  0:00:09` again and again."""
        descriptor = process.stdout.fileno() if process.stdout else -1
        for chunk in iter(lambda: os.read(descriptor, CHUNK_BYTES), b""):
            words = chunk.replace(b"\r", b"\n").strip().rpartition(b"\n")[2].split()
            if len(words) > 1 and words[0].isdigit() and words[1].endswith(b"%"):
                tell(int(words[0]))

    def _host(self, separator: str = "") -> str:
        host = self._connection.get_option("host")
        user = self._connection.get_option("remote_user")
        if separator and ":" in host:
            host = f"[{host}]"
        return f"{user + '@' if user else ''}{host}{separator}"

    def _ssh(self) -> list[str]:
        """Return the ssh command that the connection plugin would use, less -C, which slows weights down."""
        option = self._connection.get_option
        command = [option("ssh_executable"), "-o", "BatchMode=yes", "-o", f"ConnectTimeout={option('timeout')}"]
        if not option("host_key_checking"):
            command += ["-o", "StrictHostKeyChecking=no"]
        if option("port"):
            command += ["-p", str(option("port"))]
        if option("private_key_file"):
            command += ["-i", option("private_key_file")]
        for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
            command += [word for word in shlex.split(option(name) or "") if word != "-C"]
        return command + self._control_path()

    def _control_path(self, suffix: str = "") -> list[str]:
        """Return ssh's option for the connection that Ansible keeps open, which is known once it has run something."""
        control_path = getattr(self._connection, "control_path", None)
        if not control_path:
            return []
        directory = unfrackpath(self._connection.get_option("control_path_dir"))
        return ["-o", f'ControlPath="{control_path % {"directory": directory}}{suffix}"']

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch a SavedModel version from an rsync daemon."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import urllib.parse
from typing import Callable, Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import (
    proxy_for,
    without_password,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import (
    FETCH_UID,
    Progress,
    Received,
    Request,
    as_stranger,
    relative_path,
    require_program,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import check_space
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import receive
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import UserTree

# Regular files and directories; modes as the incoming directory has them, whatever the server says.
OPTIONS = (
    "--archive", "--no-owner", "--no-group", "--no-links", "--no-devices", "--no-specials", "--chmod=D700,F600",
    "--modify-window=-1",  # of files of the same second, those are equal that are of the same nanosecond
    "--inplace", "--partial", "--delete", "--no-human-readable", "--no-motd", "--stats", "--outbuf=N",
)  # fmt: skip


def fetch_rsync(request: Request, progress: Progress, lock: int, *, is_suspect: bool) -> Received:
    """Have rsync make the incoming directory equal to the source, and copy what is there to the staging directory.

    lock is a descriptor that rsync keeps open as long as it lives, whatever becomes of this process. is_suspect says
    that names, sizes and times were right before and contents were not, so that rsync compares them all.
    Raises SavedModelError and OSError.
    """
    require_program("rsync")
    assert request.incoming  # noqa: S101 - says so to mypy
    incoming = UserTree(request.incoming, FETCH_UID if os.geteuid() == 0 else os.geteuid())
    incoming.let_in(FETCH_UID if os.geteuid() == 0 else -1)
    there = incoming.sizes()
    there_bytes = sum(there.values())
    options = ["--checksum"] if is_suspect else []
    if request.basis and request.basis.is_dir():
        options.append(f"--copy-dest={request.basis}")

    outdated: list[str] = []
    planned = _run(request, ["--dry-run", "--out-format=>%n", *options], lock, outdated.append)
    total, inodes = planned.get("Total file size", 0), planned.get("Number of files", 0)
    # What is missing, and a copy of all, in the place of an older one.
    copied = UserTree(request.staging, os.geteuid()).sizes()
    needed_bytes = max(0, total - there_bytes) + max(0, total - sum(copied.values()))
    needed_inodes = max(0, inodes - len(there)) + max(0, inodes - len(copied))
    check_space(request.staging, needed_bytes, needed_inodes, request.prunable_bytes)

    begun = [relative_path(line[1:]) for line in outdated if line.startswith(">") and not line.endswith("/")]
    if request.basis:
        # rsync would compare with the begun file only, and receive what the basis has behind its end.
        incoming.unlink(name for name in begun if name in there and (request.basis / name).is_file())

    def report(line: str) -> None:
        done = re.match(r"\s*(\d+)\s+\d+%", line)
        if done:
            progress.report(int(done[1]), total, "downloading")

    done = _run(request, ["--info=progress2", *options], lock, report)
    receive(incoming, request.staging, None, -1)
    return Received(done.get("Total bytes received", 0), there_bytes)


def _run(request: Request, options: list[str], lock: int, report: Callable[[str], None]) -> dict[str, int]:
    """Run rsync and return its statistics: {name: count}."""
    timeouts = [f"--timeout={request.timeout_seconds}", f"--contimeout={request.timeout_seconds}"]
    command = [*as_stranger(), "rsync", *OPTIONS, *timeouts, *options, "--", _address(request), f"{request.incoming}/"]
    counts = {}
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, env=_environment(request),
            start_new_session=True,  # no terminal that it could ask for a password on
            pass_fds=[lock],
            cwd="/",
        )  # fmt: skip
        assert process.stdout  # noqa: S101 - says so to mypy
        with process:
            for line in _lines(process.stdout.fileno()):
                report(line)
                count = re.match(r"(Number of files|Total file size|Total bytes received): (\d+)", line)
                if count:
                    counts[count[1]] = int(count[2])
        complaints.seek(0)
        said = complaints.read(4000).decode(errors="replace").strip()
    if process.returncode != 0:
        raise SavedModelError(f"rsync cannot get {request.url} (exit {process.returncode}): {said}")
    return counts


def _lines(descriptor: int) -> Iterator[str]:
    """Yield what comes, line by line; rsync ends those that tell its progress by a carriage return."""
    rest = b""
    for data in iter(lambda: os.read(descriptor, 1 << 16), b""):
        *lines, rest = re.split(rb"[\r\n]", rest + data)
        yield from (line.decode(errors="replace") for line in lines)


def _address(request: Request) -> str:
    """Return the URL as rsync wants it: with the user, and a slash at its end for what is in the directory."""
    url = urllib.parse.urlsplit(request.url)
    host = f"{request.url_username}@{url.netloc}" if request.url_username and "@" not in url.netloc else url.netloc
    return f"rsync://{host}/{url.path.strip('/')}/"


def _environment(request: Request) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name.upper() != "RSYNC_PROXY"}
    environment["LC_ALL"] = "C"
    if request.url_password:
        environment["RSYNC_PASSWORD"] = request.url_password
    proxy = proxy_for(request.url, request.proxy, request.no_proxy)
    if proxy:
        address = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if address.scheme != "http":
            raise SavedModelError(
                f"rsync cannot go through the proxy {without_password(proxy)}: it can speak plain HTTP to a proxy only"
            )
        user, at, host = address.netloc.rpartition("@")
        environment["RSYNC_PROXY"] = urllib.parse.unquote(user) + at + host
    return environment

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all ways of fetching a SavedModel version onto a host have in common."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import in_the_making
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    check_name,
)

PROGRESS_SECONDS = 1.0

# Who receives from an rsync daemon, and reads what strangers sent: a user id that Debian reserves and nobody has.
FETCH_UID = 65533


@dataclass(frozen=True)
class Request:
    """What to fetch, where to, and how.

    incoming is a directory in which rsync receives as a user of its own, basis one of hard links to files of an older
    version that it may take unchanged parts from, digest 64 hex digits, proxy a URL without which the host's proxy
    variables are used, prunable_bytes for the error where there is too little disk space, timeout_seconds how long to
    wait for the next byte.
    """

    url: str
    staging: Path
    incoming: Path | None
    basis: Path | None
    digest: str | None
    proxy: str | None
    no_proxy: list[str]
    url_username: str | None
    url_password: str | None
    s3_endpoint_url: str | None
    s3_region: str | None
    s3_access_key_id: str | None
    s3_secret_access_key: str | None
    s3_session_token: str | None
    prunable_bytes: int
    timeout_seconds: int

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0].lower()

    @property
    def state(self) -> Path:
        """A directory for what a later run needs to go on from here."""
        return self.staging.with_name(self.staging.name + ".download")

    def hide(self, text: str) -> str:
        """Return text without the secrets of this request, and without what URLs carry besides their address."""
        secrets = [self.url_password, self.s3_secret_access_key, self.s3_session_token]
        for secret in filter(None, secrets):
            for written in {secret, urllib.parse.quote(secret), urllib.parse.quote(secret, safe="")}:
                text = text.replace(written, "********")
        text = re.sub(r"(\w://)[^/\s]*:[^/\s]*@", r"\1********@", text)
        return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1?...", text)  # signed URLs have the signature there


@dataclass(frozen=True)
class Received:
    """bytes came over the network in this run; resumed_bytes were there from an earlier one.

    passed_over are the names in an archive beside the SavedModel.
    """

    bytes: int
    resumed_bytes: int
    passed_over: list[str] = field(default_factory=list)


class Progress:
    """Writes the progress to a file beside the staging directory, at most once a second."""

    def __init__(self, staging: Path) -> None:
        self._path = staging.with_name(staging.name + ".progress")
        self._lock = threading.Lock()
        self._next = 0.0

    def report(self, done: int, total: int | None, what: str) -> None:
        """Say that done of total bytes are there; what is "downloading" or "unpacking"."""
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + PROGRESS_SECONDS
            new = self._path.with_name(self._path.name + ".new")
            with in_the_making(new):
                new.write_text(json.dumps({"bytes": done, "total": total, "what": what}))
                new.chmod(0o644)
                new.replace(self._path)

    def remove(self) -> None:
        if self._path.exists():
            self._path.unlink()


def relative_path(name: str) -> str:
    """Return a file's path within the version. Raises SavedModelError for a name that leads elsewhere."""
    parts = name.split("/")
    check_name(name, name)
    if not name or set(parts) & {"", ".", ".."}:
        raise SavedModelError(f"{name!r} is no path within a SavedModel: it is absolute, or has '..', '.' or '//'")
    return name


def check_tree(files: Iterable[str]) -> None:
    """Raise SavedModelError where one path is a file and another lies below it."""
    paths: set[str] = set(files)
    for path in paths:
        for position, letter in enumerate(path):
            if letter == "/" and path[:position] in paths:
                raise SavedModelError(f"{path[:position]!r} is both a file and a directory")


def make_empty(directory: Path) -> None:
    """Remove all that is in directory; links are removed, not followed."""
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)  # noqa: PTH108 - as os.scandir gives it


def as_stranger() -> list[str]:
    """Return what to put before a command that reads what strangers sent, so that it can change nothing else.

    It ends with this process. For others than root it is nothing: they cannot become somebody else.
    """
    if os.geteuid() != 0:
        return []
    identity = [f"--reuid={FETCH_UID}", f"--regid={FETCH_UID}", "--clear-groups", "--no-new-privs"]
    return ["setpriv", *identity, "--pdeathsig=KILL", "--"]


def require_program(name: str) -> None:
    """Raise SavedModelError unless the program, which its Debian package is named after, is there."""
    if not shutil.which(name):
        raise SavedModelError(f"{name} is missing on the host; the role tfserving_models installs the package {name}")

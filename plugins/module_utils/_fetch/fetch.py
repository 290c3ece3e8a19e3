# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch one SavedModel version into its staging directory, from wherever its URL says."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import (
    read_json,
    sync,
    write_json,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.archive_source import (
    fetch_archive,
    remove_archive,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.archives import SUFFIXES
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import (
    Progress,
    Received,
    Request,
    make_empty,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.rsync_source import fetch_rsync
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.s3_source import fetch_s3
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    WORKERS,
    SavedModelError,
    add_digests,
    list_files,
    total_bytes,
    tree_digest,
)


def fetch(request: Request) -> Received:
    """Fill the staging directory with the files of the version, and with nothing else.

    What an earlier run has left there or beside it is used. Raises SavedModelError, which shows no secret.
    """
    try:
        check(request)
        with _alone(request) as lock:
            return _fetch_alone(request, lock)
    except (OSError, SavedModelError) as error:
        raise SavedModelError(request.hide(str(error))) from error


def check(request: Request) -> None:
    """Raise SavedModelError for a request that cannot be right, before anything is asked or changed."""
    try:
        parts = urllib.parse.urlsplit(request.url)
        user, at, host = parts.netloc.rpartition("@")
        parts.port  # noqa: B018 - raises ValueError
    except ValueError as error:
        raise SavedModelError(f"{request.url} is no URL: {error}") from error
    where = f"{request.scheme}://{host}{parts.path}"
    if ":" in user or (at and request.scheme != "rsync"):
        raise SavedModelError(
            f"{where}: user and password do not belong into the URL, which is shown; give them by "
            "tfserving_models_url_username and tfserving_models_url_password"
        )
    if request.scheme in ("http", "https"):
        if not parts.path.endswith(SUFFIXES):
            raise SavedModelError(f"{where}: an archive's name ends in {', '.join(SUFFIXES)}")
        if not re.fullmatch(r"[0-9a-f]{64}", request.digest or ""):
            raise SavedModelError(f"{where}: the sha256 of the archive is missing: 64 hex digits in the key digests")
        if request.scheme == "http" and (request.url_username or request.url_password):
            raise SavedModelError(f"{where}: a password is sent over https:// only")
    elif request.scheme not in ("s3", "rsync"):
        raise SavedModelError(f"{where}: the URL begins with https://, http://, s3:// or rsync://")
    if not host or not parts.path.strip("/"):
        raise SavedModelError(f"{where} names no version")
    if not request.staging.is_dir() or request.staging.is_symlink():
        raise SavedModelError(f"{request.staging} is not a directory")


@contextlib.contextmanager
def _alone(request: Request) -> Iterator[int]:
    """Wait until nobody else fills the staging directory: what a lost connection has left running on the host."""
    lock = os.open(request.staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not request.staging.is_dir() or not os.path.samestat(os.fstat(lock), request.staging.stat()):
            raise SavedModelError(f"{request.staging} was published or removed by another run meanwhile")
        yield lock
    finally:
        os.close(lock)


def _fetch_alone(request: Request, lock: int) -> Received:
    request.state.mkdir(mode=0o700, exist_ok=True)
    memory = request.state / "state.json"
    fresh: dict[str, Any] = {"source": request.url, "digest": request.digest, "files": None}
    state = read_json(memory) or {}
    if {**state, "files": None} != fresh:
        make_empty(request.state)
        state = fresh
        write_json(memory, state)
    is_suspect = state["files"] is not None
    if is_suspect and _is_what_was_asked_for(request, state["files"]):
        remove_archive(request)
        return Received(0, total_bytes(list_files(request.staging)))

    progress = Progress(request.staging)
    try:
        if request.scheme == "rsync":
            received = fetch_rsync(request, progress, lock, is_suspect=is_suspect)
        else:
            if is_suspect:
                make_empty(request.state)
                write_json(memory, fresh)
            received = fetch_s3(request, progress) if request.scheme == "s3" else fetch_archive(request, progress)
    finally:
        progress.remove()
    files = list_files(request.staging)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(sync, (request.staging / name for name in files)))
    write_json(memory, {**fresh, "files": {name: facts["size"] for name, facts in files.items()}})
    remove_archive(request)
    return received


def _is_what_was_asked_for(request: Request, sizes: dict[str, int]) -> bool:
    """Say whether the files of an earlier run are still there, and right; they were not published."""
    try:
        files = list_files(request.staging)
    except SavedModelError:
        return False
    if {name: facts["size"] for name, facts in files.items()} != sizes:
        return False
    # The digest of an archive was checked before it was unpacked.
    return request.scheme in ("http", "https") or tree_digest(add_digests(request.staging, files)) == request.digest

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch a SavedModel version that is an archive on a web server."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.parse
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import (
    file_sha256,
    read_json,
    write_json,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import (
    DownloadError,
    answer_of,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch import archives
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import (
    Progress,
    Received,
    Request,
    make_empty,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import check_space

ARCHIVE = "archive"
CHUNK_BYTES = 1 << 20
UNANNOUNCED_BYTES = 64 << 20  # how often disk space is looked at where the server does not say how much comes
RETRY_SECONDS = 1.0
GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


def fetch_archive(request: Request, progress: Progress) -> Received:
    """Download, verify and unpack the archive.

    Raises SavedModelError and OSError.
    """
    archive = request.state / ARCHIVE
    resumed = archive.stat().st_size if archive.exists() else 0
    received = _download(request, archive, progress)
    found = file_sha256(archive)
    if found != request.digest and resumed:
        # Something else had come before, or it suffered since.
        archive.unlink()
        resumed = 0
        received += _download(request, archive, progress)
        found = file_sha256(archive)
    if found != request.digest:
        archive.unlink()
        raise SavedModelError(
            f"{request.url}: its sha256 is {found}, expected is {request.digest}. If the archive is the right one, "
            "correct the digest of this version under the key digests of its entry in tfserving_models_catalog"
        )
    return Received(received, resumed, _unpack(request, archive, progress))


def remove_archive(request: Request) -> None:
    """Free the disk space of the archive, whose files are safe in the staging directory."""
    (request.state / ARCHIVE).unlink(missing_ok=True)


def _download(request: Request, archive: Path, progress: Progress) -> int:
    """Go on with the archive until it is whole, also after the connection was cut. Returns the bytes received."""
    received = 0
    while True:
        before = archive.stat().st_size if archive.exists() else 0
        try:
            return received + _receive(request, archive, before, progress)
        except DownloadError as error:
            more = (archive.stat().st_size if archive.exists() else 0) - before
            if more <= 0 or isinstance(error.__cause__, urllib.error.HTTPError):
                raise SavedModelError(str(error)) from error
            received += more
            time.sleep(RETRY_SECONDS)


def _receive(request: Request, archive: Path, there: int, progress: Progress) -> int:
    """Ask once for what is missing behind the bytes that are there already. Returns the bytes received."""
    memory = archive.with_name("archive.json")
    remembered: dict[str, Any] = read_json(memory) or {}
    validator, total = remembered.get("validator"), remembered.get("total")
    if there and there == total:
        return 0
    if not (there and validator):
        there = 0
    headers = {"Range": f"bytes={there}-", "If-Range": str(validator)} if there else {}
    credentials = None
    if request.url_username:
        user, password = (
            urllib.parse.quote(text, safe="") for text in (request.url_username, request.url_password or "")
        )
        credentials = f"{user}:{password}"
    try:
        with answer_of(
            request.url,
            request.proxy,
            request.no_proxy,
            request.timeout_seconds,
            headers=headers,
            credentials=credentials,
        ) as answer:
            # A server that does not resume, or has another file now, sends it from its beginning.
            resumes = answer.status == 206 and str(answer.headers["Content-Range"]).startswith(f"bytes {there}-")
            if answer.status != 200 and not resumes:
                raise SavedModelError(f"{request.url}: unexpected answer {answer.status} {answer.reason}")
            there = there if resumes else 0
            announced = answer.length
            if announced is not None:
                check_space(archive.parent, announced, 1, request.prunable_bytes)
            total = None if announced is None else there + announced
            if not resumes:
                archive.unlink(missing_ok=True)
            write_json(memory, {"validator": _validator(answer.headers), "total": total})
            return _write(request, archive, answer, total, progress)
    except DownloadError as error:
        if getattr(error.__cause__, "code", None) != 416:
            raise
    # What is there is not the beginning of what the server has now.
    archive.unlink(missing_ok=True)
    return _receive(request, archive, 0, progress)


def _validator(headers: Any) -> str | None:
    """Return what tells the server that the file is still the same: a strong ETag, or else the time of its change."""
    etag = headers["ETag"]
    if etag and not etag.startswith("W/"):
        return str(etag)
    return str(headers["Last-Modified"]) if headers["Last-Modified"] else None


def _write(request: Request, archive: Path, answer: Any, total: int | None, progress: Progress) -> int:
    received = 0
    space_until = 0
    with archive.open("ab") as file:
        # As it comes: a slow link shall not fill a large buffer before anything is kept.
        for chunk in iter(lambda: answer.read1(CHUNK_BYTES), b""):
            if total is None and received >= space_until:
                check_space(archive.parent, UNANNOUNCED_BYTES, 1, request.prunable_bytes)
                space_until += UNANNOUNCED_BYTES
            try:
                file.write(chunk)
            except OSError as error:  # not the server's fault
                raise SavedModelError(f"{archive}: {error.strerror}") from error
            received += len(chunk)
            progress.report(file.tell(), total, "downloading")
    return received


def _unpack(request: Request, archive: Path, progress: Progress) -> list[str]:
    """Replace what is in the staging directory by the SavedModel in the archive, and return what lay beside it."""
    make_empty(request.staging)
    unpacked = request.state / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(mode=0o700)
    try:
        archives.unpack(
            archive,
            urllib.parse.urlsplit(request.url).path,
            unpacked,
            check_space=lambda size: check_space(unpacked, size, 1, request.prunable_bytes),
            report=lambda count: progress.report(count, None, "unpacking"),
        )
    except SavedModelError as error:
        raise SavedModelError(f"{request.url}: {error}") from error
    top = _top(unpacked)
    if top is None:
        raise SavedModelError(
            f"{request.url}: saved_model.pb is neither at the top of the archive nor in one of the directories there"
        )
    for entry in top.iterdir():
        entry.rename(request.staging / entry.name)
    beside = sorted(entry.name for entry in unpacked.iterdir() if entry != top) if top != unpacked else []
    shutil.rmtree(unpacked)
    return beside


def _top(unpacked: Path) -> Path | None:
    """Return the directory that holds the SavedModel: unpacked, or the only one in it that does."""
    holding = [
        directory
        for directory in (unpacked, *unpacked.iterdir())
        if any((directory / graph).is_file() for graph in GRAPHS)
    ]
    return holding[0] if len(holding) == 1 or unpacked in holding else None

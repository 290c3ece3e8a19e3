# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch a SavedModel version from a bucket of an S3-compatible store."""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import sync
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import proxy_for
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import (
    Progress,
    Received,
    Request,
    check_tree,
    relative_path,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    MAX_ENTRIES,
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import check_space

CHUNK_BYTES = 1 << 20
CONNECTIONS = 8  # so that many small objects do not wait for one another
DEFAULT_ENDPOINT = "https://s3.amazonaws.com"  # stands for all of AWS where no_proxy is asked
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class S3Object:
    """An object of the version: its path in it, and what tells its contents from others of the same size."""

    key: str
    path: str
    size: int
    etag: str  # in its quotes; some stores have nothing in them
    modified: datetime

    @property
    def mark(self) -> str:
        """One word for path and contents."""
        told_by = (self.path, str(self.size), self.etag, self.modified.isoformat())
        return hashlib.sha256("\0".join(told_by).encode()).hexdigest()


def fetch_s3(request: Request, progress: Progress) -> Received:
    """Download each object that is not there yet; objects that were begun are gone on with.

    An object is downloaded beside the staging directory and moved there whole, so that a file in the staging directory
    is a whole object, of the contents that the journal remembers. Raises SavedModelError and OSError.
    """
    import_boto3()
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_url(request.url)
    try:
        client = connect(request)
        listed = (
            entry
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for entry in page.get("Contents", [])
        )
        objects = objects_below(prefix, listed)
        if not objects:
            raise SavedModelError(f"{request.url} has no objects below it")
        return Download(request, client, bucket, objects, progress).run()
    except (BotoCoreError, ClientError) as error:
        raise SavedModelError(f"cannot get {request.url}: {error}") from error


def import_boto3() -> Any:
    """Return the module boto3. Raises SavedModelError where it is not installed."""
    try:
        import boto3
    except ImportError as error:
        raise SavedModelError(
            f"boto3 is missing on the host ({error}); the role tfserving_models installs the package python3-boto3"
        ) from error
    return boto3


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix, which ends in a slash."""
    parts = urllib.parse.urlsplit(url)
    return parts.netloc, parts.path.strip("/") + "/"


def connect(request: Request) -> Any:
    """Return a client: with the credentials of the request, or else with those that boto3 finds on the host."""
    boto3 = import_boto3()
    from botocore.config import Config

    proxy = proxy_for(request.s3_endpoint_url or DEFAULT_ENDPOINT, request.proxy, request.no_proxy)
    config = Config(
        proxies={"http": proxy, "https": proxy} if proxy else {},
        connect_timeout=request.timeout_seconds,
        read_timeout=request.timeout_seconds,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=CONNECTIONS,
        # Other stores than AWS have no name for each bucket.
        s3={"addressing_style": "path" if request.s3_endpoint_url else "auto"},
    )
    session = boto3.session.Session(
        aws_access_key_id=request.s3_access_key_id or None,
        aws_secret_access_key=request.s3_secret_access_key or None,
        aws_session_token=request.s3_session_token or None,
        region_name=request.s3_region or None,
    )
    certificates = None if "AWS_CA_BUNDLE" in os.environ or not SYSTEM_CERTIFICATES.exists() else SYSTEM_CERTIFICATES
    return session.client(
        "s3",
        endpoint_url=request.s3_endpoint_url or None,
        # A store that is no AWS seldom has regions, but a request cannot be signed without one.
        region_name=session.region_name or ("us-east-1" if request.s3_endpoint_url else None),
        verify=str(certificates) if certificates else None,
        config=config,
    )


def objects_below(prefix: str, listed: Any) -> list[S3Object]:
    """Return the objects of a listing that are files below prefix. Raises SavedModelError for names that lead out."""
    objects: list[S3Object] = []
    for entry in listed:
        if len(objects) >= MAX_ENTRIES:
            raise SavedModelError(f"more than {MAX_ENTRIES} objects below {prefix}")
        name = entry["Key"][len(prefix) :]
        if entry["Key"].endswith("/") and not entry["Size"]:
            continue  # what some clients make in place of a directory
        path, size = relative_path(name), int(entry["Size"])
        objects.append(S3Object(entry["Key"], path, size, entry["ETag"], entry["LastModified"]))
    check_tree(item.path for item in objects)
    return objects


class Download:
    """One run of downloading objects into the staging directory."""

    def __init__(self, request: Request, client: Any, bucket: str, objects: list[S3Object], progress: Progress) -> None:
        self._request, self._client, self._bucket = request, client, bucket
        self._objects, self._progress = objects, progress
        self._journal = request.state / "objects"
        self._parts = request.state / "parts"
        self._lock = threading.Lock()
        self._received = 0
        self._there = 0
        self._total = sum(item.size for item in objects)
        self._stopped = False

    def run(self) -> Received:
        self._parts.mkdir(mode=0o700, exist_ok=True)
        missing = self._keep_known()
        resumed = self._there
        check_space(
            self._request.staging, max(0, self._total - resumed), len(missing) * 2, self._request.prunable_bytes
        )
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for done in [pool.submit(self._fetch, item) for item in missing]:
                try:
                    done.result()
                except BaseException:
                    self._stopped = True  # the others need not go on for long
                    raise
        return Received(self._received, resumed)

    def _keep_known(self) -> list[S3Object]:
        """Remove what is no object of this version, count what is there of it, and return the objects to fetch."""
        marks = set(self._journal.read_text().splitlines()) if self._journal.exists() else set()
        known = {item.path: item for item in self._objects if item.mark in marks}
        complete: set[str] = set()
        for folder, folders, names in os.walk(self._request.staging, topdown=False):
            for name in names + folders:
                path = Path(folder, name)
                item = known.get(path.relative_to(self._request.staging).as_posix())
                if path.is_dir() and not path.is_symlink():
                    if not any(path.iterdir()):
                        path.rmdir()
                elif item and not path.is_symlink() and path.stat().st_size == item.size:
                    complete.add(item.path)
                    self._there += item.size
                else:
                    path.unlink()
        missing = [item for item in self._objects if item.path not in complete]
        parts: dict[str, S3Object] = {item.mark: item for item in missing}
        for part in self._parts.iterdir():
            if part.name in parts and part.stat().st_size <= parts[part.name].size:
                self._there += part.stat().st_size
            else:
                part.unlink()
        return missing

    def _fetch(self, item: S3Object) -> None:
        from botocore.exceptions import BotoCoreError

        part = self._parts / item.mark
        part.touch(mode=0o600)
        before = -1
        while not self._stopped and part.stat().st_size < item.size:
            try:
                self._receive(part, item)
            except BotoCoreError as error:
                trouble: object = error
            else:
                trouble = "the store sends nothing more"
            # A connection that was cut is taken up again, but not for nothing.
            if not self._stopped and part.stat().st_size <= before:
                raise SavedModelError(f"cannot get {item.key}: {trouble}")
            before = part.stat().st_size
        if self._stopped:
            return
        sync(part)
        path = self._request.staging / item.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.replace(path)
        with self._lock, self._journal.open("a") as journal:
            journal.write(f"{item.mark}\n")

    def _receive(self, part: Path, item: S3Object) -> None:
        there = part.stat().st_size
        # What came before and what comes now has to be of one object.
        unchanged = {"IfMatch": item.etag} if item.etag.strip('"') else {"IfUnmodifiedSince": item.modified}
        answer = self._client.get_object(Bucket=self._bucket, Key=item.key, Range=f"bytes={there}-", **unchanged)
        body = answer["Body"]
        with part.open("ab") as file:
            for chunk in iter(lambda: body.read(CHUNK_BYTES), b""):
                there += len(chunk)
                if there > item.size:
                    raise SavedModelError(f"{item.key} is longer than the store says")
                file.write(chunk)
                with self._lock:
                    self._received += len(chunk)
                    self._there += len(chunk)
                self._progress.report(self._there, self._total, "downloading")
                if self._stopped:
                    return

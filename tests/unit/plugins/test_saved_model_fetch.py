"""A host fetches a version by itself: from web servers that cut, forget and redirect, and from a real rsync daemon."""

from __future__ import annotations

import base64
import dataclasses
import grp
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer
from saved_model_files import make_saved_model
from stub_http import unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch import archive_source, request
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch import fetch as dispatch
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.fetch import fetch
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.pull import pull_version
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import (
    FETCH_UID,
    Progress,
    Received,
    Request,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.s3_source import (
    objects_below,
    split_url,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    add_digests,
    list_files,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    WARMUP_FILE,
)

pytestmark = pytest.mark.usefixtures("no_environment_proxy")
SAMPLE = {"signature_name": "serving_default", "instances": [[1.0, 2.0]]}
WEIGHTS = os.urandom(300_000)
FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "variables/weights": WEIGHTS}


def archive_of(files: dict[str, bytes], prefix: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = archive_of(FILES)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


class Host:
    """A host's directory of one model, and what it is asked to fetch."""

    def __init__(self, model: Path) -> None:
        self.staging = model / ".staging-1"
        self.incoming = model / ".incoming-1"
        self.download = model / ".staging-1.download"
        self.staging.mkdir(parents=True)
        nothing = {field.name: None for field in dataclasses.fields(Request)}
        defaults = {
            "no_proxy": [],
            "prunable_bytes": 0,
            "timeout_seconds": 5,
            "staging": self.staging,
            "incoming": self.incoming,
        }
        self.request = Request(**{**nothing, **defaults})

    def fetch(self, **options: Any) -> Received:
        return fetch(dataclasses.replace(self.request, **options))

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.staging.rglob("*") if path.is_file())
        return {path.relative_to(self.staging).as_posix(): path.read_bytes() for path in found}

    def beside(self) -> list[str]:
        return sorted(path.name for path in self.staging.parent.iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "models" / "MLP")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(archive_source, "RETRY_SECONDS", 0.0)
    with FileServer() as server:
        server.content = ARCHIVE
        yield server


@pytest.fixture
def fetch_from(host: Host, web: FileServer) -> Callable[..., Received]:
    """Fetch the archive that the web server has."""

    def run(path: str = "/models/1.tar", **options: Any) -> Received:
        return host.fetch(**{"url": web.url + path, "digest": sha256(ARCHIVE), **options})

    return run


def refusal(run: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(SavedModelError) as error:
        run(**options)
    return str(error.value)


def begin(host: Host, web: FileServer, fetch_from: Callable[..., Received], there: int, content: bytes) -> None:
    """Have a run end after so many bytes of content, as if it had been killed."""
    whole, web.content = web.content, content
    web.cuts = [there, 0]
    refusal(fetch_from)
    assert (host.download / "archive").read_bytes() == content[:there]
    web.content = whole
    web.requests.clear()


def test_version_has_the_files_of_the_archive_and_no_others(host: Host, fetch_from: Callable[..., Received]) -> None:
    write(host.staging, {"left/over": b"1"})
    (host.staging / "link").symlink_to(host.staging.parent)
    assert fetch_from() == Received(len(ARCHIVE), 0)
    assert host.files() == FILES
    assert sorted(path.name for path in host.staging.iterdir()) == ["saved_model.pb", "variables"]
    assert host.beside() == [".staging-1", ".staging-1.download"]
    assert not (host.download / "archive").exists()


def test_single_directory_around_the_model_is_left_out(
    host: Host, web: FileServer, fetch_from: Callable[..., Received]
) -> None:
    web.content = archive_of(FILES, "variables/")  # as one of its own
    fetch_from(digest=sha256(web.content))
    assert host.files() == FILES


def test_what_lies_beside_the_model_in_the_archive_is_passed_over_and_told(
    host: Host, web: FileServer, fetch_from: Callable[..., Received]
) -> None:
    model = {f"5/{name}": content for name, content in FILES.items()}
    web.content = archive_of({"._5": b"1", "@eaDir/5@SynoEAStream": b"1", **model})
    assert fetch_from(digest=sha256(web.content)).passed_over == ["._5", "@eaDir"]
    assert host.files() == FILES


@pytest.mark.parametrize("names", [["a/saved_model.pb", "b/saved_model.pb"], ["a/b/saved_model.pb"], ["README"]])
def test_archive_that_is_no_model_is_refused(
    host: Host, web: FileServer, fetch_from: Callable[..., Received], names: list[str]
) -> None:
    web.content = archive_of(dict.fromkeys(names, b"1"))
    assert "saved_model.pb is neither at the top" in refusal(fetch_from, digest=sha256(web.content))
    assert host.files() == {}


def test_cut_download_is_gone_on_with_in_the_same_run(
    host: Host, web: FileServer, fetch_from: Callable[..., Received]
) -> None:
    web.cuts = [100_000, 50_000]
    assert fetch_from() == Received(len(ARCHIVE), 0)
    assert web.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert host.files() == FILES


def test_next_run_goes_on_where_the_last_one_ended(
    host: Host, web: FileServer, fetch_from: Callable[..., Received]
) -> None:
    begin(host, web, fetch_from, 100_000, ARCHIVE)
    assert fetch_from() == Received(len(ARCHIVE) - 100_000, 100_000)
    assert web.ranges() == ["bytes=100000-"]
    assert host.files() == FILES


def test_file_that_changed_meanwhile_is_fetched_anew(
    host: Host, web: FileServer, fetch_from: Callable[..., Received]
) -> None:
    begin(host, web, fetch_from, 100_000, bytes(len(ARCHIVE)))
    assert fetch_from().bytes == len(ARCHIVE)
    assert host.files() == FILES
    assert len(web.requests) == 1
    assert json.loads((host.download / "archive.json").read_text())["total"] == len(ARCHIVE)


@pytest.mark.parametrize("lacks", ["resumes", "has_etag", "has_length"])
def test_server_that_cannot_resume_sends_it_again(
    host: Host, web: FileServer, fetch_from: Callable[..., Received], lacks: str
) -> None:
    begin(host, web, fetch_from, 100_000, ARCHIVE)
    setattr(web, lacks, False)
    fetch_from()
    assert host.files() == FILES


def test_file_that_is_shorter_now_is_fetched_anew(
    host: Host, web: FileServer, fetch_from: Callable[..., Received], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileServer, "etag", '"always"')
    begin(host, web, fetch_from, len(ARCHIVE), ARCHIVE + b"more")
    assert fetch_from().bytes == len(ARCHIVE)
    assert web.ranges() == [f"bytes={len(ARCHIVE)}-", None]
    assert host.files() == FILES


def test_beginning_that_suffered_is_fetched_anew_once(
    host: Host, web: FileServer, fetch_from: Callable[..., Received]
) -> None:
    begin(host, web, fetch_from, 100_000, ARCHIVE)
    (host.download / "archive").write_bytes(bytes(100_000))
    fetch_from()
    assert web.ranges() == ["bytes=100000-", None]
    assert host.files() == FILES


def test_wrong_archive_is_never_unpacked(host: Host, web: FileServer, fetch_from: Callable[..., Received]) -> None:
    web.content = archive_of({"saved_model.pb": b"another"})
    for _ in range(2):
        message = refusal(fetch_from)
        assert f"its sha256 is {sha256(web.content)}, expected is {sha256(ARCHIVE)}" in message
        assert "the key digests of its entry in tfserving_models_catalog" in message
        assert host.files() == {}
    assert web.ranges() == [None, None]
    assert ".staging-1.progress" not in host.beside()


def test_version_that_is_there_already_is_not_fetched_again(
    host: Host, web: FileServer, fetch_from: Callable[..., Received]
) -> None:
    fetch_from()
    assert fetch_from() == Received(0, sum(map(len, FILES.values())))
    assert len(web.requests) == 1
    (host.staging / "variables/weights").unlink()
    assert fetch_from() == Received(len(ARCHIVE), 0)
    assert host.files() == FILES


def test_another_digest_is_another_version(host: Host, web: FileServer, fetch_from: Callable[..., Received]) -> None:
    fetch_from()
    web.content = archive_of({"saved_model.pb": b"another"})
    fetch_from(digest=sha256(web.content))
    assert host.files() == {"saved_model.pb": b"another"}


def test_module_that_is_killed_at_any_time_ends_in_the_right_files(host: Host, web: FileServer) -> None:
    """By a real process and SIGKILL."""
    code = (
        "import dataclasses, sys; from pathlib import Path;"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[3] / '.collections')!r});"
        "from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import Request;"
        "from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.fetch import fetch;"
        "nothing = {field.name: None for field in dataclasses.fields(Request)};"
        "given = dict(no_proxy=[], prunable_bytes=0, timeout_seconds=5, url=sys.argv[1], digest=sys.argv[2],"
        " staging=Path(sys.argv[3])); fetch(Request(**{**nothing, **given}))"
    )
    web.content = archive_of({"saved_model.pb": b"graph", **{f"file{i}": os.urandom(50_000) for i in range(400)}})
    command = [sys.executable, "-c", code, f"{web.url}/models/1.tar", sha256(web.content), str(host.staging)]
    for delay in (0.10, 0.15, 0.2, 0.22, 0.24, 0.26, 0.3, 0.4):
        process = subprocess.Popen(command)
        time.sleep(delay)
        process.kill()
        process.wait()
    subprocess.run(command, check=True)
    assert len(host.files()) == 401
    assert {sha256(content) for content in host.files().values()} <= set(digests_in(web.content))


def digests_in(archive: bytes) -> Iterator[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            content = tar.extractfile(info)
            assert content
            yield sha256(content.read())


def test_progress_is_told_while_it_downloads_and_unpacks(
    host: Host, fetch_from: Callable[..., Received], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[dict[str, Any], int]] = []

    class Watched(Progress):
        def report(self, *arguments: Any) -> None:
            super().report(*arguments)
            path = host.staging.with_name(".staging-1.progress")
            told.append((json.loads(path.read_text()), path.stat().st_mode & 0o777))

    monkeypatch.setattr(request, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(dispatch, "Progress", Watched)
    fetch_from()
    assert ({"bytes": len(ARCHIVE), "total": len(ARCHIVE), "what": "downloading"}, 0o644) in told
    assert told[-1][0]["what"] == "unpacking"
    assert host.beside() == [".staging-1", ".staging-1.download"]


def test_disk_space_is_asked_for_before_the_first_byte(
    host: Host, fetch_from: Callable[..., Received], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def check_space(path: Path, needed_bytes: int, needed_inodes: int, prunable_bytes: int) -> None:
        asked.append((needed_bytes, prunable_bytes, (host.download / "archive").exists()))
        raise SavedModelError("disk full")

    monkeypatch.setattr(archive_source, "check_space", check_space)
    assert refusal(fetch_from, prunable_bytes=7) == "disk full"
    assert asked == [(len(ARCHIVE), 7, False)]


def test_second_run_waits_for_the_first(host: Host, fetch_from: Callable[..., Received]) -> None:
    """A lost connection leaves the first one running on the host."""
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), "
         "fcntl.LOCK_EX); print(flush=True); time.sleep(0.5)", str(host.staging)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout
    holder.stdout.readline()
    fetch_from()
    assert holder.poll() == 0
    holder.stdout.close()


USER = "fleet"
PASSWORD = "/".join(["s3cret", "w%rd:@1"])


@pytest.fixture
def https(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test's http:// pass for https://, which the rule about passwords is for."""
    monkeypatch.setattr(Request, "scheme", property(lambda request: "https"))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.usefixtures("https")
def test_password_is_sent_on_to_the_same_server_only(web: FileServer, fetch_from: Callable[..., Received]) -> None:
    web.credentials = basic("fleet", PASSWORD)
    with FileServer() as other:
        other.content = ARCHIVE
        web.redirects = {"/here.tar": "/models/1.tar", "/there.tar": f"{other.url}/models/1.tar"}
        fetch_from("/here.tar", url_username="fleet", url_password=PASSWORD)
        assert [headers["authorization"] for _, headers in web.requests] == [web.credentials] * 2
        fetch_from("/there.tar", url_username="fleet", url_password=PASSWORD)
        assert [headers.get("authorization") for _, headers in other.requests] == [None]


@pytest.mark.usefixtures("https")
def test_wrong_password_is_told_and_not_shown(web: FileServer, fetch_from: Callable[..., Received]) -> None:
    web.credentials = basic("fleet", "another")
    message = refusal(fetch_from, url_username="fleet", url_password=PASSWORD)
    assert "Unauthorized" in message
    assert PASSWORD not in message


def test_signature_in_a_url_is_not_shown(fetch_from: Callable[..., Received], web: FileServer) -> None:
    web.redirects = {"/1.tar?X-Signature=s3cret": "/2.tar?X-Signature=s3cret", "/2.tar?X-Signature=s3cret": "gopher:/x"}
    message = refusal(fetch_from, path="/1.tar?X-Signature=s3cret")
    assert f"{web.url}/1.tar?..." in message
    assert "s3cret" not in message


@pytest.mark.parametrize("target", ["ftp://127.0.0.1:1/1.tar", "FTP://127.0.0.1:1/1.tar", "file:///etc/passwd"])
def test_redirect_to_anything_but_http_is_not_followed(
    fetch_from: Callable[..., Received], web: FileServer, target: str
) -> None:
    web.redirects = {"/1.tar": target}
    message = refusal(fetch_from, path="/1.tar")
    assert "only http:// and https:// are followed" in message or "is not allowed" in message
    assert "refused" not in message  # which a connection would have been


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "https://user:s3cret@host/1.tar"}, "tfserving_models_url_username and tfserving_models_url_password"),
        ({"url": "https://s3cret@host/1.tar"}, "tfserving_models_url_username and tfserving_models_url_password"),
        ({"url": "rsync://user:s3cret@host/m/1"}, "tfserving_models_url_username and tfserving_models_url_password"),
        ({"url": "https://host/1.zip"}, "an archive's name ends in .tar.zst, .tar.gz, .tgz, .tar"),
        ({"url": "https://host/1.tar", "digest": None}, "the sha256 of the archive is missing"),
        ({"url": "https://host/1.tar", "digest": "abc"}, "the sha256 of the archive is missing"),
        ({"url": "http://host/1.tar", "url_password": "s3cret"}, "a password is sent over https:// only"),
        ({"url": "ftp://host/1.tar"}, "the URL begins with https://, http://, s3:// or rsync://"),
        ({"url": "file:///etc/passwd"}, "the URL begins with"),
        ({"url": "rsync://host/"}, "names no version"),
        ({"url": "s3://bucket"}, "names no version"),
        ({"url": "https://host:port/1.tar"}, "is no URL"),
        ({"url": "https://[host/1.tar"}, "is no URL"),
        ({"staging": Path("/nowhere")}, "/nowhere is not a directory"),
    ],
)
def test_request_that_cannot_be_right_is_refused_first(host: Host, options: dict[str, Any], words: str) -> None:
    message = refusal(host.fetch, **{"url": "https://host/1.tar", "digest": "0" * 64, **options})
    assert words in message
    assert "s3cret" not in message
    assert host.beside() == [".staging-1"]


@pytest.fixture
def pull(host: Host, web: FileServer, tmp_path: Path) -> Callable[..., Any]:
    """Let the host publish an archive of a small SavedModel, less the files that are left out."""
    source = make_saved_model(tmp_path / "source")

    def run(
        contract: dict[str, Any] | None = None,
        without: str = "",
        digest: str = "",
        is_archive: bool = True,
        warmup: list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> Any:
        web.content = archive_of({name: (source / name).read_bytes() for name in list_files(source) if name != without})
        request = dataclasses.asdict(host.request)
        asked = {**request, "url": f"{web.url}/models/1.tar", "digest": digest or sha256(web.content), **options}
        del asked["staging"], asked["incoming"], asked["basis"]
        models = host.staging.parent.parent
        group = grp.getgrgid(os.getgid()).gr_name
        return pull_version(
            str(models), group, "MLP", 1, contract, warmup or [], is_archive, asked, distribute=False, asked="a"
        )

    return run


@pytest.mark.skipif(os.geteuid() != 0, reason="only root publishes")
def test_fetched_version_is_published_and_what_was_needed_for_it_goes(host: Host, pull: Callable[..., Any]) -> None:
    pulled = pull()
    assert list(pulled["signatures"]) == ["serving_default"]
    assert (pulled["warnings"], pulled["has_batching_file"]) == ([], False)
    assert host.beside() == [".manifest-1.json", ".unproven-1", "1"]
    manifest = json.loads((host.staging.parent / ".manifest-1.json").read_text())
    assert len(manifest["source_digest"]) == 64
    assert (manifest["bytes"], manifest["signatures"]) == (pulled["bytes"], pulled["signatures"])
    assert pull() is None  # another run has published it


@pytest.mark.skipif(os.geteuid() != 0, reason="only root publishes")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"digest": "0" * 64}, "sha256 is"),
        ({"is_archive": False}, "and `digests` of model MLP says"),  # which is the archive's
        ({"contract": {"serving_default": {"inputs": {"no_such_input": {}}}}}, "no_such_input"),
        ({"without": "variables/variables.index"}, "variables.index is missing"),
    ],
)
def test_fetched_version_that_is_not_what_it_should_be_is_not_published(
    host: Host, pull: Callable[..., Any], options: dict[str, Any], words: str
) -> None:
    assert words in refusal(pull, **options)
    assert "1" not in host.beside()
    assert pull()  # and the next one is


# rsync

needs_rsync = pytest.mark.skipif(not shutil.which("rsync"), reason="no rsync here")


class RsyncDaemon:
    """A real daemon on loopback: module models for all, private for user fleet."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "served"
        self.root.mkdir()
        (directory / "secrets").write_text(f"fleet:{PASSWORD}\n")
        (directory / "secrets").chmod(0o600)
        modules = f"[models]\npath = {self.root}\n[private]\npath = {self.root}\nauth users = fleet\n"
        settings = f"use chroot = no\n{modules}secrets file = {directory}/secrets\nlog file = {directory}/log\n"
        identity = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""  # pytest's directories are its owner's
        (directory / "rsyncd.conf").write_text(identity + settings)
        self.port = unused_port()
        self.url = f"rsync://127.0.0.1:{self.port}"
        command = ["rsync", "--daemon", "--no-detach", f"--port={self.port}", "--address=127.0.0.1"]
        self.process = subprocess.Popen([*command, f"--config={directory}/rsyncd.conf"])
        for _ in range(200):
            if subprocess.run(["rsync", f"{self.url}/"], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.02)
        raise AssertionError("the rsync daemon does not answer")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RsyncDaemon]:
    for directory in [tmp_path, *tmp_path.parents[:2]]:
        directory.chmod(0o711)  # nobody has to get there
    daemon = RsyncDaemon(tmp_path)
    write(daemon.root / "MLP" / "1", FILES)
    yield daemon
    daemon.process.terminate()
    daemon.process.wait()


@needs_rsync
def test_version_is_what_the_rsync_daemon_has(host: Host, daemon: RsyncDaemon) -> None:
    write(host.staging, {"left/over": b"1"})
    (daemon.root / "MLP/1/empty").mkdir()
    (daemon.root / "MLP/1/link").symlink_to("/etc/passwd")
    received = host.fetch(url=f"{daemon.url}/models/MLP/1")
    assert received.bytes >= len(WEIGHTS)
    assert host.files() == FILES
    assert sorted(path.name for path in host.staging.iterdir()) == ["saved_model.pb", "variables"]
    assert {path.stat().st_uid for path in (host.staging, *host.staging.rglob("*"))} == {os.geteuid()}
    assert host.beside() == [".incoming-1", ".staging-1", ".staging-1.download"]
    again = host.fetch(url=f"{daemon.url}/models/MLP/1")
    assert again.bytes < 5000 < again.resumed_bytes


@needs_rsync
def test_what_is_equal_comes_from_the_basis(host: Host, daemon: RsyncDaemon) -> None:
    basis = host.staging.with_name(".basis-1")
    write(basis, {"variables/weights": WEIGHTS[:200_000] + b"change" + WEIGHTS[200_006:]})
    assert host.fetch(url=f"{daemon.url}/models/MLP/1", basis=basis).bytes < 20_000
    assert host.files() == FILES


@needs_rsync
def test_begun_file_is_completed_from_the_basis(host: Host, daemon: RsyncDaemon) -> None:
    basis = host.staging.with_name(".basis-1")
    write(basis, {"variables/weights": WEIGHTS[:200_000] + b"change" + WEIGHTS[200_006:]})
    write(host.incoming, {"variables/weights": WEIGHTS[:1000]})
    if os.geteuid() == 0:
        for path in (host.incoming, *host.incoming.rglob("*")):
            os.chown(path, FETCH_UID, FETCH_UID)
    assert host.fetch(url=f"{daemon.url}/models/MLP/1", basis=basis).bytes < 20_000
    assert host.files() == FILES


@needs_rsync
@pytest.mark.skipif(os.geteuid() != 0, reason="only root receives as somebody else")
def test_published_file_under_another_name_is_not_written_to(host: Host, daemon: RsyncDaemon) -> None:
    published = host.staging.parent / "published"
    published.write_bytes(bytes(len(WEIGHTS)))
    owner = published.stat().st_uid
    (host.incoming / "variables").mkdir(parents=True)
    os.link(published, host.incoming / "variables/weights")
    host.fetch(url=f"{daemon.url}/models/MLP/1")
    assert host.files() == FILES
    assert published.read_bytes() == bytes(len(WEIGHTS))
    assert published.stat().st_uid == owner


@needs_rsync
def test_file_of_the_same_size_and_time_is_repaired_by_the_next_run(host: Host, daemon: RsyncDaemon) -> None:
    """As a basis has it where exports all get the same time."""
    basis = host.staging.with_name(".basis-1")
    write(basis, {"variables/weights": WEIGHTS[::-1]})
    for path in (basis / "variables/weights", daemon.root / "MLP/1/variables/weights"):
        os.utime(path, (1e9, 1e9))
    files = list_files(daemon.root / "MLP/1")
    options = {"basis": basis, "digest": tree_digest(add_digests(daemon.root / "MLP/1", files))}
    host.fetch(url=f"{daemon.url}/models/MLP/1", **options)
    assert host.files() != FILES  # what publishing finds out by the digest
    host.fetch(url=f"{daemon.url}/models/MLP/1", **options)
    assert host.files() == FILES
    daemon.process.terminate()
    assert host.fetch(url=f"{daemon.url}/models/MLP/1", **options).bytes == 0  # it is right, nobody is asked


@needs_rsync
def test_rsync_password_opens_the_module_and_is_never_shown(host: Host, daemon: RsyncDaemon) -> None:
    options = {"url": f"{daemon.url}/private/MLP/1", "url_username": "fleet"}
    assert "exit 5" in refusal(host.fetch, **options)
    message = refusal(host.fetch, **options, url_password=PASSWORD + "wrong")
    assert "auth failed" in message
    assert "s3cret" not in message
    host.fetch(**options, url_password=PASSWORD)
    assert host.files() == FILES


@needs_rsync
def test_rsync_goes_through_the_proxy_unless_it_is_exempt(host: Host, daemon: RsyncDaemon) -> None:
    options = {"url": f"{daemon.url}/models/MLP/1", "proxy": f"http://fleet:s3cret@127.0.0.1:{unused_port()}"}
    message = refusal(host.fetch, **options)
    assert "rsync cannot get" in message
    assert "s3cret" not in message
    host.fetch(**options, no_proxy=["127.0.0.1"])
    assert host.files() == FILES
    message = refusal(host.fetch, **{**options, "proxy": "https://fleet:s3cret@proxy:1"})
    assert "rsync cannot go through the proxy proxy:1" in message


@needs_rsync
def test_missing_version_is_named(host: Host, daemon: RsyncDaemon) -> None:
    assert f"rsync cannot get {daemon.url}/models/MLP/9 (exit 23)" in refusal(
        host.fetch, url=f"{daemon.url}/models/MLP/9"
    )


# S3: against a store in the lab

PREFIX = "models/MLP/1/"


def listing(*names: str) -> list[dict[str, Any]]:
    return [{"Key": PREFIX + name, "Size": 1, "ETag": '""', "LastModified": datetime(2026, 1, 1)} for name in names]


CHANGES: list[dict[str, Any]] = [{"Size": 2}, {"ETag": '"2"'}, {"LastModified": datetime(2026, 1, 2)}]


def test_objects_are_told_apart_by_path_size_and_what_the_store_says_of_their_contents() -> None:
    found = objects_below(PREFIX, [*listing("saved_model.pb", "variables/x"), {"Key": PREFIX, "Size": 0, "ETag": ""}])
    assert [item.path for item in found] == ["saved_model.pb", "variables/x"]
    others = objects_below(PREFIX, [{**listing("saved_model.pb")[0], **change} for change in CHANGES])
    assert len({item.mark for item in found + others}) == 2 + len(CHANGES)


@pytest.mark.parametrize("names", [["../evil"], ["a//b"], ["/etc/evil"], ["a\nb"], ["a/b", "a"]])
def test_object_whose_name_leads_elsewhere_is_refused(names: list[str]) -> None:
    with pytest.raises(SavedModelError):
        objects_below(PREFIX, listing(*names))


def test_bucket_and_prefix_of_a_url() -> None:
    assert split_url("s3://bucket/models/MLP/1") == ("bucket", PREFIX)


def test_missing_boto3_is_named_with_its_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "installs the package python3-boto3" in refusal(host.fetch, url="s3://bucket/models/MLP/1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root publishes")
def test_warmup_requests_are_made_on_the_host_and_are_no_part_of_the_source(
    host: Host, pull: Callable[..., Any]
) -> None:
    leftover = host.staging / WARMUP_FILE  # of a run that was killed before the version appeared
    leftover.parent.mkdir()
    leftover.write_text("other samples")
    pull(warmup=[SAMPLE])
    version = host.staging.parent / "1"
    assert (version / WARMUP_FILE).read_bytes()[12:].startswith(b"\x32")  # predict_log
    manifest = json.loads((host.staging.parent / ".manifest-1.json").read_text())
    assert (list(manifest["generated"]), WARMUP_FILE in manifest["files"]) == ([WARMUP_FILE], False)

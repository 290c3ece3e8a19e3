"""Archives that a stranger may have made: what is unpacked, and what is refused before it does harm."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch import archives
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.archives import unpack
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)

needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="no zstd here")
KINDS = [pytest.param(suffix, marks=needs_zstd if suffix == ".tar.zst" else ()) for suffix in archives.SUFFIXES]
FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets/empty": b""}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid = kind, link, 0o6777, 1234
    return info


def tar_of(*members: tuple[tarfile.TarInfo, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_of_files(files: dict[str, bytes], prefix: str = "") -> bytes:
    return tar_of(*((member(prefix + name), content) for name, content in files.items()))


def compress(tar: bytes, suffix: str) -> bytes:
    if suffix == ".tar":
        return tar
    if suffix == ".tar.zst":
        return subprocess.run(["zstd", "-q", "-c"], input=tar, capture_output=True, check=True).stdout
    return gzip.compress(tar)


class Unpacking:
    """Where an archive is unpacked, and what is asked and told meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.target = directory / "target"
        self.sizes: list[int] = []
        self.counts: list[int] = []

    def __call__(self, content: bytes, suffix: str = ".tar") -> None:
        archive = self.directory / "archive"
        archive.write_bytes(content)
        self.target.mkdir()
        unpack(archive, f"/models/1{suffix}", self.target, self.sizes.append, self.counts.append)

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.target.rglob("*") if path.is_file())
        return {path.relative_to(self.target).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def unpacking(tmp_path: Path) -> Unpacking:
    return Unpacking(tmp_path)


@pytest.fixture
def refusal(unpacking: Unpacking) -> Callable[..., str]:
    """Return why an archive is refused, having seen that nothing came to lie outside its directory."""

    def refusal(content: bytes, suffix: str = ".tar") -> str:
        with pytest.raises(SavedModelError) as error:
            unpacking(content, suffix)
        assert sorted(path.name for path in unpacking.directory.iterdir()) == ["archive", "target"]
        assert not any(path.is_symlink() for path in unpacking.target.rglob("*"))
        return str(error.value)

    return refusal


@pytest.mark.parametrize("suffix", KINDS)
def test_archive_of_each_kind_is_unpacked(unpacking: Unpacking, suffix: str) -> None:
    unpacking(compress(tar_of_files(FILES), suffix), suffix)
    assert unpacking.files() == FILES
    assert unpacking.sizes == [5, 5, 0]  # disk space was asked for
    assert unpacking.counts[-1] >= 4 * 512


def test_modes_and_owners_are_not_taken_over(unpacking: Unpacking) -> None:
    unpacking(tar_of((member("variables", tarfile.DIRTYPE), b""), (member("variables/x"), b"1")))
    status = [(unpacking.target / name).stat() for name in ("variables", "variables/x")]
    assert [oct(one.st_mode & 0o7777) for one in status] == ["0o700", "0o600"]
    assert 1234 not in {one.st_uid for one in status}


def test_names_as_tar_of_the_current_directory_writes_them(unpacking: Unpacking) -> None:
    folders = [(member(name, tarfile.DIRTYPE), b"") for name in (".", "./variables")]
    unpacking(tar_of(*folders, (member("./variables/x"), b"1"), (member("./saved_model.pb"), b"2")))
    assert unpacking.files() == {"variables/x": b"1", "saved_model.pb": b"2"}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_unpacked(unpacking: Unpacking, tar_format: int) -> None:
    name = "/".join(["a" * 100] * 3)
    unpacking(tar_of((member(name), b"1"), tar_format=tar_format))
    assert unpacking.files() == {name: b"1"}


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "a/..", "/etc/evil", "//evil", "a//b", "a/./b", "a\nb", "a\x1b[2Jb", "b\udcff", ""],
)
def test_name_that_leads_elsewhere_or_cannot_be_shown_is_refused(refusal: Callable[..., str], name: str) -> None:
    message = refusal(tar_of((member(name), b"1")))
    assert "no path within a SavedModel" in message or "must be printable" in message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (b"M", "of a kind that no SavedModel needs"),
    ],
)
def test_anything_but_files_and_directories_is_refused(refusal: Callable[..., str], kind: bytes, words: str) -> None:
    info = member("saved_model.pb", kind, link="/etc/passwd")
    assert f"'saved_model.pb' in the archive is {words}" in refusal(tar_of((info, b"")))


def test_file_below_a_link_is_not_written(refusal: Callable[..., str], tmp_path: Path) -> None:
    link = member("variables", tarfile.SYMTYPE, link=str(tmp_path))
    refusal(tar_of((link, b""), (member("variables/evil"), b"1")))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "a"], "'a' is in the archive twice"),
        (["a/b", "a"], "'a' is in the archive twice"),
        (["a", "a/b"], "'a' is both a file and a directory in the archive"),
        (["a", "./a"], "'a' is in the archive twice"),
    ],
)
def test_name_that_comes_twice_is_refused(refusal: Callable[..., str], names: list[str], words: str) -> None:
    assert refusal(tar_of(*((member(name), b"1") for name in names))) == words


@pytest.mark.parametrize(
    "version", ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"]
)
def test_sparse_file_is_refused(unpacking: Unpacking, tmp_path: Path, version: str) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 30)
    command = ["tar", "--sparse", version, "--create", "file"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    with pytest.raises(SavedModelError, match="sparse file; make it without tar --sparse"):
        unpacking(made.stdout)


@pytest.mark.parametrize("suffix", [kind for kind in KINDS if kind.values[0] != ".tar"])
def test_bomb_in_size_is_refused_before_it_fills_the_disk(unpacking: Unpacking, suffix: str) -> None:
    content = tar_of_files({"zeros": bytes(archives.ALWAYS_BYTES + (1 << 20))})
    with pytest.raises(SavedModelError, match="more than 200 times its size; if that is meant, publish it as .tar"):
        unpacking(compress(content, suffix), suffix)


def test_what_compresses_well_is_no_bomb_while_it_is_small(unpacking: Unpacking) -> None:
    unpacking(compress(tar_of_files({"zeros": bytes(1 << 20)}), ".tar.gz"), ".tar.gz")
    assert unpacking.files() == {"zeros": bytes(1 << 20)}


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_bomb_in_count_is_refused(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, kind: bytes) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)
    message = refusal(tar_of(*((member(str(number), kind), b"") for number in range(20))))
    assert message == "the archive has more than 10 members"


def test_bomb_in_depth_is_refused(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)
    assert refusal(tar_of((member("/".join("abcdefghijklm")), b""))) == "the archive has more than 10 members"


def test_full_disk_ends_it_before_the_file_is_written(unpacking: Unpacking) -> None:
    def no_room(size: int) -> None:
        raise SavedModelError(f"no space for {size}")

    archive = unpacking.directory / "archive"
    archive.write_bytes(tar_of_files(FILES))
    unpacking.target.mkdir()
    with pytest.raises(SavedModelError, match="no space for 5"):
        unpack(archive, "1.tar", unpacking.target, no_room, unpacking.counts.append)
    assert unpacking.files() == {}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_header_that_would_be_held_in_memory_is_refused(refusal: Callable[..., str], kind: bytes) -> None:
    info = member("long", kind)
    info.size = 1 << 33
    assert "a header of 8589934592 bytes" in refusal(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("what", ["cut", "cut in a header", "garbage behind it", "garbage", "empty"])
def test_damaged_archive_is_refused(unpacking: Unpacking, suffix: str, what: str) -> None:
    tar = tar_of_files({"a": bytes(range(256)) * 8, "b": b"2"})
    broken = {
        "cut": compress(tar, suffix)[: 700 if suffix == ".tar" else -12],
        "cut in a header": compress(tar[: 512 + 2048 + 100], suffix),
        "garbage behind it": compress(tar, suffix) + b"garbage" * 100,
        "garbage": b"no archive at all" * 100,
        "empty": b"",
    }
    with pytest.raises(SavedModelError, match="the archive (is damaged|goes on after its end)"):
        unpacking(broken[what], suffix)


def test_damaged_header_behind_others_is_no_end(refusal: Callable[..., str]) -> None:
    tar = tar_of_files({"a": b"1", "b": b"2"})
    assert "the archive is damaged" in refusal(tar[:1024] + b"X" * 512 + tar[1536:])


@pytest.mark.parametrize("headers", [{"size": "-512"}, {"size": "99999999999999"}, {"path": "x\0y"}])
def test_extended_header_that_lies_is_refused(refusal: Callable[..., str], headers: dict[str, str]) -> None:
    info = member("a")
    info.pax_headers = headers
    refusal(tar_of((info, b"1")))


@needs_zstd
def test_zstd_does_not_take_all_memory(refusal: Callable[..., str]) -> None:
    command = ["zstd", "-q", "-c", "--ultra", "--long=30"]
    content = subprocess.run(command, input=tar_of_files(FILES) * 2, capture_output=True, check=True).stdout
    # What comes from a pipe is not known in size, so that the frame asks for its whole window of 1 GiB.
    assert "windows over 128 MiB" in refusal(content, ".tar.zst")


@needs_zstd
def test_missing_zstd_is_named_with_its_package(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    content = compress(tar_of_files(FILES), ".tar.zst")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "the role tfserving_models installs the package zstd" in refusal(content, ".tar.zst")

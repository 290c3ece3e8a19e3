# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Unpack a tar archive that a stranger may have made: regular files and directories, below one directory, or nothing.

tarfile reads the headers; what is done about a member is decided here.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO, Callable, Iterator, NoReturn, cast

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import (
    as_stranger,
    relative_path,
    require_program,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    MAX_ENTRIES,
    SavedModelError,
)

CHUNK_BYTES = 1 << 20
MAX_RATIO = 200  # unpacked to packed; weights compress little
ALWAYS_BYTES = 64 << 20  # as much may come out of any archive
MAX_HEADER_BYTES = 64 << 10  # of a header that extends another: a long name, extended attributes
ZSTD_MEMORY_MIB = 128  # what zstd's highest level needs, without --long

_SPARSE = "{!r} in the archive is a sparse file; make it without tar --sparse"

SUFFIXES = (".tar.zst", ".tar.gz", ".tgz", ".tar")


def unpack(
    archive: Path, name: str, target: Path, check_space: Callable[[int], None], report: Callable[[int], None]
) -> None:
    """Fill target, an empty directory, from archive, whose name tells its kind (SUFFIXES).

    Modes, owners and times are not taken over. check_space is asked before each file of so many bytes; report is told
    how many bytes came out so far. Raises SavedModelError, and OSError for what target does not take.
    """
    with archive.open("rb") as packed, _unpacked(packed, name) as stream:
        limit = max(ALWAYS_BYTES, MAX_RATIO * archive.stat().st_size)
        counted = _Counted(stream, limit, report)
        try:
            file = cast(BinaryIO, counted)
            with tarfile.open(fileobj=file, mode="r|", bufsize=CHUNK_BYTES, tarinfo=_StrictInfo) as tar:
                _unpack_members(tar, target, check_space)
                _check_end(cast(IO[bytes], tar.fileobj))
        except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise SavedModelError(f"the archive is damaged or none: {error}") from error
        except (ValueError, OverflowError, RecursionError) as error:
            raise SavedModelError(f"the archive has a header that cannot be read: {error}") from error


def _unpack_members(tar: tarfile.TarFile, target: Path, check_space: Callable[[int], None]) -> None:
    files: set[str] = set()
    folders: set[str] = {""}
    for _ in range(MAX_ENTRIES):
        member = tar.next()
        if member is None:
            return
        tar.members.clear()  # type: ignore[attr-defined] # tarfile remembers them all
        path = _path_of(member)
        if path in files or (path in folders and not member.isdir()):
            raise SavedModelError(f"{path!r} is in the archive twice")
        parents = path.split("/")[:-1]
        needed = ["/".join(parents[: depth + 1]) for depth in range(len(parents))]
        for folder in [*needed, path] if member.isdir() else needed:
            if folder in files:
                raise SavedModelError(f"{folder!r} is both a file and a directory in the archive")
            if folder not in folders:
                folders.add(folder)
                (target / folder).mkdir(mode=0o700)
        if len(files) + len(folders) > MAX_ENTRIES:
            break
        if not member.isdir():
            files.add(path)
            check_space(member.size)
            _write(tar, member, target / path)
    raise SavedModelError(f"the archive has more than {MAX_ENTRIES} members")


def _path_of(member: tarfile.TarInfo) -> str:
    """Return the path of a member that may be unpacked; "" is the directory itself."""
    if member.issparse():
        raise SavedModelError(_SPARSE.format(member.name))
    if not (member.isreg() or member.isdir()):
        kinds = {
            tarfile.SYMTYPE: "a symbolic link",
            tarfile.LNKTYPE: "a hard link",
            tarfile.CHRTYPE: "a device",
            tarfile.BLKTYPE: "a device",
            tarfile.FIFOTYPE: "a named pipe",
        }
        kind = kinds.get(member.type, "of a kind that no SavedModel needs")
        raise SavedModelError(
            f"{member.name!r} in the archive is {kind}; a SavedModel has regular files only (tar --dereference "
            "--hard-dereference)"
        )
    if member.size < 0:
        raise SavedModelError(f"{member.name!r} in the archive has a size below zero")
    name = member.name
    while name.startswith("./"):  # as `tar -C DIRECTORY .` writes them
        name = name[2:]
    return "" if name == "." and member.isdir() else relative_path(name)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = cast(IO[bytes], tar.extractfile(member))
    # Only what is not there yet, and through no link.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        for chunk in iter(lambda: content.read(CHUNK_BYTES), b""):
            file.write(chunk)


def _check_end(rest: IO[bytes]) -> None:
    """tar fills its last block with zeros; anything else was not read by anybody."""
    for chunk in iter(lambda: rest.read(CHUNK_BYTES), b""):
        if chunk.strip(b"\0"):
            raise SavedModelError("the archive goes on after its end")


class _StrictInfo(tarfile.TarInfo):
    """Headers as tarfile reads them, but those are refused that it passes over, or believes whatever they cost."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        info = super().frombuf(buf, encoding, errors)
        extending = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if info.type in (*extending, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            if not 0 <= info.size <= MAX_HEADER_BYTES:  # would be held in memory
                raise SavedModelError(f"the archive has a header of {info.size} bytes")
        elif info.type == tarfile.GNUTYPE_SPARSE:
            raise SavedModelError(_SPARSE.format(info.name))
        return info

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # the end, as it is to be marked
            raise
        except tarfile.HeaderError as error:  # tarfile takes it for the end if it is not the first
            raise SavedModelError(f"the archive is damaged, cut or none: {error}") from error

    def _proc_gnusparse_10(self, _next: Any, pax_headers: Any, _tar: Any) -> NoReturn:
        """What tarfile calls to read a list of any length into memory."""
        raise SavedModelError(_SPARSE.format(pax_headers.get("GNU.sparse.name")))


class _Counted:
    """A stream that ends in an error when more comes out than is believable."""

    def __init__(self, stream: IO[bytes], limit: int, report: Callable[[int], None]) -> None:
        self._stream, self._limit, self._report = stream, limit, report
        self._count = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        if self._count > self._limit:
            raise SavedModelError(
                f"the archive unpacks to more than {MAX_RATIO} times its size; if that is meant, publish it as .tar"
            )
        self._report(self._count)
        return data


@contextlib.contextmanager
def _unpacked(packed: BinaryIO, name: str) -> Iterator[IO[bytes]]:
    if name.endswith(".tar.zst"):
        with _zstd(packed) as stream:
            yield stream
    elif name.endswith(".tar"):
        yield packed
    else:
        with gzip.GzipFile(fileobj=packed, mode="rb") as gzipped:
            yield cast(IO[bytes], gzipped)


@contextlib.contextmanager
def _zstd(packed: BinaryIO) -> Iterator[IO[bytes]]:
    require_program("zstd")
    command = [*as_stranger(), "zstd", "--decompress", "--stdout", "--quiet", f"--memory={ZSTD_MEMORY_MIB}MiB", "-"]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdin=packed, stdout=subprocess.PIPE, stderr=complaints)  # noqa: S603
        stream = cast(IO[bytes], process.stdout)
        try:
            yield _Checked(stream, process, complaints)  # type: ignore[misc]
        finally:
            process.kill()
            process.wait()
            stream.close()


class _Checked:
    """The output of zstd, whose end is believed only when zstd is content."""

    def __init__(self, stream: IO[bytes], process: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
        self._stream, self._process, self._complaints = stream, process, complaints

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if not data and self._process.wait() != 0:
            self._complaints.seek(0)
            said = self._complaints.read(2000).decode(errors="replace").split("\n")[0].strip()
            raise SavedModelError(
                f"the archive is damaged or none: {said} (windows over {ZSTD_MEMORY_MIB} MiB, which zstd --long makes, "
                "are refused)"
            )
        return data

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A directory that another user fills, and how root takes files out of it.

That user may change every component of every path in there at any moment, also right after root has looked. So root
opens each component by itself, from the descriptor of the directory above it, and follows no link. It reads what it
has opened, whatever has the name by then, and writes to files that nobody else has ever had open.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    MAX_ENTRIES,
    SMALL_BYTES,
    WORKERS,
    Files,
    SavedModelError,
    check_name,
    kind_of,
)

CHUNK_BYTES = 1 << 20
TOP_MODE = 0o700
FILE_MODE = 0o644
REMOVALS = 3  # what is made in there meanwhile may stop one
MAX_LINKS = 40  # as many as the kernel follows in one path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a named pipe is not waited for
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
# What an open says of a component that is a link, no directory any more, a socket, or gone.
_CHANGED = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENOENT)


@dataclass(frozen=True)
class UserTree:
    """A directory of one user with all that is in it. Its parents are root's, so that root knows what has its name."""

    path: Path
    uid: int

    def let_in(self, gid: int) -> None:
        """Give the directory to the user: an empty one, or what an interrupted transfer of the same user has left.

        Raises OSError.
        """
        if os.path.lexists(self.path) and not self._is_users():
            self.remove()
        with suppress(FileExistsError):
            self.path.mkdir(mode=TOP_MODE)
        with self._open("") as top:
            os.fchmod(top, TOP_MODE)
            os.fchown(top, self.uid, gid)

    def shut_out(self) -> None:
        """Let nobody but root enter; who has opened something in there still has that. Raises OSError."""
        with self._open("") as top:
            os.fchown(top, os.geteuid(), -1)
            os.fchmod(top, TOP_MODE)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each regular file by its relative path, nothing where let_in would begin anew."""
        with suppress(OSError, SavedModelError):
            if self._is_users():
                return {name: status.st_size for name, status in self._entries() if stat.S_ISREG(status.st_mode)}
        return {}

    def unlink(self, names: Iterable[str]) -> None:
        """Remove the files that are there of these."""
        for name in names:
            folder, _, base = name.rpartition("/")
            with suppress(OSError), self._open(folder) as descriptor:
                os.unlink(base, dir_fd=descriptor)

    def remove(self) -> None:
        """Remove the directory and all that it holds, or what else has its name. Raises OSError."""
        with suppress(OSError):
            self.shut_out()
        for _ in range(REMOVALS - 1):
            with suppress(OSError):
                remove_tree(self.path)
        remove_tree(self.path)

    def take(self, target: Path, wanted: Mapping[str, int] | None, group_id: int) -> Files:
        """Shut the user out and copy files to target, an empty directory of root's, where they belong to this group.

        wanted has the sizes of those to copy; of a longer one only the beginning is. None copies all. Directories are
        made for files only. Returns what was copied, with the sha256 of what was written, less the files that are not
        there. Raises OSError, and SavedModelError for what no transfer makes.
        """
        self.shut_out()
        if wanted is None:
            wanted = {}
            for name, status in self._entries():
                if not stat.S_ISDIR(status.st_mode):
                    self._check(name, status)
                    wanted[name] = status.st_size
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [
                pool.submit(self._copy_some, folder, some, wanted, target, group_id)
                for folder, some in _batches(wanted)
            ]
            copied = {name: facts for job in jobs for name, facts in job.result().items()}
        return {name: copied[name] for name in wanted if name in copied}

    def _is_users(self) -> bool:
        """Say whether all of it is the user's; the directory itself may be root's, who has shut the user out."""
        try:
            status = self.path.lstat()
            is_directory = stat.S_ISDIR(status.st_mode) and status.st_uid in (self.uid, 0)
            return is_directory and all(status.st_uid == self.uid for _, status in self._entries())
        except (OSError, SavedModelError):
            return False

    @contextmanager
    def _open(self, folder: str) -> Iterator[int]:
        """Give a descriptor of a directory below, "" for the top. Raises OSError, also for a link on the way."""
        descriptor = os.open(self.path, _DIRECTORY)
        try:
            for part in filter(None, folder.split("/")):
                above, descriptor = descriptor, os.open(part, _DIRECTORY, dir_fd=descriptor)
                os.close(above)
            yield descriptor
        finally:
            os.close(descriptor)

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield relative path and status of everything below, each directory before what is in it."""
        left, count = [""], 0
        while left:
            folder = left.pop()
            with self._open(folder) as descriptor, os.scandir(descriptor) as scanned:
                found = [(f"{folder}{entry.name}", entry.stat(follow_symlinks=False)) for entry in scanned]
            for name, _ in found:
                check_name(f"{self.path}/{name}", name)
            count += len(found)
            if count > MAX_ENTRIES:
                raise SavedModelError(f"{self.path} holds more than {MAX_ENTRIES} files and directories")
            yield from found
            left += (f"{name}/" for name, status in found if stat.S_ISDIR(status.st_mode))

    def _check(self, name: str, status: os.stat_result) -> None:
        """Raise SavedModelError for anything but a regular file of the user's."""
        if not stat.S_ISREG(status.st_mode):
            raise SavedModelError(
                f"{self.path / name} is {kind_of(status.st_mode)}, which no transfer of this collection makes; nothing "
                f"of {self.path} was published. Rerun the playbook, and find out who writes there as user id {self.uid}"
            )
        if status.st_uid != self.uid:
            raise SavedModelError(
                f"{self.path / name} belongs to user id {status.st_uid}, not to {self.uid}, who receives files there; "
                f"nothing of {self.path} was published. Rerun the playbook, and find out who put it there"
            )

    def _copy_some(
        self, folder: str, names: list[str], wanted: Mapping[str, int], target: Path, group_id: int
    ) -> Files:
        """Copy files of one directory; returns what was copied."""
        copied: Files = {}
        try:
            with self._open(folder) as descriptor:
                for name in names:
                    facts = self._copy(descriptor, name, wanted[name], target / name, group_id)
                    if facts:
                        copied[name] = facts
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
        return copied

    def _copy(self, folder: int, name: str, most: int, target: Path, group_id: int) -> dict[str, Any] | None:
        """Copy one file, whose directory is open, at most so many bytes of it and one. None where it is not there."""
        base = name.rpartition("/")[2]
        try:
            self._check(name, os.stat(base, dir_fd=folder, follow_symlinks=False))
            source = os.open(base, _FILE, dir_fd=folder)
        except OSError as error:
            if error.errno in _CHANGED:
                return None
            raise
        try:
            status = os.fstat(source)
            self._check(name, status)
            copy = _create(target)
            try:
                size, sha256 = _copy_and_hash(source, copy, most)
                os.fchown(copy, os.geteuid(), group_id)
                os.fchmod(copy, FILE_MODE)
                os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(source)
        return {"size": size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}


def _create(path: Path) -> int:
    """Return a descriptor of a new file in root's own tree; its directories are made with the first one."""
    try:
        return os.open(path, _NEW_FILE, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=TOP_MODE, parents=True, exist_ok=True)
        return os.open(path, _NEW_FILE, 0o600)


def _batches(wanted: Mapping[str, int]) -> Iterator[tuple[str, list[str]]]:
    """Yield (directory, files in it) such that threads have about as much to do: large files each by itself."""
    small: dict[str, list[str]] = {}
    for name, size in wanted.items():
        folder = name.rpartition("/")[0]
        if size >= SMALL_BYTES:
            yield folder, [name]
        else:
            small.setdefault(folder, []).append(name)
    for folder, names in small.items():
        yield from ((folder, some) for some in (names[worker::WORKERS] for worker in range(WORKERS)) if some)


def _copy_and_hash(source: int, target: int, most: int) -> tuple[int, str]:
    """Copy from one descriptor to another; returns the bytes and the sha256 of exactly what was written.

    A chunk is hashed while it is written and the next one is read.
    """
    digest, size = hashlib.sha256(), 0
    chunk = os.read(source, min(CHUNK_BYTES, most + 1))
    if len(chunk) < CHUNK_BYTES:  # most files: not worth a thread
        size += _write(target, chunk)
        digest.update(chunk)
        chunk = os.read(source, min(CHUNK_BYTES, most + 1 - size)) if size <= most else b""
    if not chunk:
        return size, digest.hexdigest()
    with ThreadPoolExecutor(1) as hasher:
        hashed: Future[None] | None = None
        while chunk:
            if hashed:
                hashed.result()
            hashed = hasher.submit(digest.update, chunk)
            size += _write(target, chunk)
            chunk = os.read(source, min(CHUNK_BYTES, most + 1 - size)) if size <= most else b""
    return size, digest.hexdigest()


def _write(descriptor: int, data: bytes) -> int:
    """Write all of data; returns how many bytes that are."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    return len(data)


def remove_tree(path: Path) -> None:
    """Remove a file or a directory with all that it holds, however deep, also while others change it. Raises OSError.

    rm opens each directory from the one above, and follows no link. A path that is missing is all right.
    """
    if not os.path.lexists(path):
        return
    done = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
        ["/bin/rm", "--recursive", "--force", "--one-file-system", "--", str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise OSError(f"{path} cannot be removed: {done.stderr.strip()[-500:]}")


def check_path(path: Path, variable: str) -> None:
    """Raise SavedModelError where a user other than root can change what a component of a path leads to.

    Links count as well as what they lead to. In a directory with the sticky bit, such as /tmp, others cannot replace
    what is root's; but they could be there first where a component is still to be made. variable says what to set.
    """
    left = list(reversed(path.absolute().parts[1:]))
    here, links = Path("/"), 0
    _check_component(here, variable)
    while left:
        part = left.pop()
        here = here.parent if part == ".." else here / part
        if not os.path.lexists(here):
            _check_component(here.parent, variable, is_sticky_enough=False)
            return
        if _check_component(here, variable):
            links += 1
            if links > MAX_LINKS:
                raise SavedModelError(f"{path}: too many symbolic links")
            leads_to = Path(os.readlink(here))  # noqa: PTH115 - Path.readlink came with Python 3.9
            left += reversed(leads_to.parts[1:] if leads_to.is_absolute() else leads_to.parts)
            here = Path("/") if leads_to.is_absolute() else here.parent


def _check_component(path: Path, variable: str, *, is_sticky_enough: bool = True) -> bool:
    """Return whether a component is a link. Raises SavedModelError where it is not root's alone."""
    status = path.lstat()
    is_link = stat.S_ISLNK(status.st_mode)
    is_safe = is_link or not status.st_mode & 0o022 or (is_sticky_enough and status.st_mode & stat.S_ISVTX)
    if status.st_uid in (0, os.geteuid()) and is_safe:
        return is_link
    why = f"it belongs to user id {status.st_uid}" if is_safe else "others than root may write to it"
    raise SavedModelError(
        f"{path} is not root's alone, and root works below it: {why}. Check its contents, give it to root (chown root "
        f"{path}; chmod go-w {path}), or set {variable} to another directory. Nothing was changed"
    )

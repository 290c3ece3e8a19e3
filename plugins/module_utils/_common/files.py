# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Python's library lacks for single files."""

from __future__ import annotations

import errno
import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

CHUNK_BYTES = 1 << 17


def file_sha256(path: Path) -> str:
    """Return the SHA256 of a file as hex digits. Raises OSError."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY)  # a file object is most of what thousands of small files would cost
    try:
        for chunk in iter(lambda: os.read(descriptor, CHUNK_BYTES), b""):
            digest.update(chunk)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


@contextmanager
def in_the_making(new: Path) -> Iterator[None]:
    """Remove a file that does not get to its place, as on a file system that is full, which the OSError then names."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            new.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(_full(new.parent)) from error
        raise


def _full(folder: Path) -> str:
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.ismount(each))
    status = os.statvfs(place)
    what = "inodes" if status.f_files and not status.f_favail else "space"  # btrfs counts none
    return (
        f"no {what} left for {folder} on its file system, which is mounted at {place}. Free some there (df -h {place}; "
        f"df -i {place}), and rerun the playbook"
    )


def write_json(path: Path, content: Any, mode: int = 0o644) -> None:
    """Replace a file by one that holds this as JSON. Raises OSError."""
    replace_file(path, json.dumps(content).encode(), mode)


def read_json(path: Path) -> Any:
    """Return what a file holds as JSON, None where there is none, or something else."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def copy_and_hash(source: Path, target: Path) -> str:
    """Copy a file that another user may still write to, and return the SHA256 of exactly what was written.

    target must not be there; it is for this process's user alone. Raises OSError, also where source is a link or no
    regular file.
    """
    digest = hashlib.sha256()
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as given:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{source} is no regular file")
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            for chunk in iter(lambda: given.read(CHUNK_BYTES), b""):
                copy.write(chunk)
                digest.update(chunk)
    return digest.hexdigest()


def replace_file(
    path: Path,
    content: bytes,
    mode: int = 0o600,
    user: int = -1,
    group: int = -1,
    prepare: Callable[[Path], None] | None = None,
) -> None:
    """Write all of a file or nothing by one rename, whenever this process is killed or the host loses power.

    What gets the name is a new file that no user but this process's has ever had open, and whose it is without user
    and group. prepare is called with its path before the rename, which it prevents by raising. Raises OSError.
    """
    # Hidden: apt and nginx read what has other names in their directories.
    new = path.with_name(f".{path.name.lstrip('.')}.new")
    new.unlink(missing_ok=True)  # of a run that was killed
    with in_the_making(new):
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(descriptor, user, group)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        if prepare:
            prepare(new)
        new.replace(path)
    sync(path.parent)


class KeptFile:
    """A file as it is now, to be put back: where a link points, or content, mode and owners, or that there is none."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where there is one that cannot be read."""
        self.path = path
        self._target = os.readlink(path) if path.is_symlink() else ""
        self._before = (path.read_bytes(), path.stat()) if path.exists() and not self._target else None

    def put_back(self) -> None:
        """Make the file what it was. Raises OSError."""
        if self._before:
            content, status = self._before
            if self.path.exists() and self.path.stat()[:6] == status[:6] and self.path.read_bytes() == content:
                return  # it was not replaced, and a file system that is full takes nothing
            replace_file(self.path, content, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        elif not self._target:
            self.path.unlink(missing_ok=True)
        elif not self.path.is_symlink():
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(self._target)


class Access(NamedTuple):
    """Who may do what with a file: names of owner and group, ids without one as numbers, and a mode such as 0751."""

    owner: str
    group: str
    mode: str

    def __str__(self) -> str:
        return f"{self.owner}:{self.group} {self.mode}"


def access_of(path: Path) -> Access:
    """Return owner, group and mode of a file or a directory. Raises OSError."""
    status = path.stat()
    owner, group = _name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid)
    return Access(owner, group, f"{stat.S_IMODE(status.st_mode):04o}")


def _name(look_up: Callable[[int], Any], number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def sync(path: Path) -> None:
    """Have a file or a directory on the disk, not in memory only. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Have everything on the disk that lies on path's file system. Raises OSError, also for what others wrote."""
    done = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
        ["/usr/bin/sync", "--file-system", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(done.stderr.strip())


def read_text(path: Path) -> str | None:
    """Return the text of a file, None where there is none; bytes that are no UTF-8 survive. Raises OSError."""
    try:
        return path.read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError:
        return None


class ManagedFile:
    """A text file with owner, group and mode, as Ansible's modules are given them."""

    def __init__(self, module: Any, path: Path, owner: str, group: str, mode: str) -> None:
        self._module = module
        self._path = path
        self._owner, self._group, self._mode = owner, group, mode

    def write(self, text: str, validate: Callable[[Path], None] | None = None) -> None:
        """Replace the file, once validate has let the new one pass. Raises OSError, and what validate raises."""

        def prepare(new: Path) -> None:
            self.set_attributes(new)
            if validate:
                validate(new)

        replace_file(self._path, text.encode(errors="surrogateescape"), prepare=prepare)

    def set_attributes(self, path: Path | None = None) -> bool:
        """Give a file its owner, group and mode; say whether that changes any."""
        name, module = str(path or self._path), self._module
        changed = module.set_owner_if_different(name, self._owner, False)
        changed = module.set_group_if_different(name, self._group, changed)
        return bool(module.set_mode_if_different(name, self._mode, changed))

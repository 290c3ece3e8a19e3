"""Which files are opened while something runs: fanotify, so that none is missed, whichever process opens it.

Not inotify: systemd in the lab's containers uses up the few instances that a user may have.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

FAN_CLOEXEC, FAN_NONBLOCK, FAN_UNLIMITED_QUEUE = 0x1, 0x2, 0x10
FAN_MARK_ADD = 0x1
FAN_OPEN, FAN_EVENT_ON_CHILD = 0x20, 0x08000000
AT_FDCWD = -100
EVENT = struct.Struct("IBBHQii")  # length, version, reserved, length of this, mask, file descriptor, process
EVENTS_AT_A_TIME = 256  # each brings an open file descriptor


class OpenedFiles:
    """The files in these directories and below that are opened inside the `with`, each counted once."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._roots = list(directories)
        self.paths: set[str] = set()

    def __enter__(self) -> OpenedFiles:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
        self._group = checked(libc.fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE, os.O_RDONLY))
        for root in self._roots:
            for folder, _, _ in os.walk(root):
                watched = FAN_OPEN | FAN_EVENT_ON_CHILD
                checked(libc.fanotify_mark(self._group, FAN_MARK_ADD, watched, AT_FDCWD, os.fsencode(folder)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            while events := self._read():
                for _, _, _, _, _, descriptor, _ in EVENT.iter_unpack(events):
                    self.paths.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
                    os.close(descriptor)
        finally:
            os.close(self._group)

    def _read(self) -> bytes:
        try:
            return os.read(self._group, EVENTS_AT_A_TIME * EVENT.size)
        except BlockingIOError:
            return b""


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"fanotify: {os.strerror(ctypes.get_errno())}")
    return result

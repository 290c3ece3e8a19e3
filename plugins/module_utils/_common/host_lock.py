# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time on a host: a file says who is at work there, and until when that counts.

The file lies in /run, so that a reboot frees the host. Nobody but root can write to it, or hold its flock, which makes
a change of it one step. It expires so many seconds after its own time of modification, which the run that has it
renews.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from typing import Any, Iterator

LOCK = "/run/tensorflow-serving.lock"
RELEASED = ".released"  # beside it: which run had it last, and until when


def take(
    holder: dict[str, Any], seconds: int, instead_of: str | None = None, path: str = LOCK
) -> dict[str, Any] | None:
    """Take the lock of this host for so long, or renew it. Returns who has it instead, None where it was taken.

    holder has run, a name of that run alone, and what tells people who that is. A lock of the run instead_of counts for
    nothing, nor does one that has expired. Returned are the holder's facts, and in UTC start and until. Raises OSError.
    """
    with _opened(path) as file:
        there = _read(file)
        if there and there["run"] not in (holder["run"], instead_of) and time.time() < there["ends"]:
            return _told(there)
        start = there["start"] if there and there["run"] == holder["run"] else time.time()
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({**holder, "start": start, "seconds": seconds}).encode(), 0)
    return None


def take_after_look(
    holder: dict[str, Any], seconds: int, looked_at: float, instead_of: str | None = None, path: str = LOCK
) -> dict[str, Any]:
    """Take the lock; return other, as take does, and looked_before, whether another run has had it since looked_at.

    looked_at is in seconds since the epoch, by this host's clock. A run that was killed has left its lock, and may have
    been at work since. Raises OSError.
    """
    left = _left(path)
    other = take(holder, seconds, instead_of, path)
    if left and left["run"] != holder["run"]:
        return {"other": other, "looked_before": other is None}
    try:
        with open(path + RELEASED) as file:  # noqa: PTH123
            last = json.load(file)
        looked_before = last["run"] != holder["run"] and last["time"] > looked_at
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        looked_before = False
    return {"other": other, "looked_before": looked_before}


def release(run: str, path: str = LOCK) -> None:
    """Let go of the lock where this run has it, and note that for runs that looked before. Raises OSError."""
    with _opened(path) as file:
        there = _read(file)
        if there is None or there["run"] == run:
            if there:
                note = os.open(path + RELEASED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                with os.fdopen(note, "w") as last:
                    json.dump({"run": run, "time": time.time()}, last)
            os.unlink(path)  # noqa: PTH108 - while nobody else has the flock


def look(path: str = LOCK) -> dict[str, Any] | None:
    """Return who has the lock, as take does, and change nothing. Raises OSError."""
    there = _left(path)
    return _told(there) if there and time.time() < there["ends"] else None


def _left(path: str) -> dict[str, Any] | None:
    """Return what the file says, whether that counts still or not; None where there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return _read(file)
    finally:
        os.close(file)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """Give a descriptor of the file, to one process at a time."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_there(path, file):  # and was not removed by who had the flock before
                yield file
                return
        finally:
            os.close(file)


def _is_there(path: str, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))  # noqa: PTH116
    except FileNotFoundError:
        return False


def _read(file: int) -> dict[str, Any] | None:
    """Return what the file says, and when it expires; None where it says nothing, as one that is new."""
    status = os.fstat(file)
    try:
        there = json.loads(os.pread(file, status.st_size, 0))
        return {**there, "ends": status.st_mtime + there["seconds"]} if "run" in there and "start" in there else None
    except (ValueError, TypeError, KeyError):
        return None


def _told(there: dict[str, Any]) -> dict[str, Any]:
    start, until = (
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) for moment in (there["start"], there["ends"])
    )
    return {**there, "start": start, "until": until}

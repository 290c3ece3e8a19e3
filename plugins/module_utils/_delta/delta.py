# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Large files that travel as a delta, which is what is new against an older version; the controller's plugins make it.

A delta is a file with the parts of the new file that differ, one after the other, and says where these belong.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping

# In a directory that receives a version: the files of its deltas.
DELTAS = ".deltas"

# The parts of a new file that differ, [[offset, length], ...] in bytes.
Runs = List[List[int]]
# By the name of the file that is made: {"data": name of the delta's file, "runs": ..., "size": bytes of the new file,
# "mtime_ns": nanoseconds since the epoch}.
Deltas = Dict[str, Dict[str, Any]]


def apply_deltas(deltas: Mapping[str, Mapping[str, Any]], basis: Path, staging: Path) -> None:
    """Make files in staging of those of the same name in basis and of the deltas that have arrived in staging.

    One that lacks either is not made. Nothing is checked: a digest of the whole tells. Raises OSError.
    """
    for name, delta in deltas.items():
        target, data = staging / name, staging / DELTAS / delta["data"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if (basis / name).is_file() and data.is_file():
            _copy(basis / name, target)
            _write_runs(data, delta["runs"], target, delta["size"])
            os.utime(target, ns=(delta["mtime_ns"], delta["mtime_ns"]))
    if (staging / DELTAS).is_dir():
        shutil.rmtree(staging / DELTAS)


def _write_runs(data: Path, runs: Runs, target: Path, size: int) -> None:
    os.truncate(target, size)
    with data.open("rb") as new, target.open("r+b") as file:
        for offset, length in runs:
            file.seek(offset)
            file.write(new.read(length))


def _copy(source: Path, target: Path) -> None:
    """Copy a file, within the file system without moving data where it can do that."""
    with source.open("rb") as old, target.open("wb") as new:
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            old.seek(new.tell())
            shutil.copyfileobj(old, new, 1 << 20)

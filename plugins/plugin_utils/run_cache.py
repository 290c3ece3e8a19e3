# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the controller does once in a run of Ansible, though every host has a process of its own."""

from __future__ import annotations

import fcntl
import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from ansible import constants


@contextmanager
def remembered(kind: str, what: str) -> Iterator[Path]:
    """Give the path at which a run remembers its answer to `what`, to one process at a time.

    The first one finds no file there and writes it. Ansible removes the directory at the end of the run.
    """
    name = f"{kind}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    memory = Path(constants.DEFAULT_LOCAL_TMP) / name
    with memory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield memory


def run_name() -> str:
    """Return a name that this run of Ansible has, and no other: that of its own temporary directory."""
    return Path(constants.DEFAULT_LOCAL_TMP).name

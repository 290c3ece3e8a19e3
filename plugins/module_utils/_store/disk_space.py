# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a file system has disk space for what is to come."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)

BLOCK_BYTES = 4096


def free_space(path: Path) -> dict[str, int | None]:
    """Return the free bytes and inodes of the file system where path is or will be.

    What only root may use counts as used. inodes is None for a file system that does not count them, such as btrfs.
    """
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    status = os.statvfs(there)
    return {"bytes": status.f_bavail * status.f_frsize, "inodes": status.f_favail if status.f_files else None}


def check_space(path: Path, needed_bytes: int, needed_inodes: int, prunable_bytes: int) -> None:
    """Raise SavedModelError unless the file system of path has so many more bytes and inodes.

    prunable_bytes is what pruning would free, for the message.
    """
    free = free_space(path)
    if needed_bytes > (free["bytes"] or 0):
        need, have = readable(needed_bytes), readable(free["bytes"] or 0)
    elif free["inodes"] is not None and needed_inodes > free["inodes"]:
        need, have = f"{needed_inodes} inodes", f"{free['inodes']} inodes"
    else:
        return
    fix = "playbooks/prune.yml" if prunable_bytes else "set tfserving_models_keep and run playbooks/prune.yml"
    raise SavedModelError(
        f"{path} has not enough disk space for the new versions: {need} needed, {have} free, and pruning would free "
        f"{readable(prunable_bytes)} ({fix}). Nothing was transferred"
    )


def whole_blocks(size: int) -> int:
    """Return how many bytes a file of this size takes on the disk."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def version_lines(versions: Mapping[tuple[str, int], int | None]) -> str:
    """Return {(model, version): size in bytes} as the lines of a diff; a size of None is not known."""
    return "".join(
        f"{model}/{version}  {'size not known' if size is None else readable(size)}\n"
        for (model, version), size in sorted(versions.items())
    )


def readable(size: int) -> str:
    """Return a size in bytes as people read it: 1.5 GiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of a large file is new, found out on the controller where it has both versions.

rsync finds it out by having the host read and sum up its copy, and then looks for these sums in the new file. Comparing
two files on one machine is several times as fast, and is done once for all hosts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import write_json
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._delta.delta import Runs
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.run_cache import remembered

BLOCK_BYTES = 1 << 18
COMPARED_BYTES = 64 << 20  # of smaller files rsync is done before two transfers have begun
# Of the file. The data of a delta lie in Ansible's temporary directory; and where more has changed, the contents may
# have moved, which rsync makes out.
MAX_SHARE = 0.25
MAX_RUNS = 100_000


@dataclass(frozen=True)
class Comparison:
    """How a new file differs from an old one.

    runs are the parts of the new file that differ, and data is a file with their contents. None are too many.
    """

    data: Path
    runs: Runs | None

    @property
    def is_same(self) -> bool:
        return self.runs == []

    @property
    def is_delta(self) -> bool:
        """Say whether the new file is to be made of the old one and data."""
        return bool(self.runs)

    @property
    def bytes(self) -> int:
        return self.data.stat().st_size

    def told(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the host makes the file by, one of Deltas; facts are those of the new file."""
        return {"data": self.data.name, "runs": self.runs, "size": facts["size"], "mtime_ns": facts["mtime_ns"]}


def compare(old: Path, new: Path, stamp: str) -> Comparison | None:
    """Return how a new file differs from an old one, None for small files. stamp tells states of the two apart.

    Raises OSError.
    """
    if min(old.stat().st_size, new.stat().st_size) < COMPARED_BYTES:
        return None
    with remembered("delta", f"{old.absolute()} {new.absolute()} {stamp}") as memory:
        data = memory.with_suffix(".data")
        if not memory.exists():
            write_json(memory, _write_delta(old, new, data))
        return Comparison(data, json.loads(memory.read_text()))


def _write_delta(old: Path, new: Path, data: Path) -> Runs | None:
    """Write what is new to data, and return where it belongs, None where it is too much."""
    most = int(new.stat().st_size * MAX_SHARE)
    written = 0
    runs: Runs = []
    with data.open("wb") as file:
        for offset, block in _changed_blocks(old, new):
            written += len(block)
            if written > most or len(runs) >= MAX_RUNS:
                file.truncate(0)
                return None
            file.write(block)
            if runs and sum(runs[-1]) == offset:
                runs[-1][1] += len(block)
            else:
                runs.append([offset, len(block)])
    # A file that became shorter and is the same as far as it goes has to be made all the same.
    if not runs and old.stat().st_size != new.stat().st_size:
        return [[0, 0]]
    return runs


def _changed_blocks(old: Path, new: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, block) of each block of the new file that the old one has not at the same place."""
    with old.open("rb") as before, new.open("rb") as after:
        offset = 0
        for block in iter(lambda: after.read(BLOCK_BYTES), b""):
            if before.read(len(block)) != block:
                yield offset, block
            offset += len(block)

"""Memory as a machine has it that has been up for some time: full of the pages of files.

Free memory of a virtual machine may be its host's meanwhile, and whoever gets it back waits for it: 1 GiB of files took
3 s to write or 6 s, as chance would have it. Pages of files that nobody needs are the machine's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.models import MIB

LEFT_BYTES = 512 * MIB  # the kernel itself keeps some of it free
CHUNK_BYTES = 4 * MIB
PASSES = 2  # what is read anew may push out what was read before


def fill(file: Path) -> None:
    """Read a file of nothing but a hole, which is made as large as memory, until little memory is free."""
    with file.open("ab") as hole:
        hole.truncate(memory("MemTotal"))
    buffer = bytearray(CHUNK_BYTES)
    for _ in range(PASSES):
        with file.open("rb", buffering=0) as content:
            while memory("MemFree") > LEFT_BYTES:
                if not content.readinto(buffer):
                    break


def memory(field: str) -> int:
    """Return a field of /proc/meminfo in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found, field  # noqa: S101 - every Linux has these
    return int(found[1]) << 10

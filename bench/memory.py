"""Memory as a machine has it that has been up for some time: full of the pages of files.

Free memory of a virtual machine may be its host's meanwhile, and a process that gets it back waits for it: 1 GiB of
files took 3 s to write or 6 s, as chance would have it. Pages of files that nobody needs are the machine's own.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.models import MIB

LEFT_BYTES = 512 * MIB  # the kernel itself keeps some of it free
CHUNK_BYTES = 4 * MIB
PASSES = 2  # what is read anew may push out what was read before


def fill(file: Path) -> None:
    """Read a file of nothing but a hole, which is made as large as memory, until little memory is free."""
    with file.open("ab") as hole:
        hole.truncate(total_bytes())
    buffer = bytearray(CHUNK_BYTES)
    for _ in range(PASSES):
        with file.open("rb", buffering=0) as content:
            while free_bytes() > LEFT_BYTES:
                if not content.readinto(buffer):
                    break


def total_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_bytes() -> int:
    """Return how much memory nobody uses, not even for pages of files."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")

"""Run a command and write what it cost as JSON: `python -m bench.account REPORT COMMAND...`.

wall_seconds      until the command ended
cpu_seconds       user and system time of the command and of all its descendants, also of those that outlived it
returncode        the command's exit status

ssh leaves a master process behind that belongs to nobody. As a subreaper this process inherits it, ends it and so
learns what it has cost.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end_what_is_left() -> None:
    """End the processes that the command has left behind. What these leave is this process's child next."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while left := children.read_text().split():
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGTERM)
        os.waitpid(-1, 0)


def main(argv: list[str]) -> int:
    report, command = Path(argv[0]), argv[1:]
    become_subreaper()
    started = time.monotonic()
    returncode = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    wall = time.monotonic() - started
    end_what_is_left()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {"wall_seconds": wall, "cpu_seconds": used.ru_utime + used.ru_stime, "returncode": returncode}
    report.write_text(json.dumps(cost))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run a program, or say exactly what failed and what to do next."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

OUTPUT_LINES_SHOWN = 25


class LabError(Exception):
    """What went wrong and what to do next, in words for the person at the terminal."""


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    advice: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program and return its standard output; `what` names the work in the error message."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{what}: no program {words[0]}\nnext: tests/lab/lab.py packages --install") from error
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).strip().splitlines()[-OUTPUT_LINES_SHOWN:]
        lines = [f"{what} failed (exit {done.returncode}): {shlex.join(words)}", *(f"  | {line}" for line in tail)]
        raise LabError("\n".join([*lines, *([f"next: {advice}"] if advice else [])]))
    return done.stdout


def digest(*parts: str | bytes) -> str:
    """A short name for exactly these inputs: another input, another name."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


def write_if_changed(path: Path, text: str) -> None:
    """Leave a file with this content; an unchanged file keeps its time stamp."""
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)


class Progress:
    """Short lines with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        # One write a line, so that lines of several threads do not run into each other.
        print(f"{time.monotonic() - self._start:6.1f} s  {text}\n", end="", flush=True)

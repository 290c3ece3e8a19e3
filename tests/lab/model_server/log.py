"""Log lines on standard error, in TensorFlow's format."""

from __future__ import annotations

import os
import time


def _write(severity: str, place: str, message: str) -> None:
    """Write one line such as `2026-11-24 08:00:00.123456: I tensorflow_serving/core/x.cc:12] message`."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    micros = int(now % 1 * 1_000_000)
    os.write(2, f"{stamp}.{micros:06d}: {severity} {place}] {message}\n".encode("utf-8", "surrogateescape"))


def info(place: str, message: str) -> None:
    """Log an INFO line; place is the C++ file and line that says it in the real server."""
    _write("I", place, message)


def warning(place: str, message: str) -> None:
    """Log a WARNING line."""
    _write("W", place, message)


def error(place: str, message: str) -> None:
    """Log an ERROR line."""
    _write("E", place, message)

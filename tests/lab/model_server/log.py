"""Log lines on standard error, in absl's form or in the one that TensorFlow had before 2.20.

Which severities are written is for TF_CPP_MIN_LOG_LEVEL to say, as in the real server: 0 means all, 1 no INFO, 2 no
WARNING, 3 no ERROR either.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import NoReturn

FORM_VARIABLE = "TFSERVING_LAB_LOG"  # the lab's own: `old` gives the older form
_LEVEL_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
_SEVERITIES = "IWEF"


def min_level(text: str) -> int:
    """Return the number that a level's text begins with, 0 where there is none (tsl/platform/default/logging.cc)."""
    number = re.match(r"\s*[+-]?[0-9]+", text)
    return int(number[0]) if number else 0


# Read at once: the program sets the variable anew, for TensorFlow in Python.
_MIN_LEVEL = min_level(os.environ.get(_LEVEL_VARIABLE, ""))
_OLD_FORM = os.environ.get(FORM_VARIABLE) == "old"


def absl_line(severity: str, place: str, message: str, seconds: float, thread: int) -> str:
    """Return a line such as `I0000 00:00:1795987467.389692    2894 server_core.cc:516] message`."""
    name = place.rpartition("/")[2]
    return f"{severity}0000 00:00:{seconds:.6f} {thread:7d} {name}] {message}\n"


def old_line(severity: str, place: str, message: str, seconds: float) -> str:
    """Return a line such as `2026-11-29 21:24:27.389692: I tensorflow_serving/core/x.cc:12] message`."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    micros = int(seconds % 1 * 1_000_000)
    return f"{stamp}.{micros:06d}: {severity} {place}] {message}\n"


def _write_raw(text: str) -> None:
    os.write(2, text.encode("utf-8", "surrogateescape"))


def _write(severity: str, place: str, message: str) -> None:
    if _SEVERITIES.index(severity) < _MIN_LEVEL:
        return
    now = time.time()
    if _OLD_FORM:
        _write_raw(old_line(severity, place, message, now))
    else:
        _write_raw(absl_line(severity, place, message, now, threading.get_native_id()))


def info(place: str, message: str) -> None:
    """Log an INFO line; place is the C++ file and line that says it in the real server."""
    _write("I", place, message)


def warning(place: str, message: str) -> None:
    """Log a WARNING line."""
    _write("W", place, message)


def error(place: str, message: str) -> None:
    """Log an ERROR line."""
    _write("E", place, message)


def fatal(place: str, message: str) -> NoReturn:
    """Log a FATAL line and abort the process, as a CHECK of the real server does."""
    _write("F", place, message)
    os.abort()


def net(file: str, number: int, message: str) -> None:
    """Write a line as the HTTP library does: in a form of its own, whatever the level.

    Source: tensorflow/serving @ 9d981c5c, util/net_http/internal/net_logging.cc.
    """
    _write_raw(f"[{file} : {number}] NET_LOG: {message}\n")

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the gateway's log says of the answers of two versions at the same time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, Iterator, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.gates import Answers

# A place in the log: inode, of the file, and offset in bytes.
Mark = Dict[str, int]

# Between what several upstreams have said of one request (ngx_http_upstream_module, $upstream_addr).
_NEXT = re.compile(r", | : ")


def mark(log: Path) -> Mark:
    """Return where a log ends now. Raises OSError."""
    status = log.stat()
    return {"inode": status.st_ino, "offset": status.st_size}


def lines_since(log: Path, begin: Mark) -> Iterator[str]:
    """Yield the lines that were logged since a mark, also where the log was rotated once. Raises OSError."""
    rotated = log.with_name(f"{log.name}.1")
    if log.stat().st_ino == begin["inode"]:
        yield from _lines(log, begin["offset"])
        return
    if rotated.exists() and rotated.stat().st_ino == begin["inode"]:
        yield from _lines(rotated, begin["offset"])
    yield from _lines(log, 0)


def _lines(log: Path, offset: int) -> Iterator[str]:
    with log.open("rb") as file:
        file.seek(offset)
        for line in file:
            yield line.decode(errors="replace")


def read_answers(lines: Iterable[str], new: Mapping[str, Collection[str]]) -> dict[str, tuple[Answers, Answers]]:
    """Return, by model, what its second server answered, and what others did to requests that name no version.

    new is how the log names the second server of each model among upstream_addr. It counts for what it answered first,
    whatever another server answered after it. A request that the client has given up counts for none.
    """
    found = {model: (Answers(), Answers()) for model in new}
    for line in lines:
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # a line that is being written
        model = entry.get("model")
        if model not in found:
            continue
        own, other = found[model]
        addresses, statuses, seconds = (
            _NEXT.split(entry.get(f"upstream_{name}", "")) for name in ("addr", "status", "response_time")
        )
        if addresses[0] in new[model]:
            _count(own, statuses[0], seconds[0])
        elif not (entry["mirrored"] or entry["version"] or entry["label"]):
            _count(other, statuses[-1], seconds[-1])
    return found


def _count(answers: Answers, status: str, seconds: str) -> None:
    """Count an answer. A model that cannot compute a request is answered 400, so what is no success is an error."""
    if not status.isdecimal():
        return
    if status.startswith("2"):
        answers.seconds.append(float(seconds))
    else:
        answers.errors += 1

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What TensorFlow Serving's Prometheus page says of requests."""

from __future__ import annotations

import re
from typing import Dict, Iterable

# requests, errors and seconds, by model.
Counts = Dict[str, Dict[str, float]]

# Every request is counted with its status, and those that were carried out have their microseconds besides. Names and
# labels as on a real server's page.
_LINE = re.compile(r"^:tensorflow:serving:(request_count|request_latency_sum|request_latency_count)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def counts(page: str) -> Counts:
    """Return what a page says, by model."""
    found: Counts = {}
    for line in page.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        labels = {name: re.sub(r"\\(.)", r"\1", value) for name, value in _LABEL.findall(match[2])}
        model = found.setdefault(labels.get("model_name", ""), {"requests": 0.0, "errors": 0.0, "seconds": 0.0})
        if match[1] == "request_count":
            model["requests"] += float(match[3])
            model["errors"] += float(match[3]) if labels.get("status") != "OK" else 0.0
        elif match[1] == "request_latency_sum":
            model["seconds"] += float(match[3]) / 1e6
    return found


def added(pages: Iterable[Counts]) -> Counts:
    """Return the sums of several servers."""
    total: Counts = {}
    for page in pages:
        for model, one in page.items():
            there = total.setdefault(model, dict.fromkeys(one, 0.0))
            for name, value in one.items():
                there[name] += value
    return total

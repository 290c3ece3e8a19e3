"""The metrics of the real server and their Prometheus page.

Source: tensorflow/serving @ 9d981c5c, util/prometheus_exporter.cc, servables/tensorflow/util.cc; the names and types
were observed on a real server.
"""

from __future__ import annotations

import bisect
import threading


def exponential_bounds(scale: float, growth: float, count: int) -> list[float]:
    """Return count upper bounds scale * growth**i, as tensorflow::monitoring::Buckets::Exponential."""
    return [scale * growth**power for power in range(count)]


_MICROSECONDS = exponential_bounds(10, 1.8, 33)  # up to about 20 minutes


def _label_text(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Return `a="x",b="y"` with backslashes and quotes escaped."""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True))


class Scalar:
    """A counter or gauge of integers, one for each tuple of label values."""

    def __init__(self, name: str, kind: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self._kind = kind
        self._labels = labels
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: int = 1) -> None:
        """Add amount to the value of these labels."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def lines(self) -> list[str]:
        """Return the metric's lines of the Prometheus page, its `# TYPE` line first."""
        with self._lock:
            values = sorted(self._values.items())
        lines = [f"# TYPE {self.name} {self._kind}"]
        return lines + [f"{self.name}{{{_label_text(self._labels, labels)}}} {value}" for labels, value in values]


class Histogram:
    """A distribution over fixed upper bounds, one for each tuple of label values."""

    def __init__(self, name: str, labels: tuple[str, ...], bounds: list[float]) -> None:
        self.name = name
        self._labels = labels
        self._bounds = bounds
        self._cells: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *labels: str) -> None:
        """Count one value under these labels."""
        with self._lock:
            counts, total = self._cells.setdefault(labels, ([0] * (len(self._bounds) + 1), [0.0]))
            counts[bisect.bisect_right(self._bounds, value)] += 1
            total[0] += value

    def lines(self) -> list[str]:
        """Return the metric's lines of the Prometheus page, its `# TYPE` line first."""
        with self._lock:
            cells = [(labels, list(counts), total[0]) for labels, (counts, total) in sorted(self._cells.items())]
        lines = [f"# TYPE {self.name} histogram"]
        for labels, counts, total in cells:
            text = _label_text(self._labels, labels)
            cumulative = 0
            for bound, count in zip([f"{bound:g}" for bound in self._bounds] + ["+Inf"], counts, strict=True):
                cumulative += count
                lines.append(f'{self.name}_bucket{{{text},le="{bound}"}} {cumulative}')
            lines.append(f"{self.name}_sum{{{text}}} {total:g}")
            lines.append(f"{self.name}_count{{{text}}} {cumulative}")
        return lines


_SERVING = ":tensorflow:serving:"
_LOADING = ":tensorflow:cc:saved_model:"

load_attempt_count = Scalar(f"{_LOADING}load_attempt_count", "counter", ("model_path", "status"))
load_latency = Scalar(f"{_LOADING}load_latency", "counter", ("model_path",))
load_latency_by_stage = Histogram(f"{_LOADING}load_latency_by_stage", ("model_path", "stage"), _MICROSECONDS)
model_warmup_latency = Histogram(f"{_SERVING}model_warmup_latency", ("model_path", "status"), _MICROSECONDS)
model_warmup_records_read = Scalar(f"{_SERVING}model_warmup_records_read", "counter", ("model_path", "status"))
request_count = Scalar(f"{_SERVING}request_count", "counter", ("model_name", "status"))
request_example_count_total = Scalar(f"{_SERVING}request_example_count_total", "counter", ("model",))
request_example_counts = Histogram(f"{_SERVING}request_example_counts", ("model",), exponential_bounds(1, 2, 15))
request_latency = Histogram(f"{_SERVING}request_latency", ("model_name", "API", "entrypoint"), _MICROSECONDS)
runtime_latency = Histogram(f"{_SERVING}runtime_latency", ("model_name", "API", "runtime"), _MICROSECONDS)

_ALL: tuple[Scalar | Histogram, ...] = (
    load_attempt_count,
    load_latency,
    load_latency_by_stage,
    # What follows up to the warm-up is only ever declared: this server neither batches nor talks to ML Metadata.
    Scalar(f"{_SERVING}batching:mixed_priority_batching_policy", "gauge", ()),
    Histogram(f"{_SERVING}batching:padding_size_v2", (), []),
    Scalar(f"{_SERVING}batching:processed_batch_size_v2", "counter", ()),
    Histogram(f"{_SERVING}batching_session:queuing_latency", (), []),
    Scalar(f"{_SERVING}batching_session:wrapped_run_count", "counter", ()),
    Scalar(f"{_SERVING}mlmd_map", "gauge", ()),
    model_warmup_latency,
    model_warmup_records_read,
    request_count,
    request_example_count_total,
    request_example_counts,
    request_latency,
    Scalar(f"{_SERVING}request_log_count", "counter", ()),
    runtime_latency,
)


def page() -> str:
    """Return the Prometheus page."""
    return "\n".join(line for metric in _ALL for line in metric.lines()) + "\n"

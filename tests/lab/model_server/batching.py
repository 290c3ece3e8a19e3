"""Batching: this server runs each request as a batch of its own, within the limits of the BatchingParameters.

No request waits for others, and one that would be split is run whole.

Source: tensorflow/serving @ 9d981c5c, servables/tensorflow/bundle_factory_util.cc, batching/batching_session.cc and
batching_util.h; the queue is TensorFlow's core/kernels/batching_util/shared_batch_scheduler.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import status, text_protos
from .savedmodel import Runner


def validate_scheduler(parameters: Any) -> None:
    """Raise INVALID_ARGUMENT for a batch scheduler that cannot be made; this ends the server's start."""
    if parameters.HasField("num_batch_threads") and parameters.num_batch_threads.value < 1:
        raise status.invalid_argument(f"num_batch_threads must be positive; was {parameters.num_batch_threads.value}")


def for_model(directory: str, common: Any, per_model: bool) -> Any | None:
    """Return the BatchingParameters of a version: the common ones, or those in its directory, or None without any."""
    if not per_model:
        return common
    file = Path(directory, "batching_params.pbtxt")
    return text_protos.read(str(file), text_protos.new("BatchingParameters")) if file.exists() else None


class BatchingSession:
    """A session whose requests keep to the limits of BatchingParameters."""

    def __init__(self, session: Runner, parameters: Any) -> None:
        """Wrap a session; raises INVALID_ARGUMENT, which fails the load, for limits that contradict each other."""

        def value(name: str, default: int) -> int:
            return getattr(parameters, name).value if parameters.HasField(name) else default

        self._session = session
        self._sizes = list(parameters.allowed_batch_sizes)
        self._splits = parameters.enable_large_batch_splitting.value
        self._limit = value("max_batch_size", 1000)
        self._execution_limit = value("max_execution_batch_size", parameters.max_batch_size.value)
        self._max_enqueued = value("max_enqueued_batches", 10)
        timeout = value("batch_timeout_micros", 0)
        if self._sizes and self._sizes[-1] != self._limit:
            raise status.invalid_argument(
                f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {self._sizes[-1]}; "
                f"expected {self._limit}"
            )
        if self._limit == 0:
            raise status.invalid_argument("input_batch_size_limit must be positive; was 0")
        if timeout < 0:
            raise status.invalid_argument(f"batch_timeout_micros must be non-negative; was {timeout}")
        if self._splits and self._max_enqueued == 0:
            raise status.invalid_argument("max_enqueued_batches must be positive; was 0")
        if self._splits and self._limit < self._execution_limit:
            raise status.invalid_argument(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                f"max_execution_batch_size.1{self._limit}{self._execution_limit}"
            )

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Iterable[str] = (), timeout_ms: int = 0
    ) -> list[np.ndarray]:
        """Run one request, filled up to an allowed size; raises StatusError as the session does, and for its size."""
        size = _batch_size(feeds)
        self._check_size(size)
        padding = 0 if self._splits else next((allowed for allowed in self._sizes if allowed >= size), size) - size
        filled = {name: np.concatenate([rows, rows[:1].repeat(padding, axis=0)]) for name, rows in feeds.items()}
        outputs = self._session.run(filled, fetches, timeout_ms)
        for output in outputs:
            if output.ndim == 0:
                raise status.failed_precondition("Batched output tensor has 0 dimensions")
            if len(output) != size + padding:
                raise status.failed_precondition(
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    "input tensors"
                )
        return [output[:size] for output in outputs]

    def _check_size(self, size: int) -> None:
        """Raise INVALID_ARGUMENT for a request larger than any may be, UNAVAILABLE for one larger than the queue."""
        if size > self._limit:
            raise status.invalid_argument(f"Task size {size} is larger than maximum input batch size {self._limit}")
        capacity = self._max_enqueued * self._execution_limit
        if self._splits and size > capacity:
            raise status.StatusError(
                status.Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; task size is "
                f"{size} but scheduling capacity is only {capacity} (num_enqueued_batches=1, max_enqueued_batches="
                f"{self._max_enqueued}, open_batch_size=0, max_execution_batch_size={self._execution_limit})",
            )

    def close(self) -> None:
        """Release the session."""
        self._session.close()


def _batch_size(feeds: Mapping[str, np.ndarray]) -> int:
    """Return the size of the first dimension, which all inputs share; raises INVALID_ARGUMENT where they do not."""
    if not feeds:
        raise status.invalid_argument("Batching Run() must have at least one input tensor")
    if any(value.ndim == 0 for value in feeds.values()):
        raise status.invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(value) for value in feeds.values()}
    if len(sizes) > 1:
        raise status.invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()

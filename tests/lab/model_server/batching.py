"""Checks batching parameters; this server runs every request on its own.

Source: tensorflow/serving @ 9d981c5c, servables/tensorflow/bundle_factory_util.cc and batching/batching_session.cc.
"""

from __future__ import annotations

from typing import Any

from . import status

_DEFAULT_MAX_BATCH_SIZE = 1000


def validate_scheduler(parameters: Any) -> None:
    """Raise INVALID_ARGUMENT for a batch scheduler that cannot be made; this ends the server's start."""
    if parameters.HasField("num_batch_threads") and parameters.num_batch_threads.value < 1:
        raise status.invalid_argument(f"num_batch_threads must be positive; was {parameters.num_batch_threads.value}")
    if parameters.HasField("max_batch_size") and parameters.max_batch_size.value < 1:
        raise status.invalid_argument(f"max_batch_size must be positive; was {parameters.max_batch_size.value}")
    if parameters.HasField("max_enqueued_batches") and parameters.max_enqueued_batches.value < 1:
        raise status.invalid_argument(
            f"max_enqueued_batches must be positive; was {parameters.max_enqueued_batches.value}"
        )


def validate(parameters: Any) -> None:
    """Raise INVALID_ARGUMENT for batch sizes that contradict each other; this fails the load of every model."""
    sizes = list(parameters.allowed_batch_sizes)
    if not sizes:
        return
    limit = parameters.max_batch_size.value if parameters.HasField("max_batch_size") else _DEFAULT_MAX_BATCH_SIZE
    what = "max_batch_size"
    if parameters.enable_large_batch_splitting.value and parameters.HasField("max_execution_batch_size"):
        limit, what = parameters.max_execution_batch_size.value, "max_execution_batch_size"
    if sizes != sorted(set(sizes)):
        raise status.invalid_argument("allowed_batch_sizes entries must be monotonically increasing")
    if sizes[-1] != limit:
        raise status.invalid_argument(
            f"Last entry in allowed_batch_sizes must match {what}; last entry was {sizes[-1]}; expected {limit}"
        )

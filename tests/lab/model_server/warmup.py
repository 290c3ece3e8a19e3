"""Replays recorded requests against a model before it becomes available.

Source: tensorflow/serving @ 9d981c5c, servables/tensorflow/saved_model_warmup_util.cc and saved_model_warmup.cc.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.python.framework.errors_impl import DataLossError
from tensorflow.python.lib.io.tf_record import tf_record_iterator
from tensorflow_serving.apis import prediction_log_pb2

from . import inference, log, metrics, status
from .savedmodel import Bundle

MAX_RECORDS = 1000
_PLACE = "tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc"


def _replay(bundle: Bundle, record: Any) -> None:
    """Run the request of one PredictionLog, if it has one; raises StatusError."""
    kind = record.WhichOneof("log_type")
    settings = inference.RunSettings()
    if kind == "predict_log":
        request = record.predict_log.request
        inputs = inference.parse_tensors(request.inputs)
        spec = request.model_spec
        inference.predict(bundle, spec.name, spec.signature_name, inputs, list(request.output_filter), settings)
    elif kind == "classify_log":
        request = record.classify_log.request
        inference.classify(bundle, request.model_spec.name, request.model_spec.signature_name, request.input, settings)
    elif kind == "regress_log":
        request = record.regress_log.request
        inference.regress(bundle, request.model_spec.name, request.model_spec.signature_name, request.input, settings)
    elif kind == "multi_inference_log":
        inference.multi_inference(bundle, 0, record.multi_inference_log.request, settings)
    elif kind is not None:
        number = record.DESCRIPTOR.fields_by_name[kind].number
        raise status.StatusError(status.Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


def _replay_file(bundle: Bundle, path: Path, iterations: int) -> tuple[int, status.StatusError | None]:
    """Replay every record of a TFRecord file; returns their number, and DATA_LOSS where it is none, or none further on.

    Raises the status of the first request that fails.
    """
    number = 0
    try:
        for number, content in enumerate(tf_record_iterator(str(path)), start=1):
            try:
                record = prediction_log_pb2.PredictionLog.FromString(content)
            except DecodeError as error:
                raise status.invalid_argument(f"Failed to parse warmup record: {content!r} from {path}") from error
            for _iteration in range(iterations):
                _replay(bundle, record)
            if number > MAX_RECORDS:
                raise status.invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    except DataLossError as error:
        return number, status.StatusError(status.Code.DATA_LOSS, error.message)
    return number, None


def run(bundle: Bundle, directory: str, iterations: int) -> None:
    """Warm a bundle up with the requests in its directory's assets.extra, if any, each so many times.

    Raises the status of the first request that fails, or DATA_LOSS for a file that is no TFRecord, and with it fails
    the load. A request that fails leaves nothing in the metrics.
    """
    path = Path(directory, "assets.extra", "tf_serving_warmup_requests")
    if not path.exists():
        log.info(f"{_PLACE}:86", f"No warmup data file found at {path}")
        return
    log.info(f"{_PLACE}:97", f"Starting to read warmup data for model at {path}")
    start = time.monotonic()
    number, problem = _replay_file(bundle, path, iterations)
    micros = int((time.monotonic() - start) * 1e6)
    outcome = str(problem or "OK")
    metrics.model_warmup_latency.observe(micros, directory, outcome)
    metrics.model_warmup_records_read.add(directory, outcome, amount=number)
    if problem is not None:
        message = f"{problem.message}. Please verify your warmup data is in TFRecord format."
        raise status.StatusError(problem.code, message)
    log.info(
        f"{_PLACE}:240",
        f"Finished reading warmup data for model at {path}. Number of warmup records read: {number}. Elapsed time "
        f"(microseconds): {micros}.",
    )

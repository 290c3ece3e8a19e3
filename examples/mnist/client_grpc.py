#!/usr/bin/env python3
"""Ask a served example model for handwritten digits over gRPC. Needs `grpcio` and `tensorflow-serving-api`.

The stubs import TensorFlow itself for its tensor messages, which takes a few seconds; client_rest.py does without.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import grpc
import numpy as np
import tensorflow as tf
from client_common import TIMEOUT_SECONDS, Digit, parse_arguments, print_table, read_digits
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub


def get_signature(service: PredictionServiceStub, model: str, name: str) -> SignatureDef:
    """Ask the model what the signature's input and output are called, and the shape of the input."""
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    signatures = SignatureDefMap()
    service.GetModelMetadata(request, timeout=TIMEOUT_SECONDS).metadata["signature_def"].Unpack(signatures)
    if name not in signatures.signature_def:
        sys.exit(f"{model} has no signature {name!r}; it has: {', '.join(sorted(signatures.signature_def))}")
    return signatures.signature_def[name]


def predict(service: PredictionServiceStub, model: str, signature_name: str, digits: list[Digit]) -> list[list[float]]:
    signature = get_signature(service, model, signature_name)
    ((input_name, model_input),) = signature.inputs.items()
    (output_name,) = signature.outputs
    shape_of_one = [dimension.size for dimension in model_input.tensor_shape.dim[1:]]  # 28x28, or 28x28x1
    pictures = np.array([digit.pixels for digit in digits], dtype=np.float32).reshape(-1, *shape_of_one)

    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature_name
    request.inputs[input_name].CopyFrom(tf.make_tensor_proto(pictures))
    response = service.Predict(request, timeout=TIMEOUT_SECONDS)
    return tf.make_ndarray(response.outputs[output_name]).tolist()


def main() -> None:
    options = parse_arguments(__doc__, port=8500)
    digits = read_digits(options.digits, options.count)
    address = f"{options.host}:{options.port}"
    with grpc.insecure_channel(address) as channel:
        try:
            predictions = predict(PredictionServiceStub(channel), options.model, options.signature, digits)
        except grpc.RpcError as error:
            sys.exit(f"{address} answered {error.code().name}: {error.details()}")
    print_table(digits, predictions)


if __name__ == "__main__":
    main()

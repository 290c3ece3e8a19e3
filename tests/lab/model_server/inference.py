"""Predict, classify, regress and multi-inference on a loaded bundle.

Source: tensorflow/serving @ 9d981c5c, servables/tensorflow/predict_util.cc, classifier.cc, regressor.cc,
multi_inference.cc and util.cc.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import text_format
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.python.framework.tensor_util import MakeNdarray, make_tensor_proto
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from . import dtypes, metrics, status
from .savedmodel import DEFAULT_SIGNATURE, Bundle

_PREDICT, _CLASSIFY, _REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"

_VALUE_FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_STRING: "string_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
}


@dataclass(frozen=True)
class RunSettings:
    """How to run a request: its time limit, 0 for none, and a flag of the server."""

    timeout_ms: int = 0
    check_method_name: bool = False


def _debug_string(signature: Any) -> str:
    """Return a SignatureDef as the real server's messages show it."""
    return f"goo.gle/debugproto   \n{text_format.MessageToString(signature)}"


@contextlib.contextmanager
def _timed(model: str, api: str) -> Iterator[None]:
    """Measure the time of a session run that succeeds."""
    start = time.monotonic()
    yield
    metrics.runtime_latency.observe((time.monotonic() - start) * 1e6, model, api, "TF1")


def parse_tensors(protos: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return TensorProtos as arrays; raises INVALID_ARGUMENT for one that is malformed."""
    arrays = {}
    for name, proto in protos.items():
        try:
            arrays[name] = MakeNdarray(proto)
        except (TypeError, ValueError) as error:
            raise status.invalid_argument(f"tensor parsing error: {name}") from error
    return arrays


def tensor_proto(array: np.ndarray, as_content: bool) -> Any:
    """Return an array as a TensorProto: in the field of its type, or with as_content as raw bytes where possible."""
    dtype = dtypes.data_type(array)
    if as_content or dtype not in _VALUE_FIELDS:
        return make_tensor_proto(array, dtype=dtype, shape=array.shape)
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _VALUE_FIELDS[dtype]).extend(array.ravel().tolist())
    return proto


def predict(
    bundle: Bundle,
    model: str,
    signature_name: str,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str],
    settings: RunSettings,
) -> dict[str, np.ndarray]:
    """Run a signature (the default one for an empty name) and return its outputs by name.

    Raises FAILED_PRECONDITION for an unknown signature, INVALID_ARGUMENT for inputs or outputs that are not the
    signature's, and whatever TensorFlow's kernels raise.
    """
    name = signature_name or DEFAULT_SIGNATURE
    if name not in bundle.signatures:
        raise status.failed_precondition(f'Serving signature key "{name}" not found.')
    signature = bundle.signatures[name]
    if settings.check_method_name and signature.method_name not in (_PREDICT, _CLASSIFY, _REGRESS):
        raise status.StatusError(
            status.Code.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{_PREDICT}, {_CLASSIFY}, {_REGRESS}}}. Was: "
            f"{signature.method_name}",
        )
    sent, expected = sorted(inputs), sorted(signature.inputs)
    if len(sent) != len(expected):
        raise status.invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({{{','.join(sent)}}}) != "
            f"len({{{','.join(expected)}}}). Sent extra: {{{','.join(sorted(set(sent) - set(expected)))}}}. "
            f"Missing but required: {{{','.join(sorted(set(expected) - set(sent)))}}}."
        )
    for alias in expected:
        if alias not in inputs:
            raise status.invalid_argument(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {{{','.join(sent)}}}, or default "
                "input alias set: "
            )
    for position, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise status.invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(sorted(signature.outputs))}}}."
            )
        if alias in output_filter[:position]:
            raise status.invalid_argument(f"duplicate output tensor alias: {alias}")
    aliases = list(output_filter) or sorted(signature.outputs)
    feeds = {signature.inputs[alias].name: value for alias, value in inputs.items()}
    with _timed(model, "Predict"):
        outputs = bundle.session.run(feeds, [signature.outputs[alias].name for alias in aliases], settings.timeout_ms)
    return dict(zip(aliases, outputs, strict=True))


def _signature(bundle: Bundle, name: str, method: str, settings: RunSettings) -> Any:
    """Return a signature for classification or regression (method says which); raises INVALID_ARGUMENT."""
    name = name or DEFAULT_SIGNATURE
    if name not in bundle.signatures:
        raise status.invalid_argument(f"No signature was found with the name: {name}")
    signature = bundle.signatures[name]
    if settings.check_method_name and signature.method_name != method:
        kind = {_CLASSIFY: "classification", _REGRESS: "regression"}[method]
        raise status.invalid_argument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
        )
    return signature


def _classification_tensors(signature: Any) -> tuple[str, list[str]]:
    """Return the input tensor and the output tensors of a classification signature; raises INVALID_ARGUMENT."""
    if len(signature.inputs) != 1:
        raise status.invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise status.invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise status.invalid_argument(f"No classification inputs found in SignatureDef: {_debug_string(signature)}")
    names = [signature.outputs[key].name for key in (_CLASSES, _SCORES) if key in signature.outputs]
    if not names:
        raise status.invalid_argument(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature was: {_debug_string(signature)}"
        )
    return signature.inputs[_INPUTS].name, names


def _regression_tensors(signature: Any) -> tuple[str, list[str]]:
    """Return the input tensor and the output tensor, in a list, of a regression signature; raises INVALID_ARGUMENT."""
    if len(signature.inputs) != 1:
        raise status.invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise status.invalid_argument("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise status.invalid_argument(f"No regression inputs found in SignatureDef: {_debug_string(signature)}")
    if _OUTPUTS not in signature.outputs:
        raise status.invalid_argument(f"No regression outputs found in SignatureDef: {_debug_string(signature)}")
    return signature.inputs[_INPUTS].name, [signature.outputs[_OUTPUTS].name]


def _serialized_examples(examples: Any) -> np.ndarray:
    """Return the tf.Examples of an Input, serialized, as a string tensor of shape [n]; a context precedes each."""
    kind = examples.WhichOneof("kind")
    context = b""
    listed: Sequence[Any] = ()
    if kind == "example_list":
        listed = examples.example_list.examples
    elif kind == "example_list_with_context":
        context = examples.example_list_with_context.context.SerializeToString()
        listed = examples.example_list_with_context.examples
    if not listed:
        raise status.invalid_argument("Input is empty.")
    return np.array([context + example.SerializeToString() for example in listed], dtype=object)


def _run_on_examples(
    bundle: Bundle,
    model: str,
    examples: Any,
    input_names: Iterable[str],
    output_names: Sequence[str],
    settings: RunSettings,
) -> tuple[dict[str, np.ndarray], int]:
    """Feed tf.Examples to some tensors; returns the outputs by tensor name, and the number of examples."""
    batch = _serialized_examples(examples)
    outputs = bundle.session.run(dict.fromkeys(input_names, batch), output_names, settings.timeout_ms)
    metrics.request_example_counts.observe(len(batch), model)
    metrics.request_example_count_total.add(model, amount=len(batch))
    return dict(zip(output_names, outputs, strict=True)), len(batch)


def _check_class_tensor(tensor: np.ndarray, what: str, expected: str, num_examples: int) -> None:
    """Raise INVALID_ARGUMENT unless an output is a matrix of the expected DataType with a row for each example."""
    if tensor.ndim != 2:
        raise status.invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)}")
    got = dtypes.enum_name(dtypes.data_type(tensor))
    if got != expected:
        raise status.invalid_argument(f"Expected {what} Tensor of {expected}. Got: {got}")
    if len(tensor) != num_examples:
        raise status.invalid_argument(f"Expected {what} output batch size of {num_examples}. Got: {len(tensor)}")


def _shape(tensor: np.ndarray) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"


def _classification_result(signature: Any, outputs: Mapping[str, np.ndarray], num_examples: int) -> Any:
    """Return the ClassificationResult of a run; raises INVALID_ARGUMENT for tensors of the wrong type or shape."""
    classes = outputs[signature.outputs[_CLASSES].name] if _CLASSES in signature.outputs else None
    scores = outputs[signature.outputs[_SCORES].name] if _SCORES in signature.outputs else None
    if classes is not None:
        _check_class_tensor(classes, "classes", "DT_STRING", num_examples)
    if scores is not None:
        _check_class_tensor(scores, "scores", "DT_FLOAT", num_examples)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise status.invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    result = classification_pb2.ClassificationResult()
    num_classes = max(tensor.shape[1] for tensor in (classes, scores) if tensor is not None)
    for row in range(num_examples):
        classifications = result.classifications.add()
        for column in range(num_classes):
            entry = classifications.classes.add()
            if classes is not None:
                entry.label = classes[row, column].decode("utf-8", "replace")
            if scores is not None:
                entry.score = float(scores[row, column])
    return result


def _regression_result(signature: Any, outputs: Mapping[str, np.ndarray], num_examples: int) -> Any:
    """Return the RegressionResult of a run; raises INVALID_ARGUMENT for a tensor of the wrong type or shape."""
    output = outputs[signature.outputs[_OUTPUTS].name]
    if output.ndim != 1 and not (output.ndim == 2 and output.shape[1] == 1):
        raise status.invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(output)}"
        )
    if len(output) != num_examples:
        raise status.invalid_argument(
            f"Input batch size did not match output batch size: {num_examples} vs. {len(output)}"
        )
    if output.dtype != np.float32:
        raise status.invalid_argument(
            f"Expected output Tensor of DT_FLOAT.  Got: {dtypes.enum_name(dtypes.data_type(output))}"
        )
    result = regression_pb2.RegressionResult()
    for value in output.ravel():
        result.regressions.add(value=float(value))
    return result


def classify(bundle: Bundle, model: str, signature_name: str, examples: Any, settings: RunSettings) -> Any:
    """Run a classification signature on a tensorflow.serving.Input; returns a ClassificationResult or raises."""
    signature = _signature(bundle, signature_name, _CLASSIFY, settings)
    input_name, output_names = _classification_tensors(signature)
    with _timed(model, "Classify"):
        outputs, number = _run_on_examples(bundle, model, examples, [input_name], output_names, settings)
    return _classification_result(signature, outputs, number)


def regress(bundle: Bundle, model: str, signature_name: str, examples: Any, settings: RunSettings) -> Any:
    """Run a regression signature on a tensorflow.serving.Input; returns a RegressionResult or raises."""
    signature = _signature(bundle, signature_name, _REGRESS, settings)
    input_name, output_names = _regression_tensors(signature)
    with _timed(model, "Regress"):
        outputs, number = _run_on_examples(bundle, model, examples, [input_name], output_names, settings)
    return _regression_result(signature, outputs, number)


def multi_inference(bundle: Bundle, version: int, request: Any, settings: RunSettings) -> Any:
    """Run the tasks of a MultiInferenceRequest in one session run; returns a MultiInferenceResponse or raises."""
    signatures: dict[str, Any] = {}
    input_names, output_names, model = set(), set(), ""
    for task in request.tasks:
        if not task.model_spec.name:
            raise status.invalid_argument("Found ModelSpec with an empty model name.")
        model = model or task.model_spec.name
        if task.model_spec.name != model:
            raise status.invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in signatures:
            raise status.invalid_argument(f"Duplicate evaluation of signature: {name}")
        if name not in bundle.signatures:
            raise status.invalid_argument(f"Requested signature not found in model graph: {name}")
        signatures[name] = bundle.signatures[name]
        if task.method_name == _CLASSIFY:
            task_input, task_outputs = _classification_tensors(signatures[name])
        elif task.method_name == _REGRESS:
            task_input, task_outputs = _regression_tensors(signatures[name])
        else:
            raise status.StatusError(
                status.Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )
        input_names.add(task_input)
        output_names.update(task_outputs)
    outputs, number = _run_on_examples(bundle, model, request.input, input_names, sorted(output_names), settings)
    response = inference_pb2.MultiInferenceResponse()
    for task in request.tasks:
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        result = response.results.add()
        result.model_spec.name = model
        result.model_spec.version.value = version
        result.model_spec.signature_name = name
        if task.method_name == _CLASSIFY:
            result.classification_result.CopyFrom(_classification_result(signatures[name], outputs, number))
        else:
            result.regression_result.CopyFrom(_regression_result(signatures[name], outputs, number))
    return response

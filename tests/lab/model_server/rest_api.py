"""The REST API: from a method, a path and a body to a status, a body and the metrics.

Source: tensorflow/serving @ 9d981c5c, model_servers/http_rest_api_handler.cc and http_rest_api_util.cc; the answers
were recorded from a real server.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from . import inference, json_tensor, metrics, model_info, status
from .core import ServerCore
from .savedmodel import DEFAULT_SIGNATURE

_VERSION_OR_LABEL = r"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_PREDICTION = re.compile(rf"/v1/models/([^/:]+){_VERSION_OR_LABEL}:(classify|regress|predict)", re.IGNORECASE)
_MODEL = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION_OR_LABEL}(?:/(metadata))?", re.IGNORECASE)


def _to_json(message: Any) -> Any:
    """Return a protobuf as JSON values, with its field names and with fields that are not set."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


class RestApi:
    """Answers requests to /v1/."""

    def __init__(self, core: ServerCore, timeout_ms: int, check_method_name: bool) -> None:
        self._core = core
        self._timeout_ms = max(0, timeout_ms)
        self._check_method_name = check_method_name

    def answer(self, http_method: str, path: str, body: bytes) -> tuple[status.Code, str]:
        """Return the canonical code and the JSON text of the answer, and count the request.

        The path has query and fragment still. A request whose path is malformed is counted for the model with the empty
        name (observed on a real server).
        """
        start = time.monotonic()
        model, api = "", ""
        code, text = status.Code.OK, ""
        try:
            parsed = (_PREDICTION if http_method == "POST" else _MODEL).fullmatch(path)
            if http_method not in ("GET", "POST") or parsed is None:
                raise status.invalid_argument(f"Malformed request: {http_method} {path}")
            model = unquote(parsed.group(1) or "", errors="surrogateescape")
            if parsed.group(2) and int(parsed.group(2)) >= 2**63:
                # The real server returns before it writes a body.
                code = status.Code.INVALID_ARGUMENT
                return code, ""
            spec = _model_spec(model, parsed)
            if http_method == "POST":
                api = parsed.group(4)
                text = self._infer(spec, api, body, f"Malformed request: {http_method} {path}")
            else:
                text = self._describe(spec, bool(parsed.group(4)))
        except Exception as error:
            problem = status.of(error)
            code, text = problem.code, json_tensor.error_text(problem.message)
        finally:
            metrics.request_count.add(model, code.name)
            if code is status.Code.OK:
                metrics.request_latency.observe((time.monotonic() - start) * 1e6, model, api, "REST")
        return code, text

    def _infer(self, spec: Any, api: str, body: bytes, malformed: str) -> str:
        settings = inference.RunSettings(self._timeout_ms, self._check_method_name)
        if api == "predict":
            return self._predict(spec, body, settings)
        if api not in ("classify", "regress"):  # the pattern ignores case, the dispatch does not
            raise status.invalid_argument(malformed)
        signature_name, examples = json_tensor.parse_examples(body)
        with self._core.handle(spec) as (servable_id, bundle):
            if api == "classify":
                result = inference.classify(bundle, servable_id.name, signature_name, examples, settings)
                return json_tensor.classification_text(result)
            result = inference.regress(bundle, servable_id.name, signature_name, examples, settings)
            return json_tensor.regression_text(result)

    def _predict(self, spec: Any, body: bytes, settings: inference.RunSettings) -> str:
        def find_inputs(signature_name: str) -> Any:
            name = signature_name or DEFAULT_SIGNATURE
            with self._core.handle(spec) as (_servable_id, bundle):
                if name not in bundle.signatures:
                    raise status.invalid_argument(f'Serving signature name: "{name}" not found in signature def')
                return bundle.signatures[name].inputs

        request = json_tensor.parse_predict(body, find_inputs)
        with self._core.handle(spec) as (servable_id, bundle):
            outputs = inference.predict(bundle, servable_id.name, request.signature_name, request.tensors, (), settings)
        return json_tensor.predict_text(outputs, request.format)

    def _describe(self, spec: Any, wants_metadata: bool) -> str:
        """Return the metadata or the status of a model."""
        if not spec.name:
            raise status.invalid_argument("Missing model name in request.")
        if wants_metadata:
            answered, signatures = model_info.signature_map(self._core, spec)
            described = {
                "model_spec": _to_json(answered),
                "metadata": {model_info.SIGNATURE_DEF: _to_json(signatures)},
            }
        else:
            request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
            described = _to_json(model_info.model_status(self._core, request))
        return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _model_spec(model: str, parsed: re.Match[str]) -> Any:
    """Return the ModelSpec that a path names."""
    spec = model_pb2.ModelSpec(name=model)
    if parsed.group(2):
        spec.version.value = int(parsed.group(2))
    elif parsed.group(3):
        spec.version_label = unquote(parsed.group(3), errors="surrogateescape")
    return spec

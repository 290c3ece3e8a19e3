"""What the server tells about its models: the state of their versions and their signatures.

Source: tensorflow/serving @ 9d981c5c, model_servers/get_model_status_impl.cc and
servables/tensorflow/get_model_metadata_impl.cc.
"""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from . import status
from .core import ServerCore

SIGNATURE_DEF = "signature_def"


def model_status(core: ServerCore, request: Any) -> Any:
    """Return the GetModelStatusResponse: the version asked for, or all versions, the highest first.

    A label is not looked at: it too means all versions (observed on a real server). Raises NOT_FOUND, or
    INVALID_ARGUMENT without a ModelSpec.
    """
    if not request.HasField("model_spec"):
        raise status.invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    states = core.monitor.versions(spec.name)
    if spec.WhichOneof("version_choice") == "version":
        states = [state for state in states if state.id.version == spec.version.value]
        if not states:
            raise status.not_found(f"Could not find version {spec.version.value} of model {spec.name}")
    if not states:
        raise status.not_found(f"Could not find any versions of model {spec.name}")
    response = get_model_status_pb2.GetModelStatusResponse()
    for state in states:
        entry = response.model_version_status.add(version=state.id.version, state=int(state.state))
        entry.status.error_code = int(state.error.code) if state.error else 0
        entry.status.error_message = state.error.message if state.error else ""
    return response


def signature_map(core: ServerCore, model_spec: Any) -> tuple[Any, Any]:
    """Return the ModelSpec of the version that answers, and its signatures as a SignatureDefMap; raises StatusError."""
    with core.handle(model_spec) as (servable_id, bundle):
        answered = get_model_metadata_pb2.GetModelMetadataResponse().model_spec
        answered.name = servable_id.name
        answered.version.value = servable_id.version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in bundle.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        return answered, signatures


def model_metadata(core: ServerCore, request: Any) -> Any:
    """Return the GetModelMetadataResponse to a request for the signatures, the only metadata there are."""
    if not request.HasField("model_spec"):
        raise status.invalid_argument("Missing ModelSpec")
    if not request.metadata_field:
        raise status.invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != SIGNATURE_DEF:
            raise status.invalid_argument(f"Metadata field {name} is not supported")
    answered, signatures = signature_map(core, request.model_spec)
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=answered)
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response

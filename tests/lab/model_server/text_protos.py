"""Text-format configuration files, and the three message types that tensorflow-serving-api does not ship.

Source: tensorflow/serving @ 9d981c5c, config/ssl_config.proto, config/monitoring_config.proto and
servables/tensorflow/session_bundle_config.proto (BatchingParameters).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format, wrappers_pb2

from . import log, status

MessageT = TypeVar("MessageT", bound=message.Message)

_PACKAGE = "tensorflow.serving"
_INT64, _BOOL, _STRING = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue", ".google.protobuf.StringValue"

# message -> [(field, number, type, repeated)]; a type that begins with a dot is a message
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "SSLConfig": [
        ("server_key", 1, "string", False),
        ("server_cert", 2, "string", False),
        ("custom_ca", 3, "string", False),
        ("client_verify", 4, "bool", False),
    ],
    "PrometheusConfig": [("enable", 1, "bool", False), ("path", 2, "string", False)],
    "MonitoringConfig": [("prometheus_config", 1, f".{_PACKAGE}.PrometheusConfig", False)],
    "BatchingParameters": [
        ("max_batch_size", 1, _INT64, False),
        ("batch_timeout_micros", 2, _INT64, False),
        ("max_enqueued_batches", 3, _INT64, False),
        ("num_batch_threads", 4, _INT64, False),
        ("thread_pool_name", 5, _STRING, False),
        ("allowed_batch_sizes", 6, "int64", True),
        ("pad_variable_length_inputs", 7, "bool", False),
        ("enable_large_batch_splitting", 8, _BOOL, False),
        ("max_execution_batch_size", 9, _INT64, False),
    ],
}


def _message_classes() -> dict[str, Any]:
    """Build the message classes of _MESSAGES in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="model_server_text_protos.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        proto = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            field = proto.field.add(name=field_name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind.startswith("."):
                field.type = kinds.TYPE_MESSAGE
                field.type_name = kind
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _message_classes()


def new(name: str) -> Any:
    """Return an empty SSLConfig, MonitoringConfig or BatchingParameters."""
    return _CLASSES[name]()


def read(path: str, into: MessageT) -> MessageT:
    """Parse a text-format file into a message and return it.

    Raises StatusError as ParseProtoTextFile does (util/proto_util.h): the file is mapped into memory, which fails for
    an empty one with EINVAL. What does not parse is logged with line and column (text_format.cc:378 of
    protobuf v31.1).
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise status.from_os_error(error, path) from error
    if not content:
        raise status.invalid_argument(f"{path}; Invalid argument")
    try:
        return text_format.Parse(content, into)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        # Python says `LINE:COLUMN : problem`, C++ `LINE:COLUMN: problem`.
        where = str(error).replace(" : ", ": ", 1)
        log.error(
            "google/protobuf/text_format.cc:378", f"Error parsing text-format {into.DESCRIPTOR.full_name}: {where}"
        )
        raise status.invalid_argument(f"Invalid protobuf file: '{path}'") from error

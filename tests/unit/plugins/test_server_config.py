"""The server's configuration files: what is written is what the server's own protobuf messages read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.message import Message as ProtobufMessage

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

from model_server import text_protos  # noqa: E402 - the messages that tensorflow-serving-api does not ship
from tensorflow.core.protobuf import config_pb2  # noqa: E402
from tensorflow_serving.config import model_server_config_pb2, platform_config_pb2  # noqa: E402

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import config_files  # noqa: E402
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (  # noqa: E402
    ServerConfigError,
    parse_models_config,
    render_file,
    render_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.text_format import (  # noqa: E402
    Message,
    TextFormatError,
)

KEY = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"
PLATFORM = "type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig"
SPLIT = {"enable_large_batch_splitting": True, "max_execution_batch_size": 4, "max_batch_size": 8}
SCALARS = {1: "double", 2: "float", 3: "int64", 5: "int32", 8: "bool", 9: "string", 11: "message", 13: "uint32"}
SCALARS[14] = "enum"


def differences(ours: Message, theirs: Any, at: str = "") -> list[str]:
    """Return where a schema of ours says something else than the descriptor of the real message."""
    found = []
    for name, field in ours.fields.items():
        here = f"{at}.{name}"
        real = theirs.fields_by_name.get(name)
        if real is None:
            found.append(f"{here} does not exist")
            continue
        if field.kind == "any":
            found += [here] if real.message_type.full_name != "google.protobuf.Any" else []
            continue
        if field.wrapped:
            real = real.message_type.fields_by_name["value"]
        elif real.is_repeated != (field.repeated or field.kind == "map"):
            found.append(f"{here} is repeated, or not")
        if SCALARS.get(real.type) != ("message" if field.kind == "map" else field.kind):
            found.append(f"{here} is {SCALARS.get(real.type)}")
        elif real.type == 11:
            found += differences(field.of_message, real.message_type, here)
        elif real.type == 14:
            known = {value.name: value.number for value in real.enum_type.values}
            found += [here] if not set(field.choices) <= set(known) or known[field.choices[0]] else []
    oneofs = {frozenset(f.name for f in oneof.fields) for oneof in theirs.oneofs if len(oneof.fields) > 1}
    found += [f"{at} has other sets" for oneof in ours.oneofs if not any(oneof <= other for other in oneofs)]
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (config_files.MODEL_SERVER_CONFIG, model_server_config_pb2.ModelServerConfig()),
        (config_files.SESSION_CONFIG, config_pb2.ConfigProto()),
        (config_files.PLATFORM_CONFIG, platform_config_pb2.PlatformConfigMap()),
        (config_files.BATCHING_PARAMETERS, text_protos.new("BatchingParameters")),
        (config_files.MONITORING_CONFIG, text_protos.new("MonitoringConfig")),
        (config_files.SSL_CONFIG, text_protos.new("SSLConfig")),
    ],
)
def test_schema_is_a_part_of_the_real_message(ours: Message, theirs: ProtobufMessage) -> None:
    assert differences(ours, theirs.DESCRIPTOR) == []


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "batching_parameters.config",
            {"max_batch_size": 8, "batch_timeout_micros": 0, "allowed_batch_sizes": [2, 8], "thread_pool_name": 'a"b'}
            | {"enable_large_batch_splitting": False, "pad_variable_length_inputs": True},
            text_protos.new("BatchingParameters"),
        ),
        (
            "monitoring.config",
            {"prometheus_config": {"enable": True, "path": "/metrics"}},
            text_protos.new("MonitoringConfig"),
        ),
        (
            "ssl.config",
            {"server_key": KEY, "server_cert": CERTIFICATE, "custom_ca": CERTIFICATE * 2, "client_verify": True},
            text_protos.new("SSLConfig"),
        ),
        (
            "session.config",
            {
                "device_count": {"CPU": 2, "GPU": 0},
                "intra_op_parallelism_threads": 4,
                "session_inter_op_thread_pool": [{"num_threads": 2}, {"global_name": "x"}],
                "gpu_options": {"per_process_gpu_memory_fraction": 0.1},
                "graph_options": {"rewrite_options": {"constant_folding": "OFF", "remapping": "AGGRESSIVE"}},
                "experimental": {"use_numa_affinity": True},
            },
            config_pb2.ConfigProto(),
        ),
    ],
)
def test_file_says_what_its_values_say(name: str, values: dict[str, Any], message: ProtobufMessage) -> None:
    text = render_file(name, values)
    assert text_format.Parse(text, type(message)()) == json_format.ParseDict(values, type(message)())


def test_platform_file_has_its_settings_inside_an_any() -> None:
    legacy = {"session_config": {"intra_op_parallelism_threads": 2}, "batching_parameters": {"max_batch_size": 4}}
    values = {
        "platform_configs": {"tensorflow": {"source_adapter_config": {"@type": PLATFORM, "legacy_config": legacy}}}
    }
    text = render_file("platform.config", values)
    assert f"[{PLATFORM}] {{" in text
    assert "max_batch_size {" in text


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [
        ("batching_parameters.config", {"max_batchsize": 1}, "did you mean max_batch_size?"),
        ("batching_parameters.config", {"num_batch_threads": 0}, "num_batch_threads is 0, and has to be at least 1"),
        ("batching_parameters.config", {"batch_timeout_micros": -1}, "has to be at least 0"),
        ("batching_parameters.config", {"allowed_batch_sizes": [4, 2], "max_batch_size": 2}, "has to go up"),
        ("batching_parameters.config", {"allowed_batch_sizes": [4], "max_batch_size": 8}, "has to be max_batch_size"),
        ("batching_parameters.config", {"allowed_batch_sizes": [4]}, "max_batch_size, which is 1000"),
        ("batching_parameters.config", SPLIT | {"allowed_batch_sizes": [4]}, "has to be max_batch_size, which is 8"),
        ("batching_parameters.config", SPLIT | {"max_execution_batch_size": 9}, "has to be at most max_batch_size"),
        ("batching_parameters.config", {"enable_large_batch_splitting": True}, "needs max_batch_size"),
        ("monitoring.config", {"prometheus_config": {"path": "metrics"}}, "has to begin with /"),
        ("ssl.config", {"server_cert": CERTIFICATE}, "server_key is missing"),
        ("ssl.config", {"server_key": "/etc/key.pem", "server_cert": CERTIFICATE}, "not its path"),
        ("ssl.config", {"server_key": KEY, "server_cert": CERTIFICATE, "client_verify": True}, "needs custom_ca"),
        ("session.config", {"intra_op_parallelism_threads": -1}, "has to be at least 0"),
        ("session.config", {"graph_options": {"rewrite_options": {"remapping": "on"}}}, "takes one of DEFAULT ON"),
        ("platform.config", {"platform_configs": {}}, "no key tensorflow"),
        ("platform.config", {"platform_configs": {"tensorflow": {"source_adapter_config": {}}}}, "takes @type"),
    ],
)
def test_values_that_the_server_would_refuse_are_named(name: str, values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ServerConfigError) as error:
        render_file(name, values)
    assert str(error.value).startswith(f"{name} cannot be written:\n- ")
    assert complaint in str(error.value)


@pytest.mark.parametrize("values", [{"server_key": [KEY], "server_cert": CERTIFICATE}, {"server_key": KEY}])
def test_complaint_shows_no_key(values: dict[str, Any]) -> None:
    with pytest.raises(ServerConfigError) as error:
        render_file("ssl.config", values)
    assert "secret" not in str(error.value)


def test_models_config_comes_back_as_it_was_written() -> None:
    models = [
        {
            "name": name,
            "base_path": f"/srv/{name}",
            "model_platform": "tensorflow",
            "model_version_policy": {"specific": {"versions": [1, 2]}},
            "version_labels": {"stable": 1},
        }
        for name in ("b", 'a "quoted" \\ name é')
    ]
    text = render_models_config(models)
    assert parse_models_config(text) == {model["name"]: model for model in models}
    real = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    assert [entry.name for entry in real.model_config_list.config] == [model["name"] for model in models]


ENTRY = 'config {{ name: "{}" base_path: "{}" model_platform: "{}" }}'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no model_config_list"),
        (ENTRY.format("a", "/a", "tensorflow") * 2, "model a is listed more than once"),
        (ENTRY.format("a", "a", "tensorflow"), "which is relative"),
        (ENTRY.format("a", "/a", ""), "has no model_platform"),
    ],
)
def test_models_config_that_the_server_refuses_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(TextFormatError, match=complaint):
        parse_models_config(f"model_config_list {{ {text} }}" if text else text)


def test_model_in_a_store_has_an_address_for_a_path() -> None:
    text = f"model_config_list {{ {ENTRY.format('a', 's3://bucket/a', 'tensorflow')} }}"
    assert list(parse_models_config(text)) == ["a"]

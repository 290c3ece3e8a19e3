"""The text format by our own parser and by Google's: what Google's refuses ours refuses, and both read the same."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    BATCHING_PARAMETERS,
    MODEL_SERVER_CONFIG,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.text_format import (
    MAX_TEXT_BYTES,
    Message,
    TextFormatError,
    parse,
    quote,
    read_values,
    render,
)

MODELS = r"""# two models
model_config_list {
  config {
    name: "MLP" base_path: '/srv/my "models"/MLP', model_platform: "tensor" "flow";
    model_version_policy { specific { versions: 1 versions: [0x2, 03] } }
    version_labels { key: "stable" value: 1 }
    version_labels: [ { key: "canary" value: 2 }, < value: 3 key: "\303\251\x41\n" > ]
  }
  config: < name: "b" base_path: "/b" model_platform: "tensorflow" model_type: TENSORFLOW
    model_version_policy: { latest { num_versions: 2 } } >
  config { name: "c" base_path: "/c" model_version_policy { all {} } }
}
"""
PIECES = [
    *"{}<>[]:,;\"'\\#\n",
    " ",
    "-",
    "0",
    "1",
    "7",
    "9",
    "x",
    "1.5",
    "-1",
    "1e3",
    "true",
    "t",
    "TENSORFLOW",
    "name",
]
PIECES += ["value", "config", "versions: 4", "latest {}", "all {}", 'name: "z"', '"a"', "9223372036854775808", "\\n"]
PIECES += ["\\x", "\\377", "\\u00e9", "\\q", "\\?", "é", "\x00", "inf", "4294967296", "[1, 2]", "unknown: 1"]

# Where ours is stricter, as the docstring of text_format.py has it.
STRICTER = re.compile(
    r"has no meaning here|is no escape|is none of|is expected, not|: is expected after|\{ is expected, not \[|"
    r"is out of range|is no character"
)


def google(text: str) -> ModelServerConfig | None:
    try:
        return text_format.Parse(text.encode("utf-8", "surrogatepass"), ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError, UnicodeEncodeError):
        return None


def attempt(text: str) -> tuple[dict[str, Any], str]:
    try:
        return parse(text, MODEL_SERVER_CONFIG), ""
    except TextFormatError as error:
        return {}, str(error)


def mutate(text: str, chance: random.Random) -> str:
    """Return text with one to three small things changed."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 1, 2, 5]))
        text = text[:start] + chance.choice(["", chance.choice(PIECES), f" {chance.choice(PIECES)} "]) + text[end:]
    return text


def test_both_parsers_read_the_same() -> None:
    ours = parse(MODELS, MODEL_SERVER_CONFIG)
    theirs = text_format.Parse(MODELS, ModelServerConfig())
    assert json_format.ParseDict(ours, ModelServerConfig()) == theirs
    assert text_format.Parse(render(ours, MODEL_SERVER_CONFIG), ModelServerConfig()) == theirs
    assert parse(render(ours, MODEL_SERVER_CONFIG), MODEL_SERVER_CONFIG) == ours


@pytest.mark.filterwarnings(
    "ignore:invalid escape sequence:DeprecationWarning"
)  # Google's parser goes through Python's
def test_what_google_refuses_is_refused() -> None:
    chance = random.Random(20261124)  # noqa: S311 - the same mutations in each run
    both = 0
    for _ in range(1500):
        mutated = mutate(MODELS, chance)
        theirs = google(mutated)
        ours, refusal = attempt(mutated)
        if refusal:
            assert theirs is None or STRICTER.search(refusal), f"{refusal}\n{mutated}"
            continue
        assert theirs is not None, mutated
        assert json_format.ParseDict(ours, ModelServerConfig()) == theirs, mutated
        both += 1
    assert both > 80  # the mutations do reach beyond refusals


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model_config_list {", "line 1, column 20: a field of ModelConfigList is expected"),
        (
            "model_config_list {\n confg {} }",
            "line 2, column 2: ModelConfigList has no field confg; did you mean config?",
        ),
        ("model_config_list {} model_config_list {}", "ModelServerConfig takes one model_config_list"),
        ("model_config_list { config { name: 1 } }", "a string in quotes is expected"),
        ("model_config_list { config { name: 'a } }", "has no meaning here"),
        ("model_config_list { config { name 'a' } }", ": is expected after name"),
        ("model_config_list { config { model_version_policy { all {} latest {} } } }", "takes one of all and latest"),
        ("model_config_list { config { model_version_policy { latest { num_versions: -1 } } } }", "out of range"),
        ("model_config_list { config { model_version_policy { latest { num_versions: 08 } } } }", "a whole number"),
        ("model_config_list { config { model_type: TENSORFLOWS } }", "TENSORFLOWS is none of"),
        ("model_config_list { config { name: '\\377' } }", "is not UTF-8"),
        ("model_config_list {},;", "a field of ModelServerConfig is expected, not ;"),
        ("}", "a field of ModelServerConfig is expected, not }"),
    ],
)
def test_refusal_names_line_and_reason(text: str, complaint: str) -> None:
    with pytest.raises(TextFormatError, match=re.escape(complaint)):
        parse(text, MODEL_SERVER_CONFIG)


@pytest.mark.parametrize("text", [" " * (MAX_TEXT_BYTES + 1), b"\xff"])
def test_text_beyond_bounds_is_refused(text: str | bytes) -> None:
    with pytest.raises(TextFormatError):
        parse(text, MODEL_SERVER_CONFIG)


def test_depth_is_bounded() -> None:
    inner: dict[str, Any] = {}
    endless = Message("Endless", inner)
    inner["next"] = type(MODEL_SERVER_CONFIG.fields["model_config_list"])("message", message=endless)
    assert parse("next {" * 30 + "}" * 30, endless)
    with pytest.raises(TextFormatError, match="32 deep"):
        parse("next {" * 50000 + "}" * 50000, endless)


@pytest.mark.parametrize("text", ['a "b" \\ c\nd é', "\x00\x1f\x7f", "\u2028\U0001f600", "'", "", "?\\?\ttab", "\\101"])
def test_any_string_survives(text: str) -> None:
    written = f"model_config_list {{ config {{ name: {quote(text)} }} }}"
    assert text_format.Parse(written, ModelServerConfig()).model_config_list.config[0].name == text
    assert parse(written, MODEL_SERVER_CONFIG) == {"model_config_list": {"config": [{"name": text}]}}


def test_values_of_a_user_are_read_with_all_problems() -> None:
    values, problems = read_values(
        {"max_batch_size": "128", "allowed_batch_sizes": ["x", 2], "batch_timeout": 1, "thread_pool_name": None}
        | {"num_batch_threads": True, "enable_large_batch_splitting": "true", "max_execution_batch_size": 2**63},
        BATCHING_PARAMETERS,
    )
    assert values["max_batch_size"] == 128
    assert values["enable_large_batch_splitting"] is True
    assert problems == [
        "allowed_batch_sizes[0] takes a whole number, not 'x'",
        "batch_timeout: BatchingParameters has no field batch_timeout; did you mean batch_timeout_micros?",
        "num_batch_threads takes a whole number, not True",
        f"max_execution_batch_size: {2**63} is out of range for int64",
    ]


@pytest.mark.parametrize("values", [None, [], "a", {"model_config_list": []}])
def test_values_that_are_no_message_are_a_problem(values: Any) -> None:
    assert len(read_values(values, MODEL_SERVER_CONFIG)[1]) == 1

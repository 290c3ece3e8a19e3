"""The filters, and the lines of the table that the playbooks print."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from ansible_collections.modelops.tensorflow_serving.plugins.action.table import aligned
from ansible_collections.modelops.tensorflow_serving.plugins.filter.digit_rows import digit_rows
from ansible_collections.modelops.tensorflow_serving.plugins.filter.status_rows import status_rows
from ansible_collections.modelops.tensorflow_serving.plugins.filter.textproto import textproto


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MLP",
        "/var/lib/tensorflow serving/models",
        'say "hi"',
        "it's",
        "back\\slash",
        "\\n is no newline",
        "ends with a backslash\\",
        "two\nlines\r\n\ttab",
        "\0001 after NUL",
        "".join(map(chr, range(32))) + "\x7f7",
        "Zürich 東京 🙂",
        "no\u00a0break, \u2028 line, \u200b width, \ue000 private, \u0085 next",
        "# { } < > [ ] : ; , ??/",
    ],
)
def test_quoted_text_is_read_back_by_protobuf(text: str) -> None:
    line = f"model_config_list {{ config {{ name: {textproto(text)} }} }}"
    assert "\n" not in line
    parsed = text_format.Parse(line, ModelServerConfig())
    assert parsed.model_config_list.config[0].name == text


def test_plain_text_stays_readable() -> None:
    assert textproto("/models/MLP") == '"/models/MLP"'
    assert textproto(5) == '"5"'


def prediction(name: str, version: int, *probabilities: list[float]) -> dict[str, Any]:
    return {"item": {"name": name}, "version": version, "predictions": list(probabilities)}


def test_digit_rows_put_predictions_beside_labels() -> None:
    rows = digit_rows(
        [prediction("MLP", 2, [0.01, 0.99], [0.75004, 0.24996]), prediction("CNN", 1, [0, 1], [0, 1])], [1, 1]
    )
    assert rows[:2] == [
        {"model": "MLP", "version": 2, "digit": 1, "label": 1, "predicted": 1, "probability": "0.9900", "right": True},
        {"model": "MLP", "version": 2, "digit": 2, "label": 1, "predicted": 0, "probability": "0.7500", "right": False},
    ]
    assert [(row["model"], row["digit"]) for row in rows] == [("MLP", 1), ("MLP", 2), ("CNN", 1), ("CNN", 2)]


@pytest.mark.parametrize("labels", [[], [1], [1, 0, 1]])
def test_digit_rows_refuse_another_number_of_labels(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=f"2 predictions for {len(labels)} labels"):
        digit_rows([prediction("MLP", 1, [0, 1], [0, 1])], labels)


def test_status_rows_name_the_host_in_the_order_of_hosts() -> None:
    row = {"model": "MLP", "version": 1, "state": "AVAILABLE", "error_message": ""}
    hostvars = {"web1": {"status": {"versions": [row, {**row, "version": 2}]}}, "web2": {"status": {"versions": [row]}}}
    rows = status_rows(["web2", "web1"], hostvars, "status")
    assert [(one["host"], one["version"]) for one in rows] == [("web2", 1), ("web1", 1), ("web1", 2)]
    assert rows[0] == {**row, "host": "web2"}
    assert "host" not in row


@pytest.mark.parametrize(
    ("variables", "state", "message"),
    [
        (
            {"status": {"unreachable": True, "msg": "Failed to connect:\n  no route\n"}},
            "HOST UNREACHABLE",
            "Failed to connect: no route",
        ),
        ({"status": {"failed": True, "msg": "no python"}}, "NOT ASKED", "no python"),
        ({"status": {}}, "NOT ASKED", ""),
        ({"status": None}, "NOT ASKED", ""),
        ({}, "NOT ASKED", ""),
    ],
)
def test_status_rows_show_a_host_that_could_not_be_asked(variables: dict[str, Any], state: str, message: str) -> None:
    assert status_rows(["web1"], {"web1": variables}, "status") == [
        {"host": "web1", "state": state, "error_message": message}
    ]


def test_status_rows_of_a_host_without_models_are_none() -> None:
    assert status_rows(["web1"], {"web1": {"status": {"versions": []}}}, "status") == []


def test_table_is_aligned_and_numbers_are_to_the_right() -> None:
    rows = [
        {"model": "MLP", "version": 9, "probability": "0.9987", "other": "left out"},
        {"model": "half_plus_two", "version": 10, "probability": "1"},
    ]
    assert aligned(["model", "version", "probability"], rows) == [
        "model          version  probability",
        "-------------  -------  -----------",
        "MLP                  9       0.9987",
        "half_plus_two       10            1",
    ]


def test_missing_cells_are_empty_and_lines_have_no_trailing_blanks() -> None:
    rows = [{"model": "MLP", "version": None, "state": ""}, {"state": "END", "version": 0}, {"model": "CNN"}]
    assert aligned(["model", "version", "state"], rows) == [
        "model  version  state",
        "-----  -------  -----",
        "MLP",
        "       0        END",
        "CNN",
    ]


def test_table_without_rows_has_its_header() -> None:
    assert aligned(["model", "version"], []) == ["model  version", "-----  -------"]

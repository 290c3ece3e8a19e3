"""What a contract may say, and what breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from saved_model_files import SIGNATURES

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.signature_contract import (
    contract_errors,
    contract_problems,
)

SHAPE = "call.inputs.x.shape takes a list of sizes, -1 where any size will do, or unknown_rank"


def of_x(**facts: Any) -> dict[str, Any]:
    return {"call": {"inputs": {"x": facts}}}


@pytest.mark.parametrize(
    ("contract", "error"),
    [
        (["call"], "takes signatures by their names, and not ['call']"),
        ({"call": None}, "call takes inputs and outputs"),
        ({"call": ["x"]}, "call takes inputs and outputs"),
        ({"call": {"input": {}}}, "call takes inputs and outputs"),
        ({"call": {"inputs": ["x"]}}, "call.inputs takes tensors by their names, and not ['x']"),
        ({"call": {"inputs": {"x": "float32"}}}, "call.inputs.x takes dtype and shape, and not 'float32'"),
        (of_x(type="float32"), "call.inputs.x takes dtype and shape, and not {'type': 'float32'}"),
        (of_x(dtype="float"), "call.inputs.x.dtype is 'float'; write float32"),
        (of_x(dtype="DT_DOUBLE"), "call.inputs.x.dtype is 'DT_DOUBLE'; write float64"),
        (of_x(dtype="DT_INT64"), "call.inputs.x.dtype is 'DT_INT64'; write int64"),
        (of_x(dtype="invalid"), "call.inputs.x.dtype is 'invalid'; write float32, int64, string and the like"),
        (of_x(dtype=1), "call.inputs.x.dtype is '1'; write float32, int64, string and the like"),
        (of_x(shape="[-1, 28]"), f"{SHAPE}; '[-1, 28]' is text"),
        (of_x(shape=28), f"{SHAPE}, and not 28"),
        (of_x(shape={"dim": 1}), f"{SHAPE}, and not {{'dim': 1}}"),
        (of_x(shape=[-1, 28.0]), f"{SHAPE}; 28.0 is no size"),
        (of_x(shape=[True, 28]), f"{SHAPE}; True is no size"),
        (of_x(shape=[None, -2, "28"]), f"{SHAPE}; None, -2, '28' is no size"),
    ],
)
def test_what_no_model_could_keep_is_told_with_what_to_write(contract: Any, error: str) -> None:
    assert contract_errors(contract) == [error]


@pytest.mark.parametrize(
    "contract",
    [
        None,
        {},
        {"serving_default": {}},
        {"serving_default": {"inputs": {"x": {}}, "outputs": {"y": None}}},
        {"serving_default": {"inputs": {"x": {"dtype": "float32"}}, "outputs": None}},
        {"serving_default": {"inputs": {"x": {"shape": [-1, 2], "dtype": None}}}},
        {"serving_default": {key: SIGNATURES["serving_default"][key] for key in ("inputs", "outputs")}},
    ],
)
def test_contract_that_is_kept_has_no_problem(contract: dict[str, Any] | None) -> None:
    assert contract_errors(contract) == []
    assert list(contract_problems(contract, SIGNATURES)) == []


@pytest.mark.parametrize(
    ("name", "expected", "problem"),
    [
        ("call", {}, "it has no signature call, which signatures or sample_requests ask for; it has serving_default"),
        (
            "serving_default",
            {"inputs": {"x": {"dtype": "int64"}}},
            "signature serving_default: input x: expected dtype int64, found float32 [-1, 2]",
        ),
        (
            "serving_default",
            {"outputs": {"y": {"shape": [-1, 10]}}},
            "signature serving_default: output y: expected shape [-1, 10], found float32 [-1, 1]",
        ),
        (
            "serving_default",
            {"outputs": {"y": {"shape": "unknown_rank"}}},
            "signature serving_default: output y: expected shape unknown_rank, found float32 [-1, 1]",
        ),
        (
            "serving_default",
            {"inputs": {"images": {}}},
            "signature serving_default: inputs are expected to be images, found x",
        ),
        (
            "serving_default",
            {"outputs": {}},
            "signature serving_default: outputs are expected to be (none), found y",
        ),
    ],
)
def test_what_breaks_a_contract_is_told(name: str, expected: Any, problem: str) -> None:
    assert contract_errors({name: expected}) == []
    assert list(contract_problems({name: expected}, SIGNATURES)) == [problem]


def test_unknown_rank_can_be_demanded() -> None:
    signatures = {"call": {"inputs": {"x": {"dtype": "string", "shape": None}}, "outputs": {}}}
    for shape, kept in (("unknown_rank", True), (None, True), ([], False), ([-1], False)):
        contract = {"call": {"inputs": {"x": {"shape": shape}}}}
        assert contract_errors(contract) == []
        assert (not list(contract_problems(contract, signatures))) == kept

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The contract of a model with its clients: what it may say, and whether the signatures of a SavedModel keep it.

A contract is {signature: {"inputs": {tensor: {"dtype": ..., "shape": ...}}, "outputs": the same}}; what it leaves out
is free. Signatures are those of saved_model_inspection.
"""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import listed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_types import DTYPES

# What people write instead: types.proto and saved_model_cli have DT_FLOAT, other languages float.
_OTHER_NAMES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "int": "int32",
    "long": "int64",
    "str": "string",
    "boolean": "bool",
}
UNKNOWN_RANK = "unknown_rank"  # a shape, as saved_model_cli prints it
_SHAPE = f"takes a list of sizes, -1 where any size will do, or {UNKNOWN_RANK}"


def contract_errors(contract: Any) -> list[str]:
    """Return what in a contract no SavedModel could keep, with what to write instead."""
    if not isinstance(contract or {}, dict):
        return [f"takes signatures by their names, and not {contract!r}"]
    errors = []
    for name, signature in (contract or {}).items():
        if not isinstance(signature, dict) or not set(signature) <= {"inputs", "outputs"}:
            errors.append(f"{name} takes inputs and outputs")
            continue
        for side, tensors in signature.items():
            if not isinstance(tensors or {}, dict):
                errors.append(f"{name}.{side} takes tensors by their names, and not {tensors!r}")
                continue
            for tensor, facts in (tensors or {}).items():
                errors += (f"{name}.{side}.{tensor}{error}" for error in _tensor_errors(facts))
    return errors


def _tensor_errors(facts: Any) -> Iterator[str]:
    if not isinstance(facts or {}, dict) or not set(facts or {}) <= {"dtype", "shape"}:
        yield f" takes dtype and shape, and not {facts!r}"
        return
    dtype, shape = (facts or {}).get("dtype"), (facts or {}).get("shape")
    text = str(dtype)
    if dtype is not None and text.replace("_ref", "") not in DTYPES[1:]:
        short = text.lower().replace("dt_", "")
        meant = _OTHER_NAMES.get(short, short if short in DTYPES[1:] else None)
        yield f".dtype is {text!r}; " + (f"write {meant}" if meant else "write float32, int64, string and the like")
    if isinstance(shape, str) and shape != UNKNOWN_RANK:
        yield f".shape {_SHAPE}; {shape!r} is text"
    elif shape is not None and not isinstance(shape, (str, list)):
        yield f".shape {_SHAPE}, and not {shape!r}"
    elif isinstance(shape, list):
        wrong = [size for size in shape if isinstance(size, bool) or not isinstance(size, int) or size < -1]
        if wrong:
            yield f".shape {_SHAPE}; {', '.join(map(repr, wrong))} is no size"


def contract_problems(contract: dict[str, Any] | None, signatures: dict[str, Any]) -> Iterator[str]:
    """Yield where signatures break a contract, which has no contract_errors."""
    for name, expected in (contract or {}).items():
        if str(name) not in signatures:
            asked = f"it has no signature {name}, which signatures or sample_requests ask for"
            yield f"{asked}; it has {listed(signatures)}"
            continue
        for side in ("inputs", "outputs"):
            if expected.get(side) is not None:
                found = signatures[str(name)][side]
                yield from _broken(f"signature {name}: {side[:-1]}", expected[side], found)


def _broken(what: str, expected: dict[str, Any], found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield where the inputs or the outputs of a signature are not those of the contract."""
    if set(map(str, expected)) != set(found):
        yield f"{what}s are expected to be {listed(map(str, expected))}, found {listed(found)}"
    for name, facts in expected.items():
        if str(name) in found:
            has = found[str(name)]
            for key, value in (facts or {}).items():
                if value is not None and (None if value == UNKNOWN_RANK else value) != has[key]:
                    yield f"{what} {name}: expected {key} {value}, found {describe(has)}"


def describe(tensor: dict[str, Any]) -> str:
    """Return dtype and shape of a tensor as text."""
    return f"{tensor['dtype']} {'of unknown rank' if tensor['shape'] is None else tensor['shape']}"

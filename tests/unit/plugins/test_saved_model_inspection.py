"""What a SavedModel serves is told without TensorFlow, and what a server would load and fail at is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import saved_model_cases
import tensorflow as tf
from saved_model_files import (
    SIGNATURES,
    block,
    graph,
    make_saved_model,
    message,
    meta_graph,
    mutated,
    node,
    number,
    signature,
    table,
    varint,
)
from tensorflow_operations import module_text

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import (
    graph as graph_walk,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import (
    inspection,
    protobuf_wire,
    tensor_types,
    tensorflow_operations,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import (
    Inspection,
    check_saved_model,
    examine_saved_model,
    signature_lines,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    warmup_records,
)

KINDS = Path(__file__).parent / "saved_models"
BROKEN = {"sequential_saved", "subclass_saved", "subclass_fitted_saved"}
UNCALLABLE = {"other_tag", "ragged", "unsigned"}
GOOD = {path.name for path in KINDS.iterdir() if path.is_dir()} - BROKEN - UNCALLABLE

READS = "reads what is never restored or initialised, so the server loads it and every prediction fails: "
OTHER = "variables/ is of another export, so loading or every prediction fails: "
# What is said of the cases of saved_model_cases.py; nothing of those that predict.
SAID = {
    "added_to": f"{READS}q;",
    "gathered": f"{READS}q;",
    "handles_without_a_name": "",
    "init_in_order": "",
    "init_of_what_depends_on_another": "",
    "init_of_what_is_not_set_yet": "",
    "init_that_adds_to_what_is_not_set": "init op reads what nothing has set by then, so the server cannot load it: r",
    "init_that_reads_what_is_not_set": "init op reads what nothing has set by then, so the server cannot load it: q",
    "init_that_reads_what_is_restored": "",
    "input_in_the_middle": "",
    "input_that_others_wait_for": f"{READS}q;",
    "iterator_that_is_not_made": f"{READS}iterator IteratorV2;",
    "iterator_that_makes_itself": "",
    "iterator_that_the_main_op_makes": "",
    "only_written": "",
    "placeholder_that_others_wait_for": "",
    "read_before_it_is_written": f"{READS}q;",
    "read_behind_an_old_branch": f"{READS}q;",
    "read_behind_an_old_branch_in_another": "",
    "read_for_nothing": "",
    "read_in_a_branch": "",
    "read_in_a_branch_of_a_loop": "",
    "read_in_a_case": "",
    "read_in_a_dataset": f"{READS}q;",
    "read_in_a_loop": f"{READS}q;",
    "read_in_an_old_branch": "",
    "read_in_an_old_loop": f"{READS}q;",
    "read_in_both_branches": f"{READS}q;",
    "read_that_is_waited_for": f"{READS}q;",
    "reference_in_parts": "",
    "reference_that_is_itself_the_output": f"{READS}q;",
    "reference_that_is_not_set": f"{READS}q;",
    "reference_that_is_restored": "",
    "reference_that_is_set_first": "",
    "sparse_input": "has no signature that can be called; signature serving_default cannot be called, as no request",
    "sparse_input_beside_a_plain_one": "",
    "sparse_output": "has no signature that can be called; signature serving_default cannot be called, as no request",
    "table_of_a_module": "",
    "table_that_is_not_filled": f"{READS}lookup table hash_table",
    "table_that_needs_no_filling": "",
    "table_that_the_legacy_init_op_fills": "",
    "table_that_the_main_op_fills": "",
    "tag_that_is_written_twice": "",
    "references_of_an_object": f"{OTHER}it lacks w;",
    "references_of_another_shape": f"{OTHER}w is float32 [3], not float32 [2];",
    "variables_of_another_dtype": f"{OTHER}w/.ATTRIBUTES/VARIABLE_VALUE is int32 [2, 1], not float32 [2, 1];",
    "variables_of_another_shape": f"{OTHER}w/.ATTRIBUTES/VARIABLE_VALUE is float32 [1, 1], not float32 [2, 1];",
    "variables_of_another_training": "",
    "variables_with_more_besides": "",
    "variables_with_other_names": f"{OTHER}it lacks more/more/.ATTRIBUTES/VARIABLE_VALUE;",
    "written_before_it_is_read": "",
    "written_in_a_loop": "",
    "written_in_both_branches": "",
}
WARNED = {
    **dict.fromkeys(
        [
            "read_behind_an_old_branch_in_another",
            "read_in_a_branch",
            "read_in_a_branch_of_a_loop",
            "read_in_a_case",
            "read_in_an_old_branch",
        ],
        "signature serving_default reads in a branch what is never restored or initialised; a prediction that takes it "
        "fails: q",
    ),
    "sparse_input_beside_a_plain_one": "signature sparse cannot be called, as no request can hold a tensor made of",
}


@pytest.fixture(scope="session")
def tensorflow(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, str]]:
    """What TensorFlow does with all cases and with the exports beside this file: {path: {signature: error}}."""
    directory = tmp_path_factory.mktemp("cases")
    answers = saved_model_cases.main(directory, *map(str, sorted(KINDS.glob("*/"))))
    return {Path(path): errors for path, errors in answers.items()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_saved_model(tmp_path / "1", shards=3)


def inspected(path: Path) -> Inspection:
    return examine_saved_model(path)[0]


def problems_of(path: Path, contract: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(SavedModelError) as error:
        check_saved_model(path, contract)
    problems = str(error.value).split("\n")
    assert all(problem.startswith(str(path)) for problem in problems)
    assert examine_saved_model(path, contract)[1] == problems
    return problems


def write_graph(path: Path, *parts: bytes, tags: Sequence[str] = ("serve",)) -> Path:
    path.mkdir(exist_ok=True)
    (path / "saved_model.pb").write_bytes(meta_graph(*parts, tags=tags))
    return path


# Real exports


def test_every_case_is_known(tensorflow: dict[Path, dict[str, str]]) -> None:
    assert {path.name for path in tensorflow} == {*SAID, *BROKEN, *UNCALLABLE, *GOOD}


@pytest.mark.parametrize("name", sorted({*SAID, *BROKEN, *UNCALLABLE, *GOOD}))
def test_verdict_is_that_of_tensorflow(tensorflow: dict[Path, dict[str, str]], name: str) -> None:
    """TensorFlow has loaded the model and has called each of its signatures."""
    path = next(path for path in tensorflow if path.name == name)
    inspection, problems = examine_saved_model(path)
    errors = tensorflow[path]
    if "" in errors:
        assert problems
    elif not SAID.get(name, "").startswith(OTHER):  # the fault is not that of a signature
        dead = {signature for signature, error in errors.items() if error}
        assert {*inspection.unrestored, *inspection.composite} == dead
        assert bool(problems) == (bool(inspection.unrestored) or dead == set(errors))
    if name in SAID:
        assert SAID[name] in "\n".join(problems)
        assert len(inspection.warnings) == (name in WARNED)
        assert WARNED.get(name, "") in "\n".join(inspection.warnings)


def test_signature_that_no_request_can_call_is_refused_where_it_is_asked_for(
    tensorflow: dict[Path, dict[str, str]],
) -> None:
    path = next(path for path in tensorflow if path.name == "sparse_input_beside_a_plain_one")
    check_saved_model(path, {"serving_default": {}})
    (problem,) = problems_of(path, {"sparse": {}})
    assert "signature sparse cannot be called" in problem


@pytest.mark.parametrize("name", sorted(GOOD))
def test_export_that_works_passes(name: str) -> None:
    inspection = check_saved_model(KINDS / name)
    assert inspection == inspected(KINDS / name)
    assert (inspection.tags, inspection.tensorflow_version, inspection.unrestored) == ([["serve"]], "2.21.0", {})
    json.dumps(inspection.signatures)


@pytest.mark.parametrize(
    ("name", "signature_name", "layer"),
    [
        ("sequential_saved", "serving_default", "sequential/dense"),
        ("subclass_saved", "call", "dense_2"),
        ("subclass_fitted_saved", "call", "dense_3"),
    ],
)
def test_export_that_loads_and_cannot_predict_is_refused(name: str, signature_name: str, layer: str) -> None:
    variables = [f"{layer}/bias", f"{layer}/kernel"]
    (problem,) = problems_of(KINDS / name)
    assert f"signature {signature_name} reads what is never restored or initialised" in problem
    assert ", ".join(variables) in problem
    assert "model.export(DIR)" in problem
    assert f"keras.export.ExportArchive with add_endpoint('{signature_name}', ..., input_signature=[...])" in problem
    assert inspected(KINDS / name).unrestored == {signature_name: variables}


def test_export_without_a_signature_is_refused_with_the_way_out() -> None:
    (problem,) = problems_of(KINDS / "unsigned")
    assert "has no signature that can be called" in problem
    assert "@tf.function(input_signature=[...])" in problem
    assert "signatures={'call': model.call}" in problem


@pytest.mark.parametrize(
    ("kind", "made_by"),
    [
        ("unsigned", "Keras"),
        ("legacy_subclass", "Keras"),
        ("sequential_saved", "Keras"),
        ("constant", "TensorFlow 2"),
        ("main_op", "TensorFlow 1"),
    ],
)
def test_advice_is_for_what_made_the_model(tmp_path: Path, kind: str, made_by: str) -> None:
    assert inspected(KINDS / kind).made_by == made_by
    objects = {
        "Keras": message(7, message(1, message(1, message(2, "_inbound_nodes")))),
        "TensorFlow 2": message(7),
        "TensorFlow 1": b"",
    }[made_by]
    call, keep = {
        "Keras": ("keras.export.ExportArchive with add_endpoint('call'", "add_endpoint('s', ..., input_signature"),
        "TensorFlow 2": ("give tf.saved_model.save signatures=", "keep them as attributes of the object"),
        "TensorFlow 1": ("a signature_def_map", "or a main_op that initialises them"),
    }[made_by]
    (problem,) = problems_of(write_graph(tmp_path / "1", objects))
    assert call in problem
    nodes = [node("v", "VarHandleOp", shared_name="v"), node("call_s", "ReadVariableOp", "v")]
    parts = objects, message(2, *nodes), signature("s", SIGNATURES["serving_default"])
    (problem,) = problems_of(write_graph(tmp_path / "1", *parts))
    assert keep in problem


def test_signature_that_returns_no_plain_tensor_cannot_be_called() -> None:
    (problem,) = problems_of(KINDS / "ragged")
    assert "has no signature that can be called" in problem


def test_export_for_other_tags_is_refused() -> None:
    (problem,) = problems_of(KINDS / "other_tag")
    assert "has no graph with the tag serve and no other" in problem
    assert "its graphs have the tags: gpu, serve; train;" in problem
    assert inspected(KINDS / "other_tag").tags == [["gpu", "serve"], ["train"]]


def test_signatures_are_told_as_lines() -> None:
    assert signature_lines(inspected(KINDS / "subclass_archived").signatures) == [
        "call  input   x  float32 [-1, 2]",
        "call  output  output_0  float32 [-1, 1]",
        "serving_default  input   x  float32 [-1, 2]",
        "serving_default  output  output_0  float32 [-1, 1]",
    ]


def test_signatures_are_told_as_they_were_written(tmp_path: Path) -> None:
    signatures = {
        **SIGNATURES,
        "classify": {
            "method_name": "tensorflow/serving/classify",
            "inputs": {},
            "outputs": {"any": {"dtype": "int64", "shape": None}, "one": {"dtype": "string", "shape": []}},
        },
    }
    path = make_saved_model(tmp_path / "1", signatures=signatures, tensorflow_version="1.15.5")
    inspection = check_saved_model(path)
    assert (inspection.signatures, inspection.tensorflow_version) == (signatures, "1.15.5")
    assert "classify  output  any  int64 of unknown rank" in signature_lines(signatures)


def test_init_and_train_ops_are_no_signatures(tmp_path: Path) -> None:
    kept = {
        "__saved_model_init_op": SIGNATURES["serving_default"],
        "__saved_model_train_op": SIGNATURES["serving_default"],
    }
    path = make_saved_model(tmp_path / "1", signatures={**kept, **SIGNATURES})
    assert check_saved_model(path).signatures == SIGNATURES
    assert "no signature" in problems_of(make_saved_model(tmp_path / "2", signatures=kept))[0]


def test_graph_that_the_server_loads_is_told_among_others(tmp_path: Path) -> None:
    path = make_saved_model(tmp_path / "1")
    other = graph({"other": SIGNATURES["serving_default"]}, tags=("train", "serve"), tensorflow_version="2.0")
    (path / "saved_model.pb").write_bytes(other + graph() + other)
    inspection = check_saved_model(path)
    assert inspection.tags == [["serve", "train"], ["serve"], ["serve", "train"]]
    assert (inspection.signatures, inspection.tensorflow_version) == (SIGNATURES, "2.21.0")


def test_first_of_several_graphs_that_fit_is_the_one_that_the_server_loads(tmp_path: Path) -> None:
    path = make_saved_model(tmp_path / "1")
    (path / "saved_model.pb").write_bytes(graph() + graph({}, unrestored=["v"]))
    assert check_saved_model(path).signatures == SIGNATURES


def test_operations_are_those_of_the_installed_tensorflow() -> None:
    assert Path(tensorflow_operations.__file__).read_text() == module_text()


def test_operation_that_tensorflow_lacks_is_a_warning(tmp_path: Path) -> None:
    """Whether it stands in the graph or in a function, whose operations the exporter lists."""
    listed = message(2, message(1, message(1, "Mul")), message(1, message(1, "SentencepieceOp")))
    nodes = [node("call_s", "f", "zeros"), node("zeros", "ZeroOut")]
    function = message(2, message(1, message(1, message(1, "f"))))
    parts = message(2, *nodes, function), signature("s", SIGNATURES["serving_default"])
    path = write_graph(tmp_path / "1", message(1, listed, message(4, "serve")), *parts, tags=())
    inspection = check_saved_model(path)
    assert inspection.unknown_operations == ["SentencepieceOp", "ZeroOut"]
    (warning,) = inspection.warnings
    assert f"operations that TensorFlow {tf.__version__} lacks" in warning
    assert "cannot load it: SentencepieceOp, ZeroOut (" in warning


# Variables that nothing sets


def test_five_of_the_unrestored_variables_are_named(tmp_path: Path) -> None:
    names = [f"layer_{index}" for index in range(8)]
    (problem,) = problems_of(make_saved_model(tmp_path / "1", unrestored=names))
    assert "fails: layer_0, layer_1, layer_2, layer_3, layer_4 and 3 more;" in problem


def test_each_signature_is_told_by_itself(tmp_path: Path) -> None:
    facts = SIGNATURES["serving_default"]
    nodes = [
        node("a", "VarHandleOp", shared_name="a"),
        node("call_bad", "Add", "a"),
        node("call_good", "Const", "^x"),
        node("x", "NoOp"),
    ]
    path = write_graph(tmp_path / "1", message(2, *nodes), signature("bad", facts), signature("good", facts))
    assert inspected(path).unrestored == {"bad": ["a"]}


@pytest.mark.parametrize("handle", ["handle", "handle:0"])
def test_variable_goes_by_its_shared_name(tmp_path: Path, handle: str) -> None:
    nodes = [
        node("handle", "VarHandleOp", shared_name="weights"),
        node("handle_again", "VarHandleOp", shared_name="weights"),
        node("call_s", "ReadVariableOp", handle),
        node("restore", "NoOp", "^assign"),
        node("assign", "AssignVariableOp", "handle_again", "x"),
    ]
    parts = message(2, *nodes), signature("s", SIGNATURES["serving_default"])
    assert inspected(write_graph(tmp_path / "1", *parts)).unrestored == {"s": ["weights"]}
    path = make_saved_model(tmp_path / "2")
    write_graph(path, *parts, message(3, message(3, "restore")))
    check_saved_model(path)


@pytest.mark.parametrize(
    "init",
    [
        message(4, message(1, "saved_model_main_op"), message(2, message(1, message(1, "init")))),
        message(4, message(1, "legacy_init_op"), message(2, message(1, message(1, "init")))),
        message(
            5,
            message(1, "__saved_model_init_op"),
            message(2, message(2, message(1, "o"), message(2, message(1, "init:0")))),
        ),
    ],
    ids=["main op", "legacy init op", "init signature"],
)
@pytest.mark.parametrize(
    ("op", "is_set"),
    [
        ("AssignVariableOp", True),
        ("StatefulPartitionedCall", True),
        ("ReadVariableOp", False),
        ("VarIsInitializedOp", False),
    ],
)
def test_variable_that_the_init_op_assigns_is_set(tmp_path: Path, init: bytes, op: str, is_set: bool) -> None:
    nodes = [
        node("v", "VarHandleOp", shared_name="v"),
        node("call_s", "ReadVariableOp", "v"),
        node("use", op, "v"),
        node("init", "NoOp", "^use"),
    ]
    path = write_graph(tmp_path / "1", message(2, *nodes), signature("s", SIGNATURES["serving_default"]), init)
    assert inspected(path).unrestored == ({} if is_set else {"s": ["v"]})


def test_assignment_that_no_init_op_runs_sets_nothing(tmp_path: Path) -> None:
    nodes = [
        node("v", "VarHandleOp", shared_name="v"),
        node("call_s", "ReadVariableOp", "v"),
        node("v/Assign", "AssignVariableOp", "v"),
    ]
    path = write_graph(tmp_path / "1", message(2, *nodes), signature("s", SIGNATURES["serving_default"]))
    assert inspected(path).unrestored == {"s": ["v"]}


def test_loop_in_the_graph_has_an_end(tmp_path: Path) -> None:
    nodes = [
        node("call_s", "Merge", "next", "read"),
        node("next", "NextIteration", "call_s"),
        node("read", "ReadVariableOp", "v"),
        node("v", "VarHandleOp", shared_name="v"),
    ]
    path = write_graph(tmp_path / "1", message(2, *nodes), signature("s", SIGNATURES["serving_default"]))
    assert inspected(path).unrestored == {"s": ["v"]}


@pytest.mark.parametrize("called", ["f", "g"])
def test_function_that_calls_itself_has_an_end(tmp_path: Path, called: str) -> None:
    nodes = [node("v", "VarHandleOp", shared_name="v"), node("call_s", "f", "v")]
    functions = (
        message(
            1,
            message(1, message(1, name), message(2, message(1, "handle"), number(3, 20))),
            message(3, message(1, "again"), message(2, other), message(3, "handle")),
            message(3, message(1, "read"), message(2, "ReadVariableOp"), message(3, "handle")),
            message(4, message(1, "y"), message(2, "read:value:0")),
        )
        for name, other in (("f", called), ("g", "f"))
    )
    path = write_graph(
        tmp_path / "1", message(2, *nodes, message(2, *functions)), signature("s", SIGNATURES["serving_default"])
    )
    assert inspected(path).unrestored == {"s": ["v"]}


def test_graph_in_pieces_is_one_graph(tmp_path: Path) -> None:
    """Protobuf merges a message that is given twice."""
    path = make_saved_model(tmp_path / "1")
    pieces = message(2, node("call_s", "Identity", "v")), message(2, node("v", "VarHandleOp"), node("r", "NoOp", "v"))
    write_graph(path, *pieces, message(3, message(3, "r")), signature("s", SIGNATURES["serving_default"]))
    check_saved_model(path)


# Files


@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        ("saved_model.pb", "is not a SavedModel: it has no saved_model.pb"),
        ("variables", "is incomplete: variables/variables.index is missing"),
        ("variables/variables.index", "is incomplete: variables/variables.index is missing"),
        ("variables/variables.data-00000-of-00003", "variables/variables.data-00000-of-00003 is missing"),
        ("variables/variables.data-00002-of-00003", "variables/variables.data-00002-of-00003 is missing"),
        (
            "variables/variables.data-0000[01]-of-00003",
            "variables/variables.data-00000-of-00003, variables/variables.data-00001-of-00003 are missing",
        ),
        ("variables/variables.data-*", "has no variables.data-?????-of-????? shard"),
    ],
)
def test_incomplete_model_is_refused(model: Path, lost: str, complaint: str) -> None:
    for path in list(model.glob(lost)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    (problem,) = problems_of(model)
    assert complaint in problem


@pytest.mark.parametrize("path", [".", "none", "file"])
def test_what_is_no_model_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    assert problems_of(tmp_path / path) == [f"{tmp_path / path} is not a SavedModel: it has no saved_model.pb"]


def test_graph_as_text_is_refused_with_the_way_out(model: Path) -> None:
    (model / "saved_model.pb").rename(model / "saved_model.pbtxt")
    (problem,) = problems_of(model)
    assert "has saved_model.pbtxt only" in problem
    assert "save it as binary" in problem


@pytest.mark.parametrize("kind", ["constant", "graph_without_variables"])
def test_model_without_variables_needs_no_files_of_them(tmp_path: Path, kind: str) -> None:
    path = shutil.copytree(KINDS / kind, tmp_path / "1")
    shutil.rmtree(path / "variables", ignore_errors=True)
    check_saved_model(path)
    (path / "variables").mkdir()
    check_saved_model(path)
    (path / "variables" / "variables.data-00000-of-00001").touch()
    assert "variables/variables.index is missing" in problems_of(path)[0]


def test_truncated_shard_is_refused_unread(model: Path) -> None:
    shard = model / "variables" / "variables.data-00001-of-00003"
    os.truncate(shard, 6)
    (problem,) = problems_of(model)
    assert problem == f"{model} is incomplete: variables/{shard.name} has 6 bytes, and its variables need 7"
    assert inspected(model).shards["truncated"] == {shard.name: {"bytes": 6, "needed": 7}}


@pytest.mark.parametrize("kind", sorted(path.parent.parent.name for path in KINDS.glob("*/*/variables.index")))
def test_last_byte_of_a_real_shard_is_missed(tmp_path: Path, kind: str) -> None:
    path = shutil.copytree(KINDS / kind, tmp_path / "1")
    shard = path / "variables" / "variables.data-00000-of-00001"
    os.truncate(shard, shard.stat().st_size - 1)
    assert any("its variables need" in problem for problem in problems_of(path))


@pytest.mark.parametrize("name", ["variables.data-00000-of-00001", "variables.data-00002-of-00003.tempstate1"])
def test_shards_of_another_set_are_told_and_do_no_harm(model: Path, name: str) -> None:
    (model / "variables" / name).touch()
    assert check_saved_model(model).shards == {"expected": 3, "missing": [], "extra": [name], "truncated": {}}


def test_shard_whose_name_is_no_text_is_told(model: Path) -> None:
    (model / "variables" / os.fsdecode(b"variables.data-\xff\n")).touch()
    shards = check_saved_model(model).shards
    assert json.dumps(shards["extra"]).isascii()
    assert "\\udcff\\n" in shards["extra"][0]
    (model / "variables" / os.fsdecode(b"variables.data-\xfe")).mkdir()
    assert problems_of(model)[0].isprintable()


def test_shards_of_different_sets_are_refused_where_the_index_does_not_tell(model: Path) -> None:
    compressed = table(block([(b"", b"snappy")], compression=1))
    (model / "variables" / "variables.index").write_bytes(compressed)
    assert check_saved_model(model).shards["expected"] == 3
    (model / "variables" / "variables.data-00000-of-00001").touch()
    assert "variables/ has shards of different sets" in problems_of(model)[0]


@pytest.mark.parametrize("content", [b"", b"index", bytes(1000)])
def test_damaged_index_is_refused(model: Path, content: bytes) -> None:
    (model / "variables" / "variables.index").write_bytes(content)
    (problem,) = problems_of(model)
    assert f"{model}/variables/variables.index is damaged" in problem


def test_assets_are_told_and_missing_ones_refused(model: Path) -> None:
    (model / "saved_model.pb").write_bytes(graph(assets=["words.txt"]))
    assert check_saved_model(model).assets == ["words.txt"]
    (model / "saved_model.pb").write_bytes(graph(assets=["words.txt", "more.txt"]))
    assert problems_of(model) == [f"{model} is incomplete: assets/more.txt is missing"]


def test_warmup_requests_that_a_version_brings_are_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    file.write_bytes(warmup_records("m", [{"signature_name": "serving_default", "instances": [[1, 2]]}], SIGNATURES))
    check_saved_model(model)
    file.write_bytes(b"one request a line\n")
    (problem,) = problems_of(model)
    assert "requests that the server can make, and it would not serve the version: it is no TFRecord; write" in problem
    monkeypatch.setattr(inspection, "MAX_READ_BYTES", 10)
    (warning,) = check_saved_model(model).warnings
    assert warning.startswith(f"{file} is not looked into")


@pytest.mark.parametrize("name", ["a" * 1000, "nul\0", "two\nlines"])
def test_asset_with_an_impossible_name_is_missing(model: Path, name: str) -> None:
    (model / "saved_model.pb").write_bytes(graph(assets=[name]))
    (problem,) = problems_of(model)
    assert problem.endswith(" is missing")


def test_problem_takes_one_line_whatever_the_file_says(tmp_path: Path) -> None:
    name = "two\nlines\x1b[31m"
    path = make_saved_model(tmp_path / "1", signatures={name: SIGNATURES["serving_default"]}, unrestored=[name])
    assert all(problem.isprintable() for problem in problems_of(path, {"call": {}}))
    assert problems_of(make_saved_model(tmp_path / "2", tags=[name]))[0].isprintable()


@pytest.mark.parametrize("name", ["../assets/words.txt", "/etc/passwd", "", "a//b", "./words.txt"])
def test_asset_outside_of_the_assets_is_refused(model: Path, name: str) -> None:
    (model / "saved_model.pb").write_bytes(graph(assets=[name]))
    assert problems_of(model) == [f"{model}: the graph reads the asset {name!r}, which is not below assets/"]


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00003"]
)
@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_file_is_refused_and_not_opened(model: Path, name: str, kind: str) -> None:
    (model / name).rename(model / "assets" / "moved")
    if kind == "link":
        (model / name).symlink_to(model / "assets" / "moved")
    elif kind == "fifo":
        os.mkfifo(model / name)
    else:
        (model / name).mkdir()
    assert any(f"{model / name} is not a regular file" in problem for problem in problems_of(model))


def test_variables_behind_a_link_are_refused(model: Path) -> None:
    (model / "variables").rename(model / "elsewhere")
    (model / "variables").symlink_to("elsewhere")
    assert f"{model}/variables cannot be read as a directory" in problems_of(model)[0]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = make_saved_model(tmp_path / "1", unrestored=["a"], shards=2)
    (path / "variables" / "variables.data-00000-of-00002").unlink()
    os.truncate(path / "variables" / "variables.data-00001-of-00002", 0)
    assert len(problems_of(path, {"other": {}})) == 4


def test_contract_is_compared(model: Path) -> None:
    check_saved_model(model, {"serving_default": {"inputs": {"x": {"shape": [-1, 2]}}}})
    (problem,) = problems_of(model, {"serving_default": {"inputs": {"x": {"shape": [-1, 3]}}}})
    assert problem.endswith("signature serving_default: input x: expected shape [-1, 3], found float32 [-1, 2]")
    (problem,) = problems_of(model, {"serving_default": ["x"]})
    assert problem.endswith("signatures: serving_default takes inputs and outputs")


# Hostile files


@pytest.mark.parametrize(("name", "rounds"), [("saved_model.pb", 200), ("variables/variables.index", 50)])
def test_mutated_file_is_read_or_refused(tmp_path: Path, name: str, rounds: int) -> None:
    chance = random.Random(20)  # noqa: S311
    paths = [shutil.copytree(kind, tmp_path / kind.name) for kind in KINDS.iterdir() if (kind / name).is_file()]
    paths = [*sorted(paths), make_saved_model(tmp_path / "made")]
    originals = [(path / name).read_bytes() for path in paths]
    refused = 0
    for path, data in zip(paths, originals):
        for _ in range(rounds):
            (path / name).write_bytes(mutated(data, chance, chance.choice(originals)))
            began = time.monotonic()
            try:
                check_saved_model(path)
            except SavedModelError as error:
                refused += "damaged" in str(error)
            assert time.monotonic() - began < 5
    assert refused > rounds  # the changes do hit what is read


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_file_that_is_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    path = make_saved_model(tmp_path / "1")
    data = (path / name).read_bytes()
    for length in range(len(data)):
        (path / name).write_bytes(data[:length])
        assert problems_of(path)


MEASURE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import inspection
resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for path in sys.argv[2:]:
    _, problems = inspection.examine_saved_model(Path(path))
    print(" ".join(problems))
"""


def test_huge_files_cost_little_memory_and_time(tmp_path: Path) -> None:
    """The process that reads them may use 256 MiB and 20 s in all."""
    two_gib = (1 << 31) - 1
    nested = b""
    for field in (3, 1, 2, 2):  # an input of a node of a graph of a meta graph
        nested = varint(field << 3 | 2) + varint(two_gib - 30 + len(nested)) + nested
    weights = message(5, message(1, "value"), message(2, varint(8 << 3 | 2) + varint(two_gib - 200)))
    hostile = {
        "zeros": (b"", two_gib),
        "long name": (nested, two_gib),
        "length of an exabyte": (varint(2 << 3 | 2) + varint(1 << 60), 100),
        "constant of two gigabytes": (varint(2 << 3 | 2) + varint(two_gib - 6) + weights, two_gib),
        "empty nodes": (meta_graph(message(2, message(1) * 1_000_000)), 0),
        "empty meta graphs": (message(2) * 200_000, 0),
        "empty signatures": (meta_graph(message(5) * 200_000), 0),
        "empty tags": (message(2, message(1, message(4) * 200_000)), 0),
        "many dimensions": (
            meta_graph(message(5, message(2, message(1, message(2, message(3, message(2) * 200_000)))))),
            0,
        ),
        "one node with many inputs": (meta_graph(message(2, message(1, message(3, "x") * 200_000))), 0),
    }
    for name, (data, size) in hostile.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(data)
        if size:
            os.truncate(tmp_path / name / "saved_model.pb", size)
    index = make_saved_model(tmp_path / "index") / "variables" / "variables.index"
    os.truncate(index, two_gib)
    collections = Path(__file__).resolve().parents[3] / ".collections"
    command = [sys.executable, "-c", MEASURE, str(collections), *(str(tmp_path / name) for name in (*hostile, "index"))]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
    answers = outcome.stdout.splitlines()
    assert len(answers) == len(hostile) + 1
    assert all(answers)


@pytest.mark.parametrize(
    ("limit", "complaint"),
    [
        ("MAX_NODE_NAMES", "more than 3 nodes"),
        ("MAX_NODE_NAME_BYTES", "more than 3 bytes of names"),
        ("MAX_EDGES", "more than 3 inputs"),
        ("MAX_STEPS", "more than 3 nodes, counted once for each signature"),
        ("MAX_PARTS", "more than 3 signatures"),
        ("MAX_RANK", "more than 3 dimensions"),
    ],
)
def test_what_is_kept_of_a_graph_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, complaint: str
) -> None:
    facts = {
        "method_name": "m",
        "inputs": {"x": {"dtype": "int32", "shape": [1] * 4}},
        "outputs": SIGNATURES["serving_default"]["outputs"],
    }
    path = make_saved_model(tmp_path / "1", signatures={"s": facts})
    check_saved_model(path)
    home = {"MAX_PARTS": inspection, "MAX_RANK": tensor_types}.get(limit, graph_walk)
    monkeypatch.setattr(home, limit, 3)
    assert complaint in problems_of(path)[0]


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ([node("a", "NoOp"), node("a", "NoOp")], "two nodes have the name b'a'"),
        ([node("", "NoOp")], "a node has no name"),
        ([number(1, 3) + message(1, message(1, "a" * (protobuf_wire.MAX_TEXT_BYTES + 1)))], "a name has 65537 bytes"),
    ],
)
def test_graph_that_tensorflow_takes_for_damaged_is_refused(tmp_path: Path, nodes: list[bytes], complaint: str) -> None:
    path = write_graph(tmp_path / "1", message(2, *nodes), signature("s", SIGNATURES["serving_default"]))
    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}/saved_model.pb is damaged, or no SavedModel: ")
    assert complaint in problem

"""A SavedModel is told whole, and one that cannot be served is told too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from saved_model_files import SIGNATURES, make_saved_model

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import (
    version_files,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import Inspection
from ansible_collections.modelops.tensorflow_serving.plugins.modules import saved_model_info

Info = Callable[..., dict[str, Any]]


@pytest.fixture
def info(run_module: Callable[..., dict[str, Any]]) -> Info:
    def run(path: Path, **arguments: Any) -> dict[str, Any]:
        return run_module(saved_model_info, path=str(path), **arguments)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_saved_model(tmp_path / "1", shards=2)


def test_model_is_told_whole(info: Info, model: Path) -> None:
    result = info(model)
    result.pop("invocation")
    files = version_files.list_files(model)
    assert result == {
        "changed": False,
        "servable": True,
        "problems": [],
        "tags": [["serve"]],
        "tensorflow_version": "2.21.0",
        "signatures": SIGNATURES,
        "unrestored": {},
        "shards": {"expected": 2, "missing": [], "extra": [], "truncated": {}},
        "bytes": sum(path.stat().st_size for path in model.rglob("*") if path.is_file()),
        "files": 5,
        "digest": version_files.tree_digest(version_files.add_digests(model, files)),
    }


def test_digest_is_that_of_a_copy(info: Info, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    os.utime(copy / "saved_model.pb", ns=(0, 0))
    assert info(copy)["digest"] == info(model)["digest"]


def test_model_that_cannot_predict_is_told(info: Info, tmp_path: Path) -> None:
    path = make_saved_model(tmp_path / "1", unrestored=["dense/bias"])
    result = info(path)
    assert (result["servable"], result["unrestored"]) == (False, {"serving_default": ["dense/bias"]})
    assert "signature serving_default reads what is never restored or initialised" in result["problems"][0]
    assert result["bytes"] > 0


def test_what_may_be_a_fault_is_a_warning(info: Info, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: said.append(text))
    inspection = Inspection(tags=[["serve"]], warnings=["reads in a branch"])
    monkeypatch.setattr(saved_model_info, "examine_saved_model", lambda *_: (inspection, []))
    assert (info(model)["servable"], said) == (True, ["reads in a branch"])


def test_every_problem_is_told(info: Info, model: Path) -> None:
    os.truncate(model / "variables" / "variables.data-00000-of-00002", 3)
    (model / "variables" / "variables.data-00001-of-00002").unlink()
    result = info(model, signatures={"call": {}})
    assert (result["servable"], len(result["problems"])) == (False, 3)
    assert result["shards"]["missing"] == ["variables.data-00001-of-00002"]
    assert result["shards"]["truncated"] == {"variables.data-00000-of-00002": {"bytes": 3, "needed": 7}}
    assert result["signatures"] == SIGNATURES


def test_contract_is_checked(info: Info, model: Path) -> None:
    assert info(model, signatures={"serving_default": {"inputs": {"x": {"shape": [-1, 2]}}}})["servable"]
    assert not info(model, signatures={"serving_default": {"inputs": {"x": {"shape": [-1, 3]}}}})["servable"]


def test_graph_that_cannot_be_read_is_told_with_the_rest(info: Info, model: Path) -> None:
    (model / "saved_model.pb").write_bytes(b"<html>")
    result = info(model)
    assert (result["servable"], result["tags"], result["signatures"], result["files"]) == (False, [], {}, 5)
    assert "saved_model.pb is damaged, or no SavedModel" in result["problems"][0]
    assert result["shards"]["expected"] == 2


def test_directory_that_is_no_model_is_told(info: Info, tmp_path: Path) -> None:
    result = info(tmp_path)
    assert result["problems"] == [f"{tmp_path} is not a SavedModel: it has no saved_model.pb"]
    assert (result["servable"], result["files"], result["bytes"]) == (False, 0, 0)


def test_link_in_a_model_is_told(info: Info, model: Path) -> None:
    (model / "assets" / "link").symlink_to("words.txt")
    result = info(model)
    assert (result["servable"], result["digest"], result["files"]) == (False, None, None)
    assert result["problems"] == [
        f"{model}/assets/link is a symbolic link; a version holds regular files only; copy in what it needs"
    ]


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), ("file", "Not a directory")])
def test_path_that_is_no_directory_is_an_error(info: Info, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    result = info(tmp_path / name)
    assert result["failed"]
    assert result["msg"] == f"cannot read {tmp_path / name}: {reason}"

"""Which versions of its models a host has."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.versions import look_before_publishing

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the models are root's")


def look(base_path: Path, *models: str) -> dict[str, Any]:
    return look_before_publishing(str(base_path), list(models), "root", adopt=True)


def test_versions_of_each_model_are_listed_with_their_manifests(tmp_path: Path) -> None:
    for name in ("MLP/1", "MLP/002", "MLP/.staging-3", "CNN"):
        (tmp_path / name).mkdir(parents=True)
    known = {
        "digest": "d1",
        "stamp": "s1",
        "source_digest": None,
        "bytes": 5,
        "signatures": {"call": {}},
        "asked": None,
    }
    (tmp_path / "MLP" / ".manifest-1.json").write_text(json.dumps({**known, "files": {}}))
    assert look(tmp_path, "MLP", "CNN", "new")["models"] == {
        "MLP": {
            "1": {"directory": "1", "intact": True, **known},
            "2": {"directory": "002", "intact": False, **dict.fromkeys(known)},
        },
        "CNN": {},
        "new": {},
    }


@pytest.mark.parametrize("content", ["", "{", "{}", '{"digest": "d"}', "[]", "null", "1", "\x80"])
def test_unreadable_manifest_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".manifest-1.json").write_bytes(content.encode("latin-1"))
    assert ModelStore(tmp_path).read_manifest(1) is None


def test_base_path_of_unknown_owners_is_described_by_numbers(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 54322)
    tmp_path.chmod(0o2750)
    assert look(tmp_path)["base_access"] == "root:54322 2750"


def test_base_path_that_is_missing_has_the_space_of_what_it_will_lie_on(tmp_path: Path) -> None:
    result = look(tmp_path / "not" / "yet", "MLP")
    assert (result["base_access"], result["models"]) == ("", {"MLP": {}})
    free = os.statvfs(tmp_path)
    assert result["free"]["bytes"] == pytest.approx(free.f_bavail * free.f_frsize, rel=0.1)

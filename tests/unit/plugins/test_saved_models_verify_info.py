"""What has changed since a version was published is found, named, and comes with the commands that mend it."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from saved_model_files import make_saved_model
from saved_model_publishing import publish

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    add_digests,
    list_files,
    total_bytes,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    WARMUP_FILE,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import plan_staging, stage
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.modules import saved_models_verify_info

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")

Verify = Callable[..., dict[str, Any]]

LOGIN, GROUP = 1000, 1
GROUP_NAME = grp.getgrgid(GROUP).gr_name
WEIGHTS = "variables/variables.data-00000-of-00001"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "base path" / "MLP")


@pytest.fixture
def verify(run_module: Callable[..., dict[str, Any]], store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """Run the module for model MLP, at the priority of the tests. Its warnings are returned by themselves."""
    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: said.append(text))
    monkeypatch.setattr(os, "nice", lambda _: 0)

    def run(*models: str) -> dict[str, Any]:
        said.clear()
        settings = {"base_path": str(store.path.parent), "models": list(models or ["MLP"]), "group": GROUP_NAME}
        return {**run_module(saved_models_verify_info, **settings), "warnings": list(said)}

    return run


def publish_version(store: ModelStore, version: int) -> None:
    """Publish a version as the modules do; from the second on, its files are hard links to those of the first."""
    source = make_saved_model(store.path.parent.parent / "sources" / str(version))
    files = add_digests(source, list_files(source))
    names = plan_staging(store, version, files).names
    stage(store, version, names, LOGIN, GROUP)
    for name in names:
        (store.staging(version) / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, store.staging(version) / name)
    generated = {WARMUP_FILE: "cmVxdWVzdHM="}
    assert publish(store, version, files, GROUP, {"source_digest": None, "signatures": {}}, generated) == []


def flip_a_bit(path: Path) -> None:
    """Change a byte and no fact of the file's inode."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def commands(result: dict[str, Any]) -> list[str]:
    """Return the commands that a failure proposes."""
    return [line.strip() for line in result["msg"].splitlines() if line.startswith("  ")]


def test_published_versions_are_verified(store: ModelStore, verify: Verify) -> None:
    publish_version(store, 1)
    publish_version(store, 2)
    size = total_bytes(list_files(store.path.parent.parent / "sources" / "1"))
    result = verify()
    assert "msg" not in result, result
    assert result["verified"] == [
        {"model": "MLP", "version": 1, "bytes": size},
        {"model": "MLP", "version": 2, "bytes": size},
    ]
    assert (result["changed"], result["warnings"]) == (False, [])


def test_file_that_versions_share_is_read_once(
    store: ModelStore, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_version(store, 1)
    publish_version(store, 2)
    read = []
    open_file = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *rest, **options: read.append(path) or open_file(path, *rest, **options)
    )
    assert "msg" not in verify()
    assert sorted(path.name for path in read if path.name == Path(WEIGHTS).name) == [Path(WEIGHTS).name]


def test_warmup_requests_are_verified_too(store: ModelStore, verify: Verify) -> None:
    publish_version(store, 1)
    flip_a_bit(store.version(1) / WARMUP_FILE)
    (problem,) = verify()["problems"]
    assert problem.startswith(f"MLP/1: file {WARMUP_FILE} has sha256 ")


def test_model_without_versions_is_well(verify: Verify) -> None:
    assert verify("MLP", "other")["verified"] == []


def test_flipped_bit_is_found_in_every_version_that_has_the_file(store: ModelStore, verify: Verify) -> None:
    publish_version(store, 1)
    publish_version(store, 2)
    flip_a_bit(store.version(1) / WEIGHTS)
    result = verify()
    assert result["failed"]
    assert result["verified"] == []
    assert [text.split(" has sha256 ")[0] for text in result["problems"]] == [
        f"MLP/1: file {WEIGHTS}",
        f"MLP/2: file {WEIGHTS}",
    ]
    assert all(", published was " in text for text in result["problems"])
    assert all(f"- {text}" in result["msg"] for text in result["problems"])


def test_all_that_differs_is_listed_at_once(store: ModelStore, verify: Verify) -> None:
    publish_version(store, 1)
    version = store.version(1)
    (version / "saved_model.pb").unlink()
    (version / "assets" / "more.txt").touch()
    (version / "assets" / "words.txt").write_text("o")
    result = verify()
    assert result["problems"][:3] == [
        "MLP/1: file saved_model.pb is missing",
        "MLP/1: file assets/more.txt was not published",
        "MLP/1: file assets/words.txt has 1 bytes, published were 4",
    ]


def test_link_in_a_version_is_found(store: ModelStore, verify: Verify, tmp_path: Path) -> None:
    publish_version(store, 1)
    (tmp_path / "elsewhere").touch()
    (store.version(1) / "saved_model.pb").unlink()
    (store.version(1) / "saved_model.pb").symlink_to(tmp_path / "elsewhere")
    assert "saved_model.pb is a symbolic link" in "".join(verify()["problems"])


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"digest": 1, "stamp": 2, "files": {"a": {}}}'])
def test_manifest_that_cannot_be_read_is_a_problem(store: ModelStore, verify: Verify, content: str) -> None:
    publish_version(store, 1)
    store.manifest(1).write_text(content)
    assert verify()["problems"] == ["MLP/1: .manifest-1.json cannot be read or is damaged"]


def test_manifest_that_was_changed_is_a_problem(store: ModelStore, verify: Verify) -> None:
    publish_version(store, 1)
    digest = add_digests(store.version(1), list_files(store.version(1)))[WEIGHTS]["sha256"]
    store.manifest(1).write_text(store.manifest(1).read_text().replace(digest, "0" * 64))
    assert verify()["problems"] == ["MLP/1: .manifest-1.json cannot be read or is damaged"]


def test_version_put_there_by_hand_is_only_warned_of(store: ModelStore, verify: Verify) -> None:
    make_saved_model(store.path / "3")
    store.path.chmod(0o751)
    os.chown(store.path, 0, GROUP)
    result = verify()
    assert result["verified"] == []
    assert result["warnings"] == ["MLP version 3 was not published by this collection, and cannot be verified"]


def test_version_out_of_sight_is_mended_by_the_proposed_command(store: ModelStore, verify: Verify) -> None:
    publish_version(store, 1)
    flip_a_bit(store.version(1) / WEIGHTS)
    for command in commands(verify()):
        subprocess.run(command, shell=True, check=True)  # noqa: S602 - as the operator would
    assert not store.version(1).exists()
    assert verify()["verified"] == []
    shutil.rmtree(store.path.parent.parent / "sources")
    publish_version(store, 1)
    assert [one["version"] for one in verify()["verified"]] == [1]


@pytest.mark.parametrize(
    ("name", "uid", "gid", "mode", "text"),
    [
        ("", 0, GROUP, 0o757, f"MLP: the directory is root:{GROUP_NAME} 0757, published was root:{GROUP_NAME} 0751"),
        (".manifest-1.json", 0, 0, 0o664, "MLP/1: .manifest-1.json may be written by others than root"),
        ("1", 0, GROUP, 0o755, f"MLP/1: the directory is root:{GROUP_NAME} 0755, published was root:{GROUP_NAME} 0750"),
        (
            "1/variables",
            0,
            0,
            0o750,
            f"MLP/1: directory variables is root:root 0750, published was root:{GROUP_NAME} 0750",
        ),
        ("1/saved_model.pb", 54321, GROUP, 0o644, f"is 54321:{GROUP_NAME} 0644, published was root:{GROUP_NAME} 0644"),
        (f"1/{WEIGHTS}", 0, GROUP, 0o666, f"MLP/1: file {WEIGHTS} is root:{GROUP_NAME} 0666"),
    ],
)
def test_drift_of_owner_group_or_mode_is_found_and_mended_by_the_proposed_command(
    store: ModelStore, verify: Verify, name: str, uid: int, gid: int, mode: int, text: str
) -> None:
    publish_version(store, 1)
    os.chown(store.path / name, uid, gid)
    (store.path / name).chmod(mode)
    result = verify()
    (problem,) = result["problems"]
    assert text in problem
    assert "publish versions again" not in result["msg"]
    for command in commands(result):
        subprocess.run(command, shell=True, check=True)  # noqa: S602 - as the operator would
    assert [one["version"] for one in verify()["verified"]] == [1]

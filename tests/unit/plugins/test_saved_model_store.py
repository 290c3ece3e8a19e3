"""A version is filled where the server does not look, and appears by one rename after it was checked."""

from __future__ import annotations

import grp
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_model_files import make_saved_model

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    SavedModelError,
    add_digests,
    list_files,
    published_versions,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import (
    saved_model_version,
    saved_model_versions_info,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")

LOGIN, GROUP = 1000, 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_saved_model(tmp_path / "source" / "1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "MLP"


@pytest.fixture
def staging(model: Path) -> Path:
    return model / ".staging-1"


@pytest.fixture
def files(source: Path) -> dict[str, Any]:
    return add_digests(source, list_files(source))


@pytest.fixture
def staged(source: Path, model: Path, staging: Path) -> Path:
    """A staging directory into which the whole source has arrived, as the login user's."""
    saved_model_version.stage(model, staging, LOGIN, GROUP)
    shutil.copytree(source, staging, dirs_exist_ok=True)
    for path in (staging, *staging.rglob("*")):
        os.chown(path, LOGIN, LOGIN)
        path.chmod(0o777)
    return staging


def facts(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


def test_staging_belongs_to_the_login_user_and_the_model_to_root(model: Path, staging: Path) -> None:
    saved_model_version.stage(model, staging, LOGIN, GROUP)
    assert facts(model) == (0, GROUP, 0o751)
    assert staging.stat().st_uid == LOGIN
    assert facts(staging)[2] == 0o700
    assert published_versions(model) == {}


def test_half_filled_staging_is_resumed(model: Path, staging: Path, staged: Path) -> None:
    (staged / "saved_model.pb").unlink()
    for path in (staged, *staged.rglob("*")):
        os.chown(path, 0, 0)
    saved_model_version.stage(model, staging, LOGIN, GROUP)
    assert (staging / "variables" / "variables.index").read_bytes() == b"index"
    assert {path.stat().st_uid for path in (staging, *staging.rglob("*"))} == {LOGIN}


def test_staging_gives_away_no_file_that_a_link_points_to(tmp_path: Path, model: Path, staging: Path) -> None:
    (tmp_path / "shadow").touch()
    saved_model_version.stage(model, staging, LOGIN, GROUP)
    (staging / "link").symlink_to(tmp_path / "shadow")
    saved_model_version.stage(model, staging, LOGIN, GROUP)
    assert (tmp_path / "shadow").stat().st_uid == 0


def test_model_directory_of_another_owner_becomes_roots(model: Path, staging: Path) -> None:
    model.mkdir(mode=0o777)
    os.chown(model, LOGIN, LOGIN)
    saved_model_version.stage(model, staging, LOGIN, GROUP)
    assert facts(model) == (0, GROUP, 0o751)


def test_base_path_is_not_made(model: Path, staging: Path) -> None:
    model.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        saved_model_version.stage(model, staging, LOGIN, GROUP)


def test_whole_version_is_published_as_roots(model: Path, staged: Path, files: dict[str, Any]) -> None:
    saved_model_version.publish(model, staged, 1, files, GROUP)
    assert published_versions(model) == {1: "1"}
    assert not staged.exists()
    assert facts(model / "1") == (0, GROUP, 0o750)
    for path in (model / "1").rglob("*"):
        assert facts(path) == (0, GROUP, 0o750 if path.is_dir() else 0o640)


def test_manifest_records_what_was_published(model: Path, staged: Path, files: dict[str, Any]) -> None:
    saved_model_version.publish(model, staged, 1, files, GROUP)
    manifest = json.loads((model / ".manifest-1.json").read_text())
    assert manifest == {"digest": tree_digest(files), "stamp": tree_stamp(files), "files": files}
    assert sorted(path.name for path in model.iterdir()) == [".manifest-1.json", "1"]


def test_version_appears_after_its_manifest_by_one_rename(
    model: Path, staged: Path, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    rename = os.rename

    def watched(old: Any, new: Any) -> None:
        seen.append((Path(old), Path(new), (model / ".manifest-1.json").exists(), facts(staged)[2]))
        rename(old, new)

    monkeypatch.setattr(os, "rename", watched)
    saved_model_version.publish(model, staged, 1, files, GROUP)
    assert seen == [(staged, model / "1", True, 0o750)]


def test_corrupted_file_is_deleted_and_the_version_is_absent(model: Path, staged: Path, files: dict[str, Any]) -> None:
    broken = staged / "variables" / "variables.data-00000-of-00001"
    broken.write_bytes(b"weightz")
    with pytest.raises(SavedModelError, match="variables.data-00000-of-00001 did not arrive .* as sent"):
        saved_model_version.publish(model, staged, 1, files, GROUP)
    assert not broken.exists()
    assert (staged / "saved_model.pb").exists()
    assert published_versions(model) == {}
    assert not (model / ".manifest-1.json").exists()


def test_version_is_published_by_the_run_after_a_corrupted_one(
    source: Path, model: Path, staged: Path, files: dict[str, Any]
) -> None:
    (staged / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(SavedModelError):
        saved_model_version.publish(model, staged, 1, files, GROUP)
    saved_model_version.stage(model, staged, LOGIN, GROUP)
    shutil.copy2(source / "saved_model.pb", staged)
    saved_model_version.publish(model, staged, 1, files, GROUP)
    assert published_versions(model) == {1: "1"}


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_missing_or_extra_file_is_refused(model: Path, staged: Path, files: dict[str, Any], change: str) -> None:
    if change == "missing":
        (staged / "assets" / "words.txt").unlink()
    else:
        (staged / "assets" / "more.txt").touch()
    with pytest.raises(SavedModelError, match=r"has not the files that were sent: assets/(words|more)\.txt"):
        saved_model_version.publish(model, staged, 1, files, GROUP)
    assert published_versions(model) == {}


def test_symlink_in_staging_is_refused(tmp_path: Path, model: Path, staged: Path, files: dict[str, Any]) -> None:
    (tmp_path / "shadow").write_text("secret")
    (tmp_path / "shadow").chmod(0o600)
    (staged / "assets" / "words.txt").unlink()
    (staged / "assets" / "words.txt").symlink_to(tmp_path / "shadow")
    with pytest.raises(SavedModelError, match="words.txt is a symbolic link"):
        saved_model_version.publish(model, staged, 1, files, GROUP)
    assert facts(tmp_path / "shadow") == (0, os.getegid(), 0o600)
    assert published_versions(model) == {}


def test_incomplete_saved_model_is_refused_even_when_it_arrived_as_sent(model: Path, staged: Path) -> None:
    (staged / "variables" / "variables.index").unlink()
    files = add_digests(staged, list_files(staged))
    with pytest.raises(SavedModelError, match="variables.index is missing"):
        saved_model_version.publish(model, staged, 1, files, GROUP)
    assert published_versions(model) == {}


def test_who_filled_the_staging_directory_cannot_reach_it_while_it_is_checked(
    model: Path, staged: Path, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(path: Path) -> Any:
        seen.append(facts(path))
        return list_files(path)

    monkeypatch.setattr(saved_model_version, "list_files", watched)
    saved_model_version.publish(model, staged, 1, files, GROUP)
    ((owner, _, mode),) = seen
    assert owner == 0
    assert mode & 0o007 == 0


def test_published_version_is_never_replaced(model: Path, staged: Path, files: dict[str, Any]) -> None:
    make_saved_model(model / "1", weights=b"served")
    (model / ".manifest-1.json").write_text("as before")
    with pytest.raises((OSError, SavedModelError)):
        saved_model_version.publish(model, staged, 1, files, GROUP)
    assert (model / "1" / "variables" / "variables.data-00000-of-00001").read_bytes() == b"served"
    assert (model / ".manifest-1.json").read_text() == "as before"


def test_module_stages_and_publishes(
    run_module: Callable[..., dict[str, Any]], source: Path, model: Path, files: dict[str, Any]
) -> None:
    common = {"path": str(model), "version": 1, "group": grp.getgrgid(GROUP).gr_name}
    staging = run_module(saved_model_version, state="staged", login_uid=LOGIN, **common)["staging"]
    assert staging == str(model / ".staging-1")
    shutil.copytree(source, staging, dirs_exist_ok=True)
    assert run_module(saved_model_version, state="published", files=files, **common)["changed"]
    found = run_module(saved_model_versions_info, base_path=str(model.parent), models=["MLP"])["models"]
    assert found == {"MLP": {"1": {"directory": "1", "digest": tree_digest(files), "stamp": tree_stamp(files)}}}


def test_module_names_what_is_wrong(
    run_module: Callable[..., dict[str, Any]], model: Path, files: dict[str, Any]
) -> None:
    common = {"path": str(model), "version": 1, "state": "published", "files": files}
    assert run_module(saved_model_version, group="no-such-group", **common)["msg"].startswith(
        "group no-such-group does not exist"
    )
    failed = run_module(saved_model_version, group=grp.getgrgid(GROUP).gr_name, **common)
    assert failed["failed"]
    assert ".staging-1" in failed["msg"]
    assert run_module(saved_model_version, group="root", path=str(model), version=1, state="staged")["failed"]

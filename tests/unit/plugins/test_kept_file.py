"""A file is put back as it was: content, mode, a link's target, or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common import files
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import KeptFile


def test_files_are_put_back_as_they_were(tmp_path: Path) -> None:
    file, removed, replaced, new = (tmp_path / name for name in ("file", "removed", "replaced", "new"))
    file.write_text("text")
    file.chmod(0o640)
    for link in (removed, replaced):
        link.symlink_to("file")
    kept = [KeptFile(path) for path in (file, removed, replaced, new)]
    file.write_text("changed")
    file.chmod(0o644)
    removed.unlink()
    replaced.unlink()
    replaced.write_text("changed")
    new.write_text("new")
    for one in kept:
        one.put_back()
    assert (file.read_text(), file.stat().st_mode & 0o7777) == ("text", 0o640)
    assert os.readlink(removed) == os.readlink(replaced) == "file"  # noqa: PTH115
    assert not new.exists()


def test_file_that_was_not_replaced_needs_no_space_to_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("text")
    kept = KeptFile(tmp_path / "file")
    monkeypatch.setattr(files, "replace_file", None)
    kept.put_back()
    assert (tmp_path / "file").read_text() == "text"

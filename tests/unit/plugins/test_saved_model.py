"""Which directories the server reads as versions, which are whole SavedModels, and how two are told apart."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from saved_model_files import make_saved_model

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import (
    version_files,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_saved_model(tmp_path / "1", shards=3)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("0", 0),
        ("1", 1),
        ("001", 1),
        ("1584123456", 1584123456),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("+1", None),
        ("-1", None),
        ("1.0", None),
        ("1 ", None),
        ("1\n", None),
        ("1_000", None),
        ("0x1", None),
        ("v1", None),
        ("", None),
        ("١", None),
        ("²", None),
        (".staging-1", None),
    ],
)
def test_version_is_read_from_a_directory_name(name: str, version: int | None) -> None:
    assert version_files.parse_version(name) == version


def test_published_versions_are_the_numbered_directories(tmp_path: Path) -> None:
    for name in ("1", "002", "10", "tmp", ".staging-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").write_text("a file")
    assert version_files.published_versions(tmp_path) == {1: "1", 2: "002", 10: "10"}


def test_missing_base_path_has_no_versions(tmp_path: Path) -> None:
    assert version_files.published_versions(tmp_path / "none") == {}


def test_source_versions_are_listed_by_number(tmp_path: Path) -> None:
    for name in ("2", "010", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / ".DS_Store").touch()
    assert version_files.source_versions(tmp_path) == ({2: tmp_path / "2", 10: tmp_path / "010"}, [])


def test_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavedModelError, match="none is not a directory"):
        version_files.source_versions(tmp_path / "none")


@pytest.mark.parametrize("hidden", [[], [".keep"]])
def test_source_without_versions_is_refused(tmp_path: Path, hidden: list[str]) -> None:
    for name in hidden:
        (tmp_path / name).touch()
    with pytest.raises(SavedModelError, match="has no version directory"):
        version_files.source_versions(tmp_path)


def stray(source: Path) -> None:
    """Put into a source what exports, file systems and network drives leave there."""
    (source / "latest").symlink_to("2")
    for name in ("temp-1604", "lost+found", "@eaDir", "-1", str(2**63), "two\nlines"):
        (source / name).mkdir()
    (source / "7").touch()


def test_what_is_no_version_is_passed_over_and_told(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    stray(tmp_path)
    versions, others = version_files.source_versions(tmp_path)
    assert versions == {2: tmp_path / "2"}
    assert sorted(others) == sorted(
        [
            "temp-1604",
            "lost+found",
            "@eaDir",
            "-1",
            "9223372036854775808 (above 9223372036854775807, more than the server's 64 bits hold)",
            "latest",
            r"two\nlines",
            "7 (not a directory)",
        ]
    )
    assert version_files.source_versions(tmp_path, [2]) == (versions, [])


def test_source_of_nothing_but_strays_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / name).mkdir()
    with pytest.raises(SavedModelError, match=f"such as {tmp_path}/1; it holds a, b, c, d, e and 2 more$"):
        version_files.source_versions(tmp_path)


def test_source_with_one_version_under_two_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "001").mkdir()
    (tmp_path / "2").mkdir()
    for wanted in (None, [1]):
        with pytest.raises(SavedModelError, match="are both version 1"):
            version_files.source_versions(tmp_path, wanted)
    assert version_files.source_versions(tmp_path, [2])[0][2] == tmp_path / "2"


def test_every_file_is_listed_with_size_and_time(model: Path) -> None:
    os.utime(model / "saved_model.pb", ns=(0, 1_700_000_000_123_456_789))
    (model / "assets" / ".hidden").touch()
    files = version_files.list_files(model)
    shards = [f"variables/variables.data-0000{index}-of-00003" for index in range(3)]
    others = ["assets/.hidden", "assets/words.txt", "saved_model.pb", "variables/variables.index"]
    assert sorted(files) == [*others[:3], *shards, others[3]]
    size = (model / "saved_model.pb").stat().st_size
    assert files["saved_model.pb"] == {"size": size, "mtime_ns": 1_700_000_000_123_456_789}
    assert version_files.total_bytes(files) == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())


@pytest.mark.parametrize("target", ["saved_model.pb", "assets", "missing", "/etc/passwd"])
def test_symlinks_are_refused(model: Path, target: str) -> None:
    (model / "link").symlink_to(target)
    with pytest.raises(SavedModelError, match="link is a symbolic link"):
        version_files.list_files(model)


def test_fifos_are_refused(model: Path) -> None:
    os.mkfifo(model / "assets" / "pipe")
    with pytest.raises(SavedModelError, match="pipe is a named pipe"):
        version_files.list_files(model)


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"], ids=["Latin-1", "newline"])
def test_name_that_is_not_printable_utf8_is_refused(model: Path, name: bytes) -> None:
    (model / os.fsdecode(name)).touch()
    with pytest.raises(SavedModelError, match="UTF-8"):
        version_files.list_files(model)


def test_missing_directory_has_no_empty_list_of_files(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        version_files.list_files(tmp_path / "none")


def test_digests_are_of_the_content(model: Path) -> None:
    files = version_files.add_digests(model, version_files.list_files(model))
    assert files["assets/words.txt"]["sha256"] == hashlib.sha256(b"one\n").hexdigest()
    assert all(set(facts) == {"size", "mtime_ns", "sha256"} for facts in files.values())


def stamp_and_digest(model: Path) -> tuple[str, str]:
    files = version_files.list_files(model)
    return version_files.tree_stamp(files), version_files.tree_digest(version_files.add_digests(model, files))


def test_copy_with_its_times_has_the_same_stamp_and_digest(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")  # keeps the times, as rsync --archive does
    assert stamp_and_digest(copy) == stamp_and_digest(model)


def test_touched_file_changes_the_stamp_and_not_the_digest(model: Path) -> None:
    stamp, digest = stamp_and_digest(model)
    os.utime(model / "saved_model.pb", ns=(0, 1))
    assert stamp_and_digest(model)[0] != stamp
    assert stamp_and_digest(model)[1] == digest


@pytest.mark.parametrize("change", ["content", "renamed", "added", "removed", "swapped"])
def test_changed_tree_has_another_digest(model: Path, change: str) -> None:
    _, digest = stamp_and_digest(model)
    words, graph = model / "assets" / "words.txt", model / "saved_model.pb"
    if change == "content":
        words.write_text("two\n")
    elif change == "renamed":
        words.rename(model / "words.txt")
    elif change == "added":
        (model / "empty").touch()
    elif change == "removed":
        words.unlink()
    else:
        first, second = words.read_bytes(), graph.read_bytes()
        words.write_bytes(second)
        graph.write_bytes(first)
    assert stamp_and_digest(model)[1] != digest


def test_stamp_and_digest_do_not_depend_on_the_order_of_listing(model: Path) -> None:
    files = version_files.add_digests(model, version_files.list_files(model))
    backwards = dict(reversed(list(files.items())))
    assert version_files.tree_digest(backwards) == version_files.tree_digest(files)
    assert version_files.tree_stamp(backwards) == version_files.tree_stamp(files)

"""A .deb that is built again from an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.installed_package import (
    control_file,
    copy_files,
    refuse_altered,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import PackageError

STATUS = """\
Package: tensorflow-model-server
Status: install ok installed
Priority: optional
Version: 2.19.1
Conffiles:
 /etc/a 0123456789abcdef
 /etc/b 0123456789abcdef
Description: TensorFlow Serving
 Two lines
Config-Version: 2.18.0
"""


@pytest.fixture
def info(tmp_path: Path) -> Path:
    """What dpkg has of the package."""
    (tmp_path / "server.md5sums").write_text("")
    return tmp_path


def test_control_file_has_the_package_s_own_fields() -> None:
    assert control_file(STATUS) == (
        "Package: tensorflow-model-server\nPriority: optional\nVersion: 2.19.1\n"
        "Description: TensorFlow Serving\n Two lines\n"
    )


def test_files_as_they_were_installed_are_taken(info: Path) -> None:
    refuse_altered("server", ["/.", "/usr/bin/x"], "??5?????? c /etc/server.conf\n", info)


@pytest.mark.parametrize("verified", ["??5??????   /usr/bin/x\n", "missing     /usr/bin/x\n"])
def test_file_that_dpkg_finds_altered_is_refused(info: Path, verified: str) -> None:
    with pytest.raises(PackageError, match="not as they were installed: /usr/bin/x"):
        refuse_altered("server", [], verified, info)


def test_diversion_is_refused(info: Path) -> None:
    with pytest.raises(PackageError, match="locally diverted to: /usr/bin/x.real"):
        refuse_altered("server", ["/usr/bin/x", "locally diverted to: /usr/bin/x.real"], "", info)


def test_files_that_cannot_be_verified_are_refused(info: Path) -> None:
    with pytest.raises(PackageError, match="no checksums"):
        refuse_altered("other", ["/usr/bin/x"], "", info)


def test_directory_that_is_a_link_on_the_host_is_a_directory_in_the_package(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    program, link, empty = tmp_path / "lib/program", tmp_path / "lib/link", tmp_path / "lib/empty"
    program.write_text("x")
    program.chmod(0o755)
    link.symlink_to("program")
    empty.mkdir()
    tree = tmp_path / "tree"
    copy_files([*reversed(tmp_path.parents), tmp_path, tmp_path / "lib", program, link, empty][1:], tree)
    copied = tree / program.relative_to("/")
    assert not copied.parent.is_symlink()
    assert (copied.read_text(), copied.stat().st_mode & 0o777) == ("x", 0o755)
    assert (copied.parent / "link").readlink() == Path("program")
    assert (copied.parent / "empty").is_dir()
    with pytest.raises(FileNotFoundError):
        copy_files([Path("/gone")], tmp_path / "other")

# ruff: noqa: S108 - no file is written to these
"""Which directories and accounts the roles take, and which they refuse, whatever these are called."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import access_of
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store import (
    directories,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import (
    MARKER,
    account_problems,
    hidden_problems,
    place_problems,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import server_directories as module

GROUP = grp.getgrgid(1)[0]
Run = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "too broad"),
        ("/etc", "too broad"),
        ("/usr", "too broad"),
        ("/var/lib/", "too broad"),
        ("/srv", "such as /srv/tensorflow-serving"),
        ("/dev/shm", "the system's own or empty after a reboot"),
        ("/run/models", "the system's own or empty after a reboot"),
        ("/usr/lib/models", "the system's own"),
        ("//etc/", "too broad"),
        ("models", "it has to begin with /"),
        ("~/models", "it has to begin with /"),
        ("$HOME/models", "it has to begin with /"),
        ("/srv/models/../..", "it has to begin with /, and to hold no .."),
        ("/srv/mo\ndels", "'/srv/mo\\ndels'; take the control characters out"),
        ("", "it has to begin with /"),
    ],
)
def test_directory_of_the_system_or_of_nobody_is_refused(path: str, words: str) -> None:
    (problem,) = place_problems("the_variable", path)
    assert problem.startswith("the_variable is ")
    assert words in problem


@pytest.mark.parametrize("path", ["/models", "/srv/models", "/etc/tensorflow-serving", "/var/lib/tensorflow-serving"])
def test_directory_of_ones_own_is_taken(path: str) -> None:
    assert place_problems("the_variable", path) + hidden_problems("the_variable", path) == []


def test_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to("/etc")
    assert "models, which leads to /etc, which is too broad" in place_problems("v", str(tmp_path / "models"))[0]
    (tmp_path / "hidden").symlink_to("/home/deploy/models")
    assert "leads to /home/deploy/models, which systemd hides" in hidden_problems("v", str(tmp_path / "hidden"))[0]


@pytest.mark.parametrize(
    "path", ["/home/deploy/models", "/root/m", "/tmp/m", "/var/tmp", "/run/user/1/m", "/dev/shm/m"]
)
def test_directory_that_the_unit_cannot_see_is_refused(path: str) -> None:
    assert "which systemd hides from the unit" in hidden_problems("v", path)[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("root", "tfserving_user is root, which is root"),
        ("0", "it has to be the name of an account"),
        ("1000", "it has to be the name of an account"),
        ("", "it has to be the name of an account"),
        ("a" * 32, "it has to be the name of an account"),
        ("-x", "it has to be the name of an account"),
        ("Serving", "it has to be the name of an account"),
        ("a:b", "it has to be the name of an account"),
        ("a\nb", "it has to be the name of an account"),
    ],
)
def test_account_that_is_root_or_cannot_be_made_is_refused(name: str, words: str) -> None:
    (problem,) = account_problems("tfserving_user", name, pwd.getpwnam)
    assert words in problem


def test_other_name_of_root_is_refused() -> None:
    toor = pwd.struct_passwd(("toor", "x", 0, 0, "", "/root", "/bin/sh"))
    assert "toor, which is root" in account_problems("v", "toor", lambda _: toor)[0]
    assert account_problems("v", "nobody", pwd.getpwnam) == []
    assert account_problems("v", "nobody-has-this-name", grp.getgrnam) == []


@pytest.fixture
def run(run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(directories.os, "chown", lambda *_: None)

    def play(*folders: Path, **more: Any) -> dict[str, Any]:
        directories = [{"variable": f"variable_{number}", "path": str(path)} for number, path in enumerate(folders)]
        return run_module(module, directories=directories, **{"user": "tfserving", "group": GROUP, **more})

    return play


def give_to_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have directories look like root's, under any account that runs the tests."""
    monkeypatch.setattr(directories, "access_of", lambda path: access_of(path)._replace(owner="root", group=GROUP))


def test_directory_is_made_marked_and_known_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_to_root(monkeypatch)
    folder = tmp_path / "a" / "b"
    made = run(folder, check=True)
    assert made["changed"]
    assert not folder.exists()
    made = run(folder)
    assert (made["changed"], (folder / MARKER).is_file(), folder.stat().st_mode & 0o7777) == (True, True, 0o751)
    assert made["diff"][0] == {
        "before_header": str(folder),
        "after_header": str(folder),
        "before": "",
        "after": f"root:{GROUP} 0751\n",
    }
    (folder / "file").touch()
    assert not run(folder)["changed"]


def test_what_others_have_filled_is_taken_only_when_told(run: Run, tmp_path: Path) -> None:
    filled, empty, file = tmp_path / "filled", tmp_path / "empty", tmp_path / "file"
    filled.mkdir(mode=0o755)
    (filled / "theirs").write_text("x")
    empty.mkdir()
    file.touch()
    refused = run(filled, empty, file, user="root", group="0")
    assert refused["failed"]
    lines = refused["msg"].splitlines()
    assert [line.split()[0] for line in lines] == [*("tfserving_user", "tfserving_group", "variable_0", "variable_2")]
    assert "was not made by this collection" in lines[2]
    assert "0755; it would become root:0 0751" in lines[2]
    assert "tfserving_adopt_directories to true" in lines[2]
    assert "which is no directory" in lines[3]
    assert list(filled.iterdir()) == [filled / "theirs"]
    taken = run(filled, adopt=True)
    assert taken["changed"]
    assert " 0755\n" in taken["diff"][0]["before"]
    assert (filled / "theirs").read_text() == "x"


def test_directories_of_version_0_1_are_known_by_owner_and_mode_or_by_manifests(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "MLP").mkdir(parents=True)
    assert run(tmp_path / "models")["failed"]
    (tmp_path / "models" / "MLP" / ".manifest-1.json").touch()
    assert run(tmp_path / "models", check=True)["changed"]
    config = tmp_path / "config"
    config.mkdir()
    (config / "models.config").touch()
    config.chmod(0o751)
    assert run(config)["failed"]
    give_to_root(monkeypatch)
    assert run(config)["changed"]
    assert (config / MARKER).is_file()


def test_directory_that_another_user_can_replace_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    refused = run(tmp_path / "open" / "models")
    assert f"{tmp_path}/open is not root's alone" in refused["msg"]
    assert "set variable_0 to another directory" in refused["msg"]

"""The action that publishes a catalogue, over a local connection: its modules and rsync run for real."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from saved_model_files import make_saved_model

from ansible_collections.modelops.tensorflow_serving.plugins.action import saved_models
from ansible_collections.modelops.tensorflow_serving.plugins.modules import (
    saved_model_version,
    saved_model_versions_info,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")

MODULES = {
    f"{saved_models.COLLECTION}.saved_model_version": saved_model_version,
    f"{saved_models.COLLECTION}.saved_model_versions_info": saved_model_versions_info,
}
SSH = {
    "host": "web1",
    "remote_user": "admin",
    "ssh_executable": "ssh",
    "timeout": 10,
    "host_key_checking": True,
    "port": None,
    "private_key_file": None,
    "ssh_args": "-C -o ControlMaster=auto",
    "ssh_common_args": "",
    "ssh_extra_args": None,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for version in ("1", "2"):
        make_saved_model(tmp_path / "saved" / version, weights=version.encode())
    return tmp_path / "saved"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def action(models: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """An action for one host, this one; run it with publish()."""
    connection = MagicMock(transport="local")
    task = SimpleNamespace(async_val=0, check_mode=False, diff=True, action="saved_models", args={})
    plugin = saved_models.ActionModule(task, connection, MagicMock(), MagicMock(), MagicMock(), MagicMock())

    def execute(module_name: str, module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
        return run_module(MODULES[module_name], **module_args)

    monkeypatch.setattr(plugin, "_execute_module", execute)
    monkeypatch.setattr(plugin, "_low_level_execute_command", lambda *_, **__: {"stdout": "1000\n"})
    return plugin


@pytest.fixture
def publish(action: Any, models: Path, source: Path) -> Callable[..., dict[str, Any]]:
    """Run the action for model MLP with these settings of its entry."""

    def run(check: bool = False, **entry: Any) -> dict[str, Any]:
        catalog = [{"name": "MLP", "source": str(source), **entry}]
        action._task.check_mode = check
        action._task.args = {"catalog": catalog, "base_path": str(models), "group": grp.getgrgid(0).gr_name}
        result: dict[str, Any] = action.run(task_vars={})
        return result

    return run


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_all_versions_of_the_source_are_published(
    publish: Callable[..., dict[str, Any]], source: Path, models: Path
) -> None:
    result = publish()
    size = sum(map(len, tree(source / "1").values()))
    assert result["changed"]
    assert result["published"] == [{"model": "MLP", "version": version, "bytes": size} for version in (1, 2)]
    assert (result["diff"]["before"], result["diff"]["after"]) == ("", "MLP/1\nMLP/2\n")
    for version in ("1", "2"):
        assert tree(models / "MLP" / version) == tree(source / version)


def test_second_run_changes_nothing(publish: Callable[..., dict[str, Any]]) -> None:
    publish()
    result = publish()
    assert (result["changed"], result["published"]) == (False, [])
    assert result["diff"]["before"] == result["diff"]["after"] == "MLP/1\nMLP/2\n"


def test_check_mode_says_what_would_be_published(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    result = publish(check=True)
    assert (result["changed"], len(result["published"])) == (True, 2)
    assert list(models.iterdir()) == []


def test_new_version_is_published_beside_the_others(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    publish(versions=[1])
    assert [one["version"] for one in publish(versions=[2])["published"]] == [2]
    assert sorted(path.name for path in (models / "MLP").iterdir() if path.is_dir()) == ["1", "2"]


def test_touched_source_is_not_published_again(publish: Callable[..., dict[str, Any]], source: Path) -> None:
    publish()
    os.utime(source / "1" / "saved_model.pb", (1, 1))
    assert not publish()["changed"]


@pytest.mark.parametrize("check", [False, True])
def test_changed_source_of_a_published_version_is_refused(
    publish: Callable[..., dict[str, Any]], source: Path, models: Path, check: bool
) -> None:
    publish(versions=[1])
    before = tree(models)
    (source / "1" / "assets" / "words.txt").write_text("two!\n")
    with pytest.raises(AnsibleActionFail, match="version 1 is published with sha256 .* export this one as version 3"):
        publish(check=check)
    assert tree(models) == before  # version 2 is not published either


def test_version_published_by_hand_is_left_with_a_warning(
    publish: Callable[..., dict[str, Any]], action: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_saved_model(models / "MLP" / "1", weights=b"by hand")
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    assert [one["version"] for one in publish()["published"]] == [2]
    assert (models / "MLP" / "1" / "variables" / "variables.data-00000-of-00001").read_bytes() == b"by hand"
    assert warnings == ["MLP version 1 was not published by this collection; left as it is"]


def test_label_may_point_to_a_version_that_is_on_the_host_only(
    publish: Callable[..., dict[str, Any]], source: Path
) -> None:
    publish(versions=[1])
    shutil.rmtree(source / "1")
    assert publish(model_version_policy={"all": {}}, version_labels={"stable": 1, "canary": 2})["changed"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"version_labels": {"stable": 1}}, "label stable points to version 1, which is not served"),
        ({"model_version_policy": {"specific": {"versions": [3]}}}, "asks for version 3"),
        ({"versions": [3]}, "versions lists version 3"),
        ({"source": "/no/such/directory"}, "/no/such/directory is not a directory"),
    ],
)
def test_catalogue_that_cannot_be_served_changes_nothing(
    publish: Callable[..., dict[str, Any]], models: Path, entry: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(AnsibleActionFail, match=complaint):
        publish(**entry)
    assert list(models.iterdir()) == []


def test_interrupted_transfer_is_resumed(
    publish: Callable[..., dict[str, Any]], models: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        shutil.copy2(source / "1" / "saved_model.pb", command[-1])
        return subprocess.CompletedProcess(command, 30, "", "timeout in data send/receive")

    with monkeypatch.context() as context:
        context.setattr(saved_models.subprocess, "run", interrupted)
        with pytest.raises(AnsibleActionFail, match="code 30; the next run goes on from there:\ntimeout in data"):
            publish(versions=[1])
    assert [path.name for path in (models / "MLP").iterdir()] == [".staging-1"]
    publish(versions=[1])
    assert tree(models / "MLP" / "1") == tree(source / "1")


def test_leftovers_in_staging_are_not_published(
    publish: Callable[..., dict[str, Any]], models: Path, source: Path
) -> None:
    (models / "MLP" / ".staging-1").mkdir(parents=True)
    (models / "MLP" / ".staging-1" / "old.txt").touch()
    publish(versions=[1])
    assert tree(models / "MLP" / "1") == tree(source / "1")


def test_failed_module_fails_the_task_with_its_message(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action, "_execute_module", lambda **_: {"failed": True, "msg": "no python"})
    with pytest.raises(AnsibleActionFail, match="no python"):
        publish()


def test_missing_rsync_on_the_host_is_told(
    publish: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = MagicMock(return_value=subprocess.CompletedProcess([], 127, "", ""))
    monkeypatch.setattr(saved_models.subprocess, "run", run)
    with pytest.raises(AnsibleActionFail, match="rsync is missing on the host"):
        publish()


def test_missing_rsync_on_the_controller_is_told_before_anything_is_changed(
    publish: Callable[..., dict[str, Any]], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AnsibleActionFail, match="rsync is missing on the controller"):
        publish()
    assert list(models.iterdir()) == []


def test_connection_that_carries_no_files_is_refused_before_anything_is_changed(
    publish: Callable[..., dict[str, Any]], action: Any, models: Path
) -> None:
    action._connection.transport = "docker"
    with pytest.raises(AnsibleActionFail, match="connections of type ssh or local, not docker"):
        publish()
    assert list(models.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("", "answers '', not a user id"),
        ("This account is locked\n", "answers 'This account is locked', not a user id"),
    ],
)
def test_login_user_that_cannot_be_found_out_is_told(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch, output: str, complaint: str
) -> None:
    monkeypatch.setattr(action, "_low_level_execute_command", lambda *_, **__: {"stdout": output})
    with pytest.raises(AnsibleActionFail, match=complaint):
        publish()


def test_greeting_before_the_user_id_is_passed_over(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action, "_low_level_execute_command", lambda *_, **__: {"stdout": "Welcome!\n1000\n"})
    assert publish()["changed"]


@pytest.mark.parametrize(
    ("options", "target", "shell"),
    [
        ({}, "admin@web1:", "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ControlMaster=auto"),
        ({"remote_user": None}, "web1:", "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ControlMaster=auto"),
        ({"host": "fd00::1"}, "admin@[fd00::1]:", "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ControlMaster=auto"),
        (
            {"port": 2222, "private_key_file": "/my keys/id", "ssh_args": None, "host_key_checking": False},
            "admin@web1:",
            "ssh -o BatchMode=yes -o ConnectTimeout=10 -o StrictHostKeyChecking=no -p 2222 -i '/my keys/id'",
        ),
        (
            {"ssh_args": "-C", "ssh_common_args": "-J jump", "ssh_extra_args": "-o ProxyCommand='ssh -W %h:%p b'"},
            "admin@web1:",
            "ssh -o BatchMode=yes -o ConnectTimeout=10 -J jump -o 'ProxyCommand=ssh -W %h:%p b'",
        ),
    ],
)
def test_rsync_travels_over_the_settings_of_the_ssh_connection(
    action: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], target: str, shell: str
) -> None:
    run = MagicMock(return_value=subprocess.CompletedProcess([], 0, "", ""))
    monkeypatch.setattr(saved_models.subprocess, "run", run)
    action._connection.transport = "ssh"
    action._connection.get_option = (SSH | options).get
    action._rsync(Path("/saved/1"), "/models/MLP/.staging-1")
    command = run.call_args.args[0]
    assert command[-2:] == ["/saved/1/", f"{target}/models/MLP/.staging-1/"]
    assert f"--rsh={shell}" in command

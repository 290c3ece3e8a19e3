"""One run at a time changes a host: the file on the host, the action, and that every playbook takes it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail

from ansible_collections.modelops.tensorflow_serving.plugins.action import host_lock as action_plugin
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common import received_call
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.host_lock import (
    look,
    release,
    take,
    take_after_look,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils import run_cache

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
OURS = {"run": "ours", "owner": "alice@ctl1", "pid": 1, "process": "1", "machine": "m"}
THEIRS = {**OURS, "run": "theirs", "owner": "bob@ctl2"}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "serving.lock"


def age(lock: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(lock, (moment, moment))


# The file


def test_lock_of_one_run_is_taken_and_renewed_by_it_alone(lock: Path) -> None:
    assert look(str(lock)) is None
    assert take(OURS, 60, path=str(lock)) is None
    assert lock.stat().st_mode & 0o777 == 0o600  # who can open it could hold its flock
    age(lock, 50)
    other = take(THEIRS, 60, path=str(lock))
    assert other
    assert {key: other[key] for key in OURS} == OURS
    assert look(str(lock)) == other
    assert take(OURS, 60, path=str(lock)) is None
    again = take(THEIRS, 60, path=str(lock))
    assert again
    assert (again["start"], again["until"] > other["until"]) == (other["start"], True)


def test_lock_tells_its_times_in_utc(lock: Path) -> None:
    take(OURS, 3600, path=str(lock))
    content = json.loads(lock.read_text())
    lock.write_text(json.dumps({**content, "start": 1_800_000_000}))
    os.utime(lock, (4_000_000_000, 4_000_000_000))
    told = look(str(lock))
    assert told
    assert (told["start"], told["until"]) == ("2027-01-15T08:00:00Z", "2096-10-02T08:06:40Z")


def test_lock_that_has_expired_or_says_nothing_counts_for_nothing(lock: Path) -> None:
    take(OURS, 60, path=str(lock))
    age(lock, 61)
    assert look(str(lock)) is None
    assert take(THEIRS, 60, path=str(lock)) is None
    for content in ("", "{", "[]", "{}", json.dumps({**OURS, "start": "x"})):
        lock.write_text(content)
        assert look(str(lock)) is None
        assert take(OURS, 60, path=str(lock)) is None


def test_lock_of_a_run_that_is_known_to_be_over_is_taken_from_that_run_only(lock: Path) -> None:
    take(OURS, 60, path=str(lock))
    assert take(THEIRS, 60, "another", str(lock)) is not None
    assert take(THEIRS, 60, "ours", str(lock)) is None


def test_lock_is_released_by_its_run_only(lock: Path) -> None:
    take(OURS, 60, path=str(lock))
    release("theirs", str(lock))
    assert look(str(lock)) is not None
    release("ours", str(lock))
    assert not lock.exists()
    release("ours", str(lock))
    assert not lock.exists()


def test_run_that_looked_before_another_had_the_lock_is_told(lock: Path) -> None:
    looked_at = time.time()
    taken = take_after_look(OURS, 60, looked_at, path=str(lock))
    assert taken == {"other": None, "looked_before": False}
    release("ours", str(lock))
    assert not take_after_look(OURS, 60, looked_at, path=str(lock))["looked_before"]
    release("ours", str(lock))
    assert take_after_look(THEIRS, 60, looked_at, path=str(lock))["looked_before"]
    release("theirs", str(lock))
    assert not take_after_look(OURS, 60, time.time(), path=str(lock))["looked_before"]


def test_run_that_looked_before_another_was_killed_is_told(lock: Path) -> None:
    take(OURS, 60, path=str(lock))
    looked_at = time.time()
    assert take_after_look(THEIRS, 60, looked_at, "another", path=str(lock))["looked_before"] is False
    assert take_after_look(THEIRS, 60, looked_at, "ours", path=str(lock)) == {"other": None, "looked_before": True}
    take(OURS, 60, "theirs", path=str(lock))
    age(lock, 61)  # the look is younger than the lock, and what its run did may be younger than the look
    assert take_after_look(THEIRS, 60, looked_at, path=str(lock)) == {"other": None, "looked_before": True}


def test_who_waited_while_it_was_released_takes_the_new_file(lock: Path) -> None:
    """What has no name any more, nobody else sees."""
    take(OURS, 60, path=str(lock))
    with lock.open() as file, ThreadPoolExecutor(1) as pool:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = pool.submit(take, THEIRS, 60, path=str(lock))
        time.sleep(0.2)
        assert not waiting.done()
        lock.unlink()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert waiting.result(timeout=10) is None
    told = look(str(lock))
    assert told
    assert told["run"] == "theirs"


def test_link_is_not_followed(lock: Path, tmp_path: Path) -> None:
    lock.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        take(OURS, 60, path=str(lock))
    assert not (tmp_path / "target").exists()


def test_whatever_the_run_does_on_the_host_renews_it(lock: Path) -> None:
    take(OURS, 60, path=str(lock))
    age(lock, 50)
    before = lock.stat().st_mtime
    received_call.renew(str(lock), "theirs")
    received_call.renew(str(lock.with_name("none")), "ours")
    assert lock.stat().st_mtime == before
    received_call.renew(str(lock), "ours")
    assert lock.stat().st_mtime > before + 40


# The action


@pytest.fixture
def act(lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the action for this host, as a run of Ansible of this name."""
    monkeypatch.setattr(action_plugin, "LOCK", str(lock))

    def run(name: str = "ours", check: bool = False, **arguments: Any) -> dict[str, Any]:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setattr(run_cache.constants, "DEFAULT_LOCAL_TMP", str(tmp_path / name))
        task = SimpleNamespace(async_val=0, check_mode=check, diff=False, action="host_lock", args=arguments)
        plugin = action_plugin.ActionModule(
            task, MagicMock(transport="local"), MagicMock(), MagicMock(), MagicMock(), MagicMock()
        )
        plugin._templar.template = lambda text: text

        def execute(command: str, in_data: bytes = b"", **_: Any) -> dict[str, Any]:
            assert json.loads(zlib.decompress(in_data))["lock"][1] == name
            done = subprocess.run(["/bin/sh", "-c", command], input=in_data, capture_output=True, check=False)
            return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}

        monkeypatch.setattr(plugin, "_compute_environment_string", lambda: "")
        monkeypatch.setattr(plugin, "_low_level_execute_command", execute)
        result: dict[str, Any] = plugin.run(task_vars={})
        return result

    return run


def change(lock: Path, **facts: Any) -> dict[str, Any]:
    """Let the lock be another's."""
    content = {**json.loads(lock.read_text()), **facts}
    lock.write_text(json.dumps(content))
    return content


def test_second_run_says_who_is_at_work(act: Callable[..., dict[str, Any]], lock: Path) -> None:
    assert act(minutes=5) == {"changed": False, "looked_before": False}
    holder = change(lock, owner="bob@ctl2", machine="another")
    assert holder["seconds"] == 300
    with pytest.raises(AnsibleActionFail) as error:
        act("second")
    assert str(error.value).startswith(f"bob@ctl2 (process {os.getppid()}, ours) is at work on this host since 20")
    assert (
        f"Z. This run changed nothing. Wait until the other run has ended; if it was killed, remove {lock} on"
        in str(error.value)
    )
    act("second", state="released")  # as after the failure
    assert json.loads(lock.read_text()) == holder
    act(state="released")
    assert act("second", looked_at=1.0) == {"changed": False, "looked_before": True}


def test_same_run_takes_it_again(act: Callable[..., dict[str, Any]]) -> None:
    for _ in range(2):
        assert act() == {"changed": False, "looked_before": False}


@pytest.mark.parametrize("how", ["ended", "number was given to another"])
def test_lock_of_a_run_on_this_machine_that_has_ended_is_taken(
    act: Callable[..., dict[str, Any]], lock: Path, how: str
) -> None:
    act()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        change(lock, pid=process.pid, process=action_plugin._process(process.pid))
        with pytest.raises(AnsibleActionFail, match=f"process {process.pid}, ours"):
            act("second")
        if how == "ended":
            process.kill()
            while action_plugin._process(process.pid):  # it is not waited for yet
                time.sleep(0.01)
        else:
            change(lock, process="1")
        act("second")
        process.kill()
    assert json.loads(lock.read_text())["run"] == "second"


def test_run_of_another_container_is_not_taken_for_ended(act: Callable[..., dict[str, Any]], lock: Path) -> None:
    act()
    for machine in ("another", None):
        change(lock, pid=2**22 + 1, machine=machine)
        with pytest.raises(AnsibleActionFail, match="is at work"):
            act("second")


def test_check_mode_takes_and_releases_nothing_and_warns(act: Callable[..., dict[str, Any]], lock: Path) -> None:
    assert act(check=True) == {"changed": False, "looked_before": False, "warnings": []}
    assert not lock.exists()
    act()
    (warning,) = act("second", check=True)["warnings"]
    assert "is at work on this host since" in warning
    act(check=True, state="released")
    assert lock.exists()


def test_lock_that_could_not_count_is_refused(act: Callable[..., dict[str, Any]], lock: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="tfserving_lock_minutes is 0, and has to be at least 1"):
        act(minutes=0)
    assert not lock.exists()


def test_failure_is_said_after_the_release(act: Callable[..., dict[str, Any]], lock: Path) -> None:
    for check in (True, False):
        act()
        with pytest.raises(AnsibleActionFail, match="^no space left$"):
            act(state="released", failure="no space left", check=check)
        assert lock.exists() == check


# The playbooks

CHANGING = ("serving", "remove", "prune", "monitoring")


LOCK_MODULE = "modelops.tensorflow_serving.host_lock"


@pytest.mark.parametrize("name", CHANGING)
def test_playbook_changes_a_host_under_its_lock_and_releases_it_whatever_happens(name: str) -> None:
    plays = yaml.safe_load((PLAYBOOKS / f"{name}.yml").read_text())
    play = plays[1 if name == "serving" else 0]  # whose first one checks the input
    assert play["hosts"] == "tfserving" or name == "serving"  # which takes the hosts that it has looked at
    *before, changing = play["tasks"]
    if "ansible.builtin.import_tasks" in changing:
        (changing,) = yaml.safe_load((PLAYBOOKS / changing["ansible.builtin.import_tasks"]).read_text())
    # Where a play ends with the first failure, the lock is taken in the block: the others are finished before.
    taken = changing["block"][0] if "max_fail_percentage" in play else before[0]
    assert taken[LOCK_MODULE]["minutes"] == "{{ tfserving_lock_minutes | default(omit) }}"
    assert changing["block"][-1][LOCK_MODULE] == {"state": "released"}
    assert "when" not in changing["block"][-1] or name == "serving"  # whose tasks a rollout plays, too
    (rescue,) = changing["rescue"]
    assert rescue[LOCK_MODULE]["state"] == "released"
    assert "ansible_failed_result.msg" in rescue[LOCK_MODULE]["failure"]
    assert not play.keys() & {"roles", "post_tasks", "handlers"}

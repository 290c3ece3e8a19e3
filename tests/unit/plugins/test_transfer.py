"""How files travel to a host, and what is said of it meanwhile."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish import transfer
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.transfer import Progress, Transport

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
    "control_path_dir": "/run/user/1/my cp",
}


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], target: str, shell: str
) -> None:
    wrapper = tmp_path / "rsync"
    wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    connection = MagicMock(transport="ssh", control_path=None, get_option=(SSH | options).get)
    Transport(connection).send(Path("/saved/1"), ["a"], 1, "/models/MLP/.staging-1", None, lambda _: None)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-2:] == ["/saved/1/", f"{target}/models/MLP/.staging-1/"]
    assert f"--rsh={shell}" in arguments


def test_rsync_on_the_host_runs_as_root_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "rsync"
    wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    connection = MagicMock(transport="ssh", control_path=None, get_option=SSH.get)
    for become, option in (((), []), (("sudo", "-n", "-u", "root"), ["--rsync-path=sudo -n -u root rsync"])):
        Transport(connection, become).send(Path("/saved/1"), ["a"], 1, "/models/MLP/.staging-1", None, lambda _: None)
        arguments = (tmp_path / "arguments").read_text().splitlines()
        assert [argument for argument in arguments if argument.startswith("--rsync-path")] == option


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for ssh, whose settings allow some ciphers, and for rsync, which lists its shells in the file shells."""
    settings = "host web1\\nciphers chacha20-poly1305@openssh.com,aes256-ctr,aes128-gcm@openssh.com\\nport 22\\n"
    (tmp_path / "ssh").write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\ncase "$*" in *"-G admin@web1") printf "{settings}";; esac\n'
    )
    (tmp_path / "rsync").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" | sed -n s/^--rsh=//p >> {tmp_path}/shells\nexit "$(cat {tmp_path}/code)"\n'
    )
    (tmp_path / "code").write_text("0")
    for name in ("ssh", "rsync"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


PLAIN = """ssh -o BatchMode=yes -o ConnectTimeout=10 -o ControlMaster=auto -o 'ControlPath="/run/user/1/my cp/%C"'"""
CIPHERS = "ssh -o Ciphers=aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr"
KEPT = (
    f"""{CIPHERS} -o ControlMaster=auto -o ControlPersist=10s -o 'ControlPath="/run/user/1/my cp/%C-{os.getpid()}"'"""
    " -o ServerAliveInterval=30"
)
FAST = PLAIN.replace("ssh", KEPT, 1)


def transport(control_path: str | None = "%(directory)s/%%C") -> Transport:
    return Transport(MagicMock(transport="ssh", control_path=control_path, get_option=SSH.get))


def send(size: int, **settings: None) -> None:
    transport(**settings).send(Path("/saved/1"), ["a"], size, "/models/MLP/.staging-1", None, lambda _: None)


@pytest.mark.parametrize(("size", "shell"), [(1 << 20, PLAIN), (1 << 30, FAST)])
def test_much_data_takes_a_connection_with_the_fastest_cipher_that_is_allowed(
    programs: Path, size: int, shell: str
) -> None:
    send(size)
    assert (programs / "shells").read_text().splitlines() == [shell]


def test_connection_of_its_own_is_not_kept_where_ansible_keeps_none(programs: Path) -> None:
    send(1 << 30, control_path=None)
    (shell,) = (programs / "shells").read_text().splitlines()
    assert shell.startswith(f"{CIPHERS} -o ControlPath=none -o ServerAliveInterval=30 -o BatchMode=yes")


@pytest.mark.parametrize(
    ("size", "control_path", "logged_in"),
    [(1 << 30, "%(directory)s/%%C", True), (1 << 20, "%(directory)s/%%C", False), (1 << 30, None, False)],
)
def test_connection_that_much_data_will_take_is_opened_before(
    programs: Path, size: int, control_path: str | None, logged_in: bool
) -> None:
    with (programs / "ssh").open("a") as script:
        script.write(f'case "$*" in *"%C-{os.getpid()}"*true) echo "$*" > {programs}/opened; exit 255;; esac\n')
    transport(control_path).log_in(size)
    assert (programs / "opened").exists() == logged_in


def test_ciphers_that_the_settings_leave_out_are_not_brought_in(programs: Path) -> None:
    (programs / "ssh").write_text("#!/bin/sh\necho ciphers chacha20-poly1305@openssh.com\n")
    send(1 << 30)
    assert (programs / "shells").read_text().splitlines() == [PLAIN]


def test_where_no_connection_of_its_own_is_to_be_had_that_of_ansible_is_taken(programs: Path) -> None:
    (programs / "code").write_text("255")
    with pytest.raises(AnsibleActionFail, match="stopped with code 255"):
        send(1 << 30)
    assert (programs / "shells").read_text().splitlines() == [FAST, PLAIN]


def test_password_is_not_tried_without_it(programs: Path) -> None:
    """rsync over a connection of its own would fail to log in, which some hosts count."""
    login = MagicMock(transport="ssh", control_path="%(directory)s/%%C", get_option=(SSH | {"password": "x"}).get)
    Transport(login).send(Path("/saved/1"), ["a"], 1 << 30, "/models/MLP/.staging-1", None, lambda _: None)
    assert (programs / "shells").read_text().splitlines() == [PLAIN]


def control_commands(programs: Path) -> list[str]:
    """Return what ssh was told to do with connections that are kept: "exit mine", "stop ansible's"."""
    asked = (programs / "asked").read_text().splitlines() if (programs / "asked").exists() else []
    return [
        f"{line.split(' -O ')[1].split()[0]} {'mine' if f'%C-{os.getpid()}' in line else 'ansible'}"
        for line in asked
        if " -O " in line
    ]


@pytest.mark.parametrize(
    ("size", "control_path", "stopped", "closed"),
    [
        (1 << 20, "%(directory)s/%%C", ["stop ansible"], []),
        (1 << 30, "%(directory)s/%%C", ["stop ansible"], ["exit mine"]),
        (1 << 30, None, [], []),  # what is kept, if anything, is the user's own
    ],
)
def test_connections_that_may_hang_are_left(
    programs: Path, size: int, control_path: str | None, stopped: list[str], closed: list[str]
) -> None:
    (programs / "code").write_text("30")
    way = transport(control_path)
    with pytest.raises(AnsibleActionFail, match="stopped with code 30; the next run goes on from there"):
        way.send(Path("/saved/1"), ["a"], size, "/models/MLP/.staging-1", None, lambda _: None)
    assert control_commands(programs) == stopped
    way.close()
    assert control_commands(programs) == stopped + closed


def test_connection_of_ansible_is_kept_after_a_transfer_that_was_not_cut(programs: Path) -> None:
    way = transport()
    way.send(Path("/saved/1"), ["a"], 1 << 30, "/models/MLP/.staging-1", None, lambda _: None)
    way.close()
    assert control_commands(programs) == ["exit mine"]


# Stands for ssh: runs the command on this machine, lets so many bytes through to it, and counts them.
LOOPBACK = """#!{python}
import os, subprocess, sys, threading
command = sys.argv[sys.argv.index("web1") + 1 :]
process = subprocess.Popen(["sh", "-c", " ".join(command)], stdin=subprocess.PIPE)
passed = 0
def feed():
    global passed
    while data := os.read(0, min({limit} - passed, 1 << 16)):
        os.write(process.stdin.fileno(), data)
        passed += len(data)
    process.stdin.close()
threading.Thread(target=feed, daemon=True).start()
process.wait()
open("{counted}", "w").write(str(passed))
"""


def test_cut_transfer_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    size, there, slack = 8 << 20, 3 << 20, 1 << 18
    weights = tmp_path / "target" / "weights"
    (tmp_path / "source" / "weights").write_bytes(os.urandom(size))
    ssh, counted = tmp_path / "ssh", tmp_path / "counted"
    options = SSH | {"ssh_executable": str(ssh), "ssh_args": ""}
    way = Transport(MagicMock(transport="ssh", control_path=None, get_option=options.get))

    def send(limit: int) -> int:
        ssh.write_text(LOOPBACK.format(python=sys.executable, limit=limit, counted=counted))
        ssh.chmod(0o755)
        way.send(tmp_path / "source", None, size, str(tmp_path / "target"), None, lambda _: None)
        return int(counted.read_text())

    with pytest.raises(AnsibleActionFail, match="the next run goes on from there"):
        send(there)
    arrived = weights.stat().st_size
    assert there - slack < arrived < there
    assert size - arrived < send(1 << 30) < size - arrived + slack
    assert weights.read_bytes() == (tmp_path / "source" / "weights").read_bytes()


@pytest.mark.parametrize(
    ("said", "code", "advice"),
    [
        ("rsync: connection unexpectedly closed", 12, "; the next run goes on from there:"),
        ("Connection to web1 closed by remote host.", 255, "; the next run goes on from there:"),
        ("admin@web1: Permission denied (publickey,password).", 255, "; it cannot log in to admin@web1 by itself."),
        ("Host key verification failed.", 255, "; it cannot log in to admin@web1 by itself."),
        ("rsync: not found", 127, "; rsync is missing on the host, and the role tfserving_package installs it:"),
        ("No space left on device (28)", 11, ":"),
        ("partial transfer", 23, ":"),
    ],
)
def test_no_more_is_promised_than_will_be(programs: Path, said: str, code: int, advice: str) -> None:
    (programs / "rsync").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {code}\n")
    with pytest.raises(AnsibleActionFail) as error:
        send(1)
    assert str(error.value).startswith(f"rsync of /saved/1 stopped with code {code}{advice}")
    assert str(error.value).endswith(f":\n{said}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_progress_is_told_every_ten_seconds_with_rate_and_rest(clock: list[float]) -> None:
    said: list[str] = []
    progress = Progress("web1: MLP/2", 4 << 30, said.append)
    for second in range(1, 25):
        clock[0] = 1000.0 + second
        progress.at(second * (100 << 20))
    assert said == [
        "web1: MLP/2: 1000.0 MiB of 4.0 GiB, 90.0 MiB/s, 0:00:34 left",
        "web1: MLP/2: 2.0 GiB of 4.0 GiB, 95.0 MiB/s, 0:00:22 left",
    ]


def test_progress_of_what_has_no_known_size_is_told_without_a_rest(clock: list[float]) -> None:
    said: list[str] = []
    progress = Progress("web1: MLP/2", None, said.append)
    progress.at(50 << 20, None, "downloading")  # by an earlier run
    clock[0] += 10
    progress.at(150 << 20, None, "downloading")
    clock[0] += 10
    progress.at(200 << 20, 300 << 20, "unpacking")
    assert said == [
        "web1: MLP/2: downloading 150.0 MiB, 10.0 MiB/s",
        "web1: MLP/2: unpacking 200.0 MiB of 300.0 MiB, 7.5 MiB/s, 0:00:13 left",
    ]


def test_what_rsync_prints_is_followed(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "source" / "a b").write_bytes(b"x" * 5000)
    (tmp_path / "source" / "left out").touch()
    told: list[int] = []
    connection = MagicMock(transport="local")
    Transport(connection).send(tmp_path / "source", ["a b"], 5000, str(tmp_path / "target"), None, told.append)
    assert told[-1] == 5000
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["a b"]


def test_all_of_a_source_is_sent_without_a_list_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "source" / "variables").mkdir(parents=True)
    (tmp_path / "source" / "empty").mkdir()
    (tmp_path / "source" / "variables" / "index").write_text("x")
    (tmp_path / "target").mkdir()
    Transport(MagicMock(transport="local")).send(
        tmp_path / "source", None, 1, str(tmp_path / "target"), None, lambda _: None
    )
    assert [path.name for path in sorted((tmp_path / "target").rglob("*"))] == ["variables", "index"]


@pytest.mark.parametrize("name", ["#notes", ";", "-m", "a:b", "two words", "naïve", "[x]*"])
def test_file_of_any_name_arrives(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / name).write_text("x")
    (tmp_path / "target").mkdir()
    monkeypatch.chdir(tmp_path)
    Transport(MagicMock(transport="local")).send(Path(name), [name], 1, str(tmp_path / "target"), None, lambda _: None)
    assert [path.name for path in (tmp_path / "target").iterdir()] == [name]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("openrsync: protocol version 29", "'openrsync: protocol version 29'; version 3.1 of the rsync of Samba"),
        ("rsync  version 2.6.9  protocol version 29", "version 3.1 of the rsync of Samba is needed"),
    ],
)
def test_rsync_that_cannot_do_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, complaint: str
) -> None:
    (tmp_path / "rsync").write_text(f"#!/bin/sh\necho {said!r}\n")
    (tmp_path / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(AnsibleActionFail, match=complaint):
        Transport.check(MagicMock(transport="ssh"))


def test_failure_of_rsync_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="stopped with code 23:\n.*no such"):
        Transport(MagicMock(transport="local")).send(tmp_path, ["no such"], 1, str(tmp_path), None, lambda _: None)


def test_file_of_progress_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PROGRESS_SECONDS", 0.01)
    told: list[tuple[Any, ...]] = []
    file = tmp_path / "progress"
    with Transport(MagicMock(transport="local")).watching(str(file), lambda *facts: told.append(facts)):
        file.write_text("{")
        time.sleep(0.05)
        file.write_text(json.dumps({"bytes": 5, "total": None, "what": "unpacking"}))
        deadline = time.monotonic() + 5
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
    assert set(told) == {(5, None, "unpacking")}

"""A port is a unit's own only if every socket that listens there is the unit's."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common import listening_sockets
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
    Holder,
    check_port,
    control_group,
    holders,
    is_in,
)

LISTEN = """
import socket, sys
one = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
if one.family == socket.AF_INET6:
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
one.bind((sys.argv[1], int(sys.argv[2])))
one.listen()
print("listening", flush=True)
sys.stdin.read()
"""


@contextmanager
def listener(address: str, port: int) -> Iterator[int]:
    """Have another process listen on a port that it shares, and return its id."""
    command = [sys.executable, "-c", LISTEN, address, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "listening\n"
        yield process.pid
        process.stdin.close()


@pytest.fixture
def shared() -> Iterator[socket.socket]:
    """A socket of this process that listens on a port which it would share, as gRPC does."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one


@pytest.fixture
def two_groups(monkeypatch: pytest.MonkeyPatch) -> str:
    """Put this process into a control group of its own, and every other into another."""
    own = os.getpid()
    monkeypatch.setattr(
        listening_sockets, "control_group", lambda pid: f"/system.slice/{'own' if pid == own else 'other'}.service"
    )
    return "/system.slice/own.service"


def test_port_with_the_units_socket_alone_is_its_own(shared: socket.socket, two_groups: str) -> None:
    check_port(shared.getsockname()[1], two_groups)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_port_that_another_process_shares_is_not_the_units(
    shared: socket.socket, two_groups: str, address: str
) -> None:
    port = shared.getsockname()[1]
    with listener(address, port) as pid:
        with pytest.raises(ForeignListener, match=rf"^port {port} is held by pid {pid}, python\S*, other.service$"):
            check_port(port, two_groups)
        assert {one.pid for one in holders(port)} == {os.getpid(), pid}
    check_port(port, two_groups)


def test_unit_that_does_not_run_has_no_port(shared: socket.socket) -> None:
    with pytest.raises(ForeignListener, match=f"is held by pid {os.getpid()}"):
        check_port(shared.getsockname()[1], "")


def test_port_where_nothing_listens_is_nobodys(shared: socket.socket, two_groups: str) -> None:
    port = shared.getsockname()[1]
    shared.close()
    with pytest.raises(ConnectionRefusedError, match=f"^nothing listens on port {port}$"):
        check_port(port, two_groups)
    assert holders(port) == []


def test_connections_to_a_port_are_not_taken_for_listeners(shared: socket.socket, two_groups: str) -> None:
    with socket.create_connection(shared.getsockname()) as connection:
        assert holders(connection.getsockname()[1]) == []


def test_two_sockets_of_one_process_are_remembered_once(shared: socket.socket, two_groups: str) -> None:
    with socket.socket() as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        twin.bind(shared.getsockname())
        twin.listen()
        for _ in range(3):
            check_port(shared.getsockname()[1], two_groups)
    assert listening_sockets._listened[two_groups] == [os.getpid()]


@pytest.mark.parametrize("kind", [2, 3], ids=["error", "end with an error"])
def test_kernel_without_sock_diag_is_asked_by_proc(
    shared: socket.socket, two_groups: str, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    class Netlink:
        def __init__(self, *_: int) -> None:
            self.sent = b""

        def __enter__(self) -> Netlink:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def send(self, request: bytes) -> None:
            self.sent = request

        def recv(self, _: int) -> bytes:
            return struct.pack("=IHHIIi", 20, kind, 0, 0, 0, -errno.ENOENT)

    port = shared.getsockname()[1]
    before = holders(port)
    monkeypatch.setattr(listening_sockets.socket, "socket", Netlink)
    assert holders(port) == before != []
    check_port(port, two_groups)


def test_socket_that_nobody_can_be_seen_to_hold_is_foreign(
    shared: socket.socket, two_groups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "readlink", refuse)
    with pytest.raises(ForeignListener, match="a process that cannot be seen"):
        check_port(shared.getsockname()[1], two_groups)


def test_socket_of_a_process_that_ends_meanwhile_is_nobodys(
    shared: socket.socket, two_groups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in the kernel's list, and neither it nor its process is there a moment later."""
    port, look, looks = shared.getsockname()[1], listening_sockets._listening_inodes, []

    def with_one_that_ends(number: int) -> set[str]:
        looks.append(number)
        return look(number) | ({"999999999"} if len(looks) == 1 else set())

    monkeypatch.setattr(listening_sockets, "_listening_inodes", with_one_that_ends)
    check_port(port, two_groups)
    assert len(looks) > 1


@pytest.mark.parametrize(
    ("cgroup", "parent", "expected"),
    [
        ("/system.slice/a.service", "/system.slice/a.service", True),
        ("/system.slice/a.service/child", "/system.slice/a.service", True),
        ("/system.slice/a.service2", "/system.slice/a.service", False),
        ("/user.slice/user-7.slice/user@7.service/app.slice/a.service", "/system.slice/a.service", False),
        ("/system.slice/a.service", "", False),
    ],
)
def test_group_is_told_by_its_whole_path(cgroup: str, parent: str, expected: bool) -> None:
    assert is_in(cgroup, parent) is expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("9:name=systemd:/system.slice/a.service\n8:pids:/x\n0::/y\n", "/system.slice/a.service"),
        ("8:pids:/x\n", ""),
    ],
)
def test_group_is_read_from_either_hierarchy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, expected: str
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(lines)
    monkeypatch.setattr(listening_sockets, "PROC", tmp_path)
    assert control_group(7) == expected
    assert control_group(8) == ""


def test_holder_is_named_by_process_program_and_unit() -> None:
    one = Holder(815, "python3", "/system.slice/docker-1.scope/system.slice/tfserving.service")
    assert str(one) == "pid 815, python3, tfserving.service"
    assert re.fullmatch(r"pid 815, x", str(Holder(815, "x", "/")))

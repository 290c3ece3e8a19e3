# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who listens on a TCP port of this host: the kernel's answer, in the place of a guess from what is answered there.

TensorFlow Serving shares its gRPC port with any other server of the same user (SO_REUSEPORT), and goes on without REST
where that port is taken. So one look at a port says little: all of its sockets have to be a unit's own.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

PROC = Path("/proc")
LOOKS = 3  # a server that ends or starts changes what there is between two looks
LISTEN = "0A"  # in the column st of /proc/net/tcp (proc(5), include/net/tcp_states.h)
# linux/netlink.h, linux/sock_diag.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGHDR_BYTES = 16
# The processes of control groups that listened when last looked at. It spares a look at all others of the host.
_listened: dict[str, list[int]] = {}


class ForeignListener(ConnectionError):
    """A port that is not, or not only, a server's own: what is answered there proves nothing. The text says whose."""


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port.

    cgroup is its control group as systemd names it, such as /system.slice/ssh.service. pid is None where the kernel
    does not say who it is, as to anybody but root.
    """

    pid: int | None
    program: str
    cgroup: str

    @property
    def unit(self) -> str:
        """The unit or container that it runs in, empty where it is in none."""
        names = [name for name in self.cgroup.split("/") if name.endswith((".service", ".scope"))]
        return names[-1] if names else ""

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that cannot be seen (is this root, with CAP_SYS_PTRACE?)"
        return ", ".join(filter(None, [f"pid {self.pid}", self.program, self.unit]))


def holders(port: int) -> list[Holder]:
    """Return who listens on a port, on whatever address of IPv4 and IPv6; several where it is shared."""
    return _holders(port, _listening_inodes(port))


def check_port(port: int, cgroup: str) -> None:
    """Raise ConnectionError unless a port is a control group's own: it listens there, and nobody else does.

    ForeignListener says who else does. An empty cgroup is that of a unit that does not run.
    """
    known = _listened.pop(cgroup, [])
    for _ in range(LOOKS):
        there = _listening_inodes(port)
        if not there:
            raise ConnectionRefusedError(f"nothing listens on port {port}")
        foreign = there
        for some in filter(None, (known, pids() if cgroup else [])):
            own = [pid for pid in some if is_in(control_group(pid), cgroup)]
            found = list(_sockets(own, there))
            foreign = there - {inode for _, inode in found}
            if not foreign:
                _listened[cgroup] = sorted({pid for pid, _ in found})
                return
        strangers = [one for one in _holders(port, foreign) if not is_in(one.cgroup, cgroup)]
        if strangers:  # else a process has ended meanwhile
            raise ForeignListener(f"port {port} is held by {' and by '.join(map(str, strangers))}")
    raise ConnectionRefusedError(f"nothing listens on port {port} for long")


def _holders(port: int, inodes: set[str]) -> list[Holder]:
    found = list(_sockets(pids(), inodes)) if inodes else []
    there = {pid: Holder(pid, program(pid), control_group(pid)) for pid, _ in found}
    # What is left and still listens belongs to somebody that this process may not look at.
    unseen = inodes - {inode for _, inode in found}
    return [*there.values(), *([Holder(None, "", "")] if unseen and unseen & _listening_inodes(port) else [])]


def is_in(cgroup: str, parent: str) -> bool:
    """Say whether a control group is another one, or below it."""
    return bool(parent) and f"{cgroup.rstrip('/')}/".startswith(f"{parent.rstrip('/')}/")


def control_group(pid: int) -> str:
    """Return the control group in which systemd has a process, empty where the process is gone.

    That of the hierarchy named systemd where there is one (cgroup v1 and hybrid), else the only one there is (v2).
    """
    found = ""
    for line in _read(PROC / str(pid) / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "name=systemd":
            return path
        if number == "0":
            found = path
    return found


def program(pid: int) -> str:
    """Return the name of a process's program, as ps shows it."""
    return _read(PROC / str(pid) / "comm").strip()


def pids() -> list[int]:
    """Return the ids of all processes that can be seen."""
    return [int(entry.name) for entry in os.scandir(PROC) if entry.name.isdigit()]


def _listening_inodes(port: int) -> set[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    try:
        return {inode for family in families for number, inode in _listeners(family) if number == port}
    except OSError:  # a kernel without sock_diag
        return {inode for number, inode in _listeners_in_proc() if number == port}


def _listeners(family: int) -> Iterator[tuple[int, str]]:
    """Yield port and inode of each socket that listens. Raises OSError where the kernel does not say it.

    Source: sock_diag(7), linux/inet_diag.h. The kernel makes /proc/net/tcp by going through all connections.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as netlink:
        request = struct.pack("=BBxxI48x", family, socket.IPPROTO_TCP, 1 << int(LISTEN, 16))
        header = struct.pack("=IHHII", NLMSGHDR_BYTES + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 0, 0)
        netlink.send(header + request)
        while True:
            data = netlink.recv(1 << 16)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                # Either may have an error number, less than 0. That of the end is missing in old kernels.
                error = struct.unpack_from("=i", data, NLMSGHDR_BYTES)[0] if size > NLMSGHDR_BYTES else 0
                if kind == NLMSG_ERROR or (kind == NLMSG_DONE and error < 0):
                    raise OSError(-error, "the kernel refuses sock_diag")
                if kind == NLMSG_DONE:
                    return
                number = int.from_bytes(data[NLMSGHDR_BYTES + 4 : NLMSGHDR_BYTES + 6], "big")
                yield number, str(struct.unpack_from("=I", data, NLMSGHDR_BYTES + 68)[0])
                data = data[(size + 3) & ~3 :]


def _listeners_in_proc() -> Iterator[tuple[int, str]]:
    for name in ("tcp", "tcp6"):
        for line in _read(PROC / "net" / name).splitlines()[1:]:
            columns = line.split()
            if columns[3] == LISTEN:
                yield int(columns[1].rpartition(":")[2], 16), columns[9]


def _sockets(of: Iterable[int], inodes: set[str]) -> Iterator[tuple[int, str]]:
    """Yield process id and inode for each of these sockets that one of these processes has open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for pid in of:
        folder = f"{PROC}/{pid}/fd"
        # What ends or is closed meanwhile is nothing that listens; what may not be read belongs to somebody unseen.
        with suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208 - a Path for each descriptor of a host would take longer
                with suppress(OSError):
                    link = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - as above
                    if link in wanted:
                        yield pid, wanted[link]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

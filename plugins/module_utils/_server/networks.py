# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Networks: those that a host is in, and those that somebody allows."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from pathlib import Path
from typing import Iterable, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

LOOPBACK = ("127.0.0.0/8", "::1/128")
_PRIVATE = [
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
]
# Bridges that container engines and hypervisors make and take away: who is behind them is on the host itself, and a
# list that changed with each of them would restart the server.
_OF_THE_HOST_ALONE = re.compile(r"lo|docker.*|br-[0-9a-f]{12}|podman.*|cni.*|virbr.*|lxc.*|lxdbr.*|veth.*")
_ROUTE_IS_UP, _ROUTE_HAS_GATEWAY = 0x1, 0x2


def private_networks(route: Path = Path("/proc/net/route"), addresses: Path = Path("/proc/net/if_inet6")) -> list[str]:
    """Return the private and link-local networks of the host's interfaces: RFC 1918, RFC 3927, RFC 4193, fe80::/10."""
    found: list[Network] = [*_ipv4_networks(route), *_ipv6_networks(addresses)]
    return [str(network) for network in found if any(_within(network, private) for private in _PRIVATE)]


def _within(network: Network, other: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)


def _ipv4_networks(route: Path) -> Iterable[ipaddress.IPv4Network]:
    """Yield where the kernel's routing table says that no gateway is between."""
    for line in _lines(route)[1:]:
        fields = line.split()
        interface, destination, flags, mask = fields[0], fields[1], int(fields[3], 16), fields[7]
        if flags & _ROUTE_IS_UP and not flags & _ROUTE_HAS_GATEWAY and not _OF_THE_HOST_ALONE.fullmatch(interface):
            yield ipaddress.IPv4Network(f"{_dotted(destination)}/{_dotted(mask)}")


def _dotted(hexadecimal: str) -> str:
    """Return an address that the kernel printed as a number of the machine's byte order."""
    return socket.inet_ntoa(struct.pack("=I", int(hexadecimal, 16)))


def _ipv6_networks(addresses: Path) -> Iterable[ipaddress.IPv6Network]:
    for line in _lines(addresses):
        address, _, prefix, _, _, interface = line.split()
        if not _OF_THE_HOST_ALONE.fullmatch(interface):
            yield ipaddress.IPv6Network((int(address, 16), int(prefix, 16)), strict=False)


def _lines(path: Path) -> list[str]:
    """Return the lines of a file, none where the kernel lacks the protocol."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def allowed_networks(entries: Iterable[str], private: Iterable[str]) -> list[str]:
    """Return the networks that entries stand for, loopback first; none where one of the entries is any.

    Raises ValueError with what is wrong with an entry.
    """
    given: list[str] = []
    for entry in entries:
        if entry == "any":
            return []
        given += private if entry == "private" else [_network(entry)]
    collapsed: list[str] = []
    for version in (4, 6):
        networks = [one for one in map(ipaddress.ip_network, (*LOOPBACK, *given)) if one.version == version]
        collapsed += [str(one) for one in sorted(ipaddress.collapse_addresses(networks))]  # type: ignore[type-var]
    return collapsed


def network_problems(variable: str, entries: Iterable[str]) -> list[str]:
    """Return what is wrong with the form of entries, as allowed_networks takes them."""
    problems = []
    for entry in entries:
        try:
            allowed_networks([entry], [])
        except ValueError as error:
            problems.append(f"{variable}: {error}.")
    return problems


def _network(entry: str) -> str:
    try:
        return str(ipaddress.ip_network(entry))
    except ValueError as error:
        try:
            meant = f"; {ipaddress.ip_network(entry, strict=False)} is the network that it lies in"
        except ValueError:
            meant = "; an entry is a network such as 10.1.0.0/16, an address, private or any"
        raise ValueError(f"{entry}: {error}{meant}") from error

"""Who may talk to the server: the networks that the host is in, and those that are listed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2.nativetypes
import pytest
import yaml
from rendered_templates import ROLES, render

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._host import look
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.networks import (
    allowed_networks,
    private_networks,
)

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102590A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0002590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t0071CB00\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0000A8C0\t0102590A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
br0\t000010AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
ADDRESSES = """\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000007093e3fffe8b7067 02 40 20 80     eth0
fd0000000000000100000000000000aa 02 40 00 80     eth0
20010db8000000000000000000000001 02 40 00 80     eth0
fd00000000000002000000000000000a 03 40 00 80  docker0
"""
LOOPBACK = ["127.0.0.0/8", "::1/128"]


def test_private_networks_are_those_of_the_interfaces_that_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "addresses").write_text(ADDRESSES)
    assert private_networks(tmp_path / "route", tmp_path / "addresses") == [
        "10.89.2.0/24",
        "172.16.0.0/16",
        "fe80::/64",
        "fd00:0:0:1::/64",
    ]


def test_host_without_a_protocol_has_no_networks_of_it(tmp_path: Path) -> None:
    assert private_networks(tmp_path / "route", tmp_path / "addresses") == []


@pytest.mark.parametrize(
    ("entries", "networks"),
    [
        ([], LOOPBACK),
        (["192.0.2.7"], ["127.0.0.0/8", "192.0.2.7/32", "::1/128"]),
        (["private"], ["10.1.0.0/16", "127.0.0.0/8", "::1/128", "fe80::/64"]),
        (["private", "10.0.0.0/8", "10.1.2.0/24"], ["10.0.0.0/8", "127.0.0.0/8", "::1/128", "fe80::/64"]),
        (["10.1.0.0/17", "10.1.128.0/17"], ["10.1.0.0/16", "127.0.0.0/8", "::1/128"]),
        (["127.0.0.1", "::1"], LOOPBACK),
        (["private", "any"], []),
    ],
)
def test_entries_are_joined_with_loopback(entries: list[str], networks: list[str]) -> None:
    assert allowed_networks(entries, ["10.1.0.0/16", "fe80::/64"]) == networks


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("10.1.2.3/16", "10.1.0.0/16 is the network that it lies in"),
        ("localhost", "an entry is a network such as 10.1.0.0/16, an address, private or any"),
        ("10.1.0.0/33", "an entry is a network"),
        ("", "an entry is a network"),
    ],
)
def test_entry_that_is_no_network_is_refused_with_what_is_meant(entry: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        allowed_networks([entry], [])


# In a network of its own: who of the two addresses reaches a server on port 8501?
ASK = """
import socket, subprocess, sys
subprocess.run("ip link set lo up && ip address add 10.9.9.1/32 dev lo", shell=True, check=True)
for _ in range(2):  # loaded again, the rules are the same
    subprocess.run(["nft", "--file", sys.argv[1]], check=True)
for port in (8501, 8502):
    listener = socket.create_server(("0.0.0.0", port))
    for source in ("127.0.0.1", "10.9.9.1"):
        try:
            socket.create_connection((source, port), timeout=1, source_address=(source, 0)).close()
        except TimeoutError:
            print(port, source, "dropped")
        else:
            print(port, source, "accepted")
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("nft", "ip", "unshare"))), reason="the kernel tries the rules"
)
@pytest.mark.parametrize(("allowed", "other"), [([], "dropped"), (["10.9.0.0/16"], "accepted")])
def test_rules_of_nftables_keep_out_who_is_not_allowed_and_leave_other_ports_alone(
    allowed: list[str], other: str, tmp_path: Path
) -> None:
    rules = render(
        "tfserving_service",
        "networks.nft.j2",
        __tfserving_host={
            "servers": {"instances": [{"port": 8500, "rest_api_port": 8501}]},
            "networks": {"allowed": allowed_networks(allowed, [])},
        },
    )
    (tmp_path / "rules").write_text(rules)
    done = subprocess.run(  # noqa: S603
        ["unshare", "--net", sys.executable, "-c", ASK, str(tmp_path / "rules")],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = ["8501 127.0.0.1 accepted", f"8501 10.9.9.1 {other}", "8502 127.0.0.1 accepted", "8502 10.9.9.1 accepted"]
    assert done.stdout.splitlines() == said, done.stderr


@pytest.mark.parametrize(("said", "networks"), [({}, ["private"]), ({"enabled": True}, []), ({"enabled": False}, [])])
def test_no_port_opens_by_default_where_the_inventory_speaks_of_a_gateway(
    said: dict[str, bool], networks: list[str]
) -> None:
    """false is what follows true; that the gateway is gone opens nothing."""
    defaults = yaml.safe_load((ROLES / "tfserving_service/defaults/main.yml").read_text())
    template = jinja2.nativetypes.NativeEnvironment().from_string(defaults["tfserving_service_allowed_networks"])
    assert template.render({f"tfserving_gateway_{name}": value for name, value in said.items()}) == networks


@pytest.mark.parametrize("enabled", [True, False, None])
def test_gateway_that_the_inventory_says_nothing_of_is_refused(
    enabled: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    monkeypatch.setattr(look, "SITE_PATH", site)

    def problems() -> list[str]:
        found: list[str] = []
        facts = look.network_facts(None, {"allowed": ["any"], "gateway_enabled": enabled}, found)  # type: ignore[arg-type]
        assert (facts["allowed"], facts["enforced_by"]) == ([], "nobody")
        return found

    assert problems() == []
    site.touch()
    assert any("tfserving_gateway_enabled is not set" in one for one in problems()) is (enabled is None)

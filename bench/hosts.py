"""The benchmark's instance of the lab: commands on its hosts, and what its network counts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATE = Path(".lab/bench").absolute()
SSH_CONFIG = STATE / "ssh_config"
SSH = ("ssh", "-F", str(SSH_CONFIG))
INSTANCE = "tfserving-bench"
HOSTS = ("debian13a", "debian12", *(f"debian13{letter}" for letter in "bcdefg"))
ONE_HOST = HOSTS[:1]
LINK = "1gbit"  # what the controller's uplink is narrowed to for eight hosts

AUTHORITY = STATE / "tls" / "ca.crt"
OFFERED = "/srv/mirror/public"
TRUSTED = "/usr/local/share/ca-certificates/lab.crt"


# Logs in with the same key as the lab's user deploy, and cannot become root without a password.
ACCOUNT, PASSWORD = "publisher", "bench"


class BenchError(Exception):
    """What went wrong and what to do next."""


def output_of(command: Sequence[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise BenchError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def podman(*arguments: str) -> str:
    return output_of(["podman", *arguments], CONTAINERS_CONF=str(STATE.parent / "containers.conf"))


def on_host(host: str, script: str) -> str:
    return output_of([*SSH, host, script])


def on_hosts(hosts: Sequence[str], script: str) -> list[str]:
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(lambda host: on_host(host, script), hosts))


def prepare(hosts: Sequence[str]) -> None:
    """What the role tfserving_package would bring: rsync. And trust in infra's certificate, and a second account."""
    certificate = shlex.quote(AUTHORITY.read_text())
    on_hosts(
        hosts,
        "command -v rsync > /dev/null"
        " || { sudo apt-get -qq update && sudo apt-get -qq install -y rsync > /dev/null 2>&1; } || exit 1;"
        f" id {ACCOUNT} > /dev/null 2>&1 || {{ sudo useradd --create-home --shell /bin/sh {ACCOUNT}"
        f" && echo {ACCOUNT}:{PASSWORD} | sudo chpasswd && sudo cp -r ~/.ssh ~{ACCOUNT}/"
        f" && sudo chown -R {ACCOUNT}: ~{ACCOUNT}/.ssh"
        f" && echo '{ACCOUNT} ALL=(ALL:ALL) ALL' | sudo tee /etc/sudoers.d/{ACCOUNT} > /dev/null; }} || exit 1;"
        f" printf %s {certificate} | sudo tee {TRUSTED} > /dev/null && sudo update-ca-certificates > /dev/null 2>&1",
    )


def offer(file: Path) -> str:
    """Put a file on infra's web server; returns the URL of its directory."""
    with file.open("rb") as content:
        subprocess.run([*SSH, "infra", f"mkdir -p {OFFERED} && cat > {OFFERED}/{file.name}"], stdin=content, check=True)
    return "https://packages.lab/mirror"


def files_of(host: str) -> Path:
    """The host's file system as the controller sees it."""
    process = podman("inspect", "--format", "{{.State.Pid}}", f"{INSTANCE}-{host}").strip()
    return Path("/proc", process, "root")


def bridge() -> str:
    network = json.loads(podman("network", "inspect", INSTANCE))[0]
    return str(network["network_interface"])


@dataclass(frozen=True)
class Traffic:
    """Bytes that the controller has sent to the lab's hosts, and received from them, since the network came up.

    The bridge's own counters: what hosts send each other passes through the bridge and is not counted there.
    """

    sent: int
    received: int

    @classmethod
    def now(cls, interface: str) -> Traffic:
        counters = Path("/sys/class/net", interface, "statistics")
        return cls(sent=int((counters / "tx_bytes").read_text()), received=int((counters / "rx_bytes").read_text()))

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.sent - earlier.sent, self.received - earlier.received)


@contextmanager
def narrow_link(interface: str) -> Iterator[None]:
    """Let the controller send no faster than a common uplink: else two cores would be the limit, and not the link."""
    shape(interface, f"tbf rate {LINK} burst 512kb latency 100ms")
    try:
        yield
    finally:
        widen_link(interface)


def widen_link(interface: str) -> None:
    """Let the controller send as fast as it can, also after a run that was killed."""
    shape(interface, "noqueue")


def shape(interface: str, discipline: str) -> None:
    output_of(["tc", "qdisc", "replace", "dev", interface, "root", *discipline.split()])

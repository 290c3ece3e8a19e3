"""What the machine must bring: root on amd64 Linux, and a few Debian packages."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from command import LabError, run
from engine import CgroupLayout, this_machines_layout, usable_runtimes

# A program (or file) that shows a package to be there, and the package in Debian and Ubuntu.
NEEDED: tuple[tuple[str, str], ...] = (
    ("podman", "podman"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("iptables", "iptables"),
    ("mmdebstrap", "mmdebstrap"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ("eatmydata", "eatmydata"),
    ("dpkg-deb", "dpkg"),
    ("apt-ftparchive", "apt-utils"),
    ("gpg", "gpg"),
    ("gpg-agent", "gpg-agent"),
    ("openssl", "openssl"),
    ("ssh", "openssh-client"),
    ("zstd", "zstd"),
    ("promtool", "prometheus"),
    ("rsync", "rsync"),
)


def is_there(evidence: str) -> bool:
    return Path(evidence).exists() if evidence.startswith("/") else shutil.which(evidence) is not None


def missing_packages(layout: CgroupLayout, there: Callable[[str], bool] = is_there) -> list[str]:
    """The Debian packages that the lab needs and this machine lacks."""
    missing = [package for evidence, package in NEEDED if not there(evidence)]
    # Debian's Python cannot make a virtual environment by itself.
    if importlib.util.find_spec("ensurepip") is None:
        missing.append("python3-venv")
    runtimes = usable_runtimes(layout)
    if not any(there(name) for name in runtimes):
        missing.append(runtimes[0])
    return missing


def require_root_on_linux() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise LabError(
            f"the lab runs Debian amd64 hosts in podman and needs Linux on x86_64; this is {platform.system()} on"
            f" {platform.machine()}\nnext: run it on an amd64 Linux machine"
        )
    if os.geteuid() != 0:
        raise LabError("the lab boots systemd in containers and needs root\nnext: sudo make serve")


def require_packages() -> None:
    missing = missing_packages(this_machines_layout())
    if missing:
        raise LabError(
            f"the lab needs packages that this machine lacks: {' '.join(missing)}\n"
            f"next: python3 tests/lab/lab.py packages --install\n"
            f"  or: {install_command(missing)}"
        )


def install_command(packages: list[str]) -> str:
    return f"apt-get update && apt-get install -y --no-install-recommends {shlex.join(packages)}"


def install_packages() -> list[str]:
    """Install what is missing and return the names; needs apt."""
    missing = missing_packages(this_machines_layout())
    if not missing:
        return []
    if not shutil.which("apt-get"):
        raise LabError(f"no apt-get here\nnext: install the equivalents of: {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-q", "update"], what="apt-get update", advice="check the network and apt's sources", env=quiet)
    run(
        ["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing],
        what="installing the lab's packages",
        advice=f"run manually: {install_command(missing)}",
        env=quiet,
    )
    return missing

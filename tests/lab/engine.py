"""Podman as this machine allows it: the cgroup layout decides the OCI runtime, the hard limits decide the ulimits.

crun refuses a hybrid cgroup layout ("cgroups in hybrid mode not supported"), and Debian's systemd containers boot on
it with runc; on cgroup v2 crun is the usual choice. Podman asks for rlimits above the hard limits of an unprivileged
virtual machine and fails, so a containers.conf of the lab's own, pointed to by CONTAINERS_CONF, states the limits.
"""

from __future__ import annotations

import enum
import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import LabError, run, write_if_changed

LABEL = "tfserving.lab"
ENOUGH_OPEN_FILES = 1_048_576


class CgroupLayout(enum.Enum):
    """How the kernel's control groups are mounted."""

    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


def cgroup_layout(mounts: str) -> CgroupLayout:
    """Read the layout from the text of /proc/self/mounts."""
    fields = [line.split() for line in mounts.splitlines()]
    unified = {field[1] for field in fields if len(field) > 2 and field[2] == "cgroup2"}
    legacy = any(len(field) > 2 and field[2] == "cgroup" for field in fields)
    if "/sys/fs/cgroup" in unified and not legacy:
        return CgroupLayout.V2
    return CgroupLayout.HYBRID if unified else CgroupLayout.V1


def this_machines_layout() -> CgroupLayout:
    return cgroup_layout(Path("/proc/self/mounts").read_text())


def usable_runtimes(layout: CgroupLayout) -> tuple[str, ...]:
    """The OCI runtimes that boot systemd on this layout, the preferred one first."""
    return ("crun", "runc") if layout is CgroupLayout.V2 else ("runc",)


def choose_runtime(layout: CgroupLayout, installed: Callable[[str], object] = shutil.which) -> str:
    """The first usable runtime that is installed."""
    candidates = usable_runtimes(layout)
    for name in candidates:
        if installed(name):
            return name
    raise LabError(
        f"no OCI runtime for this machine's cgroup layout ({layout.value}): install {' or '.join(candidates)}\n"
        "next: tests/lab/lab.py packages --install"
    )


def hard_limit(limit: int, ceiling: int) -> int:
    """The hard limit, or the ceiling where the machine sets no limit or one that runc cannot raise to."""
    hard = resource.getrlimit(limit)[1]
    return ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)


def containers_conf(runtime: str, cgroup_manager: str, open_files: int, processes: int) -> str:
    """The whole engine configuration: with CONTAINERS_CONF set podman reads no other containers.conf."""
    return f"""\
[containers]
default_ulimits = ["nofile={open_files}:{open_files}", "nproc={processes}:{processes}"]
base_hosts_file = "none"
log_driver = "k8s-file"

[engine]
runtime = "{runtime}"
cgroup_manager = "{cgroup_manager}"
events_logger = "file"

[network]
network_backend = "netavark"
"""


@dataclass(frozen=True)
class Engine:
    """Podman with the lab's configuration; `owner` (this checkout's state directory) labels all that it makes."""

    conf: Path
    owner: str

    def podman(self, *arguments: str | Path, what: str, advice: str = "") -> str:
        return run(["podman", *arguments], what=what, advice=advice, env={"CONTAINERS_CONF": str(self.conf)})

    def containers(self) -> list[dict[str, Any]]:
        """Every lab container on this machine, of this checkout or another."""
        listing = self.podman("ps", "--all", "--filter", f"label={LABEL}", "--format", "json", what="list containers")
        return list(json.loads(listing or "[]"))

    def networks(self) -> list[dict[str, Any]]:
        listing = self.podman("network", "ls", "--filter", f"label={LABEL}", "--format", "json", what="list networks")
        return list(json.loads(listing or "[]"))

    def has_image(self, tag: str) -> bool:
        listing = self.podman("image", "ls", "--quiet", "--filter", f"reference={tag}", what="list images")
        return bool(listing.strip())


def is_alive(container: dict[str, Any], proc: Path = Path("/proc")) -> bool:
    """Whether its first process lives: podman goes on saying `running` where its monitor was killed too."""
    process = proc / str(container["Pid"])
    try:
        is_a_zombie = not (process / "cmdline").read_bytes()
        return (
            container["State"] == "running" and container["Id"] in (process / "cgroup").read_text() and not is_a_zombie
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def can_be_started(container: dict[str, Any]) -> bool:
    return container["State"] in {"created", "configured", "initialized", "exited", "stopped"}


def prepare_engine(state: Path) -> Engine:
    """Write the engine configuration that fits this machine."""
    conf = state / "containers.conf"
    write_if_changed(
        conf,
        containers_conf(
            runtime=choose_runtime(this_machines_layout()),
            cgroup_manager="systemd" if Path("/run/systemd/system").is_dir() else "cgroupfs",
            open_files=hard_limit(resource.RLIMIT_NOFILE, ENOUGH_OPEN_FILES),
            # A hard limit above pid_max was seen to be refused by runc ("setting rlimit type 6"), and helps nobody.
            processes=hard_limit(resource.RLIMIT_NPROC, int(Path("/proc/sys/kernel/pid_max").read_text())),
        ),
    )
    return Engine(conf=conf, owner=str(state))

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs apt-get with signature checks on, whatever the host's configuration says."""

from __future__ import annotations

import re
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C",
    # It would restart the server on a new program before that has answered --version.
    "NEEDRESTART_SUSPEND": "1",
}
# How long another apt, such as that of unattended-upgrades, may hold a lock; in seconds.
LOCK_TIMEOUT_SECONDS = 300
LISTS_LOCK_POLL_SECONDS = 3
SHOWN_LINES = 10
# Where the key of a repository expired, the advice that people find is to set the opposite in apt.conf.d.
OPTIONS = (
    "--option=APT::Get::AllowUnauthenticated=false",
    "--option=APT::Get::Force-Yes=false",  # would let unverified packages in, whatever else is set
    "--option=Acquire::AllowInsecureRepositories=false",
    "--option=Acquire::AllowWeakRepositories=false",
    "--option=Acquire::AllowDowngradeToInsecureRepositories=false",
    f"--option=DPkg::Lock::Timeout={LOCK_TIMEOUT_SECONDS}",
)


def apt_get(module: AnsibleModule, *arguments: str, config: Path | None = None) -> tuple[int, str]:
    """Run apt-get; returns its exit status and all that it printed. config holds settings that it reads first."""
    command = ["apt-get", "--quiet", "--yes", *OPTIONS, *arguments]
    environment = {**ENVIRONMENT, **({"APT_CONFIG": str(config)} if config else {})}
    code, output, errors = module.run_command(command, environ_update=environment, cwd="/")
    return code, f"{output}\n{errors}"


def update(module: AnsibleModule, *options: str, config: Path | None = None) -> tuple[int, str]:
    """Update the apt cache; as apt_get. Its lock is waited for here, as apt's own timeout leaves it out."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        code, output = apt_get(module, *options, "update", config=config)
        if "Could not get lock" not in output or time.monotonic() > deadline:
            return code, output
        time.sleep(LISTS_LOCK_POLL_SECONDS)


def change_packages(module: AnsibleModule, *arguments: str) -> tuple[int, str]:
    """Install or remove packages, as apt_get; configuration files stay. What a killed dpkg left is finished first."""
    command = ["--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold", *arguments]
    code, output = apt_get(module, *command)
    if code and "dpkg --configure -a" in output:
        configure_unpacked(module)
        code, output = apt_get(module, *command)
    return code, output


def configure_unpacked(module: AnsibleModule) -> None:
    """Let dpkg finish what a killed one has begun; what it cannot finish is for apt-get to install anew."""
    command = ["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"]
    module.run_command(command, environ_update=ENVIRONMENT, cwd="/")


def failure(output: str) -> str:
    """Return why apt-get failed to change packages, on one line and without a full stop."""
    lines = [line for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E: ", "dpkg: "))] or lines
    return " ".join(" ".join(telling[-SHOWN_LINES:]).split()).rstrip(".")


def complaints(output: str) -> str:
    """Return what apt complains of when it updates its cache, each complaint once."""
    reasons = re.findall(r"^Err:.*\n {2}(.*)$", output, flags=re.MULTILINE)
    lines = (line.strip() for line in output.splitlines() if line.startswith(("E: ", "W: ")))
    return " ".join(dict.fromkeys([*(f"{reason.strip()}." for reason in reasons), *lines]))

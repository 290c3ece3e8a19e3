# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packages of Debian's own: which of them a host has, and having apt install those that it lacks."""

from __future__ import annotations

from typing import Any, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import apt_get


class InstallError(Exception):
    """apt cannot install the packages; the words say why and what to do."""


def installed_versions(module: AnsibleModule, names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are wholly installed, by name."""
    line = r"${Package}\t${Version}\t${db:Status-Status}\n"
    # dpkg-query exits 1 when it has never heard of one of them.
    _, listed, _ = module.run_command(["dpkg-query", "--show", f"--showformat={line}", *names])
    rows = [row.split("\t") for row in listed.splitlines()]
    return {name: version for name, version, status in rows if status == "installed"}


def install(module: AnsibleModule, names: Sequence[str]) -> None:
    """Have apt install packages, by its lists as they are, else by fresh ones. Raises InstallError in apt's words.

    Lists may be missing, or name files that the mirror has replaced since. What is not needed stays off the host.
    """
    command = ["install", "--no-install-recommends", "--no-remove", *names]
    code, output = apt_get.change_packages(module, *command)
    if not code:
        return
    complaints = apt_get.complaints(apt_get.update(module)[1])
    code, output = apt_get.change_packages(module, *command)
    if code:
        said = f". apt-get update said: {complaints.rstrip('.')}" if complaints else ""
        raise InstallError(f"{apt_get.failure(output)}{said}")


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Have the packages of debian_packages' parameters. Returns that module's results. Raises InstallError."""
    names = list(dict.fromkeys(module.params["name"]))
    before = after = installed_versions(module, names) if names else {}
    missing = [name for name in names if name not in before]
    if missing and module.check_mode:
        after = {**before, **dict.fromkeys(missing, "")}
    elif missing:
        try:
            install(module, missing)
        except InstallError as error:
            listed = ", ".join(missing)
            raise InstallError(
                f"{module.params['reason'] or listed}, cannot be installed: {error}. Give the host a Debian or Ubuntu "
                f"mirror that it can reach, or install {listed} manually, and rerun the playbook."
            ) from error
        after = installed_versions(module, names)
    return {
        "changed": bool(missing),
        "installed": missing,
        "versions": {name: version for name, version in after.items() if version},
        "diff": {"before": rows(before), "after": rows(after)},
    }


def rows(versions: dict[str, str]) -> str:
    return "".join(f"{name} {version}".rstrip() + "\n" for name, version in sorted(versions.items()))

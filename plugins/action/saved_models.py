# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Publishes SavedModel versions on a host; documented by the module of the same name."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.catalog import (
    CATALOG_OPTIONS,
    CatalogError,
    Model,
    check_served,
    read_catalog,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    Files,
    SavedModelError,
    add_digests,
    total_bytes,
    tree_digest,
    tree_stamp,
)

COLLECTION = "modelops.tensorflow_serving"
CONNECTIONS = ("ssh", "local")
RSYNC_TIMEOUT_SECONDS = 60  # without a byte
RSYNC_NOT_FOUND = 127  # the remote shell's exit status

ARGUMENT_SPEC = {
    "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
    "base_path": {"type": "path", "required": True},
    "group": {"type": "str", "required": True},
}


@dataclass(frozen=True)
class Transfer:
    """One version that the host lacks."""

    model: str
    version: int
    source: Path
    files: Files


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        _, args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        self._check_transport()
        try:
            models = read_catalog(args["catalog"])
            present = self._call(
                "saved_model_versions_info", base_path=args["base_path"], models=[model.name for model in models]
            )["models"]
            transfers = self._plan(models, present)
            if not self._task.check_mode:
                for transfer in transfers:
                    self._publish(transfer, args["base_path"], args["group"])
        except (CatalogError, SavedModelError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        result = {
            "changed": bool(transfers),
            "published": [
                {"model": one.model, "version": one.version, "bytes": total_bytes(one.files)} for one in transfers
            ],
        }
        if self._task.diff:
            result["diff"] = self._diff(present, transfers)
        return result

    def _plan(self, models: list[Model], present: dict[str, Any]) -> list[Transfer]:
        """Return what the host lacks. Raises CatalogError for what must not be published."""
        problems: list[str] = []
        transfers: list[Transfer] = []
        for model in models:
            on_host = {int(version): facts for version, facts in present[model.name].items()}
            problems += check_served(model, {*on_host, *model.sources})
            for version, source in model.sources.items():
                files = model.files[version]
                if version not in on_host:
                    transfers.append(Transfer(model.name, version, source, files))
                elif on_host[version]["stamp"] is None:
                    self._display.warning(
                        f"{model.name} version {version} was not published by this collection; left as it is"
                    )
                elif on_host[version]["stamp"] != tree_stamp(files):
                    digest = tree_digest(add_digests(source, files))
                    if digest != on_host[version]["digest"]:
                        problems.append(
                            f"model {model.name}: version {version} is published with sha256 "
                            f"{on_host[version]['digest']}, but {source} now has {digest}; a published version is "
                            f"never changed, so export this one as version {max({*on_host, *model.sources}) + 1}"
                        )
        if problems:
            raise CatalogError(problems)
        return transfers

    def _publish(self, transfer: Transfer, base_path: str, group: str) -> None:
        path = str(Path(base_path, transfer.model))
        files = add_digests(transfer.source, transfer.files)
        common = {"path": path, "version": transfer.version, "group": group}
        staged = self._call("saved_model_version", state="staged", login_uid=self._login_uid(), **common)
        self._rsync(transfer.source, staged["staging"])
        self._call("saved_model_version", state="published", files=files, **common)

    def _check_transport(self) -> None:
        """Fail before anything is changed where files could not travel."""
        if self._connection.transport not in CONNECTIONS:
            raise AnsibleActionFail(
                f"models travel over connections of type {' or '.join(CONNECTIONS)}, not {self._connection.transport}; "
                "set ansible_connection for this host"
            )
        if not shutil.which("rsync"):
            raise AnsibleActionFail("rsync is missing on the controller: apt install rsync")

    def _login_uid(self) -> int:
        """Return the user id that rsync will log in with, whatever ssh's own configuration says."""
        answer = self._low_level_execute_command("id -u", sudoable=False)["stdout"].split()
        if not answer or not answer[-1].isdigit():
            raise AnsibleActionFail(f"`id -u` on the host answers {' '.join(answer)!r}, not a user id")
        return int(answer[-1])

    def _rsync(self, source: Path, staging: str) -> None:
        command = ["rsync", "--archive", "--no-owner", "--no-group", "--delete", "--partial"]
        command.append(f"--timeout={RSYNC_TIMEOUT_SECONDS}")
        target = f"{staging}/"
        if self._connection.transport == "ssh":
            host = self._connection.get_option("host")
            user = self._connection.get_option("remote_user")
            command.append(f"--rsh={shlex.join(self._ssh())}")
            target = f"{user + '@' if user else ''}{f'[{host}]' if ':' in host else host}:{target}"
        done = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
            [*command, f"{source}/", target], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode == RSYNC_NOT_FOUND:
            raise AnsibleActionFail("rsync is missing on the host; the role tfserving_package installs it")
        if done.returncode:
            raise AnsibleActionFail(
                f"rsync of {source} stopped with code {done.returncode}; "
                f"the next run goes on from there:\n{done.stderr.strip()}"
            )

    def _ssh(self) -> list[str]:
        """Return the ssh command that the connection plugin would use, less -C, which slows weights down."""
        option = self._connection.get_option
        command = [option("ssh_executable"), "-o", "BatchMode=yes", "-o", f"ConnectTimeout={option('timeout')}"]
        if not option("host_key_checking"):
            command += ["-o", "StrictHostKeyChecking=no"]
        if option("port"):
            command += ["-p", str(option("port"))]
        if option("private_key_file"):
            command += ["-i", option("private_key_file")]
        for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
            command += [word for word in shlex.split(option(name) or "") if word != "-C"]
        return command

    def _call(self, module: str, **args: Any) -> dict[str, Any]:
        result = self._execute_module(module_name=f"{COLLECTION}.{module}", module_args=args, task_vars=self._task_vars)
        if result.get("failed"):
            raise AnsibleActionFail(result.get("msg", f"{module} failed"), result=result)
        return result

    @staticmethod
    def _diff(present: dict[str, Any], transfers: list[Transfer]) -> dict[str, str]:
        before = {(model, int(version)) for model, versions in present.items() for version in versions}
        after = before | {(one.model, one.version) for one in transfers}
        text = ["".join(f"{model}/{version}\n" for model, version in sorted(pairs)) for pairs in (before, after)]
        return {"before_header": "published versions", "before": text[0], "after": text[1]}

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Publishes SavedModel versions on a host; documented by the module of the same name."""

from __future__ import annotations

import re
import shlex
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CATALOG_OPTIONS,
    CatalogError,
    Model,
    Pull,
    check_credentials,
    check_served,
    read_catalog,
    retained_versions,
    served_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.pull import (
    BATCHING_FILE,
    pull_version,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import (
    signature_lines,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    Files,
    SavedModelError,
    differing,
    list_files,
    some,
    total_bytes,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    warmup_files,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.arrival import (
    plan_versions,
    publish_version,
    stage_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import access_diff
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import version_lines
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import (
    BLOCK_BYTES,
    PATCHES,
    ModelStore,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.versions import (
    digests_of,
    look_before_publishing,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.delta import (
    COMPARED_BYTES,
    Change,
    compare,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.host_calls import HostProgram
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.model_sources import digested, inspected
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.transfer import Progress, Transport

FETCH_TIMEOUT_SECONDS = 60  # without a byte

# How a host fetches; handed on to it as it is.
FETCH_SPEC = {
    "proxy": {"type": "str"},
    "no_proxy": {"type": "list", "elements": "str"},
    "url_username": {"type": "str"},
    "url_password": {"type": "str", "no_log": True},
    "s3_endpoint_url": {"type": "str"},
    "s3_region": {"type": "str"},
    "s3_access_key_id": {"type": "str"},
    "s3_secret_access_key": {"type": "str", "no_log": True},
    "s3_session_token": {"type": "str", "no_log": True},
}
ARGUMENT_SPEC = {
    "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
    "base_path": {"type": "str", "required": True},
    "group": {"type": "str", "required": True},
    "adopt": {"type": "bool", "default": False},
    "keep": {"type": "int"},
    "retry_withdrawn": {"type": "bool", "default": False},
    "per_model_batching": {"type": "bool", "default": False},
    **FETCH_SPEC,
}

# Seen by the process that the user started, which loads this file too; those that run the tasks have no terminal.
IS_INTERACTIVE = sys.stdout.isatty()


@dataclass(frozen=True)
class Receiver:
    """Who receives files on the host: a user id, and what makes rsync run as that user, nothing for who logs in."""

    uid: int
    become: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transfer:
    """One version that the host lacks: pushed from a directory on the controller, or fetched by the host."""

    model: Model
    version: int
    files: Files
    contract: dict[str, Any]
    signatures: dict[str, Any] | None
    generated: dict[str, str]  # base64 of what the host adds to the files, by name

    @property
    def pull(self) -> Pull | None:
        return self.model.pulls.get(self.version)

    @property
    def generated_bytes(self) -> int:
        return sum(map(len, self.generated.values()))  # as base64, somewhat more than needed

    @property
    def source(self) -> Path:
        return self.model.sources[self.version]


def _contract(model: Model, is_served: bool) -> dict[str, Any]:
    """Return the signatures that a version has to have: a served one has to answer the samples, too."""
    asked: dict[str, Any] = {one["signature_name"]: {} for one in model.samples if is_served}
    return {**asked, **(model.contract or {})}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        _, self._args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            models = read_catalog(self._args["catalog"], self._args["keep"])
            for note in (f"model {model.name}: {note}" for model in models for note in model.notes):
                self._display.warning(note)
            if any(model.sources for model in models):
                Transport.check(self._connection)
            check_credentials(models, bool(self._args["url_password"]))
            names = [model.name for model in models]
            self._on_host = HostProgram(self, self._task_vars)
            place = {key: self._args[key] for key in ("base_path", "group", "adopt")}
            host = self._on_host.call(look_before_publishing, models=names, **place)
            # Models of which a version is there that a new one may share files with.
            self._stamps = {
                name: {int(version): one["stamp"] for version, one in host["models"][name].items()} for name in names
            }
            self._known = {name for name in names if any(self._stamps[name].values())}
            self._withdrawn: list[dict[str, Any]] = []
            transfers = self._plan(models, host["models"], host["withdrawn"])
            self._check_room(transfers, models, host)
            published = [self._describe(one) for one in transfers]
            is_changed = bool(transfers) or host["base_access"] is not None
            if is_changed and not self._task.check_mode:
                published = self._publish_all(transfers)
        except (CatalogError, SavedModelError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        result: dict[str, Any] = {
            "changed": is_changed,
            "published": [{key: one[key] for key in ("model", "version", "bytes")} for one in published],
            "withdrawn": self._withdrawn,
        }
        if self._withdrawn:
            result["ansible_stats"] = {
                "data": {"withdrawn": " ".join(self._withdrawn_text(one) for one in self._withdrawn)},
                "per_host": True,
                "aggregate": False,
            }
        if self._task.diff:
            result["diff"] = [self._versions_diff(host["models"], published)]
            if host["base_access"] is not None:
                result["diff"].append(access_diff(self._args["base_path"], host["base_access"], self._args["group"]))
            result["diff"] += self._signatures_diffs(host["models"], published)
        return result

    def _plan(self, models: list[Model], present: dict[str, Any], withdrawn: dict[str, Any]) -> list[Transfer]:
        """Return what the host lacks. Raises CatalogError for what must not be published.

        The newest version of a model is the first, so that a server that follows the latest loads no other. What was
        withdrawn from the host with the same files is none of it.
        """
        problems: list[str] = []
        transfers: list[Transfer] = []
        foreign: list[tuple[Model, int, dict[str, Any]]] = []
        for model in models:
            on_host = {int(version): facts for version, facts in present[model.name].items()}
            available = {*on_host, *model.versions}
            problems += check_served(model, available)
            refused = self._refused(model, withdrawn[model.name])
            retained = retained_versions(model.keep, model.policy, model.labels, available - refused)
            served = served_versions(model.policy, available - refused)
            problems += self._unanswerable(model, {v: facts for v, facts in on_host.items() if v in served})
            for version in reversed(model.versions):
                try:
                    if version in refused:
                        continue
                    if version not in on_host:
                        if version in retained:
                            transfers.append(self._transfer(model, version, _contract(model, version in served)))
                        continue
                    if not on_host[version]["intact"]:
                        foreign.append((model, version, on_host[version]))
                    if on_host[version]["digest"]:
                        self._check_unchanged(model, version, on_host[version], max(available) + 1)
                except SavedModelError as error:
                    problems += (f"model {model.name}: {line}" for line in str(error).splitlines())
                if version in served and version in model.files:
                    self._check_batching(model, version, BATCHING_FILE in model.files[version])
        if problems:
            raise CatalogError(problems)
        self._tell_foreign(foreign)
        return transfers

    def _tell_foreign(self, foreign: list[tuple[Model, int, dict[str, Any]]]) -> None:
        """Warn of versions that have a number of the catalogue's and the files of others, with both digests."""
        if not foreign:
            return
        asked = [[model.name, version] for model, version, _ in foreign]
        found = self._on_host.call(digests_of, base_path=self._args["base_path"], versions=asked)
        for (model, version, facts), digest in zip(foreign, found):
            if digest and digest == facts["digest"]:
                continue  # the times are others, as after a restore
            wanted = self._digests(model, version, facts)[1]
            before = facts["digest"]
            was = f"published with sha256 {before} and changed since" if before else "put there by others"
            is_archive = version in model.pulls and model.pulls[version].is_archive
            self._display.warning(
                f"model {model.name}: version {version} on the host was {was}, and is left as it is. Its files have "
                f"sha256 {digest or '(none, as there are links)'}, {'the archive' if is_archive else 'those'} of the "
                f"catalogue {wanted}. To have the catalogue's there, rename the directory to a name that begins with a "
                "dot, and rerun the playbook"
            )

    @staticmethod
    def _unanswerable(model: Model, on_host: dict[int, Any]) -> list[str]:
        """Return which samples these versions cannot answer, as they lack the signature."""
        return [
            f"model {model.name}: version {version}, which is on the host, has no signature {name}, which "
            f"sample_requests ask for; it has {some(facts['signatures'])}"
            for version, facts in sorted(on_host.items())
            for name in sorted({one["signature_name"] for one in model.samples})
            if facts["signatures"] is not None and name not in facts["signatures"]
        ]

    def _check_batching(self, model: Model, version: int, is_there: bool) -> None:
        if self._args["per_model_batching"] and not is_there:
            self._display.warning(
                f"{model.name} version {version} has no {BATCHING_FILE}, and with "
                "enable_per_model_batching_parameters the server then does not batch its requests; export the version "
                "with that file, or unset the flag"
            )

    def _transfer(self, model: Model, version: int, contract: dict[str, Any]) -> Transfer:
        """Return a transfer. Raises SavedModelError for a source on the controller that cannot be served."""
        if version in model.pulls:
            return Transfer(model, version, {}, contract, None, {})
        files = model.files[version]
        found = inspected(model.sources[version], files, contract)
        self._warn(found)
        generated = warmup_files(model.name, model.warmup, files, found["signatures"])
        return Transfer(model, version, files, contract, found["signatures"], generated)

    def _warn(self, found: dict[str, Any]) -> None:
        for text in found["warnings"]:
            self._display.warning(text)

    def _refused(self, model: Model, marks: dict[str, Any]) -> set[int]:
        """Return the versions that were withdrawn from the host as the catalogue has them, and note each."""
        refused = set()
        for version in model.versions:
            mark = marks.get(str(version))
            if mark and not self._args["retry_withdrawn"] and len(set(self._digests(model, version, mark))) == 1:
                refused.add(version)
                self._withdrawn.append(
                    {"model": model.name, "version": version, **{key: mark[key] for key in ("reason", "time")}}
                )
        return refused

    @staticmethod
    def _withdrawn_text(one: dict[str, Any]) -> str:
        return (
            f"{one['model']} version {one['version']} was withdrawn at {one['time']} and is not published again "
            f"({one['reason']}). Export a mended one under a new number, or rerun with "
            "-e tfserving_models_retry_withdrawn=true."
        )

    @staticmethod
    def _digests(model: Model, version: int, facts: dict[str, Any]) -> tuple[str, str]:
        """Return the digest of what is or was on the host, of which facts tell, and of what the catalogue has."""
        if version in model.sources:
            files = model.files[version]
            if facts["stamp"] == tree_stamp(files):
                return facts["digest"], facts["digest"]
            return facts["digest"], tree_digest(digested(model.sources[version], files))
        found = model.pulls[version].digest
        # A version that came in another way has no digest of an archive to compare.
        return (facts["source_digest"] or found) if model.pulls[version].is_archive else facts["digest"], found

    @classmethod
    def _check_unchanged(cls, model: Model, version: int, facts: dict[str, Any], free_number: int) -> None:
        """Raise SavedModelError where what the catalogue has is not what was published under its number."""
        published, found = cls._digests(model, version, facts)
        if published == found:
            return
        source = "digests of the catalogue"
        if version in model.sources:  # one that was damaged is not to be exported under another number
            source = str(model.sources[version])
            inspected(model.sources[version], model.files[version], model.contract)
        raise SavedModelError(
            f"version {version} is published with sha256 {published}, but {source} now has {found}; a published "
            f"version is never changed, so export this one as version {free_number}"
        )

    def _check_room(self, transfers: list[Transfer], models: list[Model], host: dict[str, Any]) -> None:
        """Fail where the host has no room for what is pushed to it; what it fetches it checks by itself."""
        pushed = [one for one in transfers if not one.pull]
        self._prunable_bytes = 0
        for model in models:
            on_host = {int(version): facts["bytes"] or 0 for version, facts in host["models"][model.name].items()}
            retained = retained_versions(model.keep, model.policy, model.labels, on_host)
            self._prunable_bytes += sum(size for version, size in on_host.items() if version not in retained)
        files = sum(len(one.files) for one in pushed)
        # A file takes whole blocks, and its directories take some too. When that is too much, the host counts exactly.
        added = sum(one.generated_bytes + BLOCK_BYTES for one in pushed)
        needed = sum(total_bytes(one.files) for one in pushed) + added + 2 * BLOCK_BYTES * files
        # It may take all of them twice, see plan_staging.
        free = host["free"]
        if 2 * needed > free["bytes"] or (free["inodes"] is not None and 4 * files > free["inodes"]):
            uid = self._receiver.uid if pushed else 0
            self._on_host.call(plan_versions, base_path=self._args["base_path"], **self._wanted(pushed, uid))

    def _publish_all(self, transfers: list[Transfer]) -> list[dict[str, Any]]:
        if not transfers:
            self._stage([])
        published = []
        try:
            for transfer in transfers:
                published.append(self._fetch(transfer) if transfer.pull else self._push(transfer))
                self._known.add(transfer.model.name)
                if not transfer.pull:
                    self._stamps[transfer.model.name][transfer.version] = tree_stamp(transfer.files)
        finally:
            if "_transport" in self.__dict__:
                self._transport.close()
        return published

    def _push(self, transfer: Transfer) -> dict[str, Any]:
        transport = self._transport
        with ThreadPoolExecutor(2) as pool:
            # Large files are read while other things wait for the host: those of a model that it has are compared, too.
            is_known = transfer.model.name in self._known
            large = {
                name: facts for name, facts in transfer.files.items() if not is_known or facts["size"] >= COMPARED_BYTES
            }
            digests = pool.submit(digested, transfer.source, large)
            basis_version, changes = self._compare(transfer)
            login = pool.submit(transport.log_in, self._expected_bytes(transfer, changes))
            # Files that a published version has already are told by their digests.
            files = transfer.files
            if is_known:
                files = {**files, **digested(transfer.source, {n: f for n, f in files.items() if n not in large})}
                if any(name not in changes or changes[name].runs == [] for name in large):
                    files = {**files, **digests.result()}
            staged = self._stage([transfer], files)[0]
            if staged["is_published"]:
                return self._describe(transfer)
            if staged["basis_version"] != basis_version:  # another run has published one meanwhile
                changes = {}
            login.result()
            broken = self._deliver(transport, transfer, staged, changes, files, digests)
            if broken:
                self._display.warning(
                    f"{', '.join(broken[:5])} of {transfer.model.name} version {transfer.version} did not arrive as "
                    "sent; sent again"
                )
                staged = self._stage([transfer], files, resend=broken)[0]
                broken = self._deliver(transport, transfer, {**staged, "basis": None}, {}, files, digests)
        if broken:
            if tree_stamp(list_files(transfer.source)) != tree_stamp(transfer.files):
                raise SavedModelError(f"{transfer.source} was written to meanwhile; play again when it is complete")
            raise AnsibleActionFail(
                f"{', '.join(broken[:5])} of {transfer.source} did not arrive as sent, twice (sha256 "
                "differs); nothing was published. Something between here and the host's disk changes data"
            )
        return self._describe(transfer)

    @staticmethod
    def _expected_bytes(transfer: Transfer, changes: dict[str, Change]) -> int:
        """Return how much will be sent, unless the host has some of it already."""
        whole = (
            facts["size"] for name, facts in transfer.files.items() if name not in changes or changes[name].runs is None
        )
        return sum(whole) + sum(change.bytes for change in changes.values())

    def _compare(self, transfer: Transfer) -> tuple[int | None, dict[str, Change]]:
        """Compare large files with those of the version that is the host's basis, where that is here as well."""
        published = {version: stamp for version, stamp in self._stamps[transfer.model.name].items() if stamp}
        older = [version for version in published if version < transfer.version] or list(published)
        basis = max(older, default=None)
        if basis not in transfer.model.sources or tree_stamp(transfer.model.files[basis]) != published[basis]:
            return basis, {}
        old, new = transfer.model.sources[basis], transfer.source
        stamp = f"{published[basis]} {tree_stamp(transfer.files)}"
        names = transfer.files.keys() & transfer.model.files[basis].keys()
        compared = {name: compare(old / name, new / name, stamp) for name in sorted(names)}
        return basis, {name: change for name, change in compared.items() if change is not None}

    def _deliver(
        self,
        transport: Transport,
        transfer: Transfer,
        staged: dict[str, Any],
        changes: dict[str, Change],
        files: Files,
        digests: Future[Files],
    ) -> list[str]:
        """Send the files that the host lacks, or what is new in them, and have them published.

        Returns those that did not arrive as sent; then nothing was published.
        """
        names = sorted(transfer.files.keys() - set(staged["shared"]))
        patches = {name: changes[name] for name in names if name in changes and changes[name].is_patch}
        whole = [name for name in names if name not in patches]
        if whole:
            size = sum(transfer.files[name]["size"] for name in whole)
            basis = staged["basis"] if transfer.model.name in self._known else None
            listed = None if len(whole) == len(transfer.files) else whole
            transport.send(transfer.source, listed, size, staged["target"], basis, self._progress(transfer, size).at)
        if patches:
            data = [change.data for change in patches.values()]
            size = sum(change.bytes for change in patches.values())
            target, tell = f"{staged['target']}/{PATCHES}", self._progress(transfer, size).at
            transport.send(data[0].parent, [file.name for file in data], size, target, None, tell)
        received: dict[str, int] = {}
        if self._receiver.uid:
            received = {name: transfer.files[name]["size"] for name in whole}
            received.update({f"{PATCHES}/{change.data.name}": change.bytes for change in patches.values()})
        files = {**files, **digests.result()}
        found = self._on_host.call(
            publish_version,
            path=str(self._store(transfer).path),
            version=transfer.version,
            group=self._args["group"],
            uid=self._receiver.uid,
            received=received,
            digest=tree_digest(files),
            shared={name: files[name]["sha256"] for name in staged["shared"]},
            patches={
                name: {
                    "data": change.data.name,
                    "runs": change.runs,
                    "size": files[name]["size"],
                    "mtime_ns": files[name]["mtime_ns"],
                }
                for name, change in patches.items()
            },
            extra={"stamp": tree_stamp(files), "source_digest": None, "signatures": transfer.signatures},
            generated=transfer.generated,
        )
        return differing(files, found) if found else []

    def _fetch(self, transfer: Transfer) -> dict[str, Any]:
        """Let the host fetch a version."""
        pull = transfer.model.pulls[transfer.version]
        staging = self._store(transfer).staging(transfer.version)
        with self._watching(transfer, f"{staging}.progress"):
            fetched: dict[str, Any] | None = self._on_host.call(
                pull_version,
                base_path=self._args["base_path"],
                group=self._args["group"],
                model=transfer.model.name,
                version=transfer.version,
                contract=transfer.contract,
                warmup=transfer.model.warmup,
                is_archive=pull.is_archive,
                request={
                    "url": pull.url,
                    "digest": pull.digest,
                    "prunable_bytes": self._prunable_bytes,
                    "timeout_seconds": FETCH_TIMEOUT_SECONDS,
                    **{name: self._args[name] for name in FETCH_SPEC},
                    "no_proxy": self._args["no_proxy"] or [],
                },
            )
        if fetched:
            self._warn(fetched)
            self._check_batching(transfer.model, transfer.version, fetched["has_batching_file"])
        return {**self._describe(transfer), **(fetched or {})}

    def _stage(
        self, transfers: list[Transfer], files: Files | None = None, resend: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Have the host make staging directories."""
        staged: list[dict[str, Any]] = self._on_host.call(
            stage_versions,
            base_path=self._args["base_path"],
            group=self._args["group"],
            **self._wanted(transfers, self._receiver.uid if transfers else 0, files, resend),
        )
        return staged

    def _wanted(
        self, transfers: list[Transfer], uid: int, files: Files | None = None, resend: list[str] | None = None
    ) -> dict[str, Any]:
        versions = [
            {
                "model": one.model.name,
                "version": one.version,
                "uid": uid,
                "files": files or self._told_apart(one),
                "resend": resend or [],
                "generated_bytes": one.generated_bytes,
            }
            for one in transfers
        ]
        return {"versions": versions, "prunable_bytes": self._prunable_bytes}

    def _told_apart(self, transfer: Transfer) -> Files:
        """Return the files with their digests, by which the host finds those that a published version has already."""
        return digested(transfer.source, transfer.files) if transfer.model.name in self._known else transfer.files

    @cached_property
    def _transport(self) -> Transport:
        return Transport(self._connection, self._receiver.become)

    @cached_property
    def _receiver(self) -> Receiver:
        """Who receives: root where rsync can run as root without a password, else the user that logs in."""
        become = self._words_for_root()
        probe = f"{shlex.join([*become, 'rsync', '--version'])} > /dev/null 2>&1 && r=root; " if become else ""
        command = f"r=user; {probe}echo receiver=$(id -u),$r"
        answer = self._low_level_execute_command(command, sudoable=False)["stdout"]
        found = re.search(r"^receiver=(\d+),(root|user)\s*$", answer, re.MULTILINE)
        if not found:
            raise AnsibleActionFail(f"`id -u` on the host answers {' '.join(answer.split())!r}, not a user id")
        noise = " ".join(answer.replace(found[0], "", 1).split())
        if noise and self._connection.transport != "local":
            raise AnsibleActionFail(
                f"the login shell on the host prints {noise[:80]!r}, which rsync would take for its own data; nothing "
                "was transferred. Let the account's start files (~/.bashrc, /etc/profile.d) print on terminals only: "
                "`ssh HOST true` must print nothing"
            )
        return Receiver(0, become) if found[2] == "root" and int(found[1]) else Receiver(int(found[1]))

    def _words_for_root(self) -> tuple[str, ...]:
        """Return the command by which the task becomes root, where that can do without a password and a terminal."""
        become = self._connection.become
        if self._connection.transport == "local" or not become or become.name != "sudo":
            return ()  # rsync asks no remote shell where both sides are one machine
        if (become.get_option("become_user") or "root") != "root":
            return ()
        return (*shlex.split(become.get_option("become_exe") or "sudo"), "-n", "-u", "root")

    def _store(self, transfer: Transfer) -> ModelStore:
        return ModelStore(Path(self._args["base_path"], transfer.model.name))

    def _progress(self, transfer: Transfer, total: int | None) -> Progress:
        def say(text: str) -> None:
            if self._is_watched:
                self._display.display(text)

        host = self._task_vars.get("inventory_hostname", "")
        return Progress(f"{host}: {transfer.model.name}/{transfer.version}", total, say)

    def _watching(self, transfer: Transfer, progress_file: str) -> AbstractContextManager[None]:
        if not self._is_watched:
            return nullcontext()
        return Transport(self._connection).watching(progress_file, self._progress(transfer, None).at)

    @property
    def _is_watched(self) -> bool:
        return IS_INTERACTIVE or bool(self._display.verbosity)

    @staticmethod
    def _describe(transfer: Transfer) -> dict[str, Any]:
        """Return what is known of a version before it is published; the size of what a host fetches is not."""
        return {
            "model": transfer.model.name,
            "version": transfer.version,
            "bytes": None if transfer.pull else total_bytes(transfer.files),
            "signatures": transfer.signatures,
        }

    @staticmethod
    def _versions_diff(present: dict[str, Any], published: list[dict[str, Any]]) -> dict[str, str]:
        before = {
            (model, int(version)): facts["bytes"]
            for model, versions in present.items()
            for version, facts in versions.items()
        }
        after = before | {(one["model"], one["version"]): one["bytes"] for one in published}
        return {"before_header": "published versions", "before": version_lines(before), "after": version_lines(after)}

    @staticmethod
    def _signatures_diffs(present: dict[str, Any], published: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Return a diff for each model whose newest version has other signatures than the newest that it replaces."""
        diffs = []
        newest: dict[str, dict[str, Any]] = {}
        for one in published:
            if one["version"] > newest.get(one["model"], one)["version"] or one["model"] not in newest:
                newest[one["model"]] = one
        for model, new in newest.items():
            known = {
                int(version): facts["signatures"] for version, facts in present[model].items() if facts["signatures"]
            }
            if new["signatures"] is None or not known:
                continue
            old = max(known)
            before, after = ("\n".join(signature_lines(some)) + "\n" for some in (known[old], new["signatures"]))
            if before != after:
                diffs.append(
                    {
                        "before_header": f"{model}/{old} signatures",
                        "after_header": f"{model}/{new['version']} signatures",
                        "before": before,
                        "after": after,
                    }
                )
        return diffs

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pushes versions from the controller to a host: only what it lacks, and of large files only what is new."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Mapping, Sequence

from ansible.errors import AnsibleActionFail

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import listed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._delta.delta import DELTAS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    Files,
    SavedModelError,
    differing,
    list_files,
    total_bytes,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.arrival import (
    plan_versions,
    publish_version,
    stage_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish import delta
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.delta import Comparison
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.model_sources import digested
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.plan import HostState, Transfer
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.target import Target

Comparisons = Mapping[str, Comparison]


class Pusher:
    """Pushes versions to one host, and knows which ones are there for a new one to share files with."""

    def __init__(self, target: Target, host: HostState, prunable_bytes: int) -> None:
        self._target = target
        self._prunable_bytes = prunable_bytes
        self._stamps = {
            model: {version: one.stamp for version, one in versions.items() if one.stamp}
            for model, versions in host.versions.items()
        }

    def check_space(self, transfers: Sequence[Transfer]) -> None:
        """Raise AnsibleActionFail where the host has too little disk space for these."""
        versions = [
            self._wanted(one, digested(one.source, one.files) if self._is_known(one) else one.files)
            for one in transfers
        ]
        self._target.program.call(
            plan_versions, base_path=self._target.base_path, versions=versions, prunable_bytes=self._prunable_bytes
        )

    def make_base_path(self) -> None:
        """Let the base path be what it should be, where no version is to be published."""
        self._call_stage([])

    def push(self, transfer: Transfer, *, distribute: bool) -> None:
        """Publish, or distribute, one version. Raises AnsibleActionFail and SavedModelError; then it is not there."""
        with ThreadPoolExecutor(2) as pool:
            broken = self._push(transfer, pool, distribute)
        if broken and tree_stamp(list_files(transfer.source)) != tree_stamp(transfer.files):
            raise SavedModelError(f"{transfer.source} was written to meanwhile; rerun the playbook when it is complete")
        if broken:
            raise AnsibleActionFail(
                f"{listed(broken)} of {transfer.source} did not arrive as sent, twice (sha256 differs); nothing was "
                "published. Something between the controller and the host's disk corrupts data"
            )
        if not distribute:
            self._stamps[transfer.model.name][transfer.version] = tree_stamp(transfer.files)

    def _push(self, transfer: Transfer, pool: ThreadPoolExecutor, distribute: bool) -> list[str]:
        """Send and publish, or distribute, a version; returns the files that did not arrive as sent, twice."""
        # Large files are read while other things wait for the host: those of a model that it has are compared, too.
        large = self._large_files(transfer)
        digests = pool.submit(digested, transfer.source, large)
        basis_version, comparisons = self._compare(transfer)
        login = pool.submit(self._target.transport.log_in, _expected_bytes(transfer, comparisons))
        files = transfer.files
        if self._is_known(transfer):
            # Files that a published version has already are told by their digests.
            small = {name: facts for name, facts in files.items() if name not in large}
            files = {**files, **digested(transfer.source, small)}
            if any(name not in comparisons or not comparisons[name].is_same for name in large):
                files = {**files, **digests.result()}
        staged = self._stage(transfer, files, [])
        if staged["is_published"]:
            return []
        if staged["basis_version"] != basis_version:  # another run has published one meanwhile
            comparisons = {}
        login.result()
        broken = self._deliver(transfer, staged, comparisons, files, digests, distribute)
        if broken:
            version = f"{transfer.model.name} version {transfer.version}"
            self._target.warn(f"{listed(broken)} of {version} did not arrive as sent; sent again")
            staged = self._stage(transfer, files, broken)
            broken = self._deliver(transfer, {**staged, "basis": None}, {}, files, digests, distribute)
        return broken

    def _is_known(self, transfer: Transfer) -> bool:
        """Say whether the host has a version that a new one may share files with."""
        return bool(self._stamps[transfer.model.name])

    def _large_files(self, transfer: Transfer) -> Files:
        if not self._is_known(transfer):
            return transfer.files
        return {name: facts for name, facts in transfer.files.items() if facts["size"] >= delta.COMPARED_BYTES}

    def _compare(self, transfer: Transfer) -> tuple[int | None, dict[str, Comparison]]:
        """Compare large files with those of the version that is the host's basis, where that is here as well."""
        published = self._stamps[transfer.model.name]
        older = [version for version in published if version < transfer.version] or list(published)
        basis = max(older, default=None)
        if basis not in transfer.model.sources or tree_stamp(transfer.model.files[basis]) != published[basis]:
            return basis, {}
        old, new = transfer.model.sources[basis], transfer.source
        stamp = f"{published[basis]} {tree_stamp(transfer.files)}"
        names = transfer.files.keys() & transfer.model.files[basis].keys()
        compared = {name: delta.compare(old / name, new / name, stamp) for name in sorted(names)}
        return basis, {name: found for name, found in compared.items() if found is not None}

    def _wanted(self, transfer: Transfer, files: Files, resend: Sequence[str] = ()) -> dict[str, Any]:
        return {
            "model": transfer.model.name,
            "version": transfer.version,
            "uid": self._target.receiver.uid,
            "files": files,
            "resend": list(resend),
            "generated_bytes": transfer.generated_bytes,
        }

    def _stage(self, transfer: Transfer, files: Files, resend: Sequence[str]) -> dict[str, Any]:
        """Have the host make a staging directory, without what is there of the files to send again."""
        return self._call_stage([self._wanted(transfer, files, resend)])[0]

    def _call_stage(self, versions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        staged: list[dict[str, Any]] = self._target.program.call(
            stage_versions,
            base_path=self._target.base_path,
            group=self._target.group,
            versions=versions,
            prunable_bytes=self._prunable_bytes,
        )
        return staged

    def _deliver(
        self,
        transfer: Transfer,
        staged: Mapping[str, Any],
        comparisons: Comparisons,
        files: Files,
        digests: Future[Files],
        distribute: bool,
    ) -> list[str]:
        """Send the files that the host lacks, or what is new in them, and have them published or distributed.

        Returns those that did not arrive as sent; then nothing was published.
        """
        names = sorted(transfer.files.keys() - set(staged["shared"]))
        deltas = {name: comparisons[name] for name in names if name in comparisons and comparisons[name].is_delta}
        whole = [name for name in names if name not in deltas]
        self._send(transfer, staged, whole, deltas)
        received: dict[str, int] = {}
        if self._target.receiver.uid:
            received = {name: transfer.files[name]["size"] for name in whole}
            received.update({f"{DELTAS}/{one.data.name}": one.bytes for one in deltas.values()})
        files = {**files, **digests.result()}
        found = self._target.program.call(
            publish_version,
            path=str(self._target.store(transfer).path),
            version=transfer.version,
            group=self._target.group,
            uid=self._target.receiver.uid,
            received=received,
            digest=tree_digest(files),
            shared={name: files[name]["sha256"] for name in staged["shared"]},
            deltas={name: one.told(files[name]) for name, one in deltas.items()},
            extra={
                "stamp": tree_stamp(files),
                "source_digest": None,
                "signatures": transfer.signatures,
                "asked": transfer.asked,
            },
            generated=transfer.generated,
            distribute=distribute,
        )
        return differing(files, found) if found else []

    def _send(self, transfer: Transfer, staged: Mapping[str, Any], whole: Sequence[str], deltas: Comparisons) -> None:
        """Let rsync send whole files, and the deltas of others."""
        target, transport = self._target, self._target.transport
        if whole:
            size = sum(transfer.files[name]["size"] for name in whole)
            basis = staged["basis"] if self._is_known(transfer) else None
            names = None if len(whole) == len(transfer.files) else list(whole)
            transport.send(transfer.source, names, size, staged["target"], basis, target.progress(transfer, size).at)
        if deltas:
            data = [one.data for one in deltas.values()]
            size = sum(one.bytes for one in deltas.values())
            place, tell = f"{staged['target']}/{DELTAS}", target.progress(transfer, size).at
            transport.send(data[0].parent, [file.name for file in data], size, place, None, tell)


def _expected_bytes(transfer: Transfer, comparisons: Comparisons) -> int:
    """Return how much will be sent, unless the host has some of it already."""
    compared = {name for name, one in comparisons.items() if one.runs is not None}
    whole = {name: facts for name, facts in transfer.files.items() if name not in compared}
    return total_bytes(whole) + sum(one.bytes for one in comparisons.values())

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host lacks of a catalogue, and why some of it must not be published.

Nothing is asked of the host or changed here: the plan follows from the catalogue, what the host has said that it has,
and the sources on the controller.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, Protocol, Sequence

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    Model,
    Pull,
    check_served,
    retained_versions,
    served_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import listed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.pull import BATCHING_FILE
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import (
    signature_lines,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    Files,
    SavedModelError,
    total_bytes,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    warmup_files,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import (
    BLOCK_BYTES,
    version_lines,
)


class Sources(Protocol):
    """What can be found out about a source on the controller; see model_sources."""

    def digested(self, source: Path, files: Files) -> Files: ...

    def inspected(self, source: Path, files: Files, contract: dict[str, Any] | None) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Identity:
    """What was published under a number: digest and stamp of its files, and the digest of the archive they came in.

    None is not known.
    """

    digest: str | None
    stamp: str | None
    source_digest: str | None


@dataclass(frozen=True)
class HostVersion(Identity):
    """A version on the host. All but is_intact is None where it has no readable manifest.

    asked is what a Transfer had as asked when the version came.
    """

    is_intact: bool
    bytes: int | None
    signatures: dict[str, Any] | None
    asked: str | None


@dataclass(frozen=True)
class Withdrawal(Identity):
    """Why and when (UTC, ISO 8601) a version was withdrawn from the host."""

    reason: str | None
    time: str | None


@dataclass(frozen=True)
class HostState:
    """What a host has of the models of a catalogue, each by model and version, and its free disk space.

    distributed are versions that only have to be renamed to be published. free_inodes is None for a file system that
    does not count them. base_access is what owner, group and mode of the base path are, None where they are right.
    """

    versions: dict[str, dict[int, HostVersion]]
    distributed: dict[str, dict[int, HostVersion]]
    withdrawn: dict[str, dict[int, Withdrawal]]
    free_bytes: int
    free_inodes: int | None
    base_access: str | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> HostState:
        """Return what look_before_publishing has answered."""
        identity = ("digest", "stamp", "source_digest")
        known, told = (*identity, "bytes", "signatures", "asked"), (*identity, "reason", "time")

        def versions_of(key: str) -> dict[str, dict[int, HostVersion]]:
            return {
                model: {
                    int(version): HostVersion(is_intact=one["intact"], **{name: one[name] for name in known})
                    for version, one in versions.items()
                }
                for model, versions in answer[key].items()
            }

        return cls(
            versions=versions_of("models"),
            distributed=versions_of("distributed"),
            withdrawn={
                model: {
                    int(version): Withdrawal(**{name: mark[name] for name in told}) for version, mark in marks.items()
                }
                for model, marks in answer["withdrawn"].items()
            },
            free_bytes=answer["free"]["bytes"],
            free_inodes=answer["free"]["inodes"],
            base_access=answer["base_access"],
        )


@dataclass(frozen=True)
class PublishedVersion:
    """A version that is published, or would be; the bytes of what a host would fetch are not known."""

    model: str
    version: int
    bytes: int | None
    signatures: dict[str, Any] | None


@dataclass(frozen=True)
class Transfer:
    """One version that the host lacks: pushed from a directory on the controller, or fetched by the host.

    One that is_distributed has come already.
    """

    model: Model
    version: int
    files: Files
    contract: dict[str, Any]
    signatures: dict[str, Any] | None
    generated: dict[str, str]  # base64 of what the host adds to the files, by name
    is_distributed: bool = False

    @property
    def pull(self) -> Pull | None:
        return self.model.pulls.get(self.version)

    @property
    def asked(self) -> str:
        """A digest of what the entry asks of the version besides its files: the contract and warm-up requests."""
        said = json.dumps([self.model.contract, self.model.warmup], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def generated_bytes(self) -> int:
        return sum(map(len, self.generated.values()))  # as base64, somewhat more than needed

    @property
    def source(self) -> Path:
        return self.model.sources[self.version]

    @property
    def result(self) -> PublishedVersion:
        """What is known of the version before it is published."""
        size = None if self.pull else total_bytes(self.files)
        return PublishedVersion(self.model.name, self.version, size, self.signatures)


@dataclass(frozen=True)
class ForeignVersion:
    """A version on the host that has a number of the catalogue's, and files that others have put there or changed."""

    model: Model
    version: int
    on_host: HostVersion


@dataclass(frozen=True)
class PublishingPlan:
    """What to publish on a host, the newest version of a model first.

    So a server that follows the latest version loads no other. problems forbid all of it; notes are warnings; withdrawn
    are the versions that are not published again, each with model, version, reason and time; foreign ones are left as
    they are; prunable_bytes is what pruning would free on the host.
    """

    transfers: list[Transfer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    withdrawn: list[dict[str, Any]] = field(default_factory=list)
    foreign: list[ForeignVersion] = field(default_factory=list)
    prunable_bytes: int = 0

    @property
    def pushed(self) -> list[Transfer]:
        return [one for one in self.transfers if not one.pull and not one.is_distributed]

    def has_changes(self, host: HostState) -> bool:
        return bool(self.transfers) or host.base_access is not None

    def may_exceed(self, host: HostState) -> bool:
        """Say whether the disk space of the host has to be counted exactly for what is pushed.

        A file takes whole blocks, its directories take some too, and rsync may need all of them twice. What the host
        fetches it checks by itself.
        """
        files = sum(len(one.files) for one in self.pushed)
        needed = sum(total_bytes(one.files) + one.generated_bytes + BLOCK_BYTES for one in self.pushed)
        needed += 2 * BLOCK_BYTES * files
        return 2 * needed > host.free_bytes or (host.free_inodes is not None and 4 * files > host.free_inodes)


def plan_publishing(
    models: Sequence[Model],
    host: HostState,
    sources: Sources,
    *,
    retry_withdrawn: bool,
    per_model_batching: bool,
    distribute: bool = False,
) -> PublishingPlan:
    """Return what the host lacks of the models, with distribute what it lacks for them to be published.

    Raises SavedModelError for a source that is written to meanwhile.
    """
    plan = PublishingPlan(prunable_bytes=sum(_prunable_bytes(model, host.versions[model.name]) for model in models))
    for model in models:
        withdrawals = {} if retry_withdrawn else host.withdrawn[model.name]
        refused = {
            version: withdrawals[version]
            for version in model.versions
            if version in withdrawals and _is_same(model, version, withdrawals[version], sources)
        }
        plan.withdrawn.extend(
            {"model": model.name, "version": version, "reason": one.reason, "time": one.time}
            for version, one in refused.items()
        )
        _plan_model(plan, model, host, set(refused), sources, per_model_batching)
    if distribute:
        plan.transfers[:] = [one for one in plan.transfers if not one.is_distributed]
    return plan


def _plan_model(
    plan: PublishingPlan,
    model: Model,
    host: HostState,
    refused: set[int],
    sources: Sources,
    per_model_batching: bool,
) -> None:
    """Add to the plan what the host lacks of one model; what was refused counts for nothing."""
    on_host, distributed = host.versions[model.name], host.distributed[model.name]
    available = {*on_host, *model.versions}
    retained = retained_versions(model.keep, model.policy, model.labels, available - refused)
    served = served_versions(model.policy, available - refused)
    plan.problems.extend(check_served(model, available))
    plan.problems.extend(_unanswerable(model, {version: on_host[version] for version in served if version in on_host}))
    for version in reversed(model.versions):
        if version in refused or not (version in on_host or version in retained):
            continue
        try:
            if version not in on_host:
                transfer = _transfer(plan, model, version, _contract(model, version in served), sources)
                come = distributed.get(version)
                if come and _has_come_so(transfer, come, sources):
                    transfer = replace(transfer, signatures=come.signatures, is_distributed=True)
                plan.transfers.append(transfer)
            else:
                if not on_host[version].is_intact:
                    plan.foreign.append(ForeignVersion(model, version, on_host[version]))
                if on_host[version].digest:
                    _check_unchanged(model, version, on_host[version], max(available) + 1, sources)
        except SavedModelError as error:
            plan.problems.extend(f"model {model.name}: {line}" for line in str(error).splitlines())
        is_known = version in served and version in model.files
        if per_model_batching and is_known and BATCHING_FILE not in model.files[version]:
            plan.notes.append(batching_note(model, version))


def _prunable_bytes(model: Model, on_host: Mapping[int, HostVersion]) -> int:
    retained = retained_versions(model.keep, model.policy, model.labels, on_host)
    return sum(one.bytes or 0 for version, one in on_host.items() if version not in retained)


def _contract(model: Model, is_served: bool) -> dict[str, Any]:
    """Return the signatures that a version has to have: a served one has to answer the samples, too."""
    asked: dict[str, Any] = {one["signature_name"]: {} for one in model.samples if is_served}
    return {**asked, **(model.contract or {})}


def _transfer(plan: PublishingPlan, model: Model, version: int, contract: dict[str, Any], sources: Sources) -> Transfer:
    """Return a transfer, and note its warnings. Raises SavedModelError for a source that cannot be served."""
    if version in model.pulls:
        return Transfer(model, version, {}, contract, None, {})
    files = model.files[version]
    found = sources.inspected(model.sources[version], files, contract)
    plan.notes.extend(found["warnings"])
    generated = warmup_files(model.name, model.warmup, files, found["signatures"])
    return Transfer(model, version, files, contract, found["signatures"], generated)


def _unanswerable(model: Model, on_host: Mapping[int, HostVersion]) -> list[str]:
    """Return which samples these versions cannot answer, as they lack the signature."""
    return [
        f"model {model.name}: version {version}, which is on the host, has no signature {name}, which "
        f"sample_requests ask for; it has {listed(one.signatures)}"
        for version, one in sorted(on_host.items())
        for name in sorted({sample["signature_name"] for sample in model.samples})
        if one.signatures is not None and name not in one.signatures
    ]


def _digests(model: Model, version: int, there: Identity, sources: Sources) -> tuple[str | None, str]:
    """Return the digest of what is or was on the host, and of what the catalogue has."""
    if version in model.sources:
        files = model.files[version]
        if there.digest and there.stamp == tree_stamp(files):
            return there.digest, there.digest
        return there.digest, tree_digest(sources.digested(model.sources[version], files))
    found = model.pulls[version].digest
    # A version that came in another way has no digest of an archive to compare.
    return (there.source_digest or found) if model.pulls[version].is_archive else there.digest, found


def _is_same(model: Model, version: int, there: Identity, sources: Sources) -> bool:
    published, found = _digests(model, version, there, sources)
    return published == found


def _has_come_so(transfer: Transfer, there: HostVersion, sources: Sources) -> bool:
    """Say whether a version that was distributed is what the transfer would bring."""
    if there.asked != transfer.asked or not transfer.contract.keys() <= (there.signatures or {}).keys():
        return False
    if transfer.pull and transfer.pull.is_archive and there.source_digest is None:
        return False
    return _is_same(transfer.model, transfer.version, there, sources)


def _check_unchanged(model: Model, version: int, there: Identity, free_number: int, sources: Sources) -> None:
    """Raise SavedModelError where what the catalogue has is not what was published under its number."""
    published, found = _digests(model, version, there, sources)
    if published == found:
        return
    source = "digests of the catalogue"
    if version in model.sources:  # one that was damaged is not to be exported under another number
        source = str(model.sources[version])
        sources.inspected(model.sources[version], model.files[version], model.contract)
    raise SavedModelError(
        f"version {version} is published with sha256 {published}, but {source} now has {found}; a published "
        f"version is never changed, so export this one as version {free_number}"
    )


def batching_note(model: Model, version: int) -> str:
    """Return the warning about a version whose requests the server does not batch."""
    return (
        f"{model.name} version {version} has no {BATCHING_FILE}, and with "
        "enable_per_model_batching_parameters the server then does not batch its requests; export the version "
        "with that file, or unset the flag"
    )


def foreign_notes(foreign: Sequence[ForeignVersion], digests: Sequence[str | None], sources: Sources) -> list[str]:
    """Return the warnings about versions of others; digests are those of their files now, None where there are links.

    Nothing is said of those that have other times only, as after a restore.
    """
    notes = []
    for one, digest in zip(foreign, digests):
        before = one.on_host.digest
        if digest and digest == before:
            continue
        wanted = _digests(one.model, one.version, one.on_host, sources)[1]
        was = f"published with sha256 {before} and changed since" if before else "put there by others"
        pull = one.model.pulls.get(one.version)
        what = "the archive" if pull and pull.is_archive else "those"
        notes.append(
            f"model {one.model.name}: version {one.version} on the host was {was}, and is left as it is. Its files "
            f"have sha256 {digest or '(none, as there are links)'}, {what} of the catalogue {wanted}. To have the "
            "catalogue's there, rename the directory to a name that begins with a dot, and rerun the playbook"
        )
    return notes


def withdrawn_text(one: Mapping[str, Any]) -> str:
    """Return what the play recap says of a version that is not published again."""
    return (
        f"{one['model']} version {one['version']} was withdrawn at {one['time']} and is not published again "
        f"({one['reason']}). Export a corrected one under a new number, or rerun with "
        "-e tfserving_models_retry_withdrawn=true."
    )


def versions_diff(host: HostState, published: Sequence[PublishedVersion], state: str) -> dict[str, str]:
    """Return the versions of all models with their sizes before and after; state is published or distributed."""
    there = host.distributed if state == "distributed" else host.versions
    before = {(model, version): one.bytes for model, versions in there.items() for version, one in versions.items()}
    after = before | {(one.model, one.version): one.bytes for one in published}
    return {"before_header": f"{state} versions", "before": version_lines(before), "after": version_lines(after)}


def signatures_diffs(host: HostState, published: Sequence[PublishedVersion]) -> list[dict[str, str]]:
    """Return a diff for each model whose newest version has other signatures than the newest that it replaces."""
    diffs = []
    newest = {one.model: one for one in sorted(published, key=lambda one: one.version)}
    for model in dict.fromkeys(one.model for one in published):
        new = newest[model]
        known = {version: one.signatures for version, one in host.versions[model].items() if one.signatures}
        if new.signatures is None or not known:
            continue
        old = max(known)
        before, after = ("\n".join(signature_lines(one)) + "\n" for one in (known[old], new.signatures))
        if before != after:
            diffs.append(
                {
                    "before_header": f"{model}/{old} signatures",
                    "after_header": f"{model}/{new.version} signatures",
                    "before": before,
                    "after": after,
                }
            )
    return diffs

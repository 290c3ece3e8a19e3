# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which versions of the models on a host nobody needs any more, and how they go.

A version goes by one rename, and its manifest after its files: a run that is killed leaves names with a dot, which the
server does not parse and the next run deletes.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    numbers,
    read_policy,
    retained_versions,
    versions_by_model,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import listed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import (
    needed_versions,
    note_served,
    read_history,
    read_holds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.record import (
    read_record,
    versions_to_return_to,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.host_servers import HostServer
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import family
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import ServingError, reason
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import BASE_MODE
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import version_lines
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import (
    ModelStore,
    remove,
    walk,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import UserTree

POLL_SECONDS = 0.5
UNLOAD_SECONDS = 10
HTTP_NOT_FOUND = 404

# What ModelStore names beside a version, and what its writers add to that.
_BESIDE = re.compile(
    r"\.(?:(?P<removed>removed|withdrawn)|(?P<staging>staging|incoming|basis|distributed)|(?P<manifest>manifest|unproven))"
    r"-(?P<version>[0-9]+)(?P<suffix>(?:\.[a-z]+)*)"
)
_MARK = ".json"  # the suffix of what outlives a version that was withdrawn


@dataclass(frozen=True)
class PrunePlan:
    """What may go of one model.

    versions are published ones that nothing but the running server may still need, in ascending order; unmanaged are
    those that would go too, had this collection published them; leftovers are of runs that were interrupted.
    """

    model: str
    store: ModelStore
    versions: list[int] = field(default_factory=list)
    unmanaged: list[int] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)
    is_purged: bool = False

    @property
    def has_something(self) -> bool:
        """Say whether there is something to remove, or to warn of."""
        return bool(self.versions or self.unmanaged or self.leftovers or self.is_purged)

    def left_over(self, removed: list[int]) -> list[str]:
        """Return the names that remain in the model's directory once these versions and the leftovers are gone."""
        folders = self.store.published()
        gone = {path.name for path in self.leftovers} | {folders[version] for version in removed}
        gone |= {self.store.manifest(version).name for version in removed}
        return sorted({path.name for path in self.store.path.iterdir()} - gone)


def plan_listed(
    base_path: Path, entry: dict[str, Any], keep: int | None, pending: set[int], needed: set[int]
) -> PrunePlan:
    """Return what may go of a model of the catalogue; keep is for an entry without its own.

    pending versions count as published; needed ones stay, as a rollback would serve them. Raises ValueError for an
    entry that says nothing that could be meant.
    """
    store = ModelStore(base_path / entry["name"])
    keep = keep if entry.get("keep") is None else entry["keep"]
    if keep is not None and keep < 1:
        raise ValueError(f"model {entry['name']}: keep is {keep}, and has to be at least 1 (tfserving_models_keep)")
    policy = read_policy(entry.get("model_version_policy"))
    labels = {str(label): int(version) for label, version in (entry.get("version_labels") or {}).items()}
    published = set(store.published())
    available = published | pending

    def is_wanted(version: int) -> bool:
        """Say whether a version that has begun to arrive would stay."""
        return version in pending or (
            version not in published and version in retained_versions(keep, policy, labels, available | {version})
        )

    surplus = sorted(published - needed - set(retained_versions(keep, policy, labels, available)))
    ours = [version for version in surplus if store.manifest(version).exists()]
    unmanaged = [version for version in surplus if version not in ours]
    return PrunePlan(entry["name"], store, ours, unmanaged, leftovers(store, is_wanted))


def plan_unlisted(base_path: Path, listed: set[str], purge: bool) -> list[PrunePlan]:
    """Return what may go of the models that this collection published and the catalogue does not list.

    Without purge that is only what was on its way out already.
    """
    plans = []
    for entry in sorted(os.scandir(base_path), key=lambda entry: entry.name) if base_path.is_dir() else []:
        store = ModelStore(Path(entry.path))
        if entry.name in listed or not entry.is_dir(follow_symlinks=False) or not _is_ours(store):
            continue
        found = leftovers(store, lambda _: False)
        if purge:
            ours = sorted(version for version in store.published() if store.manifest(version).exists())
            found += sorted(store.path.glob(f".withdrawn-*{_MARK}"))
            plans.append(PrunePlan(entry.name, store, ours, [], found, is_purged=True))
        else:
            plans.append(
                PrunePlan(entry.name, store, leftovers=[path for path in found if path.name.startswith(".removed-")])
            )
    return plans


def leftovers(store: ModelStore, is_wanted: Callable[[int], bool]) -> list[Path]:
    """Return what interrupted runs left beside the versions, in the order in which it may go.

    What has begun to arrive stays if is_wanted says so of its version. A manifest is written before its version appears
    and deleted after that is gone, so one without a version is needed only by a version that is about to appear.
    """
    # Looked at in this order, nothing that appears meanwhile is taken for a leftover.
    names = sorted(path.name for path in store.path.iterdir()) if store.path.is_dir() else []
    matches = [match for match in map(_BESIDE.fullmatch, names) if match]
    arriving = {int(match["version"]) for match in matches if match["staging"] and is_wanted(int(match["version"]))}
    published = store.published()
    removed: list[Path] = []
    unwanted: list[Path] = []
    manifests: list[Path] = []
    for match in matches:
        version, path = int(match["version"]), store.path / match.group()
        if match["removed"]:
            removed += [] if match["suffix"] == _MARK else [path]
        elif match["staging"] and version not in arriving:
            unwanted.append(path)
        elif match["manifest"] and version not in arriving and version not in published:
            manifests.append(path)
    return removed + unwanted + manifests


def _is_ours(store: ModelStore) -> bool:
    """Say whether this collection filled the directory of a model, or emptied it and was stopped then."""
    names = [path.name for path in store.path.iterdir()]
    status = store.path.stat()
    emptied = not names and status.st_uid == 0 and status.st_mode & 0o7777 == BASE_MODE
    return emptied or any(_BESIDE.fullmatch(name) for name in names)


@dataclass
class Usage:
    """What the servers of a host use of plans, and what they do not say.

    versions is {(model, version): why it stays}; unknown is {server: {"reason": ..., "models": [...]}} of those that
    could not be asked, with the models of which no version goes therefore.
    """

    versions: dict[tuple[str, int], str] = field(default_factory=dict)
    unknown: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add_unknown(self, server: HostServer, plan: PrunePlan, why: str) -> None:
        """Note that a server does not say what it uses of a plan."""
        self.unknown.setdefault(server.name, {"reason": why, "models": []})["models"].append(plan.model)

    def allowed(self, plan: PrunePlan) -> list[int]:
        """Return the versions of a plan that may go."""
        if any(plan.model in one["models"] for one in self.unknown.values()):
            return []
        return [version for version in plan.versions if (plan.model, version) not in self.versions]


def used_versions(servers: list[HostServer], plans: list[PrunePlan]) -> Usage:
    """Ask every server of the host which versions of plans it uses: all whose state is not END."""
    usage = Usage()
    for server in servers:
        silence: OSError | None = None  # asked once: a server that hangs takes its time for each question
        for plan in plans:
            names = _names(server, plan) if plan.versions else {}
            try:
                if names and silence:
                    raise silence
                for name, is_told in names.items():
                    usage.versions.update(_used_by(server, plan, name, is_told))
            except (OSError, ServingError) as error:
                silence = error if isinstance(error, OSError) else silence
                if server.is_ours or any(names.values()):
                    usage.add_unknown(server, plan, reason(error))
    return usage


def _names(server: HostServer, plan: PrunePlan) -> dict[str, bool]:
    """Return under which names a server may use a plan's versions, and of each whether it is known to be told to.

    A running server is asked by the model's own name in any case, as its file may have changed since it read it.
    """
    told = server.names_of(plan.store.path)
    if told is None:
        return {plan.model: True}
    may = [plan.model] if server.pid or plan.model in server.listed else []
    return {**dict.fromkeys(may, False), **dict.fromkeys(told, True)}


def _used_by(server: HostServer, plan: PrunePlan, name: str, is_told: bool) -> dict[tuple[str, int], str]:
    """Return what a server uses of a plan under a name.

    Raises ServingError and OSError where it does not say: a model that it is told to serve and does not know yet, too.
    """
    try:
        status = server.client().status(name)
    except ServingError as error:
        if error.status != HTTP_NOT_FOUND or is_told:
            raise
        return {}
    states = {version: one["state"] for version, one in status.items()}
    # After a restart with a newest version that cannot be loaded, the one to roll back to is not loaded either.
    is_needed = not plan.is_purged and "AVAILABLE" not in states.values() and (is_told or server.is_ours)
    used = {}
    for version in plan.versions:
        if states.get(version, "END") != "END":
            used[plan.model, version] = f"is {states[version]} in {server.name}"
        elif is_needed:
            used[plan.model, version] = f"may be needed by {server.name}, which has no version of it AVAILABLE"
    return used


def wait_for_release(servers: list[HostServer], plans: list[PrunePlan], timeout_seconds: float) -> Usage:
    """Return what the servers use of plans in the end; they unload a version a moment after a newer is AVAILABLE."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        usage = used_versions(servers, plans)
        if not usage.versions or time.monotonic() >= deadline:
            return usage
        time.sleep(POLL_SECONDS)


class LinkCount:
    """Tells what deleting files gives back: the bytes of a file are free when the last hard link to it is gone."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], int] = {}

    def release(self, path: Path) -> int:
        """Return how many bytes are free once this path goes, after those that were asked for before."""
        freed = 0
        if path.name.startswith(".incoming-"):
            return freed  # another user may change what is in there meanwhile
        for entry in (path, *walk(path)):
            status = entry.lstat()
            if entry.is_dir() and not entry.is_symlink():
                continue
            key = (status.st_dev, status.st_ino)
            self._links[key] = self._links.get(key, status.st_nlink) - 1
            if self._links[key] == 0:
                freed += status.st_size
        return freed


def version_sizes(plan: PrunePlan) -> dict[int, int]:
    """Return {version: size in bytes} of all versions of a model on the host."""
    return {
        version: sum(path.lstat().st_size for path in walk(plan.store.path / name) if not path.is_dir())
        for version, name in plan.store.published().items()
    }


class Pruning:
    """Removes what nobody uses; removed has what is gone so far, also of a run that fails."""

    def __init__(self, warn: Callable[[str], None], *, check_mode: bool) -> None:
        self._warn = warn
        self._check_mode = check_mode
        self.removed: list[dict[str, Any]] = []

    def run(self, params: Mapping[str, Any], servers: list[HostServer], *, with_diff: bool) -> dict[str, Any]:
        """Remove what may go, and return the result of the module saved_models_prune, whose params these are.

        Raises OSError, and ValueError for a catalogue that says nothing that could be meant.
        """
        if self._check_mode and params["pending"] is not None:  # the play would have them follow the catalogue first
            servers = [server for server in servers if not server.is_ours]
        if not self._check_mode:  # what servers have loaded by themselves since, so that what was before is spared
            note_served(params["config_path"], family(params["unit"], params["config_path"]).values())
        plans = self._leave_out_configured(make_plans(params), servers)
        chosen = self._choose(plans, wait_for_release(servers, plans, self._timeout(params, servers)))
        diff = {"diff": versions_diff(plans, chosen)} if with_diff else {}
        cleaned = [name for plan in plans for name in self._prune_model(plan, chosen[plan.model])]
        return {
            "changed": bool(self.removed),
            "removed": self.removed,
            "freed_bytes": sum(one["bytes"] for one in self.removed),
            "cleaned": cleaned,
            **diff,
        }

    def _timeout(self, params: Mapping[str, Any], servers: list[HostServer]) -> float:
        """Return how many seconds to wait for the servers to unload what is to be removed."""
        if self._check_mode:
            return 0
        if params["timeout_seconds"] is not None:
            return float(params["timeout_seconds"])
        return max((server.poll_wait_seconds for server in servers), default=0) + UNLOAD_SECONDS

    def _leave_out_configured(self, plans: list[PrunePlan], servers: list[HostServer]) -> list[PrunePlan]:
        """Return plans without the purged models that a server is told to serve, and warn of these."""
        left = []
        for plan in plans:
            told = [server for server in servers if plan.is_purged and server.names_of(plan.store.path) != set()]
            if told:
                where = " and ".join(server.config_name for server in told)
                self._warn(f"{plan.model} stays, as it is in {where}; playbooks/serving.yml removes it there")
            else:
                left.append(plan)
        return left

    def _choose(self, plans: list[PrunePlan], usage: Usage) -> dict[str, list[int]]:
        """Return which versions of each model go, and warn about those that stay."""
        for server, facts in usage.unknown.items():
            self._warn(
                f"No version of {', '.join(facts['models'])} is removed, as {server} does not say which it uses: "
                f"{facts['reason']}. Start it (playbooks/serving.yml) or remove it, and rerun playbooks/prune.yml"
            )
        unlisted = {plan.model for plan in plans if plan.is_purged}
        for (model, version), why in usage.versions.items():
            fix = (
                "playbooks/serving.yml removes it from models.config"
                if model in unlisted
                else "see playbooks/status.yml"
            )
            self._warn(f"{model}/{version} stays, as it {why}; {fix}")
        return {plan.model: usage.allowed(plan) for plan in plans}

    def _prune_model(self, plan: PrunePlan, versions: list[int]) -> list[str]:
        """Remove versions of a model and what interrupted runs left, and return the names of all but the versions."""
        count = LinkCount()
        cleaned = [f"{plan.model}/{path.name}" for path in plan.leftovers]
        for path in plan.leftovers:
            count.release(path)
        folders = plan.store.published()
        freed = {version: count.release(plan.store.path / folders[version]) for version in versions}
        self._warn_of_others(plan, versions)
        if plan.is_purged and not plan.left_over(versions):
            cleaned.append(plan.model)
        if not self._check_mode and plan.leftovers:
            with plan.store.alone():
                for path in plan.leftovers:  # or what another run has made of it meanwhile
                    UserTree(path, 0).remove()
        # The oldest first: whenever this is stopped, the newer ones are there.
        for version, size in freed.items():
            if not self._check_mode:
                with plan.store.alone():
                    remove(plan.store, version)
            self.removed.append({"model": plan.model, "version": version, "bytes": size})
        if not self._check_mode and plan.is_purged and not any(plan.store.path.iterdir()):
            plan.store.path.rmdir()
        return cleaned

    def _warn_of_others(self, plan: PrunePlan, removed: list[int]) -> None:
        """Name what stays although the model needs it no more, as it is not this collection's."""
        if plan.unmanaged:
            self._warn(
                f"{plan.store.path}: {numbers(plan.unmanaged)} would be removed, but was not published by this "
                "collection, and stays; delete it manually"
            )
        folders = plan.store.published()
        used = {name for one in plan.versions for name in (folders[one], plan.store.manifest(one).name)}
        foreign = [name for name in plan.left_over(removed) if name not in used] if plan.is_purged else []
        if foreign:
            self._warn(
                f"{plan.store.path} stays, as it holds what this collection did not put there: {listed(foreign)}; "
                "delete it manually"
            )


def make_plans(params: Mapping[str, Any]) -> list[PrunePlan]:
    """Return what may go, model by model. Raises OSError and ValueError."""
    base_path = Path(params["base_path"])
    pending = versions_by_model(params.get("pending") or [])
    history, holds = read_history(params["config_path"]), read_holds(params["config_path"])
    # What has left the catalogue may have to return, too.
    record = read_record(params["config_path"])
    plans = [
        plan_listed(
            base_path,
            entry,
            params["keep"],
            pending.get(entry["name"], set()),
            needed_versions(history, holds, entry["name"]) | versions_to_return_to(record, entry["name"]),
        )
        for entry in params["catalog"]
    ]
    return plans + plan_unlisted(base_path, {plan.model for plan in plans}, params["purge"] and record is None)


def versions_diff(plans: list[PrunePlan], chosen: dict[str, list[int]]) -> dict[str, str]:
    """Return the versions with their sizes before and after, as the action saved_models shows them."""
    before = {(plan.model, one): size for plan in plans for one, size in version_sizes(plan).items()}
    after = {key: size for key, size in before.items() if key[1] not in chosen[key[0]]}
    return {"before_header": "published versions", "before": version_lines(before), "after": version_lines(after)}

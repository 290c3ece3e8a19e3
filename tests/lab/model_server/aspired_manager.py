"""Brings the managed versions to what the sources want, one action at a time, never losing availability.

Source: tensorflow/serving @ 9d981c5c, core/aspired_versions_manager.cc and core/availability_preserving_policy.cc.
"""

from __future__ import annotations

import itertools
import threading

from . import executors, log, status
from .basic_manager import BasicManager, HarnessState, Snapshot
from .servables import ServableId

MANAGE_STATE_INTERVAL_SECONDS = 0.1
_FLUSHABLE = (HarnessState.NEW, HarnessState.DISABLED, HarnessState.ERROR)

Versions = list[tuple[int, str]]  # version number and directory


def next_unload(versions: list[Snapshot]) -> ServableId | None:
    """Return the version of one model to unload now, if any: the lowest unwanted one that is not needed to serve."""
    has_aspired = any(version.is_aspired for version in versions)
    has_aspired_serving = any(version.is_aspired and version.state is HarnessState.READY for version in versions)
    unwanted = [version.id for version in versions if not version.is_aspired and version.state is HarnessState.READY]
    if unwanted and (not has_aspired or has_aspired_serving or len(unwanted) > 1):
        return min(unwanted, key=lambda servable_id: servable_id.version)
    return None


def next_load(versions: list[Snapshot]) -> ServableId | None:
    """Return the version of one model to load now, if any: the highest wanted one that is new."""
    new = [version.id for version in versions if version.is_aspired and version.state is HarnessState.NEW]
    return max(new, key=lambda servable_id: servable_id.version, default=None)


class AspiredVersionsManager:
    """Receives the wanted versions of each model and acts on them every 100 ms.

    All actions start on one thread. Where the basic manager has no thread pool, a load runs on that thread and holds
    up everything else, retries included.
    """

    def __init__(self, basic_manager: BasicManager) -> None:
        self._basic_manager = basic_manager
        self._pending_lock = threading.Lock()
        self._pending: dict[str, Versions] = {}

    def start(self) -> None:
        """Begin to act on wanted versions."""
        executors.run_periodically(
            self._manage_state, MANAGE_STATE_INTERVAL_SECONDS, "AspiredVersionsManager_ManageState_Thread"
        )

    def set_aspired_versions(self, name: str, versions: Versions) -> None:
        """Want exactly these versions of a model; replaces what was wanted before and not yet looked at."""
        with self._pending_lock:
            self._pending[name] = versions

    def _manage_state(self) -> None:
        self._flush_servables()
        self._handle_pending_requests()
        self._take_next_action()

    def _flush_servables(self) -> None:
        """Forget the versions that are neither wanted nor loaded."""
        for version in self._basic_manager.snapshots():
            if version.state in _FLUSHABLE and not version.is_aspired:
                self._basic_manager.stop_managing(version.id)

    def _handle_pending_requests(self) -> None:
        with self._pending_lock:
            for name, versions in list(self._pending.items()):
                managed = [version for version in self._basic_manager.snapshots() if version.id.name == name]
                wanted = {version for version, _path in versions}
                if any(not version.is_aspired and version.id.version in wanted for version in managed):
                    continue  # a version that is wanted again must be gone first
                self._process(name, versions, managed)
                del self._pending[name]

    def _process(self, name: str, versions: Versions, managed: list[Snapshot]) -> None:
        wanted = {version for version, _path in versions}
        current = {version.id.version for version in managed if version.is_aspired}
        for version in managed:
            if version.id.version not in wanted:
                self._basic_manager.unaspire(version.id)
        for number, path in versions:
            if number in current:
                continue
            servable_id = ServableId(name, number)
            try:
                self._basic_manager.manage(servable_id, path)
            except status.StatusError as error:
                log.error(
                    "tensorflow_serving/core/aspired_versions_manager.cc:359",
                    f"Internal error: Unable to transfer servable {servable_id} to 'basic_manager_': {error.message}",
                )

    def _take_next_action(self) -> None:
        """Unload one version, or else load one."""
        models = [
            list(versions)
            for _name, versions in itertools.groupby(self._basic_manager.snapshots(), lambda version: version.id.name)
        ]
        # A model has one action at a time, an unload before a load; over all models an unload goes first.
        unloads = [next_unload(versions) for versions in models]
        for servable_id in unloads:
            if servable_id is not None:
                self._basic_manager.unload(servable_id)
                return
        for versions in models:
            loadable = next_load(versions)
            if loadable is not None:
                self._basic_manager.load(loadable)
                return

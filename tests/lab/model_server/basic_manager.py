"""Loads and unloads single versions, with retries, on threads of its own or on its caller's.

Source: tensorflow/serving @ 9d981c5c, core/basic_manager.cc, core/loader_harness.cc and util/retrier.cc.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from . import executors, log, status
from .servables import EventBus, ServableId, ServableRequest, ServableState, State
from .serving_map import ServingMap

ResultT = TypeVar("ResultT")

_RETRIER = "tensorflow_serving/util/retrier.cc"


class Servable(Protocol):
    """What a loader makes."""

    def close(self) -> None:
        """Release what the servable holds."""


Loader = Callable[[ServableId, str], Servable]


class HarnessState(enum.Enum):
    """Where a version stands between being asked for and being gone."""

    NEW = enum.auto()
    LOADING = enum.auto()
    READY = enum.auto()
    UNLOADING = enum.auto()
    DISABLED = enum.auto()
    ERROR = enum.auto()


class _Harness:
    """A version under management."""

    def __init__(self, servable_id: ServableId, path: str) -> None:
        self.id = servable_id
        self.path = path
        self.state = HarnessState.NEW
        self.is_aspired = True
        self.retry_cancelled = False
        self.servable: Servable | None = None


@dataclass(frozen=True)
class Snapshot:
    """What the version policy sees of a version."""

    id: ServableId
    state: HarnessState
    is_aspired: bool


def _check_files(directory: str) -> None:
    """Walk a version directory as the resource estimate does; raises StatusError when a part of it cannot be read."""
    if not os.access(directory, os.F_OK):
        raise status.not_found(f"{directory} not found")
    pending = [directory]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                pending.extend(entry.path for entry in entries if entry.is_dir())
        except OSError as error:
            raise status.from_os_error(error, current) from error


class BasicManager:
    """Holds the harness of every managed version and the map of those that serve.

    num_unload_threads 0 runs unloads on the caller's thread, and so does a set_num_load_threads(0) for loads; a load
    that fails is tried 1 + max_num_load_retries times, retry_interval_seconds apart.
    """

    def __init__(
        self,
        loader: Loader,
        bus: EventBus,
        num_unload_threads: int,
        max_num_load_retries: int,
        retry_interval_seconds: float,
    ) -> None:
        self._loader = loader
        self._bus = bus
        self._max_num_load_retries = max_num_load_retries
        self._retry_interval_seconds = retry_interval_seconds
        self._lock = threading.Lock()
        self._decision_lock = threading.Lock()
        self._harnesses: dict[ServableId, _Harness] = {}
        self._executor_lock = threading.Lock()
        self._load_executor: executors.Executor = executors.InlineExecutor()
        self._unload_executor = executors.create(num_unload_threads, "BasicManager_Unload_ThreadPool")
        self._serving_map = ServingMap()

    def handle(self, request: ServableRequest) -> contextlib.AbstractContextManager[tuple[ServableId, Servable]]:
        """Hold the servable that answers a request; raises NOT_FOUND when none does."""
        return self._serving_map.handle(request)

    def set_num_load_threads(self, num_load_threads: int) -> None:
        """Wait for the loads under way, then load on this many threads, 0 for the caller's own."""
        with self._executor_lock:
            self._load_executor.close()
            self._load_executor = executors.create(num_load_threads, "BasicManager_Load_ThreadPool")

    def snapshots(self) -> list[Snapshot]:
        """Return the state of every managed version, by model name."""
        with self._lock:
            harnesses = sorted(self._harnesses.values(), key=lambda harness: (harness.id.name, harness.id.version))
            return [Snapshot(harness.id, harness.state, harness.is_aspired) for harness in harnesses]

    def manage(self, servable_id: ServableId, path: str) -> None:
        """Take a version under management, to be loaded later; raises FAILED_PRECONDITION when it is already."""
        with self._lock:
            if servable_id in self._harnesses:
                raise status.failed_precondition(f"This servable is already being managed: {servable_id}")
            self._publish(servable_id, State.START)
            self._harnesses[servable_id] = _Harness(servable_id, path)

    def stop_managing(self, servable_id: ServableId) -> None:
        """Forget a version that is neither loaded nor being loaded."""
        with self._lock:
            del self._harnesses[servable_id]

    def unaspire(self, servable_id: ServableId) -> None:
        """Note that a version is no longer wanted; a load of it is not tried again."""
        with self._lock:
            harness = self._harnesses[servable_id]
            harness.is_aspired = False
            harness.retry_cancelled = True

    def load(self, servable_id: ServableId) -> None:
        """Load a version that is NEW."""
        with self._lock:
            harness = self._harnesses[servable_id]
            harness.state = HarnessState.LOADING
        with self._executor_lock:
            self._load_executor.schedule(lambda: self._load(harness))

    def unload(self, servable_id: ServableId) -> None:
        """Unload a version that is READY."""
        with self._lock:
            harness = self._harnesses[servable_id]
            harness.state = HarnessState.UNLOADING
        self._unload_executor.schedule(lambda: self._unload(harness))

    def _publish(self, servable_id: ServableId, state: State, error: status.StatusError | None = None) -> None:
        self._bus.publish(ServableState(servable_id, state, error))

    def _load(self, harness: _Harness) -> None:
        try:
            self._reserve_resources(harness)
            log.info(
                "tensorflow_serving/core/loader_harness.cc:70", f"Approving load for servable version {harness.id}"
            )
            self._publish(harness.id, State.LOADING)
            log.info("tensorflow_serving/core/loader_harness.cc:78", f"Loading servable version {harness.id}")
            servable = self._retry(
                f"Loading servable: {harness.id}", lambda: self._loader(harness.id, harness.path), harness
            )
        except status.StatusError as error:
            with self._lock:
                harness.state = HarnessState.ERROR
            self._publish(harness.id, State.END, error)
            log.error(
                "tensorflow_serving/core/aspired_versions_manager.cc:420",
                f"Servable {harness.id} cannot be loaded: {error}",
            )
            return
        log.info("tensorflow_serving/core/loader_harness.cc:108", f"Successfully loaded servable version {harness.id}")
        with self._lock:
            harness.servable = servable
            harness.state = HarnessState.READY
            self._update_serving_map()
        self._publish(harness.id, State.AVAILABLE)

    def _reserve_resources(self, harness: _Harness) -> None:
        """Look at the version's files; as in the real server, nothing else moves while that is tried again."""
        with self._decision_lock, self._lock:
            try:
                self._retry(
                    f"Reserving resources for servable: {harness.id}", lambda: _check_files(harness.path), harness
                )
            except status.StatusError as error:
                problem = status.StatusError(
                    status.Code.INTERNAL,
                    f"Error while attempting to reserve resources to load servable {harness.id}: {error.message}",
                )
                log.warning("tensorflow_serving/core/basic_manager.cc:734", str(problem))
                raise problem from error
        log.info(
            "tensorflow_serving/core/basic_manager.cc:786",
            f"Successfully reserved resources to load servable {harness.id}",
        )

    def _unload(self, harness: _Harness) -> None:
        with self._lock:
            log.info("tensorflow_serving/core/loader_harness.cc:168", f"Quiescing servable version {harness.id}")
            self._publish(harness.id, State.UNLOADING)
            self._update_serving_map()
            log.info("tensorflow_serving/core/loader_harness.cc:175", f"Done quiescing servable version {harness.id}")
        if harness.servable is not None:
            harness.servable.close()
            harness.servable = None
        log.info("tensorflow_serving/core/loader_harness.cc:140", f"Done unloading servable version {harness.id}")
        with self._lock:
            harness.state = HarnessState.DISABLED
        self._publish(harness.id, State.END)

    def _update_serving_map(self) -> None:
        self._serving_map.update(
            {
                harness.id: harness.servable
                for harness in self._harnesses.values()
                if harness.state is HarnessState.READY
            }
        )

    def _retry(self, description: str, attempt: Callable[[], ResultT], harness: _Harness) -> ResultT:
        """Call attempt until it succeeds, is no longer wanted or has failed 1 + max_num_load_retries times."""
        tries = 0
        while True:
            if tries > 0:
                time.sleep(max(0.0, self._retry_interval_seconds))
                log.info(f"{_RETRIER}:36", f"Retrying of {description} retry: {tries}")
            tries += 1
            try:
                result = attempt()
            except status.StatusError as error:
                log.error(f"{_RETRIER}:40", f"{description} failed: {error}")
                if not harness.retry_cancelled and tries <= self._max_num_load_retries:
                    continue
                self._log_end_of_retries(description, tries, harness)
                raise
            self._log_end_of_retries(description, tries, harness)
            return result

    def _log_end_of_retries(self, description: str, tries: int, harness: _Harness) -> None:
        """Say why there are no more tries; the last one allowed counts as exhausting them, also when it succeeded."""
        if harness.retry_cancelled:
            log.info(f"{_RETRIER}:47", f"Retrying of {description} was cancelled.")
        if tries == self._max_num_load_retries + 1:
            log.info(
                f"{_RETRIER}:50",
                f"Retrying of {description} exhausted max_num_retries: {self._max_num_load_retries}",
            )

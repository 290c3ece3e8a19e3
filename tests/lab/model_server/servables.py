"""Names and states of servables, the record of every state reached, and who waits for one.

Source: tensorflow/serving @ 9d981c5c, core/servable_id.h, core/servable_state.h and core/servable_state_monitor.cc.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass

from .status import StatusError


@dataclass(frozen=True)
class ServableId:
    """A model and one of its versions; str() is the form used in the logs."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"


@dataclass(frozen=True)
class ServableRequest:
    """A model at one version, or at its latest available one when version is None."""

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return f"Latest({self.name})" if self.version is None else f"Specific({self.name}, {self.version})"


class State(enum.IntEnum):
    """States of a version, numbered as in ModelVersionStatus.State."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class ServableState:
    """A state that a version reached, and the error that ended it, if any."""

    id: ServableId
    state: State
    error: StatusError | None = None


class Monitor:
    """The last state of every version ever seen."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._states: dict[str, dict[int, ServableState]] = {}

    def handle(self, event: ServableState) -> None:
        """Record a state and wake who waits."""
        with self._changed:
            self._states.setdefault(event.id.name, {})[event.id.version] = event
            self._changed.notify_all()

    def versions(self, name: str) -> list[ServableState]:
        """Return the states of a model's versions, the highest version first."""
        with self._changed:
            return self._versions(name)

    def _versions(self, name: str) -> list[ServableState]:
        return [state for _version, state in sorted(self._states.get(name, {}).items(), reverse=True)]

    def wait_until_available(self, names: list[str]) -> list[ServableState]:
        """Wait, with no time limit, until each model has a version that is AVAILABLE or has come to its END.

        Returns for each model the highest version that is in one of the two states.
        """
        with self._changed:
            while True:
                reached = [self._first_reached(name) for name in names]
                if None not in reached:
                    return [state for state in reached if state is not None]
                self._changed.wait()

    def _first_reached(self, name: str) -> ServableState | None:
        return next((state for state in self._versions(name) if state.state in (State.AVAILABLE, State.END)), None)


class EventBus:
    """Tells every subscriber of every state, in order."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._subscribers: list[Callable[[ServableState], None]] = []

    def subscribe(self, subscriber: Callable[[ServableState], None]) -> None:
        """Call subscriber with each state published from now on."""
        with self._lock:
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[ServableState], None]) -> None:
        """Call subscriber no more."""
        with self._lock:
            self._subscribers.remove(subscriber)

    def publish(self, event: ServableState) -> None:
        """Pass a state to every subscriber."""
        with self._lock:
            for subscriber in self._subscribers:
                subscriber(event)

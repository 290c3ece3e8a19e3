"""The versions that answer requests, and the handles given out for them.

Source: tensorflow/serving @ 9d981c5c, core/basic_manager.cc (ServingMap) and util/fast_read_dynamic_ptr.h.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from . import status
from .servables import ServableId, ServableRequest


class _Generation:
    """One state of the map, and the number of handles that were given out from it and are still held."""

    def __init__(self, handles: dict[ServableRequest, tuple[ServableId, Any]]) -> None:
        self.handles = handles
        self.held = 0


class ServingMap:
    """Finds the servable for a request; an update waits until all handles of the former state have been given back."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._current = _Generation({})

    @contextlib.contextmanager
    def handle(self, request: ServableRequest) -> Iterator[tuple[ServableId, Any]]:
        """Hold the servable that answers a request; raises NOT_FOUND when none does."""
        with self._changed:
            generation = self._current
            if request not in generation.handles:
                raise status.not_found(f"Servable not found for request: {request}")
            found = generation.handles[request]
            generation.held += 1
        try:
            yield found
        finally:
            with self._changed:
                generation.held -= 1
                self._changed.notify_all()

    def update(self, servables: Mapping[ServableId, Any]) -> None:
        """Serve these servables from now on; returns when no request uses the former state any more."""
        handles: dict[ServableRequest, tuple[ServableId, Any]] = {}
        for servable_id in sorted(servables, key=lambda servable_id: (servable_id.name, servable_id.version)):
            found = (servable_id, servables[servable_id])
            handles[ServableRequest(servable_id.name, servable_id.version)] = found
            handles[ServableRequest(servable_id.name)] = found  # the last one, the latest, stays
        with self._changed:
            former, self._current = self._current, _Generation(handles)
            self._changed.wait_for(lambda: former.held == 0)

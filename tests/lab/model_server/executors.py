"""Ways to run work: at once, on a pool of threads, or periodically.

Source: tensorflow/serving @ 9d981c5c, util/inline_executor.cc, util/threadpool_executor.cc and TensorFlow's
core/kernels/batching_util/periodic_function.cc. Threads are daemons: the process dies at once, as the real one does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

Work = Callable[[], None]


class Executor(Protocol):
    """Something that runs work."""

    def schedule(self, work: Work) -> None:
        """Run work, now or later."""

    def close(self) -> None:
        """Return once all scheduled work has been done."""


class InlineExecutor:
    """Runs work on the caller's thread, which waits for it."""

    def schedule(self, work: Work) -> None:
        """Run work before returning."""
        work()

    def close(self) -> None:
        """Nothing is ever left to do."""


class ThreadPoolExecutor:
    """Runs work on a fixed number of threads."""

    def __init__(self, name: str, num_threads: int) -> None:
        self._queue: queue.Queue[Work | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}_{number}", daemon=True) for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def schedule(self, work: Work) -> None:
        """Run work on the next free thread."""
        self._queue.put(work)

    def close(self) -> None:
        """Wait for the scheduled work, then end the threads."""
        for _thread in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


def create(num_threads: int, name: str) -> Executor:
    """Return a pool of num_threads threads; 0 means the caller's own."""
    return ThreadPoolExecutor(name, num_threads) if num_threads > 0 else InlineExecutor()


def run_periodically(work: Work, interval_seconds: float, name: str) -> None:
    """Run work on a thread of its own, starting it every interval_seconds, or later where it takes longer."""

    def loop() -> None:
        while True:
            next_start = time.monotonic() + interval_seconds
            work()
            time.sleep(max(0.0, next_start - time.monotonic()))

    threading.Thread(target=loop, name=name, daemon=True).start()


def run_once(work: Work, name: str) -> None:
    """Run work once on a thread of its own."""
    threading.Thread(target=work, name=name, daemon=True).start()

"""Clients that predict without a pause, and write down each answer that is none."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field

THREADS_PER_MODEL = 2
TIMEOUT_SECONDS = 20


@dataclass
class Stream:
    """Predicts over keep-alive connections between start() and stop().

    bodies are the requests by what is asked, such as MLP or MLP/labels/stable; requests_per_second are those to all.
    """

    address: str
    bodies: dict[str, dict]
    requests_per_second: int = 50
    answers: int = 0
    slowest_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    gaps_seconds: dict[str, float] = field(default_factory=dict)  # the longest without a prediction, by what is asked
    seconds: float = 0.0
    _answered: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> Stream:
        self._started = time.monotonic()
        work = [(model, body) for model, body in self.bodies.items() for _ in range(THREADS_PER_MODEL)]
        period = len(work) / self.requests_per_second
        self._answered = dict.fromkeys(self.bodies, self._started)
        self.gaps_seconds = dict.fromkeys(self.bodies, 0.0)
        for number, (model, body) in enumerate(work):
            offset = number / self.requests_per_second
            self._threads.append(threading.Thread(target=self._predict, args=(model, body, period, offset)))
            self._threads[-1].start()
        return self

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.seconds = time.monotonic() - self._started

    def rate(self) -> float:
        """Return the requests a second that were answered so far."""
        return self.answers / (self.seconds or time.monotonic() - self._started)

    def _predict(self, model: str, body: dict, period: float, offset: float) -> None:
        data, path = json.dumps(body), f"/v1/models/{model}:predict"
        connection = http.client.HTTPConnection(self.address, 8501, timeout=TIMEOUT_SECONDS)
        due = self._started + offset
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += period
            sent = time.monotonic()
            try:
                connection.request("POST", path, data, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read().decode()
                failure = None if answer.status == 200 and "predictions" in text else f"{answer.status} {text}"
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}"
                connection.close()
            with self._lock:
                self.answers += 1
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - sent)
                if failure is None:
                    now = time.monotonic()
                    self.gaps_seconds[model] = max(self.gaps_seconds[model], now - self._answered[model])
                    self._answered[model] = now
                else:
                    self.failures.append(f"{time.time():.3f} {model}: {failure}")
        connection.close()

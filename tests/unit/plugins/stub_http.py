"""A web server on loopback that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StubServer:
    """Answers by path; a path without an answer is 404 as TensorFlow Serving says it."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.raw_answer: bytes | None = None  # sent as it is, instead of an HTTP answer
        self.delay_seconds = 0.0  # before each answer, so that requests meet
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.requests.append((self.command, self.path))
                stub.headers.append({name.lower(): value for name, value in self.headers.items()})
                length = int(self.headers.get("Content-Length", 0))
                stub.bodies.append(json.loads(self.rfile.read(length)) if length else None)
                time.sleep(stub.delay_seconds)
                if stub.raw_answer is not None:
                    self.wfile.write(stub.raw_answer)
                    return
                unknown = {"error": f"Could not find any versions of model {self.path.rpartition('/')[2]}"}
                status, body = stub.answers.get(self.path, (404, json.dumps(unknown).encode()))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> StubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, body: Any, status: int = 200) -> None:
        """Answer path with bytes as they are, and with anything else as JSON."""
        self.answers[path] = (status, body if isinstance(body, bytes) else json.dumps(body).encode())

    def answer_status(self, model: str, *versions: tuple[int, str, str, str]) -> None:
        """Answer GET /v1/models/MODEL with (version, state, error_code, error_message) of each version."""
        rows = [
            {"version": str(version), "state": state, "status": {"error_code": code, "error_message": message}}
            for version, state, code, message in versions
        ]
        self.answer(f"/v1/models/{model}", {"model_version_status": rows})


def unused_port() -> int:
    """Return a port on which nothing listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return int(server.server_address[1])

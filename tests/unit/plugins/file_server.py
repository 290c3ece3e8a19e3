"""A web server on loopback that serves one file as real ones do: with Range, ETag and redirects, and cut if told to."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """Serves `content` at every path that begins with /models/; remembers the headers of each request."""

    def __init__(self) -> None:
        self.content = b""
        self.resumes = True
        self.has_etag = True
        self.has_length = True
        self.cuts: list[int] = []  # after how many bytes each of the next answers ends
        self.redirects: dict[str, str] = {}
        self.credentials: str | None = None  # the Authorization header without which it answers 401
        self.requests: list[tuple[str, dict[str, str]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.requests.append((self.path, headers))
                if self.path in stub.redirects:
                    self.send_response(302)
                    self.send_header("Location", stub.redirects[self.path])
                    self.end_headers()
                elif stub.credentials and headers.get("authorization") != stub.credentials:
                    self.send_error(401)
                else:
                    self.send_content(headers)

            def send_content(self, headers: dict[str, str]) -> None:
                first = 0
                wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
                if wanted and stub.resumes and headers.get("if-range", stub.etag) == stub.etag:
                    first = int(wanted[1])
                    if first >= len(stub.content):
                        self.send_error(416)
                        return
                    self.send_response(206)
                    size = len(stub.content)
                    self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
                else:
                    self.send_response(200)
                if stub.has_etag:
                    self.send_header("ETag", stub.etag)
                body = stub.content[first:]
                if stub.has_length:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: stub.cuts.pop(0)] if stub.cuts else body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()}"'

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def ranges(self) -> list[str | None]:
        """Return the Range header of each request so far."""
        return [headers.get("range") for _, headers in self.requests]

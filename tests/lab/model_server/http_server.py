"""The HTTP/1.1 server of the REST API and of the Prometheus page.

Source: tensorflow/serving @ 9d981c5c, model_servers/http_server.cc and util/net_http; headers and error pages were
recorded from a real server. It listens on all interfaces and knows neither authentication nor TLS.
"""

from __future__ import annotations

import http.server
import re
import socket
import socketserver
import sys
import threading
import traceback
import zlib
from dataclasses import dataclass
from http import HTTPStatus

from . import log, metrics
from .rest_api import RestApi
from .status import Code

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
_ERROR_PAGE = "<HTML><HEAD>\n<TITLE>{0} {1}</TITLE>\n</HEAD><BODY>\n<H1>{1}</H1>\n</BODY></HTML>\n"
# Scheme and authority, path, and query with fragment; libevent takes a path that begins with // for an authority.
_URI = re.compile(r"(?:(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*)?(?P<path>[^?#]*)(?P<rest>.*)")
_LEGAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})*")
_CORS_HEADERS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
)
_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


@dataclass(frozen=True)
class HttpOptions:
    """What the flags say about HTTP; metrics_path is empty where the Prometheus page is not enabled."""

    port: int
    num_threads: int
    enable_cors_support: bool
    metrics_path: str


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one piece
    server: _Server

    def do_GET(self) -> None:  # noqa: N802 - the name is the standard library's
        """Answer one request of any method that the real server allows; others are for send_error."""
        target = self.requestline.split()[1]  # of self.path, the standard library has cut slashes off
        uri = _URI.fullmatch(target) if _LEGAL.fullmatch(target) else None
        body = self._read_body()
        if uri is None or body is None:
            self.send_error(400)
            return
        with self.server.permits:
            self._dispatch(uri["path"], uri["path"] + uri["rest"], body)

    do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_GET  # noqa: N815

    def _dispatch(self, path: str, whole_path: str, body: bytes) -> None:
        """Answer a request; whole_path is the path with query and fragment, which are a part of it to all handlers."""
        wanted = self.server.options.metrics_path
        if wanted and path == wanted:
            found = whole_path == wanted
            text = metrics.page() if found else f"Unexpected path: {whole_path}. Should be {wanted}"
            content = text.encode("utf-8", "surrogateescape")
            self._reply(200 if found else 400, content, [("Content-Type", "text/plain")])
        elif whole_path.lower().startswith("/v1/"):
            self._answer(whole_path, body)
        else:
            self.send_error(404)

    def _answer(self, path: str, body: bytes) -> None:
        cors = list(_CORS_HEADERS) if self.server.options.enable_cors_support else []
        if self.command == "OPTIONS":
            # A preflight is one only if it says where it comes from.
            says_where = self.headers.get("Origin", "").startswith(("http://", "https://"))
            code = Code.OK if says_where else Code.FAILED_PRECONDITION
            metrics.request_count.add("", code.name)
            self._reply(_HTTP_STATUS[code], b"", [("Content-Type", "text/html; charset=ISO-8859-1"), *cors])
            return
        code, text = self.server.api.answer(self.command, path, body)
        content = text.encode("utf-8", "surrogateescape")
        self._reply(_HTTP_STATUS[code], content, [("Content-Type", "application/json"), *cors])

    def _read_body(self) -> bytes | None:
        """Return the request's body, unpacked, or nothing of one that cannot be unpacked; None for a bad length."""
        try:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                body = self._read_chunks()
            else:
                body = self._read_bytes(self.headers.get("Content-Length", "0"), 10)
            return zlib.decompress(body, wbits=31) if "gzip" in self.headers.get("Content-Encoding", "") else body
        except ValueError:
            return None
        except zlib.error:
            return b""

    def _read_bytes(self, text: str, base: int) -> bytes:
        """Return so many bytes of the request; raises ValueError for what is no size."""
        size = int(text, base)
        if size < 0:
            raise ValueError(text)
        return self.rfile.read(size)

    def _read_chunks(self) -> bytes:
        chunks = []
        while chunk := self._read_bytes(self.rfile.readline().split(b";")[0].decode("ascii"), 16):
            chunks.append(chunk)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def send_error(self, code: int, _message: str | None = None, _explain: str | None = None) -> None:
        """Answer with an error page of the HTTP library, and end the connection."""
        self.close_connection = True
        page = _ERROR_PAGE.format(int(code), HTTPStatus(code).phrase)
        self._reply(code, page.encode(), [("Content-Type", "text/html")])

    def _reply(self, code: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        reason = HTTPStatus(code).phrase if code != 499 else "Client Closed Request"
        self.send_response_only(code, reason)
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Accepts connections; a thread each, of which as many work at a time as the real server has for them."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, family: int, address: str, api: RestApi, options: HttpOptions) -> None:
        self.address_family = family
        self.api = api
        self.options = options
        # One of the threads runs the event loop of the real server.
        self.permits = threading.Semaphore(max(0, options.num_threads - 1))
        super().__init__((address, options.port), _Handler)

    def server_bind(self) -> None:
        """Bind for IPv4 as well where the address is IPv6's."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up; log anything else, which is a defect of this server."""
        if not isinstance(sys.exc_info()[1], OSError):
            log.error("http_server.py", traceback.format_exc())


def start(api: RestApi, options: HttpOptions) -> bool:
    """Listen on `::`, or on 0.0.0.0 where there is no IPv6, and serve; returns False when the port cannot be bound."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "")):
        try:
            server = _Server(family, address, api, options)
        except OSError:
            continue
        threading.Thread(target=server.serve_forever, name="httprestserver", daemon=True).start()
        log.net("evhttp_server.cc", 261, "Entering the event loop ...")
        return True
    log.net("evhttp_server.cc", 234, f"Couldn't bind to port {options.port}")
    return False

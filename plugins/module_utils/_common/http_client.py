# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which way a request takes: through a proxy, or past it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any, BinaryIO, Iterator, Mapping, Sequence

CHUNK_BYTES = 1 << 20
MAX_BYTES = 1 << 20


class DownloadError(Exception):
    """Nothing was downloaded; the words name the URL and the proxy, and never the proxy's password."""


def is_bypassed(url: str, no_proxy: Sequence[str]) -> bool:
    """Say whether no_proxy exempts the host of url: by its name, by a domain above it, or with "*"."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""  # in lower case
    except ValueError:  # not a usable address, as the request itself will report
        host = ""
    # The entries as people write them in the variable no_proxy: example.com, .example.com, *.example.com, [::1].
    entries = [re.sub(r"^\*?\.|[\[\]]", "", entry.strip().lower()) for entry in ",".join(no_proxy).split(",")]
    return any(entry == "*" or f".{host}".endswith(f".{entry}") for entry in entries if entry)


def has_environment_proxy(url: str) -> bool:
    """Say whether the environment (http_proxy and so on) decides about the scheme of url."""
    return _scheme(url) in urllib.request.getproxies()


def without_password(proxy: str) -> str:
    """Return a proxy's address as it may be shown."""
    address = proxy.rpartition("@")[2]
    # Without an "@" it may still be user and password, of which the host was forgotten.
    readable = re.fullmatch(r"(?:\w+://)?(?:[\w.-]+|\[[\w.:]+\])(?::\d+)?/?", address)
    return address if readable else "an unreadable address"


def download(url: str, proxy: str | None, no_proxy: Sequence[str], timeout_seconds: int) -> bytes:
    """Return what url answers, at most MAX_BYTES. Without a proxy the environment's proxy variables are used.

    Raises DownloadError.
    """
    data = io.BytesIO()
    download_to(data, url, proxy, no_proxy, timeout_seconds, max_bytes=MAX_BYTES)
    return data.getvalue()


def download_to(
    file: BinaryIO,
    url: str,
    proxy: str | None,
    no_proxy: Sequence[str],
    timeout_seconds: int,
    *,
    max_bytes: int | None = None,
    credentials: str | None = None,
) -> None:
    """Write what url answers to file, piece by piece. Without a proxy the environment's proxy variables are used.

    credentials are USER:PASSWORD for the server, percent-encoded. Raises DownloadError.
    """
    size = 0
    with answer_of(url, proxy, no_proxy, timeout_seconds, credentials=credentials) as answer:
        for chunk in iter(lambda: answer.read(CHUNK_BYTES), b""):
            size += len(chunk)
            if max_bytes is not None and size > max_bytes:
                raise DownloadError(f"{url} is larger than {max_bytes} bytes")
            try:
                file.write(chunk)
            except OSError as error:  # not the server's fault
                raise DownloadError(f"cannot store {url}: {file.name}: {error.strerror}") from error


@contextlib.contextmanager
def answer_of(
    url: str,
    proxy: str | None,
    no_proxy: Sequence[str],
    timeout_seconds: int,
    *,
    headers: Mapping[str, str] | None = None,
    credentials: str | None = None,
) -> Iterator[Any]:
    """Give the answer to a GET of url, an http.client.HTTPResponse, which is to be read to its end.

    credentials are USER:PASSWORD for the server, percent-encoded. Without a proxy the environment's proxy variables
    are used. Raises DownloadError, also for what fails while the answer is read, and for an answer that was cut.
    """
    way = proxy_for(url, proxy, no_proxy)
    through = f" through {without_password(way)}" if way else ""
    if way and _scheme(way) == _scheme(url) == "https":
        raise DownloadError(
            f"cannot get {url}{through}: Python cannot speak TLS through a proxy that is itself reached by TLS, "
            "as apt can"
        )
    proxies = None
    if proxy:
        proxies = {"http": proxy, "https": proxy} if way else {}
    redirects = _Redirects()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), redirects)
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - who calls checks the scheme
        if credentials:
            basic = base64.b64encode(urllib.parse.unquote(credentials).encode()).decode()
            redirects.authorization = f"Basic {basic}"
            request.add_unredirected_header("Authorization", redirects.authorization)
        with opener.open(request, timeout=timeout_seconds) as answer:
            yield answer
            missing = getattr(answer, "length", None)  # of the bytes that were announced
    except OSError as error:
        raise DownloadError(f"cannot get {url}{through}: {getattr(error, 'reason', error)}") from error
    except (ValueError, http.client.HTTPException) as error:
        # About an address that Python cannot read it quotes a part of it, maybe the password.
        reason = "unreadable answer, or address of the proxy" if way else error
        raise DownloadError(f"cannot get {url}{through}: {reason}") from error
    if missing:
        raise DownloadError(f"cannot get {url}{through}: the answer ended {missing} bytes too early")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes on to http:// and https:// only, and sends the server's password on to the same server only."""

    authorization: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if _scheme(newurl) not in ("http", "https"):  # urllib follows to ftp:// as well
            raise urllib.error.URLError(f"it redirects to {_scheme(newurl)}://; only http:// and https:// are followed")
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)
        if redirected and self.authorization and _origin(redirected.full_url) == _origin(req.full_url):
            redirected.add_unredirected_header("Authorization", self.authorization)
        else:
            self.authorization = None
        return redirected


def _origin(url: str) -> tuple[str, str]:
    return urllib.parse.urlsplit(url)[:2]


def proxy_for(url: str, proxy: str | None, no_proxy: Sequence[str]) -> str | None:
    """Return the proxy that a request for url goes through: the given one, or else that of the environment."""
    environment = urllib.request.getproxies()
    # Python heeds the environment's no_proxy wherever the proxy comes from.
    exempt = [*(no_proxy if proxy else []), environment.get("no", "")]
    return None if is_bypassed(url, exempt) else proxy or environment.get(_scheme(url))


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()

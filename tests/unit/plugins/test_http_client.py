"""Which way a download takes, and that no error tells a proxy's password."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import (
    MAX_BYTES,
    DownloadError,
    download,
    has_environment_proxy,
    is_bypassed,
    without_password,
)

pytestmark = pytest.mark.usefixtures("no_environment_proxy")
URL = "http://keys.example.com/key.gpg"


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Return why a download fails."""

    def refusal(url: str, proxy: str | None = None) -> str:
        with pytest.raises(DownloadError) as error:
            download(url, proxy, [], timeout_seconds=2)
        return str(error.value)

    return refusal


@pytest.mark.parametrize(
    ("entry", "bypassed"),
    [
        ("keys.example.com", True),
        ("KEYS.Example.com", True),
        (" keys.example.com ", True),
        ("example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("com", True),
        ("*", True),
        ("other.org,example.com", True),
        ("other.org", False),
        ("ample.com", False),
        ("s.example.com", False),
        ("my.keys.example.com", False),
        ("key?.example.com", False),
        ("", False),
        (".", False),
        (",", False),
    ],
)
@pytest.mark.parametrize("url", [URL, "https://KEYS.example.com:8443/key.gpg"])
def test_no_proxy_names_hosts_and_domains(url: str, entry: str, bypassed: bool) -> None:
    assert is_bypassed(url, ["unrelated.org", entry]) is bypassed


@pytest.mark.parametrize("entry", ["[2001:db8::1]", "2001:db8::1", "2001:DB8::1"])
def test_no_proxy_may_name_an_address(entry: str) -> None:
    assert is_bypassed("https://[2001:db8::1]:443/key.gpg", [entry])
    assert not is_bypassed("https://[2001:db8::2]/key.gpg", [entry])
    assert is_bypassed("http://192.0.2.7/", ["192.0.2.7"])
    assert not is_bypassed("http://192.0.2.70/", ["192.0.2.7"])


def test_nothing_is_bypassed_without_no_proxy() -> None:
    assert not is_bypassed(URL, [])


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://user:pass@proxy:3128", "proxy:3128"),
        ("http://user:p@ss@proxy:3128", "proxy:3128"),
        ("user:pass@proxy", "proxy"),
        ("http://user:pass@[2001:db8::1]:3128/", "[2001:db8::1]:3128/"),
        ("http://user:pass", "an unreadable address"),
        ("http://user:pass@proxy:port", "an unreadable address"),
    ],
)
def test_proxy_is_shown_without_its_password(proxy: str, shown: str) -> None:
    assert without_password(proxy) == shown


@pytest.mark.parametrize(
    ("name", "url", "decides"),
    [
        ("http_proxy", URL, True),
        ("HTTPS_PROXY", "https://keys.example.com/", True),
        ("https_proxy", URL, False),
        ("no_proxy", URL, False),
        ("all_proxy", URL, False),  # Python does not heed it
    ],
)
def test_environment_decides_about_a_scheme(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, decides: bool
) -> None:
    assert not has_environment_proxy(url)
    monkeypatch.setenv(name, "http://proxy.example.com:3128")
    assert has_environment_proxy(url) is decides


def test_download_without_a_proxy_is_direct(serving: StubServer) -> None:
    serving.answer("/key.gpg", b"key")
    assert download(f"{serving.url}/key.gpg", None, ["*"], 5) == b"key"


def test_given_proxy_comes_before_the_one_of_the_environment(
    proxy: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    proxy.answer(URL, b"key")
    assert download(URL, proxy.url, ["127.0.0.1"], 5) == b"key"
    assert proxy.requests == [("GET", URL)]


def test_proxy_of_the_environment_is_used_without_another(proxy: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    proxy.answer(URL, b"key")
    assert download(URL, None, ["keys.example.com"], 5) == b"key"


def test_proxy_learns_user_and_password(proxy: StubServer) -> None:
    proxy.answer(URL, b"key")
    download(URL, f"http://user:p%40ss%3A%25@127.0.0.1:{proxy.port}", [], 5)
    assert proxy.headers[0]["proxy-authorization"] == "Basic " + base64.b64encode(b"user:p@ss:%").decode()


@pytest.mark.parametrize("way", ["option", "environment", "option and environment"])
def test_no_proxy_goes_past_the_proxy(
    serving: StubServer, proxy: StubServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    serving.answer("/key.gpg", b"key")
    given = proxy.url if "option" in way else None
    if "environment" in way:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("http_proxy", proxy.url)
    assert download(f"{serving.url}/key.gpg", given, ["127.0.0.1"] if way == "option" else [], 5) == b"key"
    assert proxy.requests == []


def test_no_proxy_goes_past_the_proxy_of_the_environment_too(
    serving: StubServer, proxy: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    serving.answer("/key.gpg", b"key")
    assert download(f"{serving.url}/key.gpg", "http://127.0.0.1:1", ["127.0.0.1"], 5) == b"key"
    assert proxy.requests == []


@pytest.mark.parametrize("way", ["option", "environment"])
def test_tls_through_a_proxy_reached_by_tls_is_refused(
    refusal: Callable[..., str], proxy: StubServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    tls_proxy = f"https://user:s3cret@127.0.0.1:{proxy.port}"
    monkeypatch.setenv("https_proxy", tls_proxy if way == "environment" else "")
    message = refusal("https://keys.example.com/key.gpg", tls_proxy if way == "option" else None)
    assert message.startswith(
        f"cannot get https://keys.example.com/key.gpg through 127.0.0.1:{proxy.port}: Python cannot"
    )
    assert "s3cret" not in message
    assert proxy.requests == []


@pytest.mark.parametrize(
    "proxy_url",
    [
        "http://user:s3cret@127.0.0.1:{closed}",
        "http://user:s3cret@127.0.0.1:{refusing}",
        "http://user:s3cret@127.0.0.1:port",
        "http://user:s3cret@",
        "http://user:s3cret",
        "http:/user:s3cret@127.0.0.1:{refusing}",
        "http://user:s3cret/rest@127.0.0.1:{refusing}",
        "http://user:s3cret rest@127.0.0.1:{refusing}",
        "user:s3cret@127.0.0.1:{closed}",
        "ftp://user:s3cret@127.0.0.1:{closed}",
    ],
)
@pytest.mark.parametrize("url", [URL, "https://keys.example.com/key.gpg"])
@pytest.mark.parametrize("way", ["option", "environment"])
def test_password_of_a_proxy_is_in_no_error(
    refusal: Callable[..., str],
    proxy: StubServer,
    monkeypatch: pytest.MonkeyPatch,
    proxy_url: str,
    url: str,
    way: str,
) -> None:
    given = proxy_url.format(closed=unused_port(), refusing=proxy.port)
    if way == "environment":
        monkeypatch.setenv(f"{url.partition(':')[0]}_proxy", given)
    message = refusal(url, given if way == "option" else None)
    assert message.startswith(f"cannot get {url} through ")
    assert "s3cret" not in message


def test_failure_behind_the_environments_proxy_names_the_proxy_whatever_is_exempt_from_the_other(
    proxy: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    with pytest.raises(DownloadError, match=f"^cannot get {URL} through {proxy.url}: Not Found$"):
        download(URL, None, ["*"], timeout_seconds=2)


@pytest.mark.parametrize("url", ["no-url", "http://127.0.0.1:port/key.gpg", "http://[::1/key.gpg", ""])
def test_url_that_cannot_be_read_is_named(refusal: Callable[..., str], url: str) -> None:
    assert refusal(url).startswith(f"cannot get {url}: ")


def test_host_that_cannot_be_reached_is_named(refusal: Callable[..., str]) -> None:
    url = f"http://127.0.0.1:{unused_port()}/key.gpg"
    assert refusal(url) == f"cannot get {url}: [Errno 111] Connection refused"


def test_answer_that_is_no_http_is_told(refusal: Callable[..., str], serving: StubServer) -> None:
    serving.raw_answer = b"SSH-2.0-OpenSSH_9.2\r\n"
    assert refusal(f"{serving.url}/key.gpg").startswith(f"cannot get {serving.url}/key.gpg: ")


def test_answer_is_not_read_without_end(refusal: Callable[..., str], serving: StubServer) -> None:
    serving.answer("/largest", bytes(MAX_BYTES))
    serving.answer("/larger", bytes(MAX_BYTES + 1))
    assert download(f"{serving.url}/largest", None, [], 5) == bytes(MAX_BYTES)
    assert refusal(f"{serving.url}/larger") == f"{serving.url}/larger is larger than {MAX_BYTES} bytes"


def test_cut_answer_is_no_answer(refusal: Callable[..., str], serving: StubServer) -> None:
    serving.raw_answer = b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n1234"
    assert refusal(f"{serving.url}/key.gpg").endswith(": the answer ended 6 bytes too early")
    serving.raw_answer = b"HTTP/1.0 200 OK\r\n\r\n1234"
    assert download(f"{serving.url}/key.gpg", None, [], 5) == b"1234"

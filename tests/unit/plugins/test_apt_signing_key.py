"""The keyring holds the pinned key and nothing else, or it is left as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpgp_packets import SUBKEY, USER_ID, armour, fingerprint, old_packet, rsa_key
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.modules import apt_signing_key

BODY = rsa_key()
KEY = old_packet(6, BODY) + old_packet(USER_ID, b"Owner") + old_packet(SUBKEY, rsa_key(created=7))
PINNED = fingerprint(BODY)
OTHER_BODY = rsa_key(created=5)
OTHER = old_packet(6, OTHER_BODY)

Store = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="keyrings are root's")


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    return tmp_path / "keyrings" / "serving.gpg"


@pytest.fixture
def store(
    serving: StubServer, keyring: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Store:
    """Run the module for the key at /key.gpg of the stub server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    serving.answer("/key.gpg", armour(KEY))

    def run(**arguments: Any) -> dict[str, Any]:
        given = {"url": f"{serving.url}/key.gpg", "fingerprint": PINNED, "path": str(keyring), "timeout_seconds": 5}
        return run_module(apt_signing_key, **(given | arguments))

    return run


@pytest.mark.parametrize("published", [armour(KEY), KEY], ids=["armoured", "binary"])
def test_key_is_stored_in_binary_form(store: Store, serving: StubServer, keyring: Path, published: bytes) -> None:
    serving.answer("/key.gpg", published)
    result = store(fingerprint=" ".join(PINNED[index : index + 4] for index in range(0, 40, 4)).lower())
    assert (result["changed"], result["fingerprint"]) == (True, PINNED)
    assert (result["diff"]["before"], result["diff"]["after"]) == ("", f"{PINNED}\n")
    assert keyring.read_bytes() == KEY


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("there_before", [False, True])
def test_apt_can_read_the_keyring_whatever_the_umask(
    store: Store, keyring: Path, umask: int, there_before: bool
) -> None:
    if there_before:
        keyring.parent.mkdir()
        keyring.write_bytes(OTHER)
        keyring.chmod(0o600)
    mask = os.umask(umask)
    try:
        store()
    finally:
        os.umask(mask)
    assert keyring.stat().st_mode & 0o777 == 0o644
    assert there_before or keyring.parent.stat().st_mode & 0o777 == 0o755


def test_keyring_that_apt_cannot_read_is_made_readable_without_a_request(
    store: Store, serving: StubServer, keyring: Path
) -> None:
    store()
    keyring.chmod(0o600)
    serving.requests.clear()
    assert store(check=True)["changed"]
    assert keyring.stat().st_mode & 0o777 == 0o600
    assert store()["changed"]
    assert keyring.stat().st_mode & 0o777 == 0o644
    assert not store()["changed"]
    assert serving.requests == []


def test_no_request_is_made_when_the_pinned_key_is_there(store: Store, serving: StubServer) -> None:
    store()
    serving.requests.clear()
    result = store()
    assert (result["changed"], result["fingerprint"]) == (False, PINNED)
    assert result["diff"]["before"] == result["diff"]["after"]
    assert serving.requests == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(OTHER, id="another key"),
        pytest.param(KEY + OTHER, id="the key and another"),
        pytest.param(KEY[:-1], id="cut key"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"", id="nothing"),
        pytest.param(armour(KEY), id="the key in armour, which apt ignores under this name"),
    ],
)
def test_keyring_with_anything_else_is_replaced(store: Store, keyring: Path, content: bytes) -> None:
    keyring.parent.mkdir()
    keyring.write_bytes(content)
    assert store()["changed"]
    assert keyring.read_bytes() == KEY


@pytest.mark.parametrize("there_before", [False, True])
def test_check_mode_downloads_and_writes_nothing(
    store: Store, serving: StubServer, keyring: Path, there_before: bool
) -> None:
    if there_before:
        keyring.parent.mkdir()
        keyring.write_bytes(OTHER)
    result = store(check=True)
    assert result["changed"]
    assert result["diff"]["before"] == (f"{fingerprint(OTHER_BODY)}\n" if there_before else "")
    assert serving.requests == [("GET", "/key.gpg")]
    assert keyring.exists() is there_before
    assert not there_before or keyring.read_bytes() == OTHER


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("published", "complaint"),
    [
        pytest.param(OTHER, f"has fingerprint {fingerprint(OTHER_BODY)}, pinned is {PINNED}", id="another key"),
        pytest.param(KEY + OTHER, f"{PINNED}, {fingerprint(OTHER_BODY)}, pinned is {PINNED}", id="a key too many"),
        pytest.param(KEY + KEY, f"{PINNED}, {PINNED}, pinned is {PINNED}", id="the key twice"),
        pytest.param(b"<html>Log in to the network</html>", "neither a binary nor", id="HTML page"),
        pytest.param(KEY[:-1], "is cut short", id="cut key"),
        pytest.param(b"", "neither a binary nor", id="nothing"),
        pytest.param(b"\x99" + bytes(apt_signing_key.MAX_KEY_BYTES), "larger than 1048576 bytes", id="too large"),
    ],
)
def test_download_that_is_not_the_pinned_key_is_refused(
    store: Store, serving: StubServer, keyring: Path, published: bytes, complaint: str, check: bool
) -> None:
    serving.answer("/key.gpg", published)
    keyring.parent.mkdir()
    keyring.write_bytes(b"as before")
    result = store(check=check)
    assert result["failed"]
    assert complaint in result["msg"]
    assert keyring.read_bytes() == b"as before"
    assert list(keyring.parent.iterdir()) == [keyring]


def test_refused_key_leaves_no_keyring(store: Store, serving: StubServer, keyring: Path) -> None:
    serving.answer("/key.gpg", OTHER)
    assert store()["failed"]
    assert not keyring.exists()


def test_fingerprint_that_is_none_is_refused_before_any_request(store: Store, serving: StubServer) -> None:
    result = store(fingerprint=PINNED[-16:])
    assert result["failed"]
    assert result["msg"].startswith("fingerprint: ")
    assert "short key ids are not accepted" in result["msg"]
    assert serving.requests == []


@pytest.mark.parametrize(
    "url", ["no-url", "http://127.0.0.1:port/key.gpg", f"http://127.0.0.1:{unused_port()}/key.gpg"]
)
def test_url_that_cannot_be_fetched_is_named(store: Store, url: str) -> None:
    result = store(url=url)
    assert result["failed"]
    assert result["msg"].startswith(f"cannot get the signing key from {url}: ")


def test_missing_key_is_told_with_the_answer_of_the_server(store: Store, serving: StubServer) -> None:
    result = store(url=f"{serving.url}/gone.gpg")
    assert result["msg"] == f"cannot get the signing key from {serving.url}/gone.gpg: Not Found"


def test_answer_that_is_no_http_is_told(store: Store, serving: StubServer) -> None:
    serving.raw_answer = b"SSH-2.0-OpenSSH_9.2\r\n"
    result = store()
    assert result["failed"]
    assert result["msg"].startswith(f"cannot get the signing key from {serving.url}/key.gpg: ")


# Proxies


def test_download_goes_through_the_proxy(store: Store, serving: StubServer, proxy: StubServer, keyring: Path) -> None:
    proxy.answer("http://keys.example.com/key.gpg", KEY)
    assert store(url="http://keys.example.com/key.gpg", proxy=proxy.url)["changed"]
    assert proxy.requests == [("GET", "http://keys.example.com/key.gpg")]
    assert serving.requests == []
    assert keyring.read_bytes() == KEY


def test_proxy_of_the_environment_is_used_without_another(
    store: Store, proxy: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    proxy.answer("http://keys.example.com/key.gpg", KEY)
    assert store(url="http://keys.example.com/key.gpg")["changed"]


def test_given_proxy_comes_before_the_one_of_the_environment(
    store: Store, proxy: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    proxy.answer("http://keys.example.com/key.gpg", KEY)
    assert store(url="http://keys.example.com/key.gpg", proxy=proxy.url)["changed"]


@pytest.mark.parametrize("host", ["127.0.0.1:{closed}", "127.0.0.1:{refusing}", "127.0.0.1:port"])
@pytest.mark.parametrize("password", ["s3cret-word", "s3cret@word", "s3cret%40word"])
def test_password_of_the_proxy_is_shown_nowhere(store: Store, proxy: StubServer, host: str, password: str) -> None:
    address = host.format(closed=unused_port(), refusing=proxy.port)
    result = store(url="http://keys.example.com/key.gpg", proxy=f"http://user:{password}@{address}")
    assert result["failed"]
    assert f" through {address}: " in result["msg"]
    assert "s3cret" not in str(result)


def test_password_of_the_proxy_is_not_shown_on_success_either(store: Store, proxy: StubServer) -> None:
    proxy.answer("http://keys.example.com/key.gpg", KEY)
    proxy_url = f"http://user:s3cret-word@127.0.0.1:{proxy.port}"
    result = store(url="http://keys.example.com/key.gpg", proxy=proxy_url)
    assert result["changed"]
    assert "s3cret" not in str(result)

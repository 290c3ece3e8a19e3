"""The module on the host: the keyring holds the pinned key and nothing else, or it is left as it was."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from openpgp_packets import USER_ID, armour, old_packet
from signing_key_files import BODY, OTHER, OTHER_FINGERPRINT, PINNED, signing_key
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.signing_key import is_up_to_date
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import MAX_BYTES
from ansible_collections.modelops.tensorflow_serving.plugins.modules import apt_signing_key

KEY = signing_key()
RENEWED = signing_key(800, signed_days_ago=1)

Store = Callable[..., dict[str, Any]]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="keyrings are root's"),
    pytest.mark.usefixtures("no_environment_proxy"),
]


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    return tmp_path / "keyrings" / "serving.gpg"


@pytest.fixture
def put(keyring: Path) -> Callable[[bytes], None]:
    """Put a file in the keyring's place, as an earlier run or an administrator did."""

    def put(content: bytes, mode: int = 0o644) -> None:
        keyring.parent.mkdir(exist_ok=True)
        keyring.write_bytes(content)
        keyring.chmod(mode)

    return put


@pytest.fixture
def store(serving: StubServer, keyring: Path, run_module: Callable[..., dict[str, Any]]) -> Store:
    """Run the module for the key at /key.gpg of the stub server, or for the content that is given."""
    serving.answer("/key.gpg", armour(KEY))

    def run(**arguments: Any) -> dict[str, Any]:
        given = {"url": f"{serving.url}/key.gpg", "fingerprint": PINNED, "path": str(keyring), "timeout_seconds": 5}
        return run_module(apt_signing_key, **(given | arguments))

    return run


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the look that precedes the module finds the key up to date, the module has nothing to do."""
    ensure = apt_signing_key.store

    def look_and_store(module: Any) -> dict[str, Any]:
        up_to_date = is_up_to_date(module.params, datetime.now(timezone.utc))
        result = ensure(module)
        has_found_nothing = not result["changed"] and not result["due"] and result["published"] in (None, result["key"])
        assert up_to_date == has_found_nothing
        return result

    monkeypatch.setattr(apt_signing_key, "store", look_and_store)


# What is written


@pytest.mark.parametrize("form", [armour(KEY), KEY], ids=["armoured", "binary"])
def test_key_is_stored_in_binary_form(store: Store, serving: StubServer, keyring: Path, form: bytes) -> None:
    serving.answer("/key.gpg", form)
    result = store(fingerprint=" ".join(PINNED[index : index + 4] for index in range(0, 40, 4)).lower())
    assert (result["changed"], result["usable"]) == (True, True)
    assert result["key"] == result["published"]
    assert (result["key"]["fingerprint"], result["key"]["days_left"]) == (PINNED, 400)
    assert result["diff"]["before"] == ""
    assert result["diff"]["after"] == f"{PINNED} expires {result['key']['expires']}\n"
    assert keyring.read_bytes() == KEY


@pytest.mark.parametrize(
    "content",
    [
        armour(KEY).decode(),
        base64.b64encode(KEY).decode(),
        base64.encodebytes(KEY).decode(),
        base64.b64encode(armour(KEY)).decode(),
    ],
    ids=["armoured", "base64", "base64 in lines", "base64 of the armour"],
)
def test_key_that_is_given_makes_no_request(store: Store, serving: StubServer, keyring: Path, content: str) -> None:
    assert store(content=content)["changed"]
    assert keyring.read_bytes() == KEY
    assert not store(content=content)["changed"]
    assert serving.requests == []


def test_key_that_never_ends_is_stored_once(store: Store, serving: StubServer) -> None:
    serving.answer("/key.gpg", signing_key(None))
    assert store()["diff"]["after"] == f"{PINNED} never expires\n"
    assert not store()["changed"]
    assert len(serving.requests) == 1


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("there_before", [False, True])
def test_apt_can_read_the_keyring_whatever_the_umask(
    store: Store, keyring: Path, put: Callable[..., None], umask: int, there_before: bool
) -> None:
    path = keyring
    if there_before:
        put(OTHER, mode=0o600)
    else:
        path = keyring.parent / "of" / "its" / "own" / keyring.name
    mask = os.umask(umask)
    try:
        store(path=str(path))
    finally:
        os.umask(mask)
    facts = path.stat()
    assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o644, 0, 0)
    made = [] if there_before else [keyring.parent, *path.parents[:3]]
    assert [directory.stat().st_mode & 0o7777 for directory in made] == [0o755] * len(made)


def test_keyring_that_apt_cannot_read_is_made_readable_without_a_request(
    store: Store, serving: StubServer, keyring: Path, put: Callable[..., None]
) -> None:
    put(KEY, mode=0o600)
    os.chown(keyring, 1, 1)
    assert store(check=True)["changed"]
    assert keyring.stat().st_mode & 0o777 == 0o600
    assert store()["changed"]
    assert (keyring.stat().st_mode & 0o777, keyring.stat().st_uid, keyring.stat().st_gid) == (0o644, 0, 0)
    assert not store()["changed"]
    assert serving.requests == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(OTHER, id="another key"),
        pytest.param(KEY + OTHER, id="the key and another"),
        pytest.param(KEY + KEY, id="the key twice"),
        pytest.param(KEY[:-1], id="cut key"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"", id="nothing"),
        pytest.param(armour(KEY), id="the key in armour, which apt ignores under this name"),
    ],
)
def test_keyring_with_anything_else_is_replaced(
    store: Store, keyring: Path, put: Callable[..., None], content: bytes
) -> None:
    put(content)
    result = store()
    assert (result["changed"], result["diff"]["before"]) == (True, "")
    assert keyring.read_bytes() == KEY


@pytest.mark.parametrize("there_before", [False, True])
def test_check_mode_downloads_and_writes_nothing(
    store: Store, serving: StubServer, keyring: Path, put: Callable[..., None], there_before: bool
) -> None:
    if there_before:
        put(OTHER, mode=0o600)
    result = store(check=True)
    assert (result["changed"], result["usable"], result["key"]["fingerprint"]) == (True, True, PINNED)
    assert serving.requests == [("GET", "/key.gpg")]
    assert keyring.parent.exists() is there_before
    assert not there_before or (keyring.read_bytes(), keyring.stat().st_mode & 0o777) == (OTHER, 0o600)


# Renewal


@pytest.mark.parametrize(("days_left", "renew_before_days"), [(31, 30), (30, 30), (0, 0), (0, -5), (None, 30)])
def test_copy_that_is_good_for_longer_makes_no_request(
    store: Store, serving: StubServer, put: Callable[..., None], days_left: int | None, renew_before_days: int
) -> None:
    put(signing_key(days_left))
    result = store(renew_before_days=renew_before_days)
    assert (result["changed"], result["usable"], result["published"], result["due"]) == (False, True, None, False)
    assert result["diff"]["before"] == result["diff"]["after"] != ""
    assert serving.requests == []


@pytest.mark.parametrize(("days_left", "renew_before_days"), [(29, 30), (90, 100), (-1, 0), (-1, -5), (-400, 30)])
def test_copy_that_is_due_is_replaced_by_a_renewed_one(
    store: Store,
    serving: StubServer,
    keyring: Path,
    put: Callable[..., None],
    days_left: int,
    renew_before_days: int,
) -> None:
    put(signing_key(days_left))
    serving.answer("/key.gpg", RENEWED)
    result = store(renew_before_days=renew_before_days)
    assert (result["changed"], result["usable"], result["key"]["days_left"]) == (True, True, 800)
    assert result["diff"]["before"] != result["diff"]["after"]
    assert keyring.read_bytes() == RENEWED


@pytest.mark.parametrize(
    "published",
    [
        pytest.param(signing_key(20), id="the same"),
        pytest.param(signing_key(20, signed_days_ago=11), id="signed before"),
        pytest.param(signing_key(19, signed_days_ago=1), id="ends sooner"),
        pytest.param(signing_key(-1, signed_days_ago=1), id="expired"),
        pytest.param(signing_key(800, revoked=True), id="revoked"),
    ],
)
@pytest.mark.parametrize("way", ["downloaded", "given"])
def test_key_that_is_no_better_replaces_nothing(
    store: Store, serving: StubServer, keyring: Path, put: Callable[..., None], published: bytes, way: str
) -> None:
    put(signing_key(20))
    serving.answer("/key.gpg", published)
    result = store(**({"content": armour(published).decode()} if way == "given" else {}))
    assert (result["changed"], result["usable"], result["key"]["days_left"]) == (False, True, 20)
    assert result["published"]["fingerprint"] == PINNED
    assert keyring.read_bytes() == signing_key(20)


@pytest.mark.parametrize(
    ("copy", "given"),
    [
        pytest.param(signing_key(20), signing_key(20, signed_days_ago=1), id="newer statements, the same end"),
        pytest.param(signing_key(800, revoked=True), signing_key(20), id="copy is revoked"),
        pytest.param(signing_key(400), signing_key(None), id="never ends"),
        pytest.param(signing_key(400), signing_key(401), id="ends later, though the copy is not due"),
    ],
)
def test_better_key_that_is_given_replaces_the_copy(
    store: Store, keyring: Path, put: Callable[..., None], copy: bytes, given: bytes
) -> None:
    put(copy)
    assert store(content=armour(given).decode())["changed"]
    assert keyring.read_bytes() == given


@pytest.mark.parametrize("published", [signing_key(-3), signing_key(400, revoked=True)], ids=["expired", "revoked"])
def test_key_that_is_over_is_never_written(
    store: Store, serving: StubServer, keyring: Path, put: Callable[..., None], published: bytes
) -> None:
    serving.answer("/key.gpg", published)
    result = store()
    assert (result["changed"], result["usable"], result["key"]) == (False, False, None)
    assert (result["published"]["expired"], result["published"]["revoked"]) != (False, False)
    assert not keyring.parent.exists()
    put(OTHER, mode=0o600)
    assert not store()["changed"]
    assert (keyring.read_bytes(), keyring.stat().st_mode & 0o777) == (OTHER, 0o600)


# What is refused


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("before", [b"as before", signing_key(5), signing_key(-5)], ids=["no key", "good", "expired"])
@pytest.mark.parametrize(
    ("published", "complaint"),
    [
        pytest.param(OTHER, f"has fingerprint {OTHER_FINGERPRINT}, pinned is {PINNED}", id="another key"),
        pytest.param(KEY + OTHER, f"{PINNED}, {OTHER_FINGERPRINT}, pinned is {PINNED}", id="a key too many"),
        pytest.param(KEY + KEY, f"{PINNED}, {PINNED}, pinned is {PINNED}", id="the key twice"),
        pytest.param(old_packet(USER_ID, b"Owner"), "no OpenPGP public key in it", id="no key"),
        pytest.param(b"<html>Log in to the network</html>", "neither a binary nor", id="HTML page"),
        pytest.param(KEY[:-1], "is cut short", id="cut key"),
        pytest.param(armour(KEY)[:-40], "neither a binary nor", id="cut armour"),
        pytest.param(b"", "neither a binary nor", id="nothing"),
        pytest.param(b"\x99" + bytes(MAX_BYTES), "larger than 1048576 bytes", id="too large"),
    ],
)
def test_download_that_is_not_the_pinned_key_is_refused(
    store: Store,
    serving: StubServer,
    keyring: Path,
    put: Callable[..., None],
    before: bytes,
    published: bytes,
    complaint: str,
    check: bool,
) -> None:
    serving.answer("/key.gpg", published)
    put(before)
    result = store(check=check)
    assert result["failed"]
    assert complaint in result["msg"]
    assert f"{serving.url}/key.gpg" in result["msg"]
    assert result["reason"] == ("unreachable" if "larger" in complaint else "refused")
    assert list(keyring.parent.iterdir()) == [keyring]
    assert keyring.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(armour(OTHER).decode(), f"the key that was given has fingerprint {OTHER_FINGERPRINT}", id="other"),
        pytest.param("no key", "neither an ASCII-armoured OpenPGP public key nor base64", id="no base64"),
        pytest.param("näh", "neither an ASCII-armoured OpenPGP public key nor base64", id="no ASCII"),
        pytest.param("AAAA", "the key that was given is no signing key: neither a binary", id="base64 of zeros"),
        pytest.param("", "the key that was given is no signing key: neither a binary", id="empty"),
        pytest.param("-----BEGIN PGP PUBLIC KEY BLOCK-----", "neither a binary nor", id="head only"),
    ],
)
def test_content_that_is_not_the_pinned_key_is_refused(
    store: Store, keyring: Path, content: str, complaint: str
) -> None:
    result = store(content=content, url=None)
    assert (result["failed"], result["reason"]) == (True, "refused")
    assert complaint in result["msg"]
    assert not keyring.parent.exists()


def test_key_that_the_controller_downloaded_is_named_by_its_url(store: Store, serving: StubServer) -> None:
    result = store(content=armour(OTHER).decode())
    assert result["msg"].startswith(f"the key at {serving.url}/key.gpg has fingerprint {OTHER_FINGERPRINT}")


def test_key_without_its_signatures_is_not_taken_for_one_without_an_end(
    store: Store, serving: StubServer, keyring: Path
) -> None:
    head = old_packet(6, BODY) + old_packet(USER_ID, b"Owner")
    assert KEY.startswith(head)
    serving.raw_answer = f"HTTP/1.0 200 OK\r\nContent-Length: {len(KEY)}\r\n\r\n".encode() + head
    result = store()
    assert result["failed"]
    assert f"the answer ended {len(KEY) - len(head)} bytes too early" in result["msg"]
    assert not keyring.exists()


def test_fingerprint_that_is_none_is_refused_before_any_request(store: Store, serving: StubServer) -> None:
    result = store(fingerprint=PINNED[-16:])
    assert (result["failed"], result["reason"]) == (True, "refused")
    assert result["msg"].startswith("fingerprint: ")
    assert "short key ids are not accepted" in result["msg"]
    assert serving.requests == []


def test_missing_key_is_told_with_the_answer_of_the_server(store: Store, serving: StubServer) -> None:
    result = store(url=f"{serving.url}/gone.gpg")
    assert result["msg"] == f"cannot get {serving.url}/gone.gpg: Not Found"
    assert result["reason"] == "unreachable"


# Proxies, of which test_proxies.py tells more


def test_download_goes_through_the_proxy(store: Store, proxy: StubServer, keyring: Path) -> None:
    proxy.answer("http://keys.example.com/key.gpg", KEY)
    result = store(url="http://keys.example.com/key.gpg", proxy=f"http://user:s3cret-word@127.0.0.1:{proxy.port}")
    assert result["changed"]
    assert keyring.read_bytes() == KEY
    assert "s3cret" not in str(result)


@pytest.mark.parametrize("host", ["127.0.0.1:{closed}", "127.0.0.1:{refusing}"])
@pytest.mark.parametrize("password", ["s3cret-word", "s3cret@word", "s3cret%40word"])
def test_password_of_the_proxy_is_shown_nowhere(store: Store, proxy: StubServer, host: str, password: str) -> None:
    address = host.format(closed=unused_port(), refusing=proxy.port)
    result = store(url="http://keys.example.com/key.gpg", proxy=f"http://user:{password}@{address}")
    assert result["failed"]
    assert f" through {address}: " in result["msg"]
    assert "s3cret" not in str(result)

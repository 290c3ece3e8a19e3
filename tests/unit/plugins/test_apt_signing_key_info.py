"""What is told of the keys in a file, and that a file that holds none is not taken for one."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpgp_packets import (
    CERTIFICATION,
    LIFETIME,
    USER_ID,
    armour,
    fingerprint,
    old_packet,
    rsa_key,
    seconds,
    signature,
)

from ansible_collections.modelops.tensorflow_serving.plugins.modules import apt_signing_key_info

DAY_SECONDS = 86_400
MADE = int(time.time()) - 1000 * DAY_SECONDS
BODY = rsa_key(created=MADE)

Info = Callable[..., dict[str, Any]]


@pytest.fixture
def info(run_module: Callable[..., dict[str, Any]]) -> Info:
    def run(**arguments: Any) -> dict[str, Any]:
        return run_module(apt_signing_key_info, **arguments)

    return run


def key_with(days_left: float | None) -> bytes:
    """A key that ends in so many days from now, or has ended before; an hour is for the test's own time."""
    slack = -3600 if days_left and days_left < 0 else 3600
    lifetime = [] if days_left is None else [seconds(LIFETIME, int((1000 + days_left) * DAY_SECONDS) + slack)]
    return old_packet(6, BODY) + old_packet(USER_ID, b"Owner") + signature(BODY, CERTIFICATION, MADE, *lifetime)


@pytest.mark.parametrize(
    ("days_left", "renew_before_days", "expired", "due"),
    [
        (31, 30, False, False),
        (30, 30, False, False),
        (29, 30, False, True),
        (29, 0, False, False),
        (0, 0, False, False),
        (-1, 0, True, True),
        (-1, -10, True, True),
        (-300, 30, True, True),
        (None, 30, False, False),
    ],
)
def test_renewal_is_due_before_the_end(
    info: Info, tmp_path: Path, days_left: int | None, renew_before_days: int, expired: bool, due: bool
) -> None:
    keyring = tmp_path / "serving.gpg"
    keyring.write_bytes(key_with(days_left))
    result = info(path=str(keyring), renew_before_days=renew_before_days)
    assert (result["changed"], result["exists"]) == (False, True)
    (key,) = result["keys"]
    assert (key["days_left"], key["expired"], key["renewal_due"]) == (days_left, expired, due)
    assert (key["fingerprint"], key["user_id"], key["revoked"]) == (fingerprint(BODY), "Owner", False)
    assert (key["expires"] is None) is (days_left is None)


def test_thirty_days_are_the_default(info: Info, tmp_path: Path) -> None:
    keyring = tmp_path / "serving.gpg"
    for days_left, due in [(29, True), (30, False)]:
        keyring.write_bytes(key_with(days_left))
        assert info(path=str(keyring))["keys"][0]["renewal_due"] is due


@pytest.mark.parametrize("stored", [key_with(5), armour(key_with(5))], ids=["binary", "armoured"])
def test_both_forms_are_read_from_a_file(info: Info, tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "key").write_bytes(stored)
    assert [key["days_left"] for key in info(path=str(tmp_path / "key"))["keys"]] == [5]
    assert (tmp_path / "key").read_bytes() == stored


@pytest.mark.parametrize(
    "content",
    [
        armour(key_with(5)).decode(),
        armour(key_with(5)).decode().strip(),
        base64.b64encode(key_with(5)).decode(),
        base64.encodebytes(key_with(5)).decode(),
        base64.b64encode(armour(key_with(5))).decode(),
    ],
    ids=["armoured", "armoured, stripped", "base64", "base64 in lines", "base64 of the armour"],
)
def test_key_itself_can_be_given(info: Info, content: str) -> None:
    result = info(content=content)
    assert (result["exists"], result["changed"]) == (True, False)
    assert [key["fingerprint"] for key in result["keys"]] == [fingerprint(BODY)]


def test_all_keys_of_a_keyring_are_told(info: Info, tmp_path: Path) -> None:
    other = rsa_key(created=7)
    (tmp_path / "keys.gpg").write_bytes(key_with(5) + old_packet(6, other))
    found = info(path=str(tmp_path / "keys.gpg"))["keys"]
    assert [(key["fingerprint"], key["days_left"]) for key in found] == [
        (fingerprint(BODY), 5),
        (fingerprint(other), None),
    ]


@pytest.mark.parametrize("name", ["missing.gpg", "missing/serving.gpg"])
def test_missing_file_is_told(info: Info, tmp_path: Path, name: str) -> None:
    result = info(path=str(tmp_path / name))
    assert (result["exists"], result["keys"], result["changed"]) == (False, [], False)


@pytest.mark.parametrize("stored", [b"", b"<html>404</html>", key_with(5)[:-1], old_packet(USER_ID, b"Owner")])
def test_file_without_a_key_is_an_error(info: Info, tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "serving.gpg").write_bytes(stored)
    result = info(path=str(tmp_path / "serving.gpg"))
    assert result["failed"]
    assert result["msg"].startswith(f"{tmp_path}/serving.gpg holds no key that can be read: ")


@pytest.mark.parametrize("content", ["", "no key", "näh", "AAAA", "-----BEGIN PGP PUBLIC KEY BLOCK-----"])
def test_content_that_is_no_key_is_an_error(info: Info, content: str) -> None:
    result = info(content=content)
    assert result["failed"]
    assert result["msg"].startswith("content holds no key that can be read: neither")


def test_directory_is_an_error(info: Info, tmp_path: Path) -> None:
    assert info(path=str(tmp_path))["msg"] == f"cannot read {tmp_path}: Is a directory"


def test_one_of_path_and_content_is_asked_for(info: Info) -> None:
    assert "one of the following is required: path, content" in info()["msg"]
    assert "mutually exclusive: path|content" in info(path="/key", content="key")["msg"]

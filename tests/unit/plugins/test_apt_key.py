"""When a copy of a signing key is due for renewal, and which of two copies is the better one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from openpgp_packets import armour
from signing_key_files import OTHER, PINNED, signing_key

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    SigningKey,
    signing_keys,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.signing_key import (
    better,
    is_due,
    is_usable,
    key_material,
    read_keyring,
    single_key,
)

NOW = datetime(2026, 8, 1, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


def key(days_left: float | None, *, signed_days_ago: int | None = 10, revoked: bool = False) -> SigningKey:
    return SigningKey(
        fingerprint=PINNED,
        user_id="Owner",
        created=NOW - timedelta(days=1000),
        expires=None if days_left is None else NOW + timedelta(days=days_left),
        revoked=revoked,
        last_signed=None if signed_days_ago is None else NOW - timedelta(days=signed_days_ago),
        packets=b"",
    )


@pytest.mark.parametrize(
    ("copy", "usable"),
    [
        (None, False),
        (key(1), True),
        (key(None), True),
        (key(0), False),
        (key(-1), False),
        (key(400, revoked=True), False),
        (key(None, revoked=True), False),
    ],
)
def test_usable_key_has_neither_expired_nor_been_revoked(copy: SigningKey | None, usable: bool) -> None:
    assert is_usable(copy, NOW) is usable


def test_key_is_usable_until_the_very_second() -> None:
    end = key(0).expires
    assert end is not None
    assert is_usable(key(0), end - SECOND)
    assert not is_usable(key(0), end)


@pytest.mark.parametrize(
    ("copy", "days", "due"),
    [
        (None, 30, True),
        (key(31), 30, False),
        (key(30), 30, True),
        (key(1), 30, True),
        (key(1), 0, False),
        (key(0), 0, True),
        (key(-1), 30, True),
        (key(-1), 0, True),
        (key(-1), -10, True),
        (key(1), -10, False),
        (key(None), 100_000, False),
        (key(400, revoked=True), 30, True),
    ],
)
def test_copy_is_due_before_its_end_and_whenever_it_is_not_usable(
    copy: SigningKey | None, days: int, due: bool
) -> None:
    assert is_due(copy, days, NOW) is due
    assert is_due(copy, days, NOW) or is_usable(copy, NOW)


@pytest.mark.parametrize(
    ("other", "copy", "is_better"),
    [
        (key(1), None, True),
        (key(2), key(1), True),
        (key(1), key(2), False),
        (key(1), key(1), False),
        (key(None), key(400), True),
        (key(400), key(None), False),
        (key(None), key(None), False),
        (key(1, signed_days_ago=1), key(1), True),
        (key(1, signed_days_ago=11), key(1), False),
        (key(2, signed_days_ago=11), key(1), True),
        (key(1, signed_days_ago=1), key(2), False),
        (key(1), key(1, signed_days_ago=None), True),
        (key(1, signed_days_ago=None), key(1), False),
        (key(1), key(400, revoked=True), True),
    ],
)
def test_better_key_lasts_longer_or_says_newer_things(
    other: SigningKey, copy: SigningKey | None, is_better: bool
) -> None:
    assert better(other, copy) is is_better


def test_key_is_its_own_part_of_the_file() -> None:
    (one,) = signing_keys(armour(signing_key()))
    assert single_key(armour(signing_key()), PINNED, "it") == one
    assert one.packets == signing_key()


@pytest.mark.parametrize(("stored", "found"), [(signing_key(), True), (armour(signing_key()), False), (OTHER, False)])
def test_keyring_counts_when_apt_finds_the_pinned_key_in_it(tmp_path: Path, stored: bytes, found: bool) -> None:
    (tmp_path / "keyring.gpg").write_bytes(stored)
    assert (read_keyring(tmp_path / "keyring.gpg", PINNED) is not None) is found


def test_what_is_no_file_holds_no_key(tmp_path: Path) -> None:
    assert read_keyring(tmp_path, PINNED) is None
    assert read_keyring(tmp_path / "missing", PINNED) is None


def test_text_that_is_no_key_is_not_quoted() -> None:
    with pytest.raises(OpenPGPError, match="neither an ASCII-armoured OpenPGP public key nor base64") as error:
        key_material("not a key!")
    assert "not a key!" not in str(error.value)

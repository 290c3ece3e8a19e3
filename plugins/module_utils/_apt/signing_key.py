# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of two copies of a signing key is the better one, and when a copy is due for renewal."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    SigningKey,
    dearmor,
    signing_keys,
)

NEVER = datetime.max.replace(tzinfo=timezone.utc)


def key_material(text: str) -> bytes:
    """Return the bytes of a key that is written as ASCII armour or as base64 of its binary form.

    Raises OpenPGPError for base64 that is none; what is in it is not looked at.
    """
    if "-----BEGIN" in text:
        return text.encode()
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise OpenPGPError("neither an ASCII-armoured OpenPGP public key nor base64 of a binary one") from error


def single_key(data: bytes, pinned: str, what: str) -> SigningKey:
    """Return the one key in data. Raises OpenPGPError when it is another than the pinned, none or one of several."""
    try:
        keys = signing_keys(data)
    except OpenPGPError as error:
        raise OpenPGPError(f"{what} is no signing key: {error}") from error
    found = [key.fingerprint for key in keys]
    if found != [pinned]:
        raise OpenPGPError(
            f"{what} has fingerprint {', '.join(found)}, pinned is {pinned}. Nothing was changed. "
            "If the key was replaced, get the new fingerprint from its owner by another way and pin that"
        )
    return keys[0]


def read_keyring(path: Path, pinned: str) -> SigningKey | None:
    """Return the key of a keyring that holds the pinned key and nothing else, in the binary form that apt reads."""
    try:
        data = path.read_bytes()
        return single_key(data, pinned, str(path)) if dearmor(data) == data else None
    except (OSError, OpenPGPError):
        return None


def is_usable(key: SigningKey | None, now: datetime) -> bool:
    """Say whether apt accepts signatures by the key."""
    return key is not None and not key.revoked and now < (key.expires or NEVER)


def is_due(key: SigningKey | None, days: int, now: datetime) -> bool:
    """Say whether it is time to look for a renewed key: it is missing, not usable, or expires within so many days."""
    return key is None or key.revoked or (key.expires or NEVER) - now <= timedelta(days=max(days, 0))


def better(key: SigningKey, copy: SigningKey | None) -> bool:
    """Say whether a key of the same fingerprint should replace the copy: it lasts longer, or else says newer things."""
    if copy is None or copy.revoked:
        return True
    return _rank(key) > _rank(copy)


def _rank(key: SigningKey) -> tuple[datetime, datetime]:
    return key.expires or NEVER, key.last_signed or key.created

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One signing key in a keyring of its own: which of two copies is the better one, and when one is due for renewal."""

from __future__ import annotations

import base64
import binascii
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    SigningKey,
    dearmor,
    normalise_fingerprint,
    signing_keys,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import replace_file
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import (
    DownloadError,
    download,
)

NEVER = datetime.max.replace(tzinfo=timezone.utc)
KEYRING_MODE = 0o644


class KeyNotStored(Exception):
    """The key cannot be had, is not the pinned one or cannot be written; results are what the module returns beside."""

    def __init__(self, message: object, **results: Any) -> None:
        super().__init__(str(message))
        self.results = results


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
            "If the owner has replaced the key, verify the new fingerprint over another channel, then pin it"
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


def write_keyring(path: Path, key: SigningKey) -> None:
    """Write the key as a keyring of its own that everybody may read. Raises OSError."""
    for directory in reversed(path.parents):
        if not directory.is_dir():
            directory.mkdir()
            directory.chmod(0o755)
    replace_file(path, key.packets, KEYRING_MODE)


def diff_line(key: SigningKey | None, now: datetime) -> str:
    if not key:
        return ""
    facts = key.facts(now)
    return f"{facts['fingerprint']} {'expires ' + facts['expires'] if facts['expires'] else 'never expires'}\n"


def published_key(given: dict[str, Any], pinned: str, is_needed: bool) -> SigningKey | None:
    """Return the key that is given, or that is downloaded where it is needed. Raises OpenPGPError and DownloadError."""
    # With both, the content is what the controller downloaded.
    what = f"the key at {given['url']}" if given["url"] else "the key that was given"
    if given["content"] is not None:
        return single_key(key_material(given["content"]), pinned, what)
    if given["url"] and is_needed:
        data = download(given["url"], given["proxy"], given["no_proxy"], given["timeout_seconds"])
        return single_key(data, pinned, what)
    return None


def is_up_to_date(given: dict[str, Any], now: datetime) -> bool:
    """Say whether there is nothing for apt_signing_key to look for, to change, and to warn of.

    given has path, fingerprint, renew_before_days, and content where the key needs no download.
    """
    path = Path(given["path"])
    try:
        pinned = normalise_fingerprint(given["fingerprint"])
        copy = read_keyring(path, pinned)
        status = path.stat()
        if copy is None or is_due(copy, given["renew_before_days"], now):
            return False
        if given["content"] is not None and dearmor(key_material(given["content"])) != copy.packets:
            return False
    except (OSError, OpenPGPError):
        return False
    return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (KEYRING_MODE, 0, 0)


def store(module: AnsibleModule) -> dict[str, Any]:
    """Have the better copy of the key in the keyring. Returns the results of apt_signing_key. Raises KeyNotStored."""
    given, path, now = module.params, Path(module.params["path"]), datetime.now(timezone.utc)
    days = given["renew_before_days"]
    try:
        pinned = normalise_fingerprint(given["fingerprint"])
    except OpenPGPError as error:
        raise KeyNotStored(f"fingerprint: {error}", reason="refused") from error
    copy = read_keyring(path, pinned)
    due = is_due(copy, days, now)
    state = {"key": copy.facts(now) if copy else None, "published": None, "usable": is_usable(copy, now), "due": due}
    try:
        published = published_key(given, pinned, due)
    except DownloadError as error:
        raise KeyNotStored(error, reason="unreachable", **state) from error
    except OpenPGPError as error:
        raise KeyNotStored(error, reason="refused", **state) from error
    if published:
        state["published"] = published.facts(now)

    changed, best = False, copy
    if published and is_usable(published, now) and better(published, copy):
        changed, best = True, published
        state.update(key=published.facts(now), usable=True, due=is_due(published, days, now))
        if not module.check_mode:
            try:
                write_keyring(path, published)
            except OSError as error:
                raise KeyNotStored(f"the key cannot be written: {error}", **state) from error
    # A missing keyring in check mode has no mode to be set, and what is no keyring of ours is none of our business.
    if best and path.exists():
        # apt reads it as a user of its own. Neither the umask nor what stood there before decides the mode.
        changed = module.set_mode_if_different(str(path), KEYRING_MODE, changed)
        changed = module.set_owner_if_different(str(path), "root", changed)
        changed = module.set_group_if_different(str(path), "root", changed)
    diff = {"before": diff_line(copy, now), "after": diff_line(best, now)}
    return {"changed": changed, "diff": {"before_header": str(path), "after_header": str(path), **diff}, **state}

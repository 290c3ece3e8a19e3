# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads OpenPGP public keys without gpg, which neither current Debian nor every controller has.

Source of the formats: RFC 9580, sections 4 (packets), 5.5.4 (fingerprints) and 6 (ASCII armour).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

PUBLIC_KEY_TAG = 6

_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n"
    rb"(?:[^\r\n:]+:[^\r\n]*\r?\n)*"  # armour headers such as "Version: ..."
    rb"[ \t]*\r?\n"
    rb"(?P<body>[^-]*)"  # one plain class, so that no answer of a server makes the search slow
    rb"-----END PGP PUBLIC KEY BLOCK-----"
)


class OpenPGPError(ValueError):
    """The data is not a readable OpenPGP public key."""


def dearmor(data: bytes) -> bytes:
    """Return the binary packets of a public key that is given armoured or binary.

    Raises OpenPGPError when it is neither.
    """
    if data[:1] and data[0] & 0x80:
        return data
    blocks = list(_ARMOUR.finditer(data))
    if not blocks:
        raise OpenPGPError("neither a binary nor an ASCII-armoured OpenPGP public key")
    try:
        return b"".join(_decode(block["body"].split()) for block in blocks)
    except binascii.Error as error:
        raise OpenPGPError(f"broken ASCII armour: {error}") from error


def _decode(lines: list[bytes]) -> bytes:
    if lines and re.fullmatch(rb"=[A-Za-z0-9+/]{4}", lines[-1]):
        lines = lines[:-1]  # the optional CRC-24, which RFC 9580 says to ignore
    return base64.b64decode(b"".join(lines), validate=True)


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Split binary key material into (tag, body) pairs. Raises OpenPGPError when it is cut short or malformed."""
    found = []
    position = 0
    while position < len(data):
        header = data[position]
        if not header & 0x80:
            raise OpenPGPError(f"no OpenPGP packet at byte {position}")
        try:
            if header & 0x40:
                tag, length, start = header & 0x3F, *_new_format_length(data, position + 1)
            else:
                tag = (header >> 2) & 0x0F
                octets = (1, 2, 4)[header & 0x03]
                start = position + 1 + octets
                length = int.from_bytes(data[position + 1 : start], "big")
        except IndexError as error:
            raise OpenPGPError(f"unreadable packet length at byte {position}") from error
        body = data[start : start + length]
        if start > len(data) or len(body) != length:
            raise OpenPGPError(f"packet at byte {position} is cut short")
        found.append((tag, body))
        position = start + length
    return found


def _new_format_length(data: bytes, position: int) -> tuple[int, int]:
    """Return (body length, position of the body). Raises IndexError where the data ends or the length is partial."""
    first = data[position]
    if first < 192:
        return first, position + 1
    if first < 224:
        return ((first - 192) << 8) + data[position + 1] + 192, position + 2
    if first == 255:
        return int.from_bytes(data[position + 1 : position + 5], "big"), position + 5
    raise IndexError("partial lengths are not allowed in keys")


def primary_fingerprints(data: bytes) -> list[str]:
    """Return the fingerprint, 40 upper-case hex digits, of every primary key in an armoured or binary key file.

    Raises OpenPGPError when there is none, or one of a version other than 4, the only one apt repositories use.
    """
    bodies = [body for tag, body in packets(dearmor(data)) if tag == PUBLIC_KEY_TAG]
    if not bodies:
        raise OpenPGPError("no OpenPGP public key in it")
    fingerprints = []
    for body in bodies:
        if body[:1] != b"\x04":
            raise OpenPGPError(f"OpenPGP key of version {body[0] if body else '?'}; only version 4 is supported")
        # SHA-1 is what the fingerprint of a version 4 key is defined as, not a choice.
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body)  # noqa: S324
        fingerprints.append(digest.hexdigest().upper())
    return fingerprints


def normalise_fingerprint(text: str) -> str:
    """Return a fingerprint as people write it (spaces, colons, 0x, lower case) as 40 upper-case hex digits.

    Raises OpenPGPError when it is anything else; short key ids identify nothing and are refused.
    """
    fingerprint = re.sub(r"^0x|[\s:]", "", text.strip(), flags=re.IGNORECASE).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", fingerprint):
        raise OpenPGPError(f"{text!r} is not the 40 hex digits of a fingerprint (short key ids are not accepted)")
    return fingerprint

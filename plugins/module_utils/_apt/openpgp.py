# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads OpenPGP public keys without gpg, which neither current Debian nor every controller has.

Source of the formats: RFC 9580, sections 4 (packets), 5.2 (signatures), 5.5.4 (fingerprints) and 6 (ASCII armour).
Where the standard leaves open which of several self-signatures counts, it is the one that gpg takes, as apt asks gpgv.

No signature is verified here. The dates and the revocation that a key file states are those that its writer put there.
They are good to decide when to look for a renewed key, never whom to trust: that is the fingerprint's part
(it is computed from the key itself), and apt's, which verifies the signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

SIGNATURE_TAG, SECRET_KEY_TAG, PUBLIC_KEY_TAG, USER_ID_TAG, SUBKEY_TAG, USER_ATTRIBUTE_TAG = 2, 5, 6, 13, 14, 17

# Types of signatures
CERTIFICATIONS = range(0x10, 0x14)
SUBKEY_BINDING, DIRECT_KEY, KEY_REVOCATION, SUBKEY_REVOCATION, CERTIFICATION_REVOCATION = 0x18, 0x1F, 0x20, 0x28, 0x30

# Types of signature subpackets
CREATION_TIME, KEY_EXPIRATION, ISSUER_KEY_ID, PRIMARY_USER_ID, KEY_FLAGS, ISSUER_FINGERPRINT = 2, 9, 16, 25, 27, 33

MAY_SIGN = 0x02  # among the key flags
SIGNING_ALGORITHMS = (1, 3, 17, 19, 22, 27, 28)  # RSA, RSA sign-only, DSA, ECDSA, EdDSA, Ed25519, Ed448

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


class Packet(NamedTuple):
    """One packet of key material."""

    tag: int
    body: bytes
    whole: bytes  # with its header, as it stands in the file


def packets(data: bytes) -> list[Packet]:
    """Split binary key material. Raises OpenPGPError when it is cut short or malformed."""
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
        found.append(Packet(tag, body, data[position : start + length]))
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


@dataclass(frozen=True)
class SigningKey:
    """A primary key with all that belongs to it. Its dates and its revocation are as stated, not verified."""

    fingerprint: str  # 40 upper-case hex digits
    user_id: str  # of several, the one marked as primary, else the newest; "" where there is none
    created: datetime
    expires: datetime | None  # the moment after which no signature by this key is accepted; None: never
    revoked: bool
    last_signed: datetime | None  # creation of its newest self-signature: the newer of two copies has the later one
    packets: bytes  # the key's own part of the file, in binary form

    def facts(self, now: datetime) -> dict[str, Any]:
        """Return what a module returns of a key. days_left are whole days: -1 from a day after the end to two days."""
        left = self.expires - now if self.expires else None
        return {
            "fingerprint": self.fingerprint,
            "user_id": self.user_id,
            "created": _iso(self.created),
            "expires": _iso(self.expires) if self.expires else None,
            "days_left": None if left is None else int(left / timedelta(days=1)),
            "expired": left is not None and left <= timedelta(),
            "revoked": self.revoked,
        }


def signing_keys(data: bytes) -> list[SigningKey]:
    """Return every primary key in an armoured or binary key file, in its order.

    Raises OpenPGPError when there is none, one of a version other than 4 (the only one apt repositories use), or the
    file is malformed. A signature that cannot be read is ignored, as gpg does.
    """
    keys = [_signing_key(group) for group in _groups(dearmor(data)) if group[0].tag == PUBLIC_KEY_TAG]
    if not keys:
        raise OpenPGPError("no OpenPGP public key in it")
    return keys


def describe_keyring(data: bytes) -> list[str]:
    """Return a line for people about every primary key in a keyring; none where it holds no key, or nothing at all.

    Keys of other versions than 4 are listed too, as a keyring may hold keys that are not ours. Raises OpenPGPError when
    the keyring is malformed.
    """
    lines = []
    for first, *others in _groups(dearmor(data) if data else data):
        if first.tag == PUBLIC_KEY_TAG and first.body[:1] in (b"\x03", b"\x05", b"\x06"):
            lines.append(f"a key of version {first.body[0]}")
        elif first.tag == PUBLIC_KEY_TAG:
            key = _signing_key([first, *others])
            lines.append(f"{key.fingerprint} {key.user_id}".rstrip())
    return lines


def _groups(data: bytes) -> list[list[Packet]]:
    """Split a keyring into its keys: a primary key and all packets up to the next. What stands before is one too."""
    groups: list[list[Packet]] = []
    for packet in packets(data):
        if not groups or packet.tag in (PUBLIC_KEY_TAG, SECRET_KEY_TAG):
            groups.append([])
        groups[-1].append(packet)
    return groups


def _fingerprint(body: bytes) -> str:
    """Return the fingerprint of the body of a version 4 key packet. Raises OpenPGPError when it is none."""
    if body[:1] != b"\x04":
        raise OpenPGPError(f"OpenPGP key of version {body[0] if body else '?'}; only version 4 is supported")
    if not 6 <= len(body) <= 0xFFFF:
        raise OpenPGPError(f"OpenPGP key packet of {len(body)} bytes")
    # SHA-1 is what the fingerprint of a version 4 key is defined as, not a choice.
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324


class _Signature(NamedTuple):
    """What a self-signature states. Times are seconds since 1970, lifetimes seconds since the key's creation."""

    kind: int
    created: int
    lifetime: int  # 0: without an end
    flags: int | None  # None: it says nothing about them
    primary_user_id: bool


class _Signed:
    """A key, subkey or user ID, and the signatures by the primary key that follow it."""

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.signatures: list[_Signature] = []

    def newest(self, *kinds: int) -> _Signature | None:
        """Return the newest signature of these kinds; of two of the same second the later in the file, as gpg does."""
        newest = None
        for signature in self.signatures:
            if signature.kind in kinds and (newest is None or signature.created >= newest.created):
                newest = signature
        return newest

    def has(self, kind: int) -> bool:
        return any(signature.kind == kind for signature in self.signatures)


def _signing_key(group: list[Packet]) -> SigningKey:
    fingerprint = _fingerprint(group[0].body)
    primary, *others = _signed_parts(group, fingerprint)
    user_ids = [part for part in others if part.packet.tag == USER_ID_TAG]
    subkeys = [part for part in others if part.packet.tag == SUBKEY_TAG]
    signatures = [signature for part in (primary, *others) for signature in part.signatures]
    certifications = [(newest, user_id) for user_id in user_ids if (newest := _certification(user_id))]
    _, named = max(
        certifications,
        key=lambda pair: (pair[0].primary_user_id, pair[0].created),
        default=(None, user_ids[0] if user_ids else None),
    )
    return SigningKey(
        fingerprint=fingerprint,
        user_id=_printable(named.packet.body) if named else "",
        created=_time(_created(primary)),
        expires=_expires(primary, [certification for certification, _ in certifications], subkeys),
        revoked=primary.has(KEY_REVOCATION),
        last_signed=_time(max(signature.created for signature in signatures)) if signatures else None,
        packets=b"".join(packet.whole for packet in group),
    )


def _signed_parts(group: list[Packet], fingerprint: str) -> list[_Signed]:
    """Return the primary key, then its user IDs, user attributes and subkeys, each with its self-signatures.

    Everything else, such as trust, marker and padding packets, states nothing about the key.
    """
    parts = [_Signed(group[0])]
    for packet in group[1:]:
        if packet.tag in (USER_ID_TAG, USER_ATTRIBUTE_TAG, SUBKEY_TAG):
            parts.append(_Signed(packet))
        elif packet.tag == SIGNATURE_TAG:
            signature = _self_signature(packet.body, fingerprint)
            if signature:
                # Those over the key itself are its own wherever they stand.
                of_primary = signature.kind in (DIRECT_KEY, KEY_REVOCATION)
                parts[0 if of_primary else -1].signatures.append(signature)
    return parts


def _certification(user_id: _Signed) -> _Signature | None:
    """Return the self-signature that counts for a user ID; None when it has none or was revoked later."""
    newest = user_id.newest(*CERTIFICATIONS, CERTIFICATION_REVOCATION)
    return None if newest is None or newest.kind == CERTIFICATION_REVOCATION else newest


def _expires(primary: _Signed, certifications: list[_Signature], subkeys: list[_Signed]) -> datetime | None:
    """Return when the last part of a key that may sign ends.

    As gpg does: a signature over the key itself counts before the newest one over a user ID, and one that says nothing
    about expiry or usage leaves that to the others.
    """
    direct = primary.newest(DIRECT_KEY)
    # Sorting keeps the order of the file among equals, in which gpg takes the first user ID.
    statements = [*([direct] if direct else []), *sorted(certifications, key=lambda it: it.created, reverse=True)]
    lifetime = next((statement.lifetime for statement in statements if statement.lifetime), 0)
    flags = next((statement.flags for statement in statements if statement.flags is not None), MAY_SIGN)
    ends = [_end(primary, lifetime)]
    if not flags & MAY_SIGN:
        bound = [(subkey, binding) for subkey in subkeys if (binding := _signing_binding(subkey))]
        subkey_ends = [_end(subkey, binding.lifetime) for subkey, binding in bound]
        if None not in subkey_ends:
            ends.append(max((end for end in subkey_ends if end), default=None))
    return min((end for end in ends if end), default=None)


def _signing_binding(subkey: _Signed) -> _Signature | None:
    """Return the signature that makes a subkey one that may sign; None where it may not, or was revoked."""
    binding = subkey.newest(SUBKEY_BINDING)
    if binding is None or subkey.has(SUBKEY_REVOCATION) or len(subkey.packet.body) < 6:
        return None
    may_sign = subkey.packet.body[5] in SIGNING_ALGORITHMS if binding.flags is None else binding.flags & MAY_SIGN
    return binding if may_sign else None


def _created(key: _Signed) -> int:
    return int.from_bytes(key.packet.body[1:5], "big")


def _end(key: _Signed, lifetime: int) -> datetime | None:
    return _time(_created(key) + lifetime) if lifetime else None


def _time(seconds: int) -> datetime:
    """Return a moment given in seconds since 1970. The sum of two 32-bit numbers, the most there is, is in 2242."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)


def _iso(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _printable(user_id: bytes) -> str:
    """Return a user ID as text that does nothing to a terminal: escapes, line ends and the like become U+FFFD."""
    text = user_id.decode("utf-8", errors="replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _self_signature(body: bytes, fingerprint: str) -> _Signature | None:
    """Return what a version 4 signature by that primary key states; None for all others and the unreadable."""
    if len(body) < 6 or body[0] != 4:
        return None
    try:
        hashed, rest = _subpackets(body[4:])
        unhashed, _ = _subpackets(rest)
    except (IndexError, OpenPGPError):
        return None
    issuers = {"".join(f"{octet:02X}" for octet in value) for value in _issuers(hashed + unhashed)}
    if not issuers or not issuers <= {fingerprint, fingerprint[-16:]}:
        return None
    # Anyone who passes a key on can change the unhashed ones, so these say nothing but whose signature it might be.
    stated = dict(hashed)
    created = stated.get(CREATION_TIME, b"")
    if len(created) != 4 or len(stated.get(KEY_EXPIRATION, bytes(4))) != 4:
        return None
    return _Signature(
        kind=body[1],
        created=int.from_bytes(created, "big"),
        lifetime=int.from_bytes(stated.get(KEY_EXPIRATION, b""), "big"),
        flags=(stated[KEY_FLAGS] or b"\0")[0] if KEY_FLAGS in stated else None,
        primary_user_id=any(stated.get(PRIMARY_USER_ID, b"")),
    )


def _issuers(subpackets: list[tuple[int, bytes]]) -> list[bytes]:
    """Return the key ids and fingerprints of the key that claims to have signed."""
    key_ids = [value for kind, value in subpackets if kind == ISSUER_KEY_ID]
    return key_ids + [value[1:] for kind, value in subpackets if kind == ISSUER_FINGERPRINT]  # [0] is the key's version


def _subpackets(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the (type, value) pairs of an area of subpackets and what follows it.

    Raises OpenPGPError or IndexError when it is malformed.
    """
    end = 2 + int.from_bytes(data[:2], "big")
    if len(data) < end:
        raise OpenPGPError("subpackets are cut short")
    area, found, position = data[2:end], [], 0
    while position < len(area):
        first = area[position]
        if first < 192:
            length, start = first, position + 1
        elif first < 255:
            length, start = ((first - 192) << 8) + area[position + 1] + 192, position + 2
        else:
            length, start = int.from_bytes(area[position + 1 : position + 5], "big"), position + 5
        if not length or start + length > len(area):
            raise OpenPGPError("subpacket is cut short")
        found.append((area[start] & 0x7F, area[start + 1 : start + length]))  # the high bit says: critical
        position = start + length
    return found, data[end:]


def normalise_fingerprint(text: str) -> str:
    """Return a fingerprint as people write it (spaces, colons, 0x, lower case) as 40 upper-case hex digits.

    Raises OpenPGPError when it is anything else; short key ids identify nothing and are refused.
    """
    fingerprint = re.sub(r"^0x|[\s:]", "", text.strip(), flags=re.IGNORECASE).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", fingerprint):
        raise OpenPGPError(f"{text!r} is not the 40 hex digits of a fingerprint (short key ids are not accepted)")
    return fingerprint

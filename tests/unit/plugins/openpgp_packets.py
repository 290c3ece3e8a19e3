"""Assembles OpenPGP packets byte by byte, so that the tests need neither gpg nor a library. Numbers as in RFC 9580."""

from __future__ import annotations

import base64
import hashlib
import struct

SIGNATURE, PUBLIC_KEY, MARKER, TRUST, USER_ID, SUBKEY, USER_ATTRIBUTE, PADDING = 2, 6, 10, 12, 13, 14, 17, 21
CREATED, LIFETIME, ISSUER, PRIMARY, FLAGS, ISSUER_FINGERPRINT = 2, 9, 16, 25, 27, 33
CERTIFICATION, BINDING, DIRECT, REVOCATION, SUBKEY_REVOCATION = 0x13, 0x18, 0x1F, 0x20, 0x28


def mpi(number: int) -> bytes:
    return struct.pack(">H", number.bit_length()) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def rsa_key(created: int = 1_500_000_000, bits: int = 2048, version: int = 4) -> bytes:
    """The body of a public key packet; nothing reads the modulus, so it need not be a product of primes."""
    return struct.pack(">BIB", version, created, 1) + mpi((1 << bits) - created) + mpi(65537)


def fingerprint(body: bytes) -> str:
    return hashlib.sha1(struct.pack(">BH", 0x99, len(body)) + body).hexdigest().upper()  # noqa: S324


def old_packet(tag: int, body: bytes, octets: int = 2) -> bytes:
    length_type = {1: 0, 2: 1, 4: 2}[octets]
    return bytes([0x80 | tag << 2 | length_type]) + len(body).to_bytes(octets, "big") + body


def new_packet(tag: int, body: bytes, octets: int = 5) -> bytes:
    length = len(body)
    encoded = {
        1: lambda: bytes([length]),
        2: lambda: bytes([(length - 192 >> 8) + 192, length - 192 & 0xFF]),
        5: lambda: b"\xff" + struct.pack(">I", length),
    }[octets]()
    return bytes([0xC0 | tag]) + encoded + body


def armour(data: bytes, *, headers: str = "", crc: str = "=AbCd\n") -> bytes:
    text = base64.encodebytes(data).decode()
    begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "-----END PGP PUBLIC KEY BLOCK-----\n"
    return f"{begin}{headers}\n{text}{crc}{end}".encode()


def subpacket(kind: int, value: bytes, octets: int = 1) -> bytes:
    length = len(value) + 1
    encoded = {
        1: lambda: bytes([length]),
        2: lambda: bytes([(length - 192 >> 8) + 192, length - 192 & 0xFF]),
        5: lambda: b"\xff" + struct.pack(">I", length),
    }[octets]()
    return encoded + bytes([kind]) + value


def seconds(kind: int, value: int) -> bytes:
    """A subpacket that holds a time or a duration."""
    return subpacket(kind, struct.pack(">I", value))


def signature_body(kind: int, hashed: bytes, unhashed: bytes = b"", version: int = 4) -> bytes:
    """A signature that states what it is given; nothing here verifies the rest of it."""
    areas = b"".join(struct.pack(">H", len(area)) + area for area in (hashed, unhashed))
    return bytes([version, kind, 1, 8]) + areas + b"\0\0" + mpi(1 << 64)


def signature(key: bytes, kind: int, created: int, *stated: bytes) -> bytes:
    """A signature packet by the key that has this body."""
    issuer = subpacket(ISSUER, bytes.fromhex(fingerprint(key)[-16:]))
    return old_packet(SIGNATURE, signature_body(kind, seconds(CREATED, created) + b"".join(stated), issuer))

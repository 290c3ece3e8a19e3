"""Assembles OpenPGP packets by hand, so that the tests need neither gpg nor a library. Numbers as in RFC 9580."""

from __future__ import annotations

import base64
import hashlib
import struct

PUBLIC_KEY, USER_ID, SUBKEY, SIGNATURE = 6, 13, 14, 2


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

"""Which fingerprints the keys in a file have, and that nothing else passes for a key."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from openpgp_packets import SIGNATURE, SUBKEY, USER_ID, armour, fingerprint, new_packet, old_packet, rsa_key

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.openpgp import (
    OpenPGPError,
    dearmor,
    normalise_fingerprint,
    packets,
    primary_fingerprints,
)

KEY = rsa_key()
OTHER = rsa_key(created=1_600_000_000)
KEY_FILE = old_packet(6, KEY) + old_packet(USER_ID, b"Someone", 1) + new_packet(SIGNATURE, b"\x04" + bytes(300), 2)

# The EdDSA sample key that the OpenPGP standard prints with its fingerprint.
SAMPLE = bytes.fromhex(
    "98 33 04 53f35f0b 16 09 2b06010401da470f01 0107 403f098994bdd916ed4053197934e4a87c80733a1280d62f8010992e43ee3b2406"
)
SAMPLE_FINGERPRINT = "C959BDBAFA32A2F89A153B678CFDE12197965A9A"


def test_sample_key_of_the_standard_has_its_printed_fingerprint() -> None:
    assert primary_fingerprints(SAMPLE) == [SAMPLE_FINGERPRINT]


@pytest.mark.parametrize("armoured", [False, True])
def test_gpg_sees_the_same_fingerprint(tmp_path: Path, armoured: bool) -> None:
    tmp_path.chmod(0o700)
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(tmp_path)]
    make = [*gpg, "--passphrase", "", "--quick-generate-key", "Test <test@example.com>", "ed25519", "sign", "never"]
    try:
        subprocess.run(make, check=True, capture_output=True)
        subkey = [*gpg, "--passphrase", "", "--quick-add-key"]
        listed = subprocess.run([*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True)
        wanted = next(line.split(":")[9] for line in listed.stdout.splitlines() if line.startswith("fpr:"))
        subprocess.run([*subkey, wanted, "cv25519", "encr"], check=True, capture_output=True)
        export = [*gpg, *(["--armor"] if armoured else []), "--export"]
        exported = subprocess.run(export, check=True, capture_output=True).stdout
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False, env={**os.environ, "GNUPGHOME": str(tmp_path)})
    assert primary_fingerprints(exported) == [wanted]


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(old_packet(6, rsa_key(bits=1024), 1), id="old format, 1 octet"),
        pytest.param(old_packet(6, rsa_key(bits=1024), 2), id="old format, 2 octets"),
        pytest.param(old_packet(6, rsa_key(bits=1024), 4), id="old format, 4 octets"),
        pytest.param(new_packet(6, rsa_key(bits=1024), 1), id="new format, 1 octet"),
        pytest.param(new_packet(6, rsa_key(bits=1024), 5), id="new format, 5 octets"),
    ],
)
def test_every_packet_header_gives_the_same_fingerprint(packet: bytes) -> None:
    assert primary_fingerprints(packet) == [fingerprint(rsa_key(bits=1024))]


def test_two_octet_length_of_the_new_format_is_read() -> None:
    assert primary_fingerprints(new_packet(6, KEY, 2)) == [fingerprint(KEY)]


@pytest.mark.parametrize(("length", "octets"), [(0, 1), (191, 1), (192, 2), (8383, 2), (8384, 5), (192, 5)])
def test_new_format_lengths_are_read_up_to_their_limits(length: int, octets: int) -> None:
    body = bytes(length)
    assert packets(new_packet(USER_ID, body, octets) + old_packet(2, b"x")) == [(USER_ID, body), (2, b"x")]


def test_subkeys_are_not_counted() -> None:
    assert primary_fingerprints(KEY_FILE + old_packet(SUBKEY, OTHER)) == [fingerprint(KEY)]


def test_two_primary_keys_are_both_listed() -> None:
    assert primary_fingerprints(KEY_FILE + old_packet(6, OTHER)) == [fingerprint(KEY), fingerprint(OTHER)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(armour(KEY_FILE), id="plain"),
        pytest.param(armour(KEY_FILE, headers="Version: GnuPG v2\nComment: a: b\n"), id="headers"),
        pytest.param(armour(KEY_FILE, crc=""), id="without CRC"),
        pytest.param(armour(KEY_FILE).replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(armour(KEY_FILE, headers="Version: 1\n", crc="").replace(b"\n", b"\r\n"), id="CRLF and headers"),
        pytest.param(b"A key of ours:\n\n" + armour(KEY_FILE) + b"\nthe end\n", id="text around it"),
        pytest.param(armour(KEY_FILE).rstrip(), id="no last newline"),
    ],
)
def test_armour_is_taken_off(text: bytes) -> None:
    assert dearmor(text) == KEY_FILE


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_armour_is_taken_off_whatever_the_padding(padding: int) -> None:
    data = old_packet(USER_ID, bytes(10 - padding)) + old_packet(6, KEY)
    assert dearmor(armour(data)) == data
    assert dearmor(armour(data, crc="")) == data


def test_keys_of_two_armoured_blocks_are_both_listed() -> None:
    both = armour(KEY_FILE) + armour(old_packet(6, OTHER))
    assert primary_fingerprints(both) == [fingerprint(KEY), fingerprint(OTHER)]


def test_binary_key_is_its_own_dearmoured_form() -> None:
    assert dearmor(KEY_FILE) == KEY_FILE


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(b"", "neither", id="empty"),
        pytest.param(b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "neither", id="HTML page"),
        pytest.param(b"\x00\x01garbage", "neither", id="garbage"),
        pytest.param(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxjM\n", "neither", id="armour without an end"),
        pytest.param(armour(KEY_FILE).replace(b"PUBLIC", b"PRIVATE"), "neither", id="private key block"),
        pytest.param(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxjMEU\n-----END PGP PUBLIC KEY BLOCK-----\n", "broken"),
        pytest.param(old_packet(USER_ID, b"Someone"), "no OpenPGP public key", id="no key packet"),
        pytest.param(old_packet(SUBKEY, KEY), "no OpenPGP public key", id="subkey alone"),
        pytest.param(old_packet(6, KEY) + b"\x00", "no OpenPGP packet at byte", id="garbage after the key"),
        pytest.param(new_packet(6, rsa_key(version=6)), "version 6", id="version 6"),
        pytest.param(old_packet(6, rsa_key(version=3)), "version 3", id="version 3"),
        pytest.param(old_packet(6, b""), "version", id="empty key packet"),
        pytest.param(b"\x9b" + KEY, "unreadable packet length", id="old format, indeterminate length"),
        pytest.param(b"\xc6\xe1" + KEY, "unreadable packet length", id="new format, partial length"),
    ],
)
def test_what_is_no_key_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(OpenPGPError, match=complaint):
        primary_fingerprints(data)


@pytest.mark.parametrize("octets", [1, 2, 4])
def test_key_of_the_old_format_cut_anywhere_is_refused(octets: int) -> None:
    whole = old_packet(6, rsa_key(bits=1024), octets)
    for length in range(len(whole)):
        with pytest.raises(OpenPGPError):
            primary_fingerprints(whole[:length])


@pytest.mark.parametrize("tail", [old_packet(2, bytes(9), 1), old_packet(2, bytes(9), 4), new_packet(2, bytes(9))])
def test_packet_after_the_key_cut_anywhere_is_refused(tail: bytes) -> None:
    for length in range(1, len(tail)):
        with pytest.raises(OpenPGPError):
            primary_fingerprints(old_packet(6, KEY) + tail[:length])


def test_mutated_keys_raise_nothing_but_openpgp_errors() -> None:
    chance = random.Random(20)  # noqa: S311 - the same mutations each time
    originals = [KEY_FILE, armour(KEY_FILE, headers="Version: 1\n"), SAMPLE, new_packet(6, KEY, 2)]
    start = time.monotonic()
    for _ in range(4000):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 6)):
            position = chance.randrange(len(data))
            change = chance.randrange(3)
            if change == 0:
                data[position] = chance.randrange(256)
            elif change == 1:
                data[position : position + chance.randint(1, 30)] = b"?"
            else:
                data[position:position] = chance.randbytes(chance.randint(1, 5))
        try:
            primary_fingerprints(bytes(data))
        except OpenPGPError:
            continue
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "filler", [b"\n", b" ", b"\r\n", b"A", b"=", b"A: b\n", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"]
)
def test_large_answer_that_only_begins_like_a_key_is_refused_at_once(filler: bytes) -> None:
    data = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nA" + filler * (40_000 // len(filler))
    start = time.monotonic()
    with pytest.raises(OpenPGPError):
        dearmor(data)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "text",
    [
        SAMPLE_FINGERPRINT,
        SAMPLE_FINGERPRINT.lower(),
        "C959 BDBA FA32 A2F8 9A15  3B67 8CFD E121 9796 5A9A",
        ":".join(SAMPLE_FINGERPRINT[index : index + 2] for index in range(0, 40, 2)),
        "0x" + SAMPLE_FINGERPRINT,
        f"  0X{SAMPLE_FINGERPRINT}\n",
    ],
)
def test_fingerprint_is_read_as_people_write_it(text: str) -> None:
    assert normalise_fingerprint(text) == SAMPLE_FINGERPRINT


@pytest.mark.parametrize(
    "text",
    [
        "",
        SAMPLE_FINGERPRINT[-8:],
        "0x" + SAMPLE_FINGERPRINT[-16:],
        SAMPLE_FINGERPRINT[:-1],
        SAMPLE_FINGERPRINT + "0",
        SAMPLE_FINGERPRINT[:-1] + "G",
        "0x0x" + SAMPLE_FINGERPRINT,
        SAMPLE_FINGERPRINT[:-1] + "١",
        SAMPLE_FINGERPRINT + SAMPLE_FINGERPRINT[:24],
    ],
)
def test_anything_but_a_whole_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(OpenPGPError, match="40 hex digits"):
        normalise_fingerprint(text)

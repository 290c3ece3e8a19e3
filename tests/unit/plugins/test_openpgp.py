"""Which fingerprints the keys in a file have, and that nothing else passes for a key."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from openpgp_packets import (
    BINDING,
    CERTIFICATION,
    CREATED,
    DIRECT,
    FLAGS,
    ISSUER,
    ISSUER_FINGERPRINT,
    LIFETIME,
    MARKER,
    PADDING,
    PRIMARY,
    REVOCATION,
    SIGNATURE,
    SUBKEY,
    SUBKEY_REVOCATION,
    TRUST,
    USER_ATTRIBUTE,
    USER_ID,
    armour,
    fingerprint,
    new_packet,
    old_packet,
    rsa_key,
    seconds,
    signature,
    signature_body,
    subpacket,
)

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    Packet,
    SigningKey,
    dearmor,
    describe_keyring,
    normalise_fingerprint,
    packets,
    signing_keys,
)

KEY = rsa_key()
OTHER = rsa_key(created=1_600_000_000)
KEY_FILE = old_packet(6, KEY) + old_packet(USER_ID, b"Someone", 1) + new_packet(SIGNATURE, b"\x04" + bytes(300), 2)

# One of everything, for the mutations.
RICH_KEY = b"".join(
    [
        old_packet(MARKER, b"PGP"),
        old_packet(6, KEY),
        signature(KEY, DIRECT, 1_500_000_100, seconds(LIFETIME, 1 << 20), subpacket(FLAGS, b"\x01")),
        old_packet(USER_ID, b"Someone"),
        signature(KEY, CERTIFICATION, 1_500_000_000, seconds(LIFETIME, 1 << 25), subpacket(PRIMARY, b"\x01")),
        old_packet(TRUST, b"\x06\x00"),
        new_packet(USER_ATTRIBUTE, b"a picture"),
        signature(KEY, CERTIFICATION, 1_500_000_000, seconds(LIFETIME, 7)),
        old_packet(SUBKEY, OTHER),
        signature(KEY, BINDING, 1_600_000_000, seconds(LIFETIME, 1 << 24), subpacket(FLAGS, b"\x02")),
        new_packet(PADDING, bytes(9)),
    ]
)

# The EdDSA sample key that the OpenPGP standard prints with its fingerprint.
SAMPLE = bytes.fromhex(
    "98 33 04 53f35f0b 16 09 2b06010401da470f01 0107 403f098994bdd916ed4053197934e4a87c80733a1280d62f8010992e43ee3b2406"
)
SAMPLE_FINGERPRINT = "C959BDBAFA32A2F89A153B678CFDE12197965A9A"


def fingerprints(data: bytes) -> list[str]:
    return [key.fingerprint for key in signing_keys(data)]


def test_sample_key_of_the_standard_has_its_printed_fingerprint() -> None:
    assert fingerprints(SAMPLE) == [SAMPLE_FINGERPRINT]


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
    assert fingerprints(packet) == [fingerprint(rsa_key(bits=1024))]


def test_two_octet_length_of_the_new_format_is_read() -> None:
    assert fingerprints(new_packet(6, KEY, 2)) == [fingerprint(KEY)]


@pytest.mark.parametrize(("length", "octets"), [(0, 1), (191, 1), (192, 2), (8383, 2), (8384, 5), (192, 5)])
def test_new_format_lengths_are_read_up_to_their_limits(length: int, octets: int) -> None:
    body = bytes(length)
    found = packets(new_packet(USER_ID, body, octets) + old_packet(2, b"x"))
    assert [(packet.tag, packet.body) for packet in found] == [(USER_ID, body), (2, b"x")]


def test_subkeys_are_not_counted() -> None:
    assert fingerprints(KEY_FILE + old_packet(SUBKEY, OTHER)) == [fingerprint(KEY)]


def test_two_primary_keys_are_both_listed() -> None:
    assert fingerprints(KEY_FILE + old_packet(6, OTHER)) == [fingerprint(KEY), fingerprint(OTHER)]


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
    assert fingerprints(both) == [fingerprint(KEY), fingerprint(OTHER)]


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
        pytest.param(old_packet(6, KEY[:5]), "packet of 5 bytes", id="key packet without a key"),
        pytest.param(old_packet(6, KEY + bytes(1 << 16), 4), "key packet of", id="key packet too large for any key"),
        pytest.param(b"\x9b" + KEY, "unreadable packet length", id="old format, indeterminate length"),
        pytest.param(b"\xc6\xe1" + KEY, "unreadable packet length", id="new format, partial length"),
    ],
)
def test_what_is_no_key_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(OpenPGPError, match=complaint):
        fingerprints(data)


@pytest.mark.parametrize("octets", [1, 2, 4])
def test_key_of_the_old_format_cut_anywhere_is_refused(octets: int) -> None:
    whole = old_packet(6, rsa_key(bits=1024), octets)
    for length in range(len(whole)):
        with pytest.raises(OpenPGPError):
            fingerprints(whole[:length])


@pytest.mark.parametrize("tail", [old_packet(2, bytes(9), 1), old_packet(2, bytes(9), 4), new_packet(2, bytes(9))])
def test_packet_after_the_key_cut_anywhere_is_refused(tail: bytes) -> None:
    for length in range(1, len(tail)):
        with pytest.raises(OpenPGPError):
            fingerprints(old_packet(6, KEY) + tail[:length])


def test_mutated_keys_raise_nothing_but_openpgp_errors() -> None:
    chance = random.Random(20)  # noqa: S311 - the same mutations each time
    originals = [KEY_FILE, armour(KEY_FILE, headers="Version: 1\n"), SAMPLE, new_packet(6, KEY, 2), *[RICH_KEY] * 4]
    now = datetime.now(timezone.utc)
    start = time.process_time()
    read = 0
    for _ in range(8000):
        data = bytearray(chance.choice(originals))
        kinds = chance.choice([1, 4])  # those of one kind leave the lengths of most packets as they were
        for _ in range(chance.randint(1, 6)):
            position = chance.randrange(len(data))
            change = chance.randrange(kinds)
            if change == 0:
                data[position] = chance.randrange(256)
            elif change == 1:
                data[position : position + chance.randint(1, 30)] = b"?"
            elif change == 2:
                data[position : position + 1] = b"\xff" * chance.randint(1, 6)
            else:
                data[position:position] = chance.randbytes(chance.randint(1, 5))
        try:
            keys = signing_keys(bytes(data))
            assert all(key.facts(now)["user_id"].isprintable() for key in keys)
            describe_keyring(bytes(data))
            read += 1
        except OpenPGPError:
            continue
    assert time.process_time() - start < 6
    assert read > 2000  # else the mutations reach nothing


@pytest.mark.parametrize("area", [b"\0", b"\xff" * 65535, b"\x01" * 65535, b"\xbf" * 65535, b"\x02\x02" * 32767])
def test_signature_full_of_nonsense_is_ignored_at_once(area: bytes) -> None:
    data = old_packet(6, KEY) + old_packet(SIGNATURE, signature_body(CERTIFICATION, area), 4) * 8
    start = time.process_time()
    (key,) = signing_keys(data)
    assert (key.expires, key.last_signed) == (None, None)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "filler", [b"\n", b" ", b"\r\n", b"A", b"=", b"A: b\n", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"]
)
def test_large_answer_that_only_begins_like_a_key_is_refused_at_once(filler: bytes) -> None:
    data = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nA" + filler * (40_000 // len(filler))
    start = time.process_time()
    with pytest.raises(OpenPGPError):
        dearmor(data)
    assert time.process_time() - start < 1


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


# What keys state of themselves, as gpg reads it

Gpg = Callable[..., bytes]
SHOWN_AT = "20240701T000000"


@pytest.fixture(scope="module")
def gpg_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def gpg(gpg_home: Path) -> Gpg:
    """gpg with a home of its own; `at` is the time that it believes to be now."""

    def run(*arguments: str, at: str = SHOWN_AT, data: bytes | None = None) -> bytes:
        command = [
            "gpg",
            "--batch",
            "--yes",
            "--quiet",
            "--no-tty",
            "--homedir",
            str(gpg_home),
            "--no-auto-check-trustdb",
        ]
        command += ["--pinentry-mode", "loopback", "--passphrase", "", "--faked-system-time", f"{at}!", *arguments]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    return run


def rebuilt(parts: list[Packet]) -> bytes:
    return b"".join(old_packet(part.tag, part.body) for part in parts)


@pytest.fixture(scope="module")
def gpg_keys(gpg: Gpg, gpg_home: Path) -> dict[str, bytes]:
    """Keys as their owners made and renewed them, by what is special about them."""
    keys = {}

    def make(name: str, *how: str, at: str) -> str:
        gpg("--quick-generate-key", name, *how, at=at)
        listed = gpg("--with-colons", "--list-keys", f"={name}").decode()
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def keep(name: str, user_id: str) -> None:
        keys[name] = gpg("--export", f"={user_id}")

    key = make("rsa", "rsa2048", "sign", "20240801T000000", at="20230801T120000")
    keep("one year", "rsa")
    gpg("--quick-set-expire", key, "20250801T000000", at="20240601T120000")
    keep("renewed", "rsa")

    key = make("Certifies only", "ed25519", "cert", "20270101T000000", at="20220101T000000")
    gpg("--quick-add-key", key, "cv25519", "encr", "20260101T000000", at="20220101T000000")
    keep("certifies only, no subkey may sign", "Certifies only")
    gpg("--quick-add-key", key, "ed25519", "sign", "20240101T000000", at="20230101T000000")
    gpg("--quick-add-key", key, "ed25519", "sign", "20250101T000000", at="20240101T000000")
    keep("subkeys sign", "Certifies only")
    gpg("--quick-set-expire", key, "20240601T000000", at="20240201T000000")
    keep("primary ends before its subkeys", "Certifies only")
    gpg("--quick-set-expire", key, "0", at="20240202T000000")
    gpg("--quick-set-expire", key, "20240301T000000", "*", at="20240203T000000")
    keep("subkeys end, primary does not", "Certifies only")
    gpg("--quick-add-key", key, "ed25519", "sign", "0", at="20240401T000000")
    keep("one subkey signs for ever", "Certifies only")

    key = make("First", "ed25519", "sign", "2y", at="20220101T000000")
    gpg("--quick-add-uid", key, "Söcönd <second@example.com>", at="20230101T000000")
    keep("two user IDs", "First")
    gpg("--quick-set-expire", key, "20250101T000000", at="20240101T000000")
    keep("both user IDs renewed in one second", "First")
    gpg("--quick-set-primary-uid", key, "First", at="20240102T000000")
    gpg("--quick-set-expire", key, "20260101T000000", at="20240103T000000")
    keep("primary user ID", "First")
    gpg("--quick-revoke-uid", key, "First", at="20240104T000000")
    keep("user ID revoked", "First")

    key = make("Old", "ed25519", "sign", "2y", at="20220101T000000")
    gpg("--quick-add-uid", key, "New", at="20230101T000000")
    before = packets(gpg("--export", "=Old"))
    gpg("--quick-set-expire", key, "3y", at="20230601T000000")
    after = packets(gpg("--export", "=Old"))
    gpg("--quick-set-expire", key, "0", at="20240101T000000")
    never = packets(gpg("--export", "=Old"))
    # Of each the primary key, a user ID and its signature, and the other user ID and its signature
    keys["first user ID renewed"] = rebuilt(after[:3] + before[3:])
    keys["second user ID renewed"] = rebuilt(before[:3] + after[3:])
    keys["end taken from the first user ID"] = rebuilt(never[:3] + before[3:])
    keys["end taken from the second user ID"] = rebuilt(before[:3] + never[3:])

    key = make("Revoked", "ed25519", "sign", "never", at="20220101T000000")
    keep("never ends", "Revoked")
    certificate = (gpg_home / "openpgp-revocs.d" / f"{key}.rev").read_bytes().replace(b":-----BEGIN", b"-----BEGIN")
    gpg("--import", data=certificate)
    keep("revoked", "Revoked")
    return keys


def as_gpg_shows(gpg: Gpg, data: bytes) -> tuple[str, str, int, int | None, bool]:
    """Return fingerprint, user ID, creation, end and revocation, worked out from what gpg prints."""
    lines = [line.split(":") for line in gpg("--show-keys", "--with-colons", data=data).decode().splitlines()]
    public = next(line for line in lines if line[0] == "pub")
    never = float("inf")
    end = float(public[6] or never)
    if "s" not in public[11]:
        ends = [float(line[6] or never) for line in lines if line[0] == "sub" and "s" in line[11] and line[1] != "r"]
        end = min(end, max(ends, default=never))
    return (
        next(line[9] for line in lines if line[0] == "fpr"),
        next(line[9] for line in lines if line[0] == "uid"),
        int(public[5]),
        None if end == never else int(end),
        public[1] == "r",
    )


def test_keys_are_read_as_gpg_reads_them(gpg: Gpg, gpg_keys: dict[str, bytes]) -> None:
    ours, theirs = {}, {}
    for name, data in gpg_keys.items():
        (key,) = signing_keys(data)
        end = int(key.expires.timestamp()) if key.expires else None
        ours[name] = (key.fingerprint, key.user_id, int(key.created.timestamp()), end, key.revoked)
        theirs[name] = as_gpg_shows(gpg, data)
    assert ours == theirs
    assert len(ours) == 17


def test_ends_of_keys_are_the_ones_that_were_set(gpg_keys: dict[str, bytes]) -> None:
    ends = {name: signing_keys(data)[0].facts(datetime.now(timezone.utc))["expires"] for name, data in gpg_keys.items()}
    assert ends["one year"] == "2024-08-01T00:00:00Z"
    assert ends["renewed"] == "2025-08-01T00:00:00Z"
    assert ends["subkeys sign"] == "2025-01-01T00:00:00Z"
    assert ends["primary ends before its subkeys"] == "2024-06-01T00:00:00Z"
    assert ends["subkeys end, primary does not"] == "2024-03-01T00:00:00Z"
    assert ends["one subkey signs for ever"] is ends["never ends"] is None


def test_renewed_copy_is_told_from_the_old_one(gpg_keys: dict[str, bytes]) -> None:
    (old,), (new,) = signing_keys(gpg_keys["one year"]), signing_keys(gpg_keys["renewed"])
    assert old.fingerprint == new.fingerprint
    assert old.last_signed == datetime(2023, 8, 1, 12, tzinfo=timezone.utc)
    assert new.last_signed == datetime(2024, 6, 1, 12, tzinfo=timezone.utc)


# What keys state of themselves, in packets that gpg does not write


def only_key(*parts: bytes, key: bytes = KEY) -> SigningKey:
    (found,) = signing_keys(old_packet(6, key) + b"".join(parts))
    return found


def lasts(key: SigningKey) -> int | None:
    """Return how many seconds a key lasts from its creation."""
    return None if key.expires is None else int((key.expires - key.created).total_seconds())


MADE = 1_500_000_000
USER = old_packet(USER_ID, b"Someone")


@pytest.mark.parametrize(("length", "octets"), [(0, 1), (190, 1), (191, 2), (9000, 2), (16318, 2), (16319, 5), (3, 5)])
def test_subpackets_of_every_length_are_read(length: int, octets: int) -> None:
    filler = subpacket(100, bytes(length), octets)
    assert lasts(only_key(USER, signature(KEY, CERTIFICATION, MADE, filler, seconds(LIFETIME, 77)))) == 77


def test_critical_subpackets_are_read() -> None:
    assert lasts(only_key(USER, signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME | 0x80, 77)))) == 77


@pytest.mark.parametrize("kind", [0x10, 0x11, 0x12, 0x13])
def test_every_kind_of_certification_counts(kind: int) -> None:
    assert lasts(only_key(USER, signature(KEY, kind, MADE, seconds(LIFETIME, 77)))) == 77


@pytest.mark.parametrize(("first", "second", "wanted"), [(1, 2, 20), (2, 1, 10), (1, 1, 20)])
def test_newest_self_signature_counts_and_of_two_of_a_second_the_later(first: int, second: int, wanted: int) -> None:
    older = signature(KEY, CERTIFICATION, MADE + first, seconds(LIFETIME, 10))
    newer = signature(KEY, CERTIFICATION, MADE + second, seconds(LIFETIME, 20))
    key = only_key(USER, older, newer)
    assert lasts(key) == wanted
    assert key.last_signed == key.created + timedelta(seconds=max(first, second))


def test_newest_self_signature_can_take_the_end_away() -> None:
    parts = signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME, 10)), signature(KEY, CERTIFICATION, MADE + 1)
    assert lasts(only_key(USER, *parts)) is None


def test_signature_over_the_key_itself_counts_before_those_over_user_ids() -> None:
    direct = signature(KEY, DIRECT, MADE, seconds(LIFETIME, 10))
    assert lasts(only_key(direct, USER, signature(KEY, CERTIFICATION, MADE + 5, seconds(LIFETIME, 20)))) == 10


def test_signature_over_the_key_itself_leaves_what_it_does_not_say_to_the_others() -> None:
    user_id = signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME, 20), subpacket(FLAGS, b"\x02"))
    assert lasts(only_key(signature(KEY, DIRECT, MADE + 5), USER, user_id, signed_subkey(9, b"\x02"))) == 20


FORGED = fingerprint(OTHER)


@pytest.mark.parametrize(
    ("hashed", "unhashed", "counts"),
    [
        pytest.param(b"", subpacket(ISSUER, bytes.fromhex(fingerprint(KEY)[-16:])), True, id="key id"),
        pytest.param(
            subpacket(ISSUER_FINGERPRINT, b"\4" + bytes.fromhex(fingerprint(KEY))), b"", True, id="fingerprint"
        ),
        pytest.param(b"", b"", False, id="nobody's"),
        pytest.param(b"", subpacket(ISSUER, bytes.fromhex(FORGED[-16:])), False, id="another key id"),
        pytest.param(
            subpacket(ISSUER_FINGERPRINT, b"\4" + bytes.fromhex(FORGED)), b"", False, id="another fingerprint"
        ),
        pytest.param(
            subpacket(ISSUER_FINGERPRINT, b"\4" + bytes.fromhex(FORGED)),
            subpacket(ISSUER, bytes.fromhex(fingerprint(KEY)[-16:])),
            False,
            id="two that differ",
        ),
    ],
)
@pytest.mark.parametrize("kind", [CERTIFICATION, DIRECT, REVOCATION])
def test_only_self_signatures_count(kind: int, hashed: bytes, unhashed: bytes, counts: bool) -> None:
    body = signature_body(kind, seconds(CREATED, MADE) + seconds(LIFETIME, 77) + hashed, unhashed)
    key = only_key(USER, old_packet(SIGNATURE, body))
    assert lasts(key) == (77 if counts and kind != REVOCATION else None)
    assert key.revoked is (counts and kind == REVOCATION)
    assert (key.last_signed is not None) is counts


def test_what_is_not_signed_is_not_believed() -> None:
    issuer = subpacket(ISSUER, bytes.fromhex(fingerprint(KEY)[-16:]))
    unhashed = issuer + seconds(LIFETIME, 77) + seconds(CREATED, MADE + 9) + subpacket(FLAGS, b"\1")
    key = only_key(USER, old_packet(SIGNATURE, signature_body(CERTIFICATION, seconds(CREATED, MADE), unhashed)))
    assert (lasts(key), key.last_signed) == (None, key.created)


@pytest.mark.parametrize("version", [3, 5, 6])
def test_signatures_of_other_versions_are_ignored(version: int) -> None:
    stated = seconds(CREATED, MADE) + seconds(LIFETIME, 77) + subpacket(ISSUER, bytes.fromhex(fingerprint(KEY)[-16:]))
    assert lasts(only_key(USER, old_packet(SIGNATURE, signature_body(CERTIFICATION, stated, b"", version)))) is None
    assert lasts(only_key(USER, old_packet(SIGNATURE, signature_body(CERTIFICATION, stated)))) == 77


@pytest.mark.parametrize("whole", [True, False])
def test_signature_cut_inside_a_subpacket_is_ignored(whole: bool) -> None:
    stated = seconds(CREATED, MADE) + seconds(LIFETIME, 77) + subpacket(ISSUER, bytes.fromhex(fingerprint(KEY)[-16:]))
    area = stated + (b"" if whole else b"\x05\x64\0")
    assert lasts(only_key(USER, old_packet(SIGNATURE, signature_body(CERTIFICATION, area)))) == (77 if whole else None)


@pytest.mark.parametrize("stated", [b"", subpacket(CREATED, b""), subpacket(CREATED, bytes(5))])
def test_signature_that_does_not_say_when_it_was_made_is_ignored(stated: bytes) -> None:
    stated += seconds(LIFETIME, 77) + subpacket(ISSUER, bytes.fromhex(fingerprint(KEY)[-16:]))
    key = only_key(USER, old_packet(SIGNATURE, signature_body(CERTIFICATION, stated)))
    assert (lasts(key), key.last_signed) == (None, None)


@pytest.mark.parametrize("value", [b"", b"\0", bytes(3), bytes(5)])
def test_time_that_is_not_four_octets_is_ignored(value: bytes) -> None:
    good = signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME, 77))
    assert lasts(only_key(USER, good, signature(KEY, CERTIFICATION, MADE + 1, subpacket(LIFETIME, value)))) == 77


def test_largest_times_are_read() -> None:
    body = rsa_key(created=0xFFFFFFFF)
    key = only_key(USER, signature(body, CERTIFICATION, 0xFFFFFFFF, seconds(LIFETIME, 0xFFFFFFFF)), key=body)
    facts = key.facts(datetime.now(timezone.utc))
    assert (facts["created"], facts["expires"]) == ("2106-02-07T06:28:15Z", "2242-03-16T12:56:30Z")


def signed_subkey(lifetime: int, flags: bytes | None, body: bytes = OTHER, revoked: bool = False) -> bytes:
    stated = [seconds(LIFETIME, lifetime)] if lifetime else []
    stated += [] if flags is None else [subpacket(FLAGS, flags)]
    revocation = signature(KEY, SUBKEY_REVOCATION, 1_600_000_001) if revoked else b""
    return old_packet(SUBKEY, body) + revocation + signature(KEY, BINDING, 1_600_000_000, *stated)


CIPHER = OTHER[:5] + b"\x12" + OTHER[6:]  # ECDH, which encrypts


@pytest.mark.parametrize(
    ("flags", "subkeys", "wanted"),
    [
        pytest.param(b"\x03", [signed_subkey(50, b"\x02")], None, id="primary signs too"),
        pytest.param(None, [signed_subkey(50, b"\x02")], None, id="primary says nothing"),
        pytest.param(b"\x01", [signed_subkey(50, b"\x02")], 50, id="subkey signs"),
        pytest.param(b"\x01", [signed_subkey(50, b"\x02"), signed_subkey(70, b"\x02")], 70, id="later of two"),
        pytest.param(b"\x01", [signed_subkey(50, b"\x02"), signed_subkey(70, b"\x0c")], 50, id="other encrypts"),
        pytest.param(b"\x01", [signed_subkey(50, b"\x02"), signed_subkey(0, b"\x02")], None, id="other never ends"),
        pytest.param(b"\x01", [signed_subkey(50, b"\x02"), signed_subkey(70, b"\x02", OTHER, True)], 50, id="revoked"),
        pytest.param(b"\x01", [signed_subkey(50, None)], 50, id="subkey says nothing, RSA signs"),
        pytest.param(b"\x01", [signed_subkey(50, None, CIPHER)], None, id="subkey says nothing, ECDH does not"),
        pytest.param(b"\x01", [signed_subkey(50, b"")], None, id="flags are empty"),
        pytest.param(b"\x01", [old_packet(SUBKEY, OTHER)], None, id="subkey that is not bound"),
        pytest.param(b"\x01", [signed_subkey(50, None, OTHER[:3])], None, id="subkey that is cut"),
        pytest.param(b"\x01", [], None, id="no subkey"),
    ],
)
def test_end_is_the_one_of_the_part_that_may_sign(
    flags: bytes | None, subkeys: list[bytes], wanted: int | None
) -> None:
    stated = [] if flags is None else [subpacket(FLAGS, flags)]
    key = only_key(USER, signature(KEY, CERTIFICATION, MADE, *stated), *subkeys)
    since = datetime.fromtimestamp(1_600_000_000, timezone.utc)
    assert key.expires == (None if wanted is None else since + timedelta(seconds=wanted))


def test_pictures_state_no_end() -> None:
    picture = new_packet(USER_ATTRIBUTE, b"a picture") + signature(KEY, CERTIFICATION, MADE + 9, seconds(LIFETIME, 7))
    assert lasts(only_key(USER, signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME, 77)), picture)) == 77


def test_packets_that_are_not_the_keys_are_passed_over() -> None:
    odd = old_packet(TRUST, b"\0\0") + old_packet(MARKER, b"PGP") + new_packet(PADDING, bytes(7)) + new_packet(60, b"x")
    key = only_key(odd, USER, odd, signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME, 77)), odd)
    assert lasts(key) == 77
    assert key.packets.count(odd) == 3


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (b"Someone <someone@example.com>", "Someone <someone@example.com>"),
        ("Jörg ☃".encode(), "Jörg ☃"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\x1b[2Jb\r\nc\x00", "a\ufffd[2Jb\ufffd\ufffdc\ufffd"),
        ("a\u202eb\u2028".encode(), "a\ufffdb\ufffd"),
        (b"", ""),
    ],
)
def test_user_id_is_harmless_to_print(stored: bytes, shown: str) -> None:
    assert only_key(old_packet(USER_ID, stored), signature(KEY, CERTIFICATION, MADE)).user_id == shown
    assert only_key(old_packet(USER_ID, stored)).user_id == shown


def test_user_id_is_the_primary_one_or_else_the_newest() -> None:
    first, second = old_packet(USER_ID, b"first"), old_packet(USER_ID, b"second")
    old, new = signature(KEY, CERTIFICATION, MADE), signature(KEY, CERTIFICATION, MADE + 1)
    main = signature(KEY, CERTIFICATION, MADE, subpacket(PRIMARY, b"\x01"))
    assert only_key(first, old, second, new).user_id == "second"
    assert only_key(first, new, second, old).user_id == "first"
    assert only_key(first, old, second, old).user_id == "first"
    assert only_key(first, main, second, new).user_id == "first"
    assert only_key(first, old, second).user_id == "first"
    assert only_key().user_id == ""


def test_days_left_are_whole_days_before_and_after_the_end() -> None:
    key = only_key(USER, signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME, 10 * 86400)))
    assert key.expires
    for before, days, expired in [
        (86400, 1, False),
        (86399, 0, False),
        (1, 0, False),
        (0, 0, True),
        (-86399, 0, True),
        (-86401, -1, True),
        (-2 * 86400, -2, True),
    ]:
        facts = key.facts(key.expires - timedelta(seconds=before))
        assert (facts["days_left"], facts["expired"]) == (days, expired)


def test_facts_are_what_json_can_say() -> None:
    facts = only_key(USER, signature(KEY, CERTIFICATION, MADE, seconds(LIFETIME, 86400))).facts(
        datetime(2017, 7, 15, 2, 40, tzinfo=timezone.utc)
    )
    assert facts == {
        "fingerprint": fingerprint(KEY),
        "user_id": "Someone",
        "created": "2017-07-14T02:40:00Z",
        "expires": "2017-07-15T02:40:00Z",
        "days_left": 0,
        "expired": True,
        "revoked": False,
    }


def test_every_key_has_its_own_packets() -> None:
    other = old_packet(6, OTHER) + old_packet(USER_ID, b"Other") + old_packet(TRUST, b"\0\0")
    keys = signing_keys(armour(RICH_KEY + other))
    assert [key.fingerprint for key in keys] == [fingerprint(KEY), fingerprint(OTHER)]
    assert old_packet(MARKER, b"PGP") + keys[0].packets == RICH_KEY
    assert keys[1].packets == other


# Keyrings


SECOND = new_packet(6, OTHER, 5) + old_packet(USER_ID, b"Other", 4) + old_packet(TRUST, b"\0\0")
ANCIENT, FUTURE = old_packet(6, rsa_key(version=3)), new_packet(6, rsa_key(version=6))


def test_keyring_is_described_key_by_key() -> None:
    assert describe_keyring(armour(KEY_FILE + ANCIENT + old_packet(6, OTHER) + FUTURE)) == [
        f"{fingerprint(KEY)} Someone",
        "a key of version 3",
        fingerprint(OTHER),
        "a key of version 6",
    ]
    assert describe_keyring(b"") == describe_keyring(old_packet(MARKER, b"PGP")) == []


@pytest.mark.parametrize("data", [b"\0\0\0\x20\x01\x01\0\x02KBXf", SECOND[:-1], old_packet(6, b"\x04")])
def test_keyring_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(OpenPGPError):
        describe_keyring(data)

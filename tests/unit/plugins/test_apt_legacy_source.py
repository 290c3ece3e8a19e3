"""What the apt-key way left of one repository goes, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpgp_packets import SUBKEY, TRUST, USER_ID, armour, fingerprint, new_packet, old_packet, rsa_key

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.openpgp import dearmor
from ansible_collections.modelops.tensorflow_serving.plugins.modules import apt_legacy_source

URI = "https://storage.googleapis.com/tensorflow-serving-apt"
ENTRY = (
    "deb [arch=amd64] http://storage.googleapis.com/tensorflow-serving-apt stable "
    "tensorflow-model-server tensorflow-model-server-universal"
)
DEBIAN = "deb http://mirror.example.org/debian bookworm main # no key of its own\n"

BODY = rsa_key()
KEY = old_packet(6, BODY) + old_packet(USER_ID, b"Owner") + old_packet(SUBKEY, rsa_key(created=7))
OTHER_BODY = rsa_key(created=5)
OTHER = new_packet(6, OTHER_BODY) + old_packet(USER_ID, b"Other", 4) + old_packet(TRUST, b"\0\0")
KEYBOX = b"\0\0\0\x20\x01\x01\0\x02KBXf" + bytes(20)

Clean = Callable[..., dict[str, Any]]


@pytest.fixture
def etc_apt(tmp_path: Path) -> Path:
    for name in ("sources.list.d", "trusted.gpg.d"):
        (tmp_path / "apt" / name).mkdir(parents=True)
    return tmp_path / "apt"


@pytest.fixture
def clean(etc_apt: Path, run_module: Callable[..., dict[str, Any]]) -> Clean:
    def run(**arguments: Any) -> dict[str, Any]:
        given = {"uris": [URI], "fingerprints": [fingerprint(BODY)], "etc_apt": str(etc_apt)}
        return run_module(apt_legacy_source, **(given | arguments))

    return run


def contents(etc_apt: Path) -> dict[str, bytes]:
    return {str(path.relative_to(etc_apt)): path.read_bytes() for path in etc_apt.rglob("*") if path.is_file()}


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The module's warnings. Where other tests have loaded Ansible's controller, it prints them instead."""
    given: list[str] = []
    monkeypatch.setattr(apt_legacy_source.AnsibleModule, "warn", lambda _, warning: given.append(warning))
    return given


# Sources


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        "deb http://storage.googleapis.com/tensorflow-serving-apt stable tensorflow-model-server",
        "deb-src http://storage.googleapis.com/tensorflow-serving-apt stable tensorflow-model-server",
        "deb https://storage.googleapis.com/tensorflow-serving-apt/ stable tensorflow-model-server",
        "  deb\thttps://storage.googleapis.com/tensorflow-serving-apt//\tstable tensorflow-model-server # ours",
        "deb [ arch=amd64,arm64 signed-by=/usr/share/keyrings/a b.gpg ] "
        "https://storage.googleapis.com/tensorflow-serving-apt stable x",
        "deb [arch=amd64]https://storage.googleapis.com/tensorflow-serving-apt stable x",
        "deb HTTPS://Storage.GoogleAPIs.com:443/tensorflow-serving-apt stable x",
        "deb https://user:pass@storage.googleapis.com/tensorflow-serving-apt stable x",
        "deb https://user:p@ss@storage.googleapis.com/tensorflow-serving-apt stable x\r",
    ],
)
@pytest.mark.parametrize("uri", [URI, "http://me:secret@storage.googleapis.com:80/tensorflow-serving-apt/"])
def test_entry_of_the_repository_goes_however_it_is_written(clean: Clean, etc_apt: Path, entry: str, uri: str) -> None:
    (etc_apt / "sources.list").write_text(f"{DEBIAN}{entry}\n{DEBIAN}", newline="")
    assert clean(uris=[uri])["changed"]
    assert (etc_apt / "sources.list").read_text() == DEBIAN * 2
    assert not clean(uris=[uri])["changed"]


@pytest.mark.parametrize(
    "line",
    [
        f"# {ENTRY}",
        f"#{ENTRY}",
        DEBIAN.strip(),
        "deb http://storage.googleapis.com/tensorflow-serving-apt-2 stable x",
        "deb http://storage.googleapis.com/tensorflow-serving-apt/more stable x",
        "deb http://storage.googleapis.com/ tensorflow-serving-apt x",
        "deb http://storage.googleapis.com:8080/tensorflow-serving-apt stable x",
        "deb http://mirror.example.com/tensorflow-serving-apt stable x",
        "deb http://mirror.example.com/storage.googleapis.com/tensorflow-serving-apt stable x",
        "deb http://mirror.example.com/ @storage.googleapis.com/tensorflow-serving-apt",
        "deb file:/storage.googleapis.com/tensorflow-serving-apt stable x",
        "deb ftp://storage.googleapis.com/tensorflow-serving-apt stable x",
        "debs http://storage.googleapis.com/tensorflow-serving-apt stable x",
        "deb [arch=amd64 http://storage.googleapis.com/tensorflow-serving-apt stable x",
        "deb",
        "\udcff\udcfe not text",
    ],
)
def test_other_lines_stay(clean: Clean, etc_apt: Path, line: str) -> None:
    before = os.fsencode(f"{line}\r\n\n \t{line}")
    (etc_apt / "sources.list").write_bytes(before)
    (etc_apt / "sources.list.d" / "mixed.list").write_bytes(before + os.fsencode(f"\n{ENTRY}\n{DEBIAN}"))
    result = clean()
    assert [removed["path"] for removed in result["removed"]] == [f"{etc_apt}/sources.list.d/mixed.list"]
    after = {"sources.list": before, "sources.list.d/mixed.list": before + b"\n" + DEBIAN.encode()}
    assert contents(etc_apt) == after


@pytest.mark.parametrize(("uri", "other"), [("file:/srv/apt", "file:/srv/apt2"), ("file:///srv/apt/", "file:///srv")])
def test_repository_on_disk_is_found_too(clean: Clean, etc_apt: Path, uri: str, other: str) -> None:
    (etc_apt / "sources.list").write_text(f"deb {uri} ./\ndeb {other} ./\n")
    clean(uris=[uri])
    assert (etc_apt / "sources.list").read_text() == f"deb {other} ./\n"


@pytest.mark.parametrize("name", ["tensorflow-serving.list", "storage_googleapis_com_tensorflow_serving_apt.list"])
def test_source_file_that_holds_nothing_else_is_deleted(clean: Clean, etc_apt: Path, name: str) -> None:
    path = etc_apt / "sources.list.d" / name
    path.write_text(f"# TensorFlow Serving\n\n{ENTRY}\n  # {ENTRY}\n")
    result = clean()
    assert result["removed"] == [{"path": str(path), "what": ENTRY, "deleted": True}]
    assert not path.exists()


def test_sources_list_itself_is_never_deleted(clean: Clean, etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(f"{ENTRY}\n")
    assert clean()["removed"] == [{"path": f"{etc_apt}/sources.list", "what": ENTRY, "deleted": False}]
    assert contents(etc_apt) == {"sources.list": b""}


def test_comments_alone_are_left_where_nothing_was_removed(clean: Clean, etc_apt: Path) -> None:
    (etc_apt / "sources.list.d" / "old.list").write_text("# nothing\n")
    assert not clean()["changed"]
    assert contents(etc_apt) == {"sources.list.d/old.list": b"# nothing\n"}


def test_other_files_are_not_touched(clean: Clean, etc_apt: Path) -> None:
    source = f"Types: deb\nURIs: {URI}\nSuites: stable\nComponents: x\n"
    for name, text in {"serving.sources": source, "a.list.save": ENTRY, "a": ENTRY, ".hidden.list": ENTRY}.items():
        (etc_apt / "sources.list.d" / name).write_text(text)
    for name in ("trusted.gpg~", "trusted.gpg.d/a.gpg~", "trusted.gpg.d/.hidden.gpg", "trusted.gpg.d/a"):
        (etc_apt / name).write_bytes(KEY)
    (etc_apt / "sources.list.d" / "folder.list").mkdir()
    (etc_apt / "sources.list.d" / "nowhere.list").symlink_to("missing")
    before = contents(etc_apt)
    assert not clean()["changed"]
    assert contents(etc_apt) == before


# Keys


@pytest.mark.parametrize("name", ["trusted.gpg", "trusted.gpg.d/serving.gpg", "trusted.gpg.d/serving.asc"])
def test_keyring_that_holds_nothing_else_is_deleted(clean: Clean, etc_apt: Path, name: str) -> None:
    (etc_apt / name).write_bytes(armour(KEY) if name.endswith(".asc") else KEY)
    result = clean(fingerprints=[" ".join(fingerprint(BODY)).lower()])
    assert result["removed"] == [
        {"path": f"{etc_apt}/{name}", "what": f"key {fingerprint(BODY)} Owner", "deleted": True}
    ]
    assert contents(etc_apt) == {}


@pytest.mark.parametrize("name", ["trusted.gpg", "trusted.gpg.d/all.gpg"])
@pytest.mark.parametrize("order", [KEY + OTHER, OTHER + KEY, KEY + OTHER + KEY])
def test_other_keys_stay_byte_for_byte(clean: Clean, etc_apt: Path, name: str, order: bytes) -> None:
    (etc_apt / name).write_bytes(order)
    assert clean()["changed"]
    assert contents(etc_apt) == {name: OTHER}
    assert not clean()["changed"]


def test_armoured_keyring_stays_armoured(clean: Clean, etc_apt: Path) -> None:
    (etc_apt / "trusted.gpg.d" / "all.asc").write_bytes(b"Two keys:\n" + armour(KEY) + armour(OTHER))
    clean()
    after = (etc_apt / "trusted.gpg.d" / "all.asc").read_bytes()
    assert after.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
    assert dearmor(after) == OTHER


def test_keyring_without_the_key_stays_as_it_is(clean: Clean, etc_apt: Path, warnings: list[str]) -> None:
    (etc_apt / "trusted.gpg").write_bytes(b"")  # as apt-key leaves it
    (etc_apt / "trusted.gpg.d" / "other.gpg").write_bytes(OTHER + old_packet(6, rsa_key(version=3)))
    (etc_apt / "trusted.gpg.d" / "other.asc").write_bytes(b"text\n" + armour(OTHER))
    before = contents(etc_apt)
    result = clean()
    assert (result["changed"], result["removed"], result["diff"]) == (False, [], [])
    assert not warnings
    assert contents(etc_apt) == before


@pytest.mark.parametrize("stored", [KEYBOX, KEY + OTHER[:-1], b"no key"], ids=["keybox", "cut", "no key"])
def test_unreadable_keyring_is_left_alone_with_a_warning(
    clean: Clean, etc_apt: Path, warnings: list[str], stored: bytes
) -> None:
    (etc_apt / "trusted.gpg").write_bytes(stored)
    (etc_apt / "trusted.gpg.d" / "serving.gpg").write_bytes(KEY)
    result = clean()
    assert contents(etc_apt) == {"trusted.gpg": stored}
    (warning,) = warnings
    assert warning.startswith(f"{etc_apt}/trusted.gpg is left alone, as it cannot be read: ")
    assert [removed["path"] for removed in result["removed"]] == [f"{etc_apt}/trusted.gpg.d/serving.gpg"]


def test_key_behind_a_link_is_taken_from_apt_and_not_from_the_links_target(clean: Clean, etc_apt: Path) -> None:
    for name, stored in {"one": KEY, "two": KEY + OTHER}.items():
        (etc_apt / f"{name}-packaged").write_bytes(stored)
        (etc_apt / "trusted.gpg.d" / f"{name}.gpg").symlink_to(etc_apt / f"{name}-packaged")
    clean()
    assert contents(etc_apt) == {
        "one-packaged": KEY,
        "two-packaged": KEY + OTHER,
        "trusted.gpg.d/two.gpg": OTHER,
    }


# As a module


def fill(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(DEBIAN + ENTRY.replace("http://", "http://me:s3cret@") + "\n")
    (etc_apt / "sources.list.d" / "serving.list").write_text(f"{ENTRY}\n")
    (etc_apt / "trusted.gpg").write_bytes(KEY + OTHER)
    (etc_apt / "trusted.gpg.d" / "serving.asc").write_bytes(armour(KEY))


def test_check_mode_tells_the_same_and_changes_nothing(clean: Clean, etc_apt: Path) -> None:
    fill(etc_apt)
    before = contents(etc_apt)
    told = clean(check=True)
    assert contents(etc_apt) == before
    done = clean()
    assert {key: told[key] for key in ("changed", "removed", "diff")} == {
        key: done[key] for key in ("changed", "removed", "diff")
    }
    again = clean(check=True)
    assert (again["changed"], again["removed"], again["diff"]) == (False, [], [])


def test_diff_shows_entries_and_keys_and_no_password(clean: Clean, etc_apt: Path) -> None:
    fill(etc_apt)
    result = clean()
    assert "s3cret" not in str(result)
    ours, other = f"{fingerprint(BODY)} Owner\n", f"{fingerprint(OTHER_BODY)} Other\n"
    hidden = ENTRY.replace("http://", "http://***@")
    assert [(diff["before"], diff["after"]) for diff in result["diff"]] == [
        (f"{DEBIAN}{hidden}\n", DEBIAN),
        (f"{ENTRY}\n", ""),
        (ours + other, other),
        (ours, ""),
    ]
    assert [diff["after_header"].removeprefix(f"{etc_apt}/") for diff in result["diff"]] == [
        "sources.list",
        "sources.list.d/serving.list (deleted)",
        "trusted.gpg",
        "trusted.gpg.d/serving.asc (deleted)",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_files_keep_owner_and_mode(clean: Clean, etc_apt: Path) -> None:
    fill(etc_apt)
    for name in ("sources.list", "trusted.gpg"):
        (etc_apt / name).chmod(0o640)
        os.chown(etc_apt / name, 12, 34)
    clean()
    for name in ("sources.list", "trusted.gpg"):
        status = (etc_apt / name).stat()
        assert (status.st_uid, status.st_gid, oct(status.st_mode & 0o7777)) == (12, 34, "0o640")
    assert sorted(path.name for path in etc_apt.iterdir()) == [
        "sources.list",
        "sources.list.d",
        "trusted.gpg",
        "trusted.gpg.d",
    ]


def test_host_without_any_of_it_is_fine(clean: Clean, tmp_path: Path) -> None:
    assert not clean(etc_apt=str(tmp_path / "none"))["changed"]


def test_fingerprint_that_is_none_is_refused(clean: Clean, etc_apt: Path) -> None:
    fill(etc_apt)
    before = contents(etc_apt)
    result = clean(fingerprints=[fingerprint(BODY)[-16:]])
    assert result["failed"]
    assert result["msg"].startswith("fingerprints: ")
    assert contents(etc_apt) == before


def test_all_given_repositories_and_keys_go(clean: Clean, etc_apt: Path) -> None:
    """A mirror takes the place of what it mirrors."""
    (etc_apt / "sources.list").write_text(f"{DEBIAN}{ENTRY}\ndeb http://mirror.example.com/serving stable x\n")
    (etc_apt / "trusted.gpg").write_bytes(KEY + OTHER)
    (etc_apt / "trusted.gpg.d" / "one.gpg").write_bytes(KEY)
    fingerprints = [fingerprint(BODY), fingerprint(OTHER_BODY), fingerprint(BODY)]
    clean(uris=[URI, "https://mirror.example.com/serving"], fingerprints=fingerprints)
    assert contents(etc_apt) == {"sources.list": DEBIAN.encode()}

"""What the apt-key way left of one repository goes, and nothing else does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from openpgp_packets import SUBKEY, TRUST, USER_ID, armour, fingerprint, new_packet, old_packet, rsa_key

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.legacy import (
    LegacyChange,
    Repository,
    conflicting_sources,
    legacy_changes,
    same_repository,
    sources_without_key,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import describe_keyring

URI = "https://storage.googleapis.com/tensorflow-serving-apt"
ENTRY = (
    "deb [arch=amd64] http://storage.googleapis.com/tensorflow-serving-apt stable "
    "tensorflow-model-server tensorflow-model-server-universal"
)
DEBIAN = "deb http://debian.example/debian bookworm main # no key of its own\n"

BODY = rsa_key()
KEY = old_packet(6, BODY) + old_packet(USER_ID, b"Owner") + old_packet(SUBKEY, rsa_key(created=7))
OTHER_BODY = rsa_key(created=5)
OTHER = new_packet(6, OTHER_BODY) + old_packet(USER_ID, b"Other", 4) + old_packet(TRUST, b"\0\0")
KEYBOX = b"\0\0\0\x20\x01\x01\0\x02KBXf" + bytes(20)
OURS, OTHERS = fingerprint(BODY), fingerprint(OTHER_BODY)

KEYRING = "/etc/apt/keyrings/tensorflow-serving.gpg"

Clean = Callable[..., list[LegacyChange]]


def repository(uri: str = URI, suite: str = "stable", *components: str) -> Repository:
    return Repository(same_repository(uri), suite, frozenset(components))


SERVING = repository(URI, "stable", "tensorflow-model-server", "tensorflow-model-server-universal")


@pytest.fixture
def etc_apt(tmp_path: Path) -> Path:
    for name in ("sources.list.d", "trusted.gpg.d"):
        (tmp_path / "apt" / name).mkdir(parents=True)
    return tmp_path / "apt"


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def clean(etc_apt: Path, warnings: list[str]) -> Clean:
    """Does to the files what legacy_changes says, and returns that."""

    def run(*repositories: Repository, fingerprints: tuple[str, ...] = (OURS,)) -> list[LegacyChange]:
        changes = legacy_changes(etc_apt, list(repositories or (SERVING,)), list(fingerprints), warnings.append)
        for change in changes:
            if change.content is None:
                change.path.unlink()
            else:
                change.path.write_bytes(change.content)
        return changes

    return run


def contents(etc_apt: Path) -> dict[str, bytes]:
    return {str(path.relative_to(etc_apt)): path.read_bytes() for path in etc_apt.rglob("*") if path.is_file()}


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
    assert clean(repository(uri))
    assert (etc_apt / "sources.list").read_text() == DEBIAN * 2
    assert not clean(repository(uri))


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
    assert [change.path for change in clean()] == [etc_apt / "sources.list.d/mixed.list"]
    after = {"sources.list": before, "sources.list.d/mixed.list": before + b"\n" + DEBIAN.encode()}
    assert contents(etc_apt) == after


@pytest.mark.parametrize(("uri", "other"), [("file:/srv/apt", "file:/srv/apt2"), ("file:///srv/apt/", "file:///srv")])
def test_repository_on_disk_is_found_too(clean: Clean, etc_apt: Path, uri: str, other: str) -> None:
    (etc_apt / "sources.list").write_text(f"deb {uri} ./\ndeb {other} ./\n")
    clean(repository(uri, "./"))
    assert (etc_apt / "sources.list").read_text() == f"deb {other} ./\n"


@pytest.mark.parametrize(
    "line",
    [
        ENTRY.replace("http:", "ftp:"),
        ENTRY.replace("stable", "testing"),
        f"{ENTRY} more",
        ENTRY.replace(" stable", ""),
    ],
    ids=["other way", "other suite", "component of its own", "no suite"],
)
def test_entry_that_offers_more_than_the_repository_stays(clean: Clean, etc_apt: Path, line: str) -> None:
    (etc_apt / "sources.list").write_text(f"{line}\n{ENTRY}\n")
    clean()
    assert (etc_apt / "sources.list").read_text() == f"{line}\n"


@pytest.mark.parametrize("name", ["tensorflow-serving.list", "storage_googleapis_com_tensorflow_serving_apt.list"])
def test_source_file_that_holds_nothing_else_is_deleted(clean: Clean, etc_apt: Path, name: str) -> None:
    path = etc_apt / "sources.list.d" / name
    path.write_text(f"# TensorFlow Serving\n\n{ENTRY}\n  # {ENTRY}\n")
    (change,) = clean()
    assert (change.path, change.content, change.after) == (path, None, "")
    assert not path.exists()


@pytest.mark.parametrize("line", [f"# {DEBIAN}", f"#{DEBIAN}", "  ## deb-src http://debian.example/debian sid main\n"])
def test_source_file_with_an_entry_of_others_that_is_switched_off_stays(clean: Clean, etc_apt: Path, line: str) -> None:
    path = etc_apt / "sources.list.d" / "mixed.list"
    path.write_text(f"{line}{ENTRY}\n")
    clean()
    assert path.read_text() == line


def test_sources_list_itself_is_never_deleted(clean: Clean, etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(f"{ENTRY}\n")
    assert [change.content for change in clean()] == [b""]
    assert contents(etc_apt) == {"sources.list": b""}


def test_comments_alone_are_left_where_nothing_was_removed(clean: Clean, etc_apt: Path) -> None:
    (etc_apt / "sources.list.d" / "old.list").write_text("# nothing\n")
    assert not clean()
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
    assert not clean()
    assert contents(etc_apt) == before


# Keys


@pytest.mark.parametrize("name", ["trusted.gpg.d/serving.gpg", "trusted.gpg.d/serving.asc"])
def test_file_that_holds_nothing_but_the_key_is_deleted(
    clean: Clean, etc_apt: Path, warnings: list[str], name: str
) -> None:
    (etc_apt / name).write_bytes(armour(KEY) if name.endswith(".asc") else KEY)
    assert clean() == [LegacyChange(etc_apt / name, content=None, before=f"{OURS} Owner\n", after="")]
    assert (contents(etc_apt), warnings) == ({}, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trusted.gpg", KEY),
        ("trusted.gpg", KEY + OTHER),
        ("trusted.gpg.d/all.gpg", OTHER + KEY),
        ("trusted.gpg.d/all.gpg", KEY + old_packet(6, rsa_key(version=3))),
        ("trusted.gpg.d/all.asc", b"Two keys:\n" + armour(KEY) + armour(OTHER)),
    ],
)
def test_keyring_that_others_use_too_is_reported_and_not_edited(
    clean: Clean, etc_apt: Path, warnings: list[str], name: str, text: bytes
) -> None:
    (etc_apt / name).write_bytes(text)
    assert clean() == []
    assert contents(etc_apt) == {name: text}
    (warning,) = warnings
    assert f"{etc_apt}/{name} lets {OURS} sign for every repository" in warning


def test_command_that_removes_a_keyring_of_nothing_but_the_key_is_told(
    clean: Clean, etc_apt: Path, warnings: list[str]
) -> None:
    (etc_apt / "trusted.gpg").write_bytes(KEY)
    clean()
    assert warnings[0].endswith(f"Remove the key from it: rm {etc_apt}/trusted.gpg")


@pytest.mark.skipif(not shutil.which("gpg"), reason="the command is gpg's")
@pytest.mark.parametrize("name", ["trusted.gpg", "trusted.gpg.d/all.gpg", "trusted.gpg.d/all.asc"])
def test_command_that_is_told_takes_the_key_out_and_leaves_the_others(
    clean: Clean, etc_apt: Path, warnings: list[str], tmp_path: Path, name: str
) -> None:
    home, roots_home = tmp_path / "home", tmp_path / "root"
    for directory in (home, roots_home):
        directory.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--passphrase="]
    for owner in ("Ours", "Others"):
        subprocess.run([*gpg, "--quick-generate-key", owner, "ed25519", "sign"], check=True)
    armoured = ["--armor"] if name.endswith(".asc") else []
    subprocess.run([*gpg, *armoured, "--output", etc_apt / name, "--export"], check=True)
    ours, others = (
        subprocess.run([*gpg, "--with-colons", "--list-keys", owner], check=True, capture_output=True, text=True)
        .stdout.partition("\nfpr:")[2].split(":")[8] for owner in ("Ours", "Others")
    )  # fmt: skip
    clean(fingerprints=(ours,))
    command = warnings.pop().partition("Remove the key from it: ")[2]
    subprocess.run(command, shell=True, check=True, env={**os.environ, "GNUPGHOME": str(roots_home)})  # noqa: S602
    for directory in (home, roots_home):
        subprocess.run(["gpgconf", "--homedir", directory, "--kill", "all"], check=True)
    assert [line.split()[0] for line in describe_keyring((etc_apt / name).with_suffix(".gpg").read_bytes())] == [others]
    assert (clean(fingerprints=(ours,)), warnings) == ([], [])


def test_keyring_without_the_key_stays_as_it_is(clean: Clean, etc_apt: Path, warnings: list[str]) -> None:
    (etc_apt / "trusted.gpg").write_bytes(b"")  # as apt-key leaves it
    (etc_apt / "trusted.gpg.d" / "other.gpg").write_bytes(OTHER + old_packet(6, rsa_key(version=3)))
    (etc_apt / "trusted.gpg.d" / "other.asc").write_bytes(b"text\n" + armour(OTHER))
    before = contents(etc_apt)
    assert not clean()
    assert not warnings
    assert contents(etc_apt) == before


@pytest.mark.parametrize("stored", [KEYBOX, KEY + OTHER[:-1], b"no key"], ids=["keybox", "cut", "no key"])
def test_unreadable_keyring_is_left_alone_with_a_warning(
    clean: Clean, etc_apt: Path, warnings: list[str], stored: bytes
) -> None:
    (etc_apt / "trusted.gpg").write_bytes(stored)
    (etc_apt / "trusted.gpg.d" / "serving.gpg").write_bytes(KEY)
    clean()
    assert contents(etc_apt) == {"trusted.gpg": stored}
    (warning,) = warnings
    assert warning.startswith(f"{etc_apt}/trusted.gpg cannot be read and was left unchanged: ")
    assert OURS in warning


def test_host_without_any_of_it_is_fine(tmp_path: Path, warnings: list[str]) -> None:
    assert legacy_changes(tmp_path / "none", [SERVING], [OURS], warnings.append) == []
    assert not warnings


def test_all_given_repositories_and_keys_go(clean: Clean, etc_apt: Path) -> None:
    """A mirror takes the place of what it mirrors, all of its components."""
    mirror = repository("https://mirror.example.com/serving", "stable", "x")
    (etc_apt / "sources.list").write_text(f"{DEBIAN}{ENTRY} more\ndeb http://mirror.example.com/serving stable x\n")
    (etc_apt / "trusted.gpg.d" / "both.gpg").write_bytes(KEY + OTHER)
    (etc_apt / "trusted.gpg.d" / "one.gpg").write_bytes(KEY)
    clean(mirror, repository(), fingerprints=(OURS, OTHERS, OURS))
    assert contents(etc_apt) == {"sources.list": DEBIAN.encode()}


def test_texts_for_people_show_entries_and_keys_and_no_password(clean: Clean, etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(DEBIAN + ENTRY.replace("http://", "http://me:s3cret@") + "\n")
    (etc_apt / "sources.list.d" / "serving.list").write_text(f"{ENTRY}\n")
    (etc_apt / "trusted.gpg.d" / "serving.asc").write_bytes(armour(KEY))
    hidden = ENTRY.replace("http://", "http://***@")
    assert [(change.before, change.after) for change in clean()] == [
        (f"{DEBIAN}{hidden}\n", DEBIAN),
        (f"{ENTRY}\n", ""),
        (f"{OURS} Owner\n", ""),
    ]


# Other sources of the same host

NEIGHBOUR = "deb https://storage.googleapis.com/other-apt stable main\n"
NEIGHBOUR_STANZA = "Types: deb\nURIs: https://storage.googleapis.com/other-apt\nSuites: stable\nComponents: main\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", NEIGHBOUR),
        ("sources.list.d/other.list", NEIGHBOUR.replace("https:", "[arch=amd64] http:")),
        ("sources.list.d/other.list", f"{ENTRY} more\n"),
        ("sources.list.d/other.list", ENTRY.replace("stable", "testing")),
        ("sources.list.d/other.sources", NEIGHBOUR_STANZA),
        ("sources.list.d/other.sources", f"# Signed-By: /x\n{NEIGHBOUR_STANZA}Enabled: yes\n#Enabled: no\n"),
        ("sources.list.d/other.sources", f"Types: deb\nURIs: http://a.example.com/\n\n{NEIGHBOUR_STANZA}"),
        ("sources.list.d/other.sources", NEIGHBOUR_STANZA.replace("URIs:", "uris: http://a.example.com/\n ")),
        ("sources.list.d/other.sources", NEIGHBOUR_STANZA.replace("URIs:", "URIs: http://a.example.com/\n# b\n ")),
    ],
)
def test_key_stays_trusted_while_another_source_of_the_host_may_need_it(
    clean: Clean, etc_apt: Path, warnings: list[str], name: str, text: str
) -> None:
    (etc_apt / name).write_text(text)
    (etc_apt / "trusted.gpg.d/serving.gpg").write_bytes(KEY)
    assert clean(fingerprints=(OURS, OTHERS)) == []
    (warning,) = warnings
    assert OURS in warning
    assert f"{etc_apt}/{name}" in warning
    assert contents(etc_apt) == {name: text.encode(), "trusted.gpg.d/serving.gpg": KEY}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", f"{DEBIAN}# {NEIGHBOUR}"),
        ("sources.list", NEIGHBOUR.replace("https:", "[arch=amd64 Signed-By=/x.gpg] https:")),
        ("sources.list.d/other.list.save", NEIGHBOUR),
        (
            "sources.list.d/other.list",
            NEIGHBOUR.replace("storage.googleapis.com", "storage.googleapis.com.example.com"),
        ),
        ("sources.list.d/other.sources", f"{NEIGHBOUR_STANZA}Signed-By: /x.gpg\n"),
        ("sources.list.d/other.sources", f"{NEIGHBOUR_STANZA}signed-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n"),
        ("sources.list.d/other.sources", f"{NEIGHBOUR_STANZA}Enabled: no\n"),
        ("sources.list.d/other.sources", "".join(f"#{line}\n" for line in NEIGHBOUR_STANZA.splitlines())),
        ("sources.list.d/serving.sources", f"Types: deb\nURIs: {URI}/\nSuites: stable\nSigned-By: /x.gpg\n"),
        ("sources.list.d/serving.sources", f"Types: deb\nURIs: {URI}/\nSuites: stable\n"),
    ],
)
def test_key_goes_where_no_source_of_the_host_needs_it(
    clean: Clean, etc_apt: Path, warnings: list[str], name: str, text: str
) -> None:
    (etc_apt / name).write_text(text)
    (etc_apt / "trusted.gpg.d/serving.gpg").write_bytes(KEY)
    clean()
    assert not warnings
    assert contents(etc_apt) == {name: text.encode()}


def test_key_of_the_mirrored_repository_goes_even_where_the_mirrors_host_has_other_sources(
    clean: Clean, etc_apt: Path, warnings: list[str]
) -> None:
    mirror = repository("https://mirror.example.com/serving")
    (etc_apt / "sources.list").write_text("deb https://mirror.example.com/debian stable main\n")
    (etc_apt / "trusted.gpg.d/mirror.gpg").write_bytes(KEY)
    (etc_apt / "trusted.gpg.d/google.gpg").write_bytes(OTHER)
    clean(mirror, SERVING, fingerprints=(OURS, OTHERS))
    assert [path.name for path in (etc_apt / "trusted.gpg.d").iterdir()] == ["mirror.gpg"]
    assert len(warnings) == 1


def test_key_that_both_share_goes(clean: Clean, etc_apt: Path, warnings: list[str]) -> None:
    (etc_apt / "sources.list").write_text(NEIGHBOUR)
    (etc_apt / "trusted.gpg.d/serving.gpg").write_bytes(KEY)
    clean(SERVING, SERVING, fingerprints=(OURS, OURS))
    assert not (etc_apt / "trusted.gpg.d/serving.gpg").exists()
    assert not warnings


def test_sources_that_may_need_a_key_are_those_of_the_first_repositorys_host(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(NEIGHBOUR)
    mirror = repository("https://mirror.example.com/serving")
    assert sources_without_key(etc_apt, [SERVING, mirror]) == [etc_apt / "sources.list"]
    assert sources_without_key(etc_apt, [mirror, SERVING]) == []


# Sources of others with another key

STANZA = f"Types: deb\nURIs: {URI}\nSuites: stable\nComponents: tensorflow-model-server\n"


def conflicts(etc_apt: Path) -> list[str]:
    own = etc_apt / "sources.list.d/tensorflow-serving.sources"
    return [path.name for path in conflicting_sources(etc_apt, SERVING, own, KEYRING)]


@pytest.mark.parametrize(
    "text",
    [
        f"{STANZA}Signed-By: /usr/share/keyrings/other.gpg\n",
        f"{STANZA}Enabled: yes\nsigned-by:\n /usr/share/keyrings/other.gpg\n",
        f"{STANZA}Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBFb\n",
        f"{STANZA}Signed-By: {KEYRING} /usr/share/keyrings/other.gpg\n",
        f"# x\n\n{NEIGHBOUR_STANZA}\n \n{STANZA}Signed-By: /x.gpg\n".replace("https:", "HTTP:"),
        f"{STANZA}Signed-By: /x.gpg\n".replace("URIs:", "URIs: http://a.example.com").replace(
            "stable", "testing stable"
        ),
    ],
)
def test_source_of_others_with_another_key_is_a_conflict(etc_apt: Path, text: str) -> None:
    (etc_apt / "sources.list.d/other.sources").write_text(text)
    assert conflicts(etc_apt) == ["other.sources"]


@pytest.mark.parametrize(
    "text",
    [
        f"{STANZA}Signed-By: {KEYRING}\n",
        f"{STANZA}Enabled: no\nSigned-By: /x.gpg\n",
        f"{STANZA}Signed-By: /x.gpg\n".replace("stable", "testing"),
        f"{STANZA}Signed-By: /x.gpg\n".replace("-apt", "-apt-2"),
        f"{NEIGHBOUR_STANZA}Signed-By: /x.gpg\n",
        "".join(f"# {line}\n" for line in f"{STANZA}Signed-By: /x.gpg".splitlines()),
    ],
)
def test_other_sources_are_no_conflict(etc_apt: Path, text: str) -> None:
    (etc_apt / "sources.list.d/other.sources").write_text(text)
    (etc_apt / "sources.list.d/other.sources.save").write_text(f"{STANZA}Signed-By: /x.gpg\n")
    (etc_apt / "sources.list.d/tensorflow-serving.sources").write_text(f"{STANZA}Signed-By: /old.gpg\n")
    assert conflicts(etc_apt) == []


@pytest.mark.parametrize(("name", "conflicting"), [("other.sources", False), ("zabbix.sources", True)])
def test_source_of_others_without_a_key_is_a_conflict_where_apt_reads_it_later(
    etc_apt: Path, name: str, conflicting: bool
) -> None:
    (etc_apt / "sources.list.d" / name).write_text(STANZA)
    assert conflicts(etc_apt) == [name] * conflicting

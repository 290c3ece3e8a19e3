"""An apt source is there once apt can use it, and until then the host stays as it was, by the real apt and gpg."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stub_http import StubServer, unused_port
from test_apt_repository import NAME, Owner, release, stanza

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import apt_get, source
from ansible_collections.modelops.tensorflow_serving.plugins.modules import apt_source

pytestmark = [
    pytest.mark.usefixtures("no_environment_proxy"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the files have to be root's, and apt downloads as a user of its own"),
]

FAR = "http://packages.example.com"  # a repository that only a proxy reaches
FILES = {
    "etc/apt/sources.list.d/serving.sources": 0o644,
    "etc/apt/preferences.d/serving.pref": 0o644,
    "etc/apt/apt.conf.d/90serving-proxy": 0o644,
    "etc/apt/auth.conf.d/90serving-proxy.conf": 0o600,
}
SOURCE, PIN, PROXY, NETRC = FILES
UNCHECKED = (
    'APT::Get::AllowUnauthenticated "true"; Acquire::AllowInsecureRepositories "true"; '
    'Acquire::AllowWeakRepositories "true"; Acquire::AllowDowngradeToInsecureRepositories "true";\n'
)

Result = dict[str, Any]


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Owner]]:
    """The owner of the repository, another one, and one whose key has expired since it signed."""
    directory = tmp_path_factory.mktemp("s")
    made = {"pinned": Owner(directory / "p"), "other": Owner(directory / "x")}
    made["expired"] = Owner(directory / "e", "--faked-system-time=20200101T000000")
    yield made
    for owner in made.values():
        subprocess.run(["gpgconf", "--homedir", str(owner.home), "--kill", "all"], check=True)


def fingerprint(owner: Owner) -> str:
    listing = owner.gpg("--list-keys", "--with-colons").decode()
    return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


def signed(owner: Owner, version: str = "2.19.1", *options: str) -> dict[str, bytes]:
    """A repository: its files by path."""
    index = stanza(version=version)
    return {
        "/dists/stable/InRelease": owner.sign(release({NAME: index}), *options),
        f"/dists/stable/{NAME}/binary-amd64/Packages": index.encode(),
    }


def serve(server: StubServer, files: dict[str, bytes], base: str = "", status: int = 200) -> None:
    for path, content in files.items():
        server.answer(f"{base}{path}", content, status)


class Host:
    """A host's apt below a directory, and the module run on it."""

    def __init__(self, root: Path, run: Callable[..., Result], owner: Owner, uri: str) -> None:
        self.root = root
        for name in ("sources.list.d", "preferences.d", "apt.conf.d", "auth.conf.d", "trusted.gpg.d", "keyrings"):
            (root / "etc/apt" / name).mkdir(parents=True)
        for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        self.write("etc/apt/apt.conf.d/00test", 'Acquire::Retries "0";\n')  # seconds each
        self.keyring = root / "etc/apt/keyrings/serving.gpg"
        self.keyring.write_bytes(owner.keyring.read_bytes())
        self.fingerprint = fingerprint(owner)
        self.uri = uri
        self._run = run

    def source(self, uri: str | None = None, suite: str = "stable") -> str:
        head = f"Types: deb\nURIs: {uri or self.uri}\nSuites: {suite}\nComponents: {NAME}\n"
        return f"{head}Architectures: amd64\nSigned-By: {self.keyring}\n"

    def play(self, check: bool = False, **changed: Any) -> Result:
        given = {
            "name": "serving",
            "source": self.source(),
            "pin": f"Package: *\nPin: release c={NAME}\nPin-Priority: -1\n",
            "fingerprint": self.fingerprint,
            "root": str(self.root),
        }
        return self._run(apt_source, check=check, **(given | changed))

    def state(self) -> dict[str, Any]:
        """Everything that is there, byte for byte, with owners and modes. apt's locks and half files are no part."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            if not {"lock", "partial", "auxfiles"} & set(path.parts):
                name = str(path.relative_to(self.root))
                found[name] = (content, oct(status.st_mode), status.st_uid, status.st_gid)
        return found

    def has(self, *names: str) -> bool:
        """Say whether of the module's files these are there, and no others."""
        return {name for name in FILES if (self.root / name).exists()} == set(names)

    def lists(self) -> list[Path]:
        return [path for path in (self.root / "var/lib/apt/lists").iterdir() if path.name.endswith("Packages")]

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> Path:
        path = self.root / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the host lies. apt downloads as a user of its own, which pytest's directories shut out."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        scratch = place / "tmp"
        scratch.mkdir(mode=0o777)
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        # So that apt reads that root's apt.conf.d, and not this machine's.
        (place / "apt.conf").write_text(
            f'Dir "{place}/host";\nDir::State::status "{place}/host/var/lib/dpkg/status";\n'
        )
        monkeypatch.setenv("APT_CONFIG", str(place / "apt.conf"))
        yield place
        assert list(scratch.iterdir()) == []


@pytest.fixture
def host(place: Path, run_module: Callable[..., Result], owners: dict[str, Owner], serving: StubServer) -> Host:
    """A host without the source, while the repository is served."""
    serve(serving, signed(owners["pinned"]))
    return Host(place / "host", run_module, owners["pinned"], serving.url)


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the module is asked, the look that precedes it says whether it will find something to do."""
    ensure = apt_source.ensure

    def look_and_ensure(module: Any) -> Result:
        if module.params["state"] == "absent":
            return ensure(module)
        up_to_date = source.Source(module, module.params).is_up_to_date()
        told: list[str] = []
        monkeypatch.setattr(module, "warn", told.append)
        try:
            result = ensure(module)
        except source.SourceError:
            assert not up_to_date or module.params["key_changed"]
            raise
        for text in told:
            apt_source.AnsibleModule.warn(module, text)
        assert up_to_date == (not result["changed"] and not told) or module.params["key_changed"]
        return result

    monkeypatch.setattr(apt_source, "ensure", look_and_ensure)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the module starts, with its environment."""
    seen: list[Any] = []
    start = apt_source.AnsibleModule.run_command

    def run_command(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append((arguments, options))
        return start(self, *arguments, **options)

    monkeypatch.setattr(apt_source.AnsibleModule, "run_command", run_command)
    return seen


def add_legacy(host: Host, owner: Owner) -> dict[str, Path]:
    """What the apt-key way leaves of the repository, with more than content to get wrong."""
    entry = f"deb [arch=amd64] {host.uri} stable {NAME}\n"
    made = {
        "list": host.write("etc/apt/sources.list.d/old.list", entry, 0o640),
        "sources.list": host.write("etc/apt/sources.list", f"{entry}# mine\n", 0o604),
        "asc": host.write("etc/apt/trusted.gpg.d/old.asc", owner.gpg("--armor", "--export"), 0o640),
    }
    os.chown(made["list"], 12, 34)
    packaged = host.write("etc/packaged.gpg", owner.keyring.read_bytes())
    made["gpg"] = host.root / "etc/apt/trusted.gpg.d/old.gpg"
    made["gpg"].symlink_to(packaged)
    return made


# What it does


def test_files_are_written_and_the_lists_fetched(host: Host) -> None:
    result = host.play()
    assert result["changed"]
    assert host.has(SOURCE, PIN)
    assert (host.root / SOURCE).read_text() == host.source()
    assert oct((host.root / SOURCE).stat().st_mode) == oct((host.root / PIN).stat().st_mode) == "0o100644"
    assert [path.read_text() for path in host.lists()] == [stanza()]
    assert [diff["after"] for diff in result["diff"]] == [(host.root / PIN).read_text(), host.source()]


def test_file_system_that_is_full_at_the_second_file_has_neither(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before, replace_file, written = host.state(), source.replace_file, []

    def write(path: Path, *rest: Any) -> None:
        written.append(path)
        if len(written) > 1:
            raise OSError("no space left for it")
        replace_file(path, *rest)

    monkeypatch.setattr(source, "replace_file", write)
    result = host.play()
    assert result["msg"] == f"cannot change {host.root}/etc/apt: no space left for it"
    assert (host.state(), len(written)) == (before, 2)


def test_second_run_changes_nothing_and_asks_nothing(host: Host, serving: StubServer) -> None:
    host.play()
    before, asked = host.state(), len(serving.requests)
    result = host.play()
    assert (result["changed"], result["diff"]) == (False, [])
    assert (host.state(), len(serving.requests)) == (before, asked)


def test_missing_lists_are_fetched_again(host: Host) -> None:
    host.play()
    for path in (host.root / "var/lib/apt/lists").iterdir():
        if path.is_file():
            path.unlink()
    assert host.play(check=True)["changed"]
    assert host.lists() == []
    assert host.play()["changed"]
    assert len(host.lists()) == 1
    assert not host.play()["changed"]


def test_lists_that_apt_keeps_compressed_are_no_missing_ones(host: Host) -> None:
    host.play()
    (path,) = host.lists()
    subprocess.run(["gzip", path], check=True)
    assert not host.play()["changed"]


def test_lists_are_fetched_by_a_key_that_was_just_replaced(
    host: Host, serving: StubServer, owners: dict[str, Owner]
) -> None:
    host.play()
    serve(serving, signed(owners["pinned"], "2.20.0"))
    assert host.play(key_changed=True)["changed"]
    assert host.lists()[0].read_text() == stanza(version="2.20.0")


def test_lists_of_other_sources_stay_and_are_not_fetched(host: Host, serving: StubServer) -> None:
    host.write("etc/apt/sources.list", f"deb {serving.url}/debian bookworm main\n")
    other = host.write("var/lib/apt/lists/other.example.com_dists_stable_main_binary-amd64_Packages", stanza())
    host.play()
    assert other.exists()
    assert not [path for _, path in serving.requests if path.startswith("/debian")]


def test_wrong_modes_and_owners_are_put_right(host: Host) -> None:
    host.play()
    before = host.state()
    (host.root / SOURCE).chmod(0o666)
    os.chown(host.root / PIN, 12, 34)
    assert host.play()["changed"]
    assert host.state() == before


def test_proxy_is_for_the_host_alone_and_its_password_is_roots(
    host: Host, proxy: StubServer, owners: dict[str, Owner], commands: list[Any]
) -> None:
    serve(proxy, signed(owners["pinned"]), FAR)
    given = {
        "source": host.source(FAR),
        "proxy": proxy.url,
        "netrc": f"machine {proxy.url} login user password s3cret",
    }
    told = host.play(check=True, **given)
    result = host.play(**given)
    assert result["changed"]
    assert host.has(*FILES)
    assert {name: (host.root / name).stat().st_mode & 0o777 for name in FILES} == FILES
    settings = (host.root / PROXY).read_text()
    assert f'Acquire::http::Proxy::packages.example.com "{proxy.url}";' in settings
    assert f'Acquire::https::Proxy::packages.example.com "{proxy.url}";' in settings
    expected = "Basic " + base64.b64encode(b"user:s3cret").decode()
    assert {headers.get("proxy-authorization") for headers in proxy.headers} == {expected}
    for seen in (told, result, commands, settings):
        assert seen
        assert "s3cret" not in str(seen)
    assert not host.play(**given)["changed"]


def test_password_is_at_no_moment_for_others_to_read(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: dict[str, int] = {}
    replace = os.replace

    def watched(new: str, path: Path) -> None:
        assert Path(new).parent == path.parent  # and not in a directory of the account that logs in
        replace(new, path)
        modes[str(path.relative_to(host.root))] = path.stat().st_mode & 0o777

    monkeypatch.setattr(os, "replace", watched)
    host.play(proxy="DIRECT", netrc="machine http://proxy.example.com login user password s3cret")
    assert modes == FILES


def test_proxy_that_is_not_given_any_more_is_removed(host: Host, proxy: StubServer, serving: StubServer) -> None:
    serve(proxy, {path: body for path, (_, body) in serving.answers.items()}, serving.url)
    host.play(proxy=proxy.url, netrc=f"machine {proxy.url} login user password s3cret")
    assert host.has(*FILES)
    proxy.answers.clear()
    result = host.play()
    assert result["changed"]
    assert host.has(SOURCE, PIN)
    assert "s3cret" not in str(result)


def test_host_in_no_proxy_is_reached_past_the_hosts_own_proxy(host: Host) -> None:
    host.write("etc/apt/apt.conf.d/00own", f'Acquire::http::Proxy "http://127.0.0.1:{unused_port()}";\n')
    assert host.play()["reason"] == "apt"
    assert host.play(proxy="DIRECT")["changed"]
    assert (host.root / PROXY).read_text().count('::127.0.0.1 "DIRECT";') == 2


@pytest.mark.parametrize("scope", ["", "::packages.example.com"], ids=["for all", "for the host"])
def test_proxy_that_the_host_has_of_its_own_is_used(
    host: Host, proxy: StubServer, owners: dict[str, Owner], scope: str
) -> None:
    serve(proxy, signed(owners["pinned"]), FAR)
    host.write("etc/apt/apt.conf.d/00own", f'Acquire::http::Proxy{scope} "{proxy.url}";\n')
    assert host.play(source=host.source(FAR)).get("changed")


def test_passwords_that_the_host_has_are_used_from_the_first_request_on(host: Host, serving: StubServer) -> None:
    host.write("etc/apt/auth.conf.d/own.conf", f"machine {serving.url} login a password b\n", 0o600)
    assert host.play()["changed"]
    assert {headers.get("authorization") for headers in serving.headers} == {
        "Basic " + base64.b64encode(b"a:b").decode()
    }


def test_check_mode_says_the_same_touches_nothing_and_asks_nothing(
    host: Host, serving: StubServer, owners: dict[str, Owner]
) -> None:
    add_legacy(host, owners["pinned"])
    before = host.state()
    told = host.play(check=True)
    assert (host.state(), serving.requests) == (before, [])
    done = host.play()
    assert told["changed"]
    assert told["diff"] == done["diff"]
    assert len(done["diff"]) == 6


def test_absent_removes_the_modules_files_and_nothing_else(host: Host, owners: dict[str, Owner]) -> None:
    before = host.state()
    host.play(proxy="DIRECT", netrc="machine http://proxy.example.com login user password s3cret")
    add_legacy(host, owners["pinned"])
    kept = {name: entry for name, entry in host.state().items() if name not in FILES}
    assert host.has(*FILES)
    told = host.play(check=True, state="absent")
    assert host.has(*FILES)
    done = host.play(state="absent")
    assert told["changed"]
    assert "s3cret" not in str(done)
    assert told["diff"] == done["diff"]
    assert host.state() == kept
    assert set(before) <= set(kept)
    assert not host.play(state="absent")["changed"]


# What apt-key left


def test_what_earlier_instructions_left_goes(host: Host, owners: dict[str, Owner]) -> None:
    made = add_legacy(host, owners["pinned"])
    assert host.play()["changed"]
    assert made["sources.list"].read_text() == "# mine\n"
    assert oct(made["sources.list"].stat().st_mode) == "0o100604"
    assert [name for name, path in made.items() if path.exists()] == ["sources.list"]
    assert (host.root / "etc/packaged.gpg").exists()
    assert not host.play()["changed"]


def test_keyring_that_others_use_too_is_a_warning_and_no_change(
    host: Host, owners: dict[str, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(apt_source.AnsibleModule, "warn", lambda self, text: warnings.append(text))
    keys = owners["pinned"].keyring.read_bytes() + owners["other"].keyring.read_bytes()
    trusted = host.write("etc/apt/trusted.gpg", keys)
    for changed in (True, False):
        assert host.play()["changed"] == changed
        assert f"{trusted} lets {host.fingerprint} sign for every repository" in warnings.pop()
    assert trusted.read_bytes() == keys


def test_run_that_was_cut_after_the_source_was_written_is_made_up_for(host: Host) -> None:
    """In between, apt refuses to do anything: the two contradict each other."""
    host.play()
    for path in host.lists():
        path.unlink()
    legacy = host.write("etc/apt/sources.list.d/zabbix.list", f"deb {host.uri} stable {NAME}\n")
    assert subprocess.run(["apt-get", "indextargets"], capture_output=True, check=False).returncode
    assert host.play()["changed"]
    assert not legacy.exists()
    assert len(host.lists()) == 1


def test_mirror_takes_the_place_of_what_it_mirrors(host: Host, owners: dict[str, Owner]) -> None:
    entry = host.write("etc/apt/sources.list.d/old.list", f"deb {FAR}/serving stable {NAME} more\n")
    key = host.write("etc/apt/trusted.gpg.d/old.gpg", owners["other"].keyring.read_bytes())
    other = {
        "uri": "https://packages.example.com/serving/",
        "suite": "stable",
        "fingerprint": fingerprint(owners["other"]),
    }
    assert host.play(replaces=other)["changed"]
    assert not entry.exists()
    assert not key.exists()


# What apt cannot use


Break = Callable[[Host, StubServer, dict[str, Owner]], dict[str, Any]]


def other_key(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    serve(server, signed(owners["other"], "3.0.0"))
    return {}


def bad_signature(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    files = signed(owners["pinned"], "3.0.0")
    serve(server, {path: body.replace(b"Suite: stable", b"Suite: Stable") for path, body in files.items()})
    return {}


def expired_key(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    serve(server, signed(owners["expired"], "3.0.0", "--faked-system-time=20200102T000000"))
    host.keyring.write_bytes(owners["expired"].keyring.read_bytes())
    return {}


def unsigned(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    server.answers.pop("/dists/stable/InRelease")
    server.answer("/dists/stable/Release", release({NAME: stanza()}).encode())
    return {}


def weak_digests(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    weak = hashlib.md5(stanza().encode()).hexdigest()  # noqa: S324
    text = release({NAME: stanza()}).replace("SHA256:", "MD5Sum:")
    server.answer("/dists/stable/InRelease", owners["pinned"].sign(re.sub(r"[0-9a-f]{64}", weak, text)))
    return {}


def broken_index(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    server.answer(f"/dists/stable/{NAME}/binary-amd64/Packages", stanza(version="2.19.2").encode())
    return {}


def no_suite(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    return {"source": host.source(suite="nightly")}


def unreachable(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    return {"source": host.source(f"http://127.0.0.1:{unused_port()}")}


def unreachable_proxy(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    return {"proxy": f"http://127.0.0.1:{unused_port()}", "netrc": "machine http://127.0.0.1 login u password s3cret"}


def refusing_proxy(host: Host, server: StubServer, owners: dict[str, Owner]) -> dict[str, Any]:
    return {"proxy": server.url, "source": host.source(FAR)}


BROKEN: dict[Break, str] = {
    other_key: "NO_PUBKEY",
    bad_signature: "BADSIG",
    expired_key: "EXPKEYSIG",
    unsigned: "is not signed",
    weak_digests: "considered strong enough for security",
    broken_index: "Hash Sum mismatch",
    no_suite: "does not have a Release file",
    unreachable: "Could not connect",
    unreachable_proxy: "Could not connect",
    refusing_proxy: "does not have a Release file",
}


@pytest.mark.parametrize(("broken", "words"), BROKEN.items(), ids=[broken.__name__ for broken in BROKEN])
@pytest.mark.parametrize("configured", [False, True], ids=["fresh", "configured"])
def test_what_apt_cannot_use_leaves_the_host_as_it_was(
    host: Host, serving: StubServer, owners: dict[str, Owner], configured: bool, broken: Break, words: str
) -> None:
    if configured:
        assert host.play(pin="Package: *\nPin: origin x\nPin-Priority: 1\n", proxy="DIRECT")["changed"]
    add_legacy(host, owners["pinned"])
    host.write("etc/apt/apt.conf.d/00own", UNCHECKED)
    changed = broken(host, serving, owners)
    before = host.state()
    result = host.play(**changed)
    assert (result["failed"], result["reason"]) == (True, "apt")
    assert words in result["msg"]
    assert "s3cret" not in str(result)
    assert host.state() == before


def test_lists_that_cannot_be_fetched_fail_where_nothing_else_is_to_be_done(
    host: Host, serving: StubServer, owners: dict[str, Owner]
) -> None:
    host.play()
    other_key(host, serving, owners)
    before = host.state()
    result = host.play(key_changed=True)
    assert (result["failed"], result["reason"]) == (True, "apt")
    assert host.state() == before


def test_host_is_as_it_was_while_apt_tries_the_source(
    host: Host, owners: dict[str, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is cut then leaves nothing behind."""
    add_legacy(host, owners["pinned"])
    before = host.state()
    seen: list[tuple[bool, bool]] = []
    update = apt_get.update

    def watched(*arguments: Any, **options: Any) -> Any:
        done = update(*arguments, **options)
        seen.append((host.state() == before, "unsandboxed" in done[1]))
        return done

    monkeypatch.setattr(apt_get, "update", watched)
    assert host.play()["changed"]
    assert seen == [(True, False), (False, False)]


def test_proxy_that_does_not_let_apt_in_leaves_the_working_one(host: Host, owners: dict[str, Owner]) -> None:
    files = signed(owners["pinned"])
    with StubServer() as good, StubServer() as bad:
        serve(good, files, FAR)
        serve(bad, files, FAR, status=407)
        given = {"source": host.source(FAR), "proxy": good.url, "netrc": f"machine {good.url} login u password s3cret"}
        assert host.play(**given)["changed"]
        before = host.state()
        result = host.play(**given | {"proxy": bad.url, "netrc": f"machine {bad.url} login u password s3cret2"})
    assert result["reason"] == "apt"
    assert "407" in result["msg"]
    assert "s3cret" not in str(result)
    assert host.state() == before


def test_legacy_entries_stay_until_apt_could_use_the_new_source(
    host: Host, serving: StubServer, owners: dict[str, Owner]
) -> None:
    """Also where the new source is there already, and only they are left to do."""
    host.play()
    add_legacy(host, owners["pinned"])
    other_key(host, serving, owners)
    before = host.state()
    assert host.play()["reason"] == "apt"
    assert host.state() == before


# Sources that contradict each other


@pytest.mark.parametrize("name", ["other.sources", "zabbix.sources"])
def test_source_of_others_with_another_key_is_named(host: Host, serving: StubServer, name: str) -> None:
    path = host.write(f"etc/apt/sources.list.d/{name}", host.source().replace("serving.gpg", "other.gpg"))
    before = host.state()
    result = host.play()
    assert (result["failed"], result["reason"]) == (True, "conflict")
    assert str(path) in result["msg"]
    assert (host.state(), serving.requests) == (before, [])


@pytest.mark.parametrize("configured", [False, True], ids=["fresh", "configured"])
def test_contradiction_that_only_apt_sees_is_taken_back(host: Host, owners: dict[str, Owner], configured: bool) -> None:
    if configured:
        host.play(proxy="DIRECT", netrc="machine http://a login b password s3cret")
        with (host.root / NETRC).open("a") as netrc:
            netrc.write("# manual\n")
        (host.root / NETRC).chmod(0o640)
    add_legacy(host, owners["pinned"])
    host.write("etc/apt/sources.list.d/zabbix.list", f'deb "{host.uri}" stable {NAME}\n')  # apt knows quotes
    before = host.state()
    result = host.play(pin="Package: *\nPin: origin x\nPin-Priority: 1\n")
    assert (result["failed"], result["reason"]) == (True, "apt")
    assert "Conflicting values" in result["msg"]
    after = host.state()
    assert {name: entry for name, entry in after.items() if name.startswith("etc/")} == {
        name: entry for name, entry in before.items() if name.startswith("etc/")
    }


# Others at work

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print(flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def lists_locked(host: Host, seconds: float) -> Iterator[None]:
    """Let another process hold the lock, as apt-get does."""
    lock = str(host.root / "var/lib/apt/lists/lock")
    with subprocess.Popen([sys.executable, "-c", HOLD, lock, str(seconds)], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        yield
        other.kill()


def test_lock_of_the_lists_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_get, "LISTS_LOCK_POLL_SECONDS", 0.2)
    with lists_locked(host, 2):
        began = time.monotonic()
        assert host.play().get("changed")
        assert time.monotonic() - began > 1
    assert len(host.lists()) == 1


def test_lock_that_is_never_freed_is_told_and_all_is_taken_back(
    host: Host, owners: dict[str, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt_get, "LISTS_LOCK_POLL_SECONDS", 0.1)
    monkeypatch.setattr(apt_get, "LOCK_TIMEOUT_SECONDS", 0.5)
    add_legacy(host, owners["pinned"])
    before = host.state()
    with lists_locked(host, 60):
        assert "Could not get lock" in host.play()["msg"]
    assert host.state() == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": "Types: deb\nSuites: stable\n"}, "source: there is no 'URIs'"),
        ({"fingerprint": "916E"}, "fingerprint: "),
        ({"source": "deb http://a.example.com stable main\n"}, "source: there is no 'URIs'"),
    ],
)
def test_bad_input_is_told_before_anything_is_changed(host: Host, changed: dict[str, Any], words: str) -> None:
    before = host.state()
    result = host.play(**changed)
    assert result["failed"]
    assert words in result["msg"]
    assert host.state() == before

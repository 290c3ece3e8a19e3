"""The store that holds the previous package of a change of package, and the download of a given package."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.package_change import (
    Changer,
    Store,
    observe,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import (
    Host,
    Package,
    PackageChange,
    PackageError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import (
    model_server_package,
)

OLD = Package("tensorflow-model-server", "2.18.0")
NEW = Package("tensorflow-model-server", "2.19.1")
GIVEN = Package("tensorflow-model-server", "2.19.1", "a" * 64)


class Module:
    """Runs programs for the code under test, as AnsibleModule does."""

    def warn(self, text: str) -> None:
        print(text)

    def run_command(self, command: list[str], **_: Any) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "packages"))
    made.prepare()
    return made


@pytest.fixture
def changer(store: Store) -> Changer:
    return Changer(Module(), store, "tfserving", "tfserving")  # type: ignore[arg-type]


def files(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.directory)) for path in store.directory.rglob("*") if path.is_file())


def begun(store: Store, change: PackageChange) -> Store:
    """A store as a run leaves it that was killed after the begin of a change."""
    (store.previous / "old.deb").write_bytes(b"old")
    (store.new / "new.deb").write_bytes(b"new")
    if change.new.sha256:
        store.given.write_bytes(b"given")
    store.begin(change)
    return Store(str(store.directory))


def test_store_of_a_host_that_was_never_changed_is_empty(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "nowhere"))
    assert (store.change(), store.kept(), store.previous_deb()) == (None, None, None)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"new": {"name": "x"}, "previous": null}', "7"])
def test_change_file_that_is_not_whole_counts_as_none(store: Store, text: str) -> None:
    (store.directory / "change.json").write_text(text)
    assert store.change() is None


def test_begun_change_and_its_previous_package_outlive_the_run(store: Store) -> None:
    change = PackageChange(NEW, OLD, is_installed=False)
    later = begun(store, change)
    assert later.change() == change
    assert later.previous_deb() == store.previous / "old.deb"
    later.prepare()
    assert files(later) == ["change.json", "previous/old.deb"]


def test_half_written_files_are_forgotten(store: Store) -> None:
    (store.directory / "given.deb.part").write_text("half")
    store.prepare()
    assert files(store) == []


def test_settled_change_leaves_nothing_that_apt_has(store: Store) -> None:
    begun(store, PackageChange(NEW, OLD, is_installed=True)).settle(NEW)
    assert files(store) == []


def test_settled_change_keeps_a_given_package_as_the_next_previous_one(store: Store) -> None:
    begun(store, PackageChange(GIVEN, OLD, is_installed=True)).settle(GIVEN)
    assert files(store) == ["kept.deb", "kept.json"]
    assert store.kept() == GIVEN
    store.keep_as_previous(GIVEN.name)
    store.settle(NEW)
    assert (files(store), store.kept()) == ([], None)


def test_settling_that_was_killed_half_way_is_repeated(store: Store) -> None:
    store = begun(store, PackageChange(GIVEN, OLD, is_installed=True))
    store.given.replace(store.directory / "kept.deb")  # the first step
    store.settle(GIVEN)
    assert (files(store), store.kept()) == (["kept.deb", "kept.json"], GIVEN)


def test_record_without_its_package_counts_as_none(store: Store) -> None:
    (store.directory / "kept.json").write_text(json.dumps(GIVEN.as_dict()))
    assert store.kept() is None


def test_only_root_can_list_or_write_and_apt_s_user_can_pass(store: Store) -> None:
    for path in (store.directory, store.new, store.previous):
        assert path.stat().st_mode & 0o777 == 0o711


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., bytes]:
    """Build a real .deb with these fields."""

    def run(**fields: str) -> bytes:
        control = tmp_path / "tree" / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        given = {
            "Package": NEW.name,
            "Version": NEW.version,
            "Architecture": "all",
            "Maintainer": "Nobody <nobody@example.com>",
            "Description": "test",
            **fields,
        }
        control.write_text("".join(f"{name}: {value}\n" for name, value in given.items()))
        deb = tmp_path / "built.deb"
        subprocess.run(["dpkg-deb", "--build", control.parents[1], deb], check=True, capture_output=True)
        return deb.read_bytes()

    return run


def test_given_package_is_read_when_its_digest_is_right(changer: Changer, build: Callable[..., bytes]) -> None:
    data = build()
    changer.store.given.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    assert changer.read_given(digest) == Package(NEW.name, NEW.version, digest)


def test_package_that_was_sent_is_installed_from_a_copy_of_roots(
    changer: Changer, build: Callable[..., bytes], tmp_path: Path
) -> None:
    """Ansible moves the file of the account that it logs in as, which may have it open still."""
    data = build()
    digest = hashlib.sha256(data).hexdigest()
    changer.store.sent.write_bytes(data)
    os.link(changer.store.sent, tmp_path / "kept")
    with changer.store.sent.open("r+b") as kept:
        assert changer.read_given(digest) == Package(NEW.name, NEW.version, digest)
        kept.write(b"attack")
    (tmp_path / "kept").write_bytes(b"attack")
    assert changer.store.given.read_bytes() == data
    assert (changer.store.given.stat().st_nlink, changer.store.given.stat().st_mode & 0o7777) == (1, 0o644)
    assert not changer.store.sent.exists()
    assert changer.read_given(digest) == Package(NEW.name, NEW.version, digest)


@pytest.mark.parametrize("kind", ["link", "pipe", "other contents"])
def test_what_was_sent_and_is_not_the_package_is_refused_and_removed(
    changer: Changer, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "shadow").write_text("root's secret")
    changer.store.given.write_bytes(b"older")
    if kind == "link":
        changer.store.sent.symlink_to(tmp_path / "shadow")
    elif kind == "pipe":
        os.mkfifo(changer.store.sent)
    else:
        changer.store.sent.write_bytes(b"other")
    with pytest.raises(PackageError):
        changer.read_given(hashlib.sha256(b"root's secret").hexdigest())
    assert not os.path.lexists(changer.store.sent)
    assert not changer.store.given.exists() or changer.store.given.read_bytes() == b"older"
    assert (tmp_path / "shadow").read_text() == "root's secret"


def test_given_package_with_another_digest_is_refused_and_removed(changer: Changer) -> None:
    changer.store.given.write_bytes(b"something else")
    with pytest.raises(PackageError, match="and tfserving_package_deb_sha256 is aaaa.*Nothing was changed"):
        changer.read_given("a" * 64)
    assert files(changer.store) == []


def test_given_package_for_other_machines_is_refused(changer: Changer, build: Callable[..., bytes]) -> None:
    data = build(Architecture="arm64")
    changer.store.given.write_bytes(data)
    with pytest.raises(PackageError, match="built for arm64"):
        changer.read_given(hashlib.sha256(data).hexdigest())


def test_given_file_that_is_no_package_is_refused(changer: Changer) -> None:
    changer.store.given.write_bytes(b"<html>")
    with pytest.raises(PackageError, match="is no Debian package"):
        changer.read_given(hashlib.sha256(b"<html>").hexdigest())
    changer.store.given.unlink()
    with pytest.raises(PackageError, match="is not on the host"):
        changer.read_given("a" * 64)


def test_package_is_downloaded_through_the_proxy_or_past_it(
    changer: Changer, serving: StubServer, proxy: StubServer
) -> None:
    serving.answer("/x.deb", b"direct")
    proxy.answer(f"{serving.url}/x.deb", b"proxied")
    changer.download(f"{serving.url}/x.deb", None, proxy.url, [])
    assert changer.store.given.read_bytes() == b"proxied"
    changer.download(f"{serving.url}/x.deb", None, proxy.url, ["127.0.0.1"])
    assert changer.store.given.read_bytes() == b"direct"


def test_failed_download_names_url_and_proxy_and_no_password(changer: Changer, serving: StubServer) -> None:
    proxy = f"http://user:secret@127.0.0.1:{unused_port()}"
    with pytest.raises(PackageError, match="tfserving_package_deb: cannot get .*/x.deb through 127.0.0.1") as error:
        changer.download(f"{serving.url}/x.deb", "me:secret", proxy, [])
    assert "secret" not in str(error.value)
    assert files(changer.store) == []


def test_user_and_password_are_sent_to_the_server_decoded(changer: Changer, serving: StubServer) -> None:
    serving.answer("/x.deb", b"data")
    changer.download(f"{serving.url}/x.deb", "me:p%40ss", None, [])
    assert serving.headers[-1]["authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}"


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for apt-get, which notes its arguments and does what they say to the file it returns the path of."""
    programs = tmp_path / "bin"
    programs.mkdir()
    called = tmp_path / "called"
    (programs / "apt-get").write_text(f'#!/bin/sh\necho "$*" >> {called}\necho "Remv netbase [6.4]"\n')
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return called


def test_every_call_of_apt_keeps_to_signed_packages(changer: Changer, apt: Path) -> None:
    changer._apt("install", "x")
    changer.update_apt_cache()
    calls = apt.read_text().splitlines()
    assert len(calls) == 2
    for call in calls:
        assert "APT::Get::AllowUnauthenticated=false" in call
        assert "Acquire::AllowInsecureRepositories=false" in call
    assert "APT::Get::Force-Yes=false" in calls[0]
    assert "--no-auto-remove" in calls[0]


def test_package_that_would_take_another_away_is_refused_by_a_simulation(changer: Changer, apt: Path) -> None:
    host = Host(present=[OLD.name], installed=[OLD])
    with pytest.raises(PackageError, match="apt would also remove netbase.*Nothing was changed"):
        changer._fetch(host, NEW, "x=1")
    with pytest.raises(PackageError, match="apt would also remove netbase"):
        changer._remove([OLD.name])
    assert all("--simulate" in call for call in apt.read_text().splitlines())


def test_host_whose_sources_contradict_each_other_is_looked_at_before_they_are_mended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt-cache fails then."""

    class Broken(Module):
        def run_command(self, command: list[str], check_rc: bool = False, **_: Any) -> tuple[int, str, str]:
            assert not (check_rc and command[0] == "apt-cache")
            return 100, "", "E: Conflicting values set for option Signed-By"

    assert observe(Broken(), store, is_apt_ready=False).known["tensorflow-model-server"] == []  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        observe(Broken(), store)  # type: ignore[arg-type]


def test_rollback_target_is_what_a_change_that_is_not_installed_can_be_undone_to(store: Store) -> None:
    begun(store, PackageChange(NEW, OLD, is_failed=True))
    assert observe(Module(), store).rollback_target == OLD  # type: ignore[arg-type]
    store.begin(PackageChange(NEW, OLD, is_installed=True))
    assert observe(Module(), store).rollback_target is None  # type: ignore[arg-type]
    store.begin(PackageChange(NEW, OLD))
    store.empty(store.previous)
    assert observe(Module(), store).rollback_target is None  # type: ignore[arg-type]


def test_previous_package_that_is_lost_is_told_as_such(changer: Changer, apt: Path) -> None:
    begun(changer.store, PackageChange(NEW, OLD))
    changer.store.empty(changer.store.previous)
    told = changer._undo(PackageChange(NEW, OLD))
    assert "2.18.0 could not be restored: its .deb is no longer in" in told
    assert told.endswith("Set tfserving_package_version to another that apt knows and rerun the playbook.")
    assert changer.store.change() == PackageChange(NEW, OLD, is_failed=True)


def test_nothing_is_put_back_where_nothing_is_under_way(
    store: Store, run_module: Callable[..., dict[str, Any]]
) -> None:
    result = run_module(model_server_package, state="restored", directory=str(store.directory))
    assert (result["changed"], result["pending"]) == (False, None)

"""The mirror takes in what is vouched for, and goes on as it was where anything is wrong."""

from __future__ import annotations

import hashlib
import urllib.parse
from pathlib import Path

import packages
import pytest
from conftest import AUTH_PROXY, AUTH_PROXY_PASSWORD, LAB, PROJECT, SERVING, candidate

MIRROR = str(PROJECT / "playbooks" / "mirror.yml")
INVENTORY = f"--inventory={PROJECT / 'molecule' / 'airgap' / 'inventory' / 'hosts.yml'}"
TREE = "/srv/mirror/public"
UPSTREAM_KEY = "/etc/apt/keyrings/tensorflow-serving-upstream.gpg"
ONLY_THE_MIRROR = (
    "-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/tensorflow-serving.sources -o Dir::Etc::sourceparts=- "
    "-o APT::Get::List-Cleanup=0"
)
CUTTING_APTLY = """\
#!/bin/sh
case "$*" in *" publish "*) kill -9 "$PPID" ;; esac
exec /usr/bin/aptly "$@"
"""
ALLOWING = """\
Acquire::AllowInsecureRepositories "true";
APT::Get::AllowUnauthenticated "true";
"""


@pytest.fixture
def infra(on):
    return on("infra")


@pytest.fixture
def state(infra):
    """Everything in the mirror: paths, digests, modes and times of change."""

    def read() -> str:
        return infra.check_output(
            f"cd {TREE} && find . -printf '%p %m %T@\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum"
        )

    return read


@pytest.fixture
def build(play):
    def run(*arguments: str, **variables):
        return play(MIRROR, INVENTORY, *arguments, variables=variables)

    return run


def held(infra) -> list[str]:
    """Return the names of the packages that the index lists."""
    text = infra.check_output(f"cat {TREE}/dists/stable/*/binary-amd64/Packages")
    return sorted(
        line.rpartition("/")[2].removesuffix("_all.deb") for line in text.splitlines() if line.startswith("Filename:")
    )


def deb(published, version: str) -> dict[str, str]:
    """Return a package of a lab's repository as an entry of tfserving_mirror_debs."""
    file = next(published.root.rglob(f"{packages.PLAIN}_{version}_all.deb"))
    return {"src": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


BOTH = [f"{name}_{version}" for name in packages.COMPONENTS for version in ("2.18.0", "2.19.1")]


def test_mirror_holds_the_versions_that_were_asked_for_and_nothing_else(infra):
    assert held(infra) == sorted(BOTH)


def test_tree_is_signed_by_the_owners_key_and_can_be_carried_as_it_is(infra):
    fingerprint = (LAB / "mirror-key.fingerprint").read_text().strip()
    for files in ("InRelease", "Release.gpg Release"):
        verified = infra.check_output(
            f"cd {TREE}/dists/stable && gpg --batch --dearmor --output - < {TREE}/tensorflow-serving.release.pub.gpg "
            f"> /tmp/mirror.gpg && gpgv --status-fd 1 --keyring /tmp/mirror.gpg {files}"
        )
        assert f"VALIDSIG {fingerprint}" in verified
    assert infra.check_output(f"find {TREE} -type l") == ""
    assert infra.check_output(f"find {TREE} ! -user deploy") == ""


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["play", "check"])
def test_second_run_changes_nothing(build, state, arguments):
    before = state()
    played = build(*arguments)
    assert not played.failed, played.text
    assert played.changed() == 0
    assert state() == before


def test_check_mode_says_what_would_go_and_changes_nothing(build, state):
    before = state()
    played = build("--check", "--diff", tfserving_mirror_versions=["2.19.*"], tfserving_mirror_prune=True)
    assert not played.failed, played.text
    assert played.changed() == 1
    for name in packages.COMPONENTS:
        assert f"-{name} 2.18.0 all" in played.text
    assert state() == before


def test_check_mode_does_not_know_what_another_key_would_vouch_for(build, state, publish):
    before = state()
    played = build("--check", **from_upstream(publish("upstream", packages.servers("2.30.0"))))
    assert not played.failed, played.text
    assert played.changed() == 2
    assert "packages are not known before" in played.words
    assert state() == before


def other_fingerprint(publish, aged_key) -> dict:
    fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567"
    return {
        "tfserving_mirror_upstream": {
            "uri": "http://packages.lab/tensorflow-serving-apt",
            "key_fingerprint": fingerprint,
        }
    }


def tampered_index(publish, aged_key) -> dict:
    upstream = publish("tampered", packages.servers("2.31.0"))
    index = upstream.root / "dists" / "stable" / packages.PLAIN / "binary-amd64" / "Packages"
    index.write_text(index.read_text().replace("2.31.0", "2.31.1"))
    return from_upstream(upstream)


def tampered_package(publish, aged_key) -> dict:
    upstream = publish("tampered", packages.servers("2.31.0"))
    file = next(upstream.root.rglob("*.deb"))
    file.write_bytes(file.read_bytes() + b"!")
    return from_upstream(upstream)


def signed_by_another_key(publish, aged_key) -> dict:
    """The key that is published is the pinned one, and what it publishes is not signed by it."""
    upstream = publish("forged", packages.servers("2.31.0"), public_key=aged_key.valid, key=aged_key.impostor)
    return from_upstream(upstream, aged_key.fingerprint)


def file_of_another_digest_at_a_url(publish, aged_key) -> dict:
    upstream = publish("tampered", packages.servers("2.31.0"))
    file = next(upstream.root.rglob(f"{packages.PLAIN}_*.deb"))
    src = f"{upstream.url()}/{file.relative_to(upstream.root)}"
    return {"tfserving_mirror_debs": [{"src": src, "sha256": "0" * 64}]}


def from_upstream(upstream, fingerprint: str | None = None) -> dict:
    return {
        "tfserving_mirror_upstream": {
            "uri": upstream.url(),
            "key_fingerprint": fingerprint or upstream.fingerprint,
        },
        "tfserving_mirror_versions": [],
    }


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (other_fingerprint, ["pinned is 0123456789ABCDEF0123456789ABCDEF01234567", "stays as it was published"]),
        (signed_by_another_key, ["apt-get update ... failed: ", "is not signed", "Nothing was changed"]),
        (tampered_index, ["apt-get update ... failed: ", "Hash Sum mismatch", "Nothing was changed"]),
        (tampered_package, ["apt-get download", "_2.31.0_all.deb", "File has unexpected size"]),
        (file_of_another_digest_at_a_url, ["apt-helper download-file", "_2.31.0_all.deb Hash Sum mismatch"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_input_leaves_the_mirror_as_it_is(build, state, publish, aged_key, bad, words):
    before = state()
    played = build(**bad(publish, aged_key))
    assert played.failed
    for word in words:
        assert word in played.words
    assert state() == before


def test_what_the_machine_allows_its_own_apt_does_not_count(build, infra, state, publish, aged_key):
    before = state()
    lax = "/etc/apt/apt.conf.d/99lax"
    infra.check_output(f"printf %s > {lax}", ALLOWING)
    try:
        played = build(**signed_by_another_key(publish, aged_key))
    finally:
        infra.check_output(f"rm {lax}")
    assert played.failed
    assert "is not signed" in played.words
    assert state() == before


def test_file_of_another_digest_is_refused_before_anything_is_changed(build, state, main_repository):
    before = state()
    played = build(tfserving_mirror_debs=[{**deb(main_repository, "2.18.0"), "sha256": "0" * 64}])
    assert played.failed
    assert f"and not {'0' * 64}" in played.words
    assert played.changed() == 0
    assert state() == before


def test_expired_upstream_key_is_told_with_the_way_on(build, infra, state, publish, aged_key):
    """The upstream key has expired and no keyring holds a better copy: files of known digest go in all the same."""
    upstream = publish("expired", packages.servers("2.24.0"), public_key=aged_key.expired)
    infra.check_output("rm -f %s", UPSTREAM_KEY)
    before = state()
    played = build(**from_upstream(upstream))
    assert played.failed
    assert "expired" in played.words
    assert "tfserving_mirror_upstream: null" in played.words
    assert state() == before

    given = {
        "tfserving_mirror_upstream": None,
        "tfserving_mirror_versions": [],
        "tfserving_mirror_debs": [deb(upstream, "2.24.0")],
    }
    played = build("--check", **given)
    assert played.changed() > 0
    assert state() == before
    played = build(**given)
    assert not played.failed, played.text
    assert held(infra) == sorted([*BOTH, f"{packages.PLAIN}_2.24.0"])
    assert build(**given).changed() == 0


def test_all_comes_through_the_proxy_and_its_password_is_shown_nowhere(build, publish, auth_proxy_log):
    """Also where Ansible shows what it runs. No file is taken in: what comes is of another digest than is given."""
    upstream = publish("upstream", packages.servers("2.30.0"))
    name = f"{packages.PLAIN}_2.30.0_all.deb"
    src = f"{upstream.url()}/pool/{packages.PLAIN}/t/{packages.PLAIN}/{name}"
    given = {**from_upstream(upstream), "tfserving_mirror_debs": [{"src": src, "sha256": "0" * 64}]}
    mark = auth_proxy_log.mark()
    played = build("-vvv", **given, tfserving_mirror_proxy=AUTH_PROXY)
    assert played.failed
    assert "Hash Sum mismatch" in played.words
    for secret in (AUTH_PROXY_PASSWORD, urllib.parse.quote(AUTH_PROXY_PASSWORD, safe="")):
        assert secret not in played.text
    asked = " ".join(auth_proxy_log.requests_since(mark))
    for path in (".pub.gpg", "InRelease", name):
        assert path in asked


def test_host_sees_the_new_version_at_once(on):
    host = on("debian13a")
    host.check_output(f"apt-get -qq update {ONLY_THE_MIRROR}")
    assert candidate(host, packages.PLAIN) == "2.24.0"


def test_run_that_is_killed_is_finished_by_the_next(build, infra, state):
    """Killed when aptly is about to publish: hosts are served the old mirror, the next run publishes the new one."""
    before = state()
    infra.check_output("printf %s > /usr/local/bin/aptly && chmod 755 /usr/local/bin/aptly", CUTTING_APTLY)
    try:
        cut = build(tfserving_mirror_prune=True)
    finally:
        infra.check_output("rm /usr/local/bin/aptly")
    assert cut.failed
    assert infra.file("/srv/mirror/build").exists
    assert state() == before
    finished = build(tfserving_mirror_prune=True)
    assert not finished.failed, finished.text
    assert held(infra) == sorted(BOTH)
    assert infra.check_output("ls -A /srv/mirror").split() == [".lock", "downloads", "public"]
    assert len(infra.check_output("ls /srv/mirror/downloads").split()) == len(BOTH)
    assert build(tfserving_mirror_prune=True).changed() == 0


def test_package_that_was_lost_is_brought_back(build, infra):
    lost = infra.check_output(f"find {TREE}/pool -name '*_2.18.0_*' | head -n1")
    infra.check_output(f"rm {lost} /srv/mirror/downloads/*")
    played = build()
    assert not played.failed, played.text
    assert infra.file(lost).exists
    assert build().changed() == 0


def test_wrong_digest_of_a_hosts_package_is_refused_before_anything_is_changed(play, server_on, digits):
    wrong = {"tfserving_package_deb_sha256": "0" * 64}
    played = play(SERVING, INVENTORY, "--limit=debian12,debian13b", variables=wrong)
    assert played.failed
    for host in ("debian12", "debian13b"):
        assert (played.recap[host]["failed"], played.recap[host]["changed"]) == (1, 0)
        assert server_on(host).accuracy("MLP", digits) >= 0.95


def test_mirror_can_be_removed(play, infra, tmp_path: Path):
    playbook = tmp_path / "remove.yml"
    playbook.write_text(
        "- hosts: mirror\n  gather_facts: false\n  tasks:\n    - ansible.builtin.include_role:\n"
        "        name: modelops.tensorflow_serving.tfserving_mirror\n        tasks_from: remove\n"
    )
    assert not play(str(playbook), INVENTORY).failed
    assert infra.check_output("ls -A /srv/mirror") == ""
    assert not infra.file(UPSTREAM_KEY).exists

"""What becomes of hosts that serve models while the repository's signing key ages. The tests build on each other."""

from __future__ import annotations

import base64
import re

import pytest
from conftest import PROJECT, SERVING, Play, candidate
from packages import intruder, servers

HOSTS = ("debian12", "debian13a")
FRESH = "debian13b"  # has never seen the repository
KEYRING = "/etc/apt/keyrings/tensorflow-serving.gpg"
KEY_STATUS = str(PROJECT / "playbooks/key_status.yml")
KEY = "tensorflow-serving.release.pub.gpg"
APT = "--tags=apt"


@pytest.fixture(scope="module")
def play(play):
    """Without a limit of the test's own, the fresh host takes no part."""

    def run(playbook: str, *arguments: str, variables: dict) -> Play:
        return play(playbook, f"--limit={','.join(HOSTS)}", *arguments, variables=variables)

    return run


@pytest.fixture(scope="module")
def aged(publish, aged_key):
    """A repository whose key expires in five days."""
    return publish("aged", [*servers("2.18.0", "2.19.1"), intruder()], public_key=aged_key.expiring)


@pytest.fixture
def key_requests(web_log):
    """Return how often a key was asked for since the test began."""
    mark = web_log.mark()
    return lambda: sum(KEY in request for request in web_log.requests_since(mark))


def keyring(host) -> bytes:
    return base64.b64decode(host.check_output("base64 %s", KEYRING))


def put_key(host, armoured: str) -> None:
    """Store a key on a host as an earlier run has left it there."""
    body = re.sub(r"^(-----.*|=.{4}|)\n", "", armoured, flags=re.MULTILINE)
    host.check_output("echo %s | base64 --decode > %s", body, KEYRING)


def days_left(played) -> dict[str, tuple[int, str]]:
    """Return {host: (days left, state)} of key_status.yml's table."""
    rows = re.findall(r"^(debian\w+) +[0-9A-F]{40}  \S+Z +(-?\d+) +(\w.*)$", played.text, re.MULTILINE)
    return {host: (int(days), state) for host, days, state in rows}


def recap(played) -> str:
    """What is said below the recap, without the warnings that were shown before."""
    return " ".join(played.text.partition("PLAY RECAP")[2].partition("[WARNING]")[0].split())


def test_key_that_expires_soon_is_downloaded_once_for_all_hosts_and_told(play, aged, key_requests, server_on):
    pids = {name: server_on(name).main_pid() for name in HOSTS}
    played = play(SERVING, variables=aged.variables())
    assert not played.failed, played.text
    assert key_requests() == 1
    assert recap(played).count("(days left: 4), and no renewed key is published.") == len(HOSTS)
    assert {name: server_on(name).main_pid() for name in HOSTS} == pids


def test_table_says_that_it_is_due_and_the_exit_code_too(play, aged):
    played = play(KEY_STATUS, variables=aged.variables())
    assert played.status == 2
    assert days_left(played) == dict.fromkeys(HOSTS, (4, "renewal due"))
    assert "The signing key of debian13a is renewal due" in played.words
    assert played.changed() == 0


def test_newer_key_of_the_same_fingerprint_replaces_it(play, aged, aged_key, key_requests):
    aged.publish_key(aged_key.valid)
    played = play(SERVING, APT, "--diff", variables=aged.variables())
    assert not played.failed, played.text
    assert key_requests() == 1
    assert {name: counts["changed"] for name, counts in played.recap.items()} == dict.fromkeys(HOSTS, 2)
    assert len(re.findall(rf"^\+{aged_key.fingerprint} expires ", played.text, re.MULTILINE)) == len(HOSTS)
    played = play(KEY_STATUS, variables=aged.variables())
    assert played.status == 0
    assert days_left(played) == dict.fromkeys(HOSTS, (364, "valid"))
    away = "{{ 9 if inventory_hostname == 'debian13a' else 22 }}"
    played = play(KEY_STATUS, variables={**aged.variables(), "ansible_port": away})
    assert played.status == 4
    assert re.search(r"^debian13a +HOST UNREACHABLE$", played.text, re.MULTILINE)
    assert days_left(played) == {"debian12": (364, "valid")}


@pytest.mark.parametrize("fetch", ["controller", "host"])
def test_unexpired_key_is_not_asked_for_again(play, aged, aged_key, key_requests, fetch):
    aged.publish_key(aged_key.renewed)
    variables = {**aged.variables(), "tfserving_apt_key_fetch": fetch}
    played = play(SERVING, APT, "--limit=debian12", variables=variables)
    assert not played.failed, played.text
    assert played.changed() == 0
    assert key_requests() == 0


def test_apt_itself_refuses_an_expired_key(aged, aged_key, on):
    """What all this is about; else the tests below would prove nothing."""
    for name in ("debian12", "debian13a"):
        put_key(on(name), aged_key.expired)
        # Without the lists that were fetched before, which apt would not verify again.
        on(name).check_output("rm -f /var/lib/apt/lists/packages.lab_aged_*")
        update = on(name).run("apt-get update -o APT::Update::Error-Mode=any")
        assert update.rc != 0
        assert "EXPKEYSIG" in update.stderr or "expired" in update.stderr.lower(), update.stderr


def test_host_asks_for_the_key_itself_where_it_is_told_to(play, aged, aged_key, web_log, on):
    mark = web_log.mark()
    variables = {**aged.variables(), "tfserving_apt_key_fetch": "host", "tfserving_apt_key": f"{aged.url()}/{KEY}"}
    played = play(SERVING, APT, "--limit=debian12,debian13a", variables=variables)
    assert not played.failed, played.text
    asked = [line.split()[0] for line in web_log.lines_since(mark) if KEY in line]
    assert sorted(asked) == sorted(
        on(name).check_output("hostname -I").split()[0] for name in ("debian12", "debian13a")
    )
    for name in ("debian12", "debian13a"):
        assert candidate(on(name), "tensorflow-model-server") == "2.19.1"


def test_impostor_is_refused_with_both_fingerprints(play, aged, aged_key, on, server_on, digits):
    aged.publish_key(aged_key.impostor.public())
    put_key(on("debian12"), aged_key.expired)
    before = keyring(on("debian12"))
    played = play(SERVING, APT, "--limit=debian12", variables=aged.variables())
    assert played.failed
    impostor = aged_key.impostor.fingerprint
    assert f"has fingerprint {impostor}, pinned is {aged_key.fingerprint}" in played.words
    assert "tfserving_apt_key_fingerprint" in played.words
    assert played.changed() == 0
    assert keyring(on("debian12")) == before
    assert server_on("debian12").accuracy("MLP", digits) >= 0.95


def test_download_that_fails_does_not_matter_while_the_copy_is_good(play, aged, aged_key, on):
    put_key(on("debian12"), aged_key.expiring)
    variables = {**aged.variables(), "tfserving_apt_key": f"{aged.key_url}.gone"}
    played = play(SERVING, APT, "--limit=debian12", variables=variables)
    assert not played.failed, played.text
    assert played.changed() == 0
    assert "The key on the host is due for renewal, and cannot get" in played.words


@pytest.fixture(scope="module")
def expired(play, aged, aged_key, on):
    """The published key has expired, and so has the host's. Returns the variables and the play."""
    aged.publish_key(aged_key.expired)
    put_key(on("debian12"), aged_key.expired)
    both = (f"--limit=debian12,{FRESH}", "--extra-vars=tfserving_serial=2")
    return aged.variables(), play(SERVING, *both, variables=aged.variables())


@pytest.mark.parametrize("name", ["debian12", FRESH])
def test_expired_key_fails_before_anything_is_changed(expired, name, on):
    _, played = expired
    assert played.recap[name]["failed"] == 1
    assert played.recap[name]["changed"] == 0
    assert on(name).file(KEYRING).exists is (name != FRESH)


@pytest.mark.parametrize(
    "words",
    [
        "Installed servers go on serving",
        "tfserving_apt_expired_key: keep",
        "Wait until the owner has published the renewed key",
        "playbooks/mirror.yml",
        "tfserving_package_deb and tfserving_package_deb_sha256",
    ],
)
def test_expired_key_fails_with_what_can_be_done(expired, words):
    _, played = expired
    assert words in played.words


def test_expired_key_fails_with_its_fingerprint_and_date(expired, aged_key, play):
    variables, played = expired
    shown = play(KEY_STATUS, "--limit=debian12", variables=variables)
    assert shown.failed
    assert days_left(shown)["debian12"][1] == "expired"
    date = re.findall(r"(\d{4}-\d\d-\d\dT\S+Z)", shown.text)[0]
    assert f"The signing key {aged_key.fingerprint} expired on {date}" in played.words


def test_keep_goes_on_with_what_is_installed_and_says_so_in_the_recap(expired, play, second_version, server_on, digits):
    variables, _ = expired
    server = server_on("debian12")
    before = server.main_pid()
    variables = {**variables, "tfserving_apt_expired_key": "keep", "examples_directory": str(second_version)}
    played = play(SERVING, "--limit=debian12", variables=variables)
    assert not played.failed, played.text
    assert played.recap["debian12"]["changed"] == 1  # the models
    assert "[WARNING]: The signing key" in played.text
    assert re.search(r"signing key \w+ expired on \S+, as published now\. Continuing with what is", recap(played))
    assert server.versions("MLP")[2] == "AVAILABLE"
    assert server.accuracy("MLP", digits) >= 0.95
    assert server.main_pid() == before


def test_keep_has_nothing_to_keep_on_a_host_without_the_package(expired, play, on):
    variables, _ = expired
    played = play(SERVING, f"--limit={FRESH}", variables={**variables, "tfserving_apt_expired_key": "keep"})
    assert played.failed
    assert "tfserving_package_deb" in played.words
    assert "expired" in played.words
    assert not on(FRESH).file("/etc/apt/sources.list.d/tensorflow-serving.sources").exists


def test_renewed_key_ends_it_on_every_host(expired, aged, aged_key, play, key_requests):
    variables, _ = expired
    aged.publish_key(aged_key.renewed)
    everywhere = "--limit=tfserving"
    played = play(SERVING, everywhere, variables=variables)
    assert not played.failed, played.text
    assert key_requests() == 1
    shown = play(KEY_STATUS, everywhere, variables=variables)
    assert {name: days for name, (days, _) in days_left(shown).items()} == dict.fromkeys((*HOSTS, FRESH), 729)
    assert play(SERVING, f"--limit={FRESH}", variables=variables).changed() == 0


@pytest.mark.parametrize("way", ["file", "content"])
def test_key_is_given_by_hand_where_nothing_can_be_downloaded(
    expired, play, aged_key, aged, on, key_requests, tmp_path, way
):
    on("debian13a").check_output("rm %s", KEYRING)
    variables = {**aged.variables(), "tfserving_apt_key": "http://127.0.0.1:1/key.gpg"}
    if way == "file":
        (tmp_path / "key.asc").write_text(aged_key.renewed)
        variables["tfserving_apt_key"] = str(tmp_path / "key.asc")
    else:
        variables["tfserving_apt_key"] = aged_key.renewed
    played = play(SERVING, APT, "--limit=debian13a", variables=variables)
    assert not played.failed, played.text
    assert key_requests() == 0
    stored = on("debian13a").file(KEYRING)
    assert (stored.user, stored.group, stored.mode) == ("root", "root", 0o644)


def test_what_apt_key_left_is_removed(expired, play, aged, aged_key, on):
    """The tutorial's way: a one-line source, and the key in the trust of every repository."""
    host = on("debian13a")
    line = f"deb [arch=amd64] {aged.url()} stable tensorflow-model-server tensorflow-model-server-universal"
    host.check_output("echo %s > /etc/apt/sources.list.d/tensorflow-serving.list", line)
    host.check_output("cp %s /etc/apt/trusted.gpg", KEYRING)
    host.check_output("cp %s /etc/apt/trusted.gpg.d/tensorflow-serving.gpg", KEYRING)
    trusted_by_debian = host.check_output("sha256sum /etc/apt/trusted.gpg.d/debian*")
    assert "configured multiple times" in host.run("apt-get update").stderr
    played = play(SERVING, APT, "--limit=debian13a", "--check", variables=aged.variables())
    assert played.changed() == 1
    assert host.file("/etc/apt/trusted.gpg").exists
    played = play(SERVING, APT, "--limit=debian13a", variables=aged.variables())
    assert not played.failed, played.text
    for path in ("sources.list.d/tensorflow-serving.list", "trusted.gpg.d/tensorflow-serving.gpg"):
        assert not host.file(f"/etc/apt/{path}").exists
    assert "Remove the key from it: rm /etc/apt/trusted.gpg" in played.words
    host.check_output("rm /etc/apt/trusted.gpg")
    assert host.check_output("sha256sum /etc/apt/trusted.gpg.d/debian*") == trusted_by_debian
    host.check_output("apt-get update -o APT::Update::Error-Mode=any")
    assert candidate(host, "tensorflow-model-server") == "2.19.1"
    assert play(SERVING, APT, "--limit=debian13a", variables=aged.variables()).changed() == 0


def test_repository_can_supply_nothing_but_the_server(aged, on):
    for name in HOSTS:
        host = on(name)
        assert "99.0" in host.check_output("apt-cache madison coreutils")
        assert candidate(host, "coreutils") == host.package("coreutils").version
        assert "coreutils" not in host.check_output("apt-get --simulate dist-upgrade")
        assert host.run("apt-get --simulate install coreutils=99.0").rc == 0  # by its number only: it is there

"""The package changes in both directions and costs one restart; what does not run or serve is rolled back.

The tests share two hosts and follow one another: each begins with what the one before has left.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import packages
import pytest
import requests
from conftest import LAB, SERVING, Server

UPGRADED = "debian12"
SWITCHED = "debian13a"
STORE = "/var/lib/tensorflow-serving/packages"
UNIT = "tensorflow-model-server"

# Ends the module, apt-get and dpkg, as kill -9 and a power cut do, when the package is unpacked for the first time.
KILLER = """\
#!/bin/sh
if [ ! -e /var/tmp/killed-once ]; then
    touch /var/tmp/killed-once
    sync
    parent() { sed -n 's/^PPid:[^0-9]*//p' "/proc/$1/status"; }
    dpkg=$(parent $$)
    apt=$(parent "$dpkg")
    kill -KILL "$(parent "$apt")" "$apt" "$dpkg"
fi
"""


def killing(name: str, version: str) -> packages.Package:
    """A good package whose first installation is killed."""
    good = packages.server(version, name)
    return packages.Package(
        name, version, name, programs=(*good.programs, ("DEBIAN/preinst", KILLER)), has_model_server=True
    )


class Host(Server):
    """A host, and what is installed and running there."""

    def installed(self) -> list[str]:
        """What is wholly installed, by dpkg's word."""
        line = "${db:Status-Status}|${Package} ${Version}\\n"
        listed = self.host.check_output(f"dpkg-query --show --showformat='{line}' '{UNIT}*'").splitlines()
        return [one.partition("|")[2] for one in listed if one.startswith("installed|")]

    def starts(self) -> int:
        """How often the unit was started since the host is up."""
        log = self.host.check_output(f"journalctl --unit={UNIT} --output=cat _PID=1")
        return sum(line.startswith("Started ") for line in log.splitlines())

    def left_in_store(self) -> str:
        return self.host.check_output(f"find {STORE} -type f")

    def dpkg_knows(self) -> str:
        """What dpkg has of the installed package: its fields, files and scripts."""
        scripts = f"dpkg-query --control-list {UNIT} | xargs -I@ cat /var/lib/dpkg/info/{UNIT}.@"
        return self.host.check_output(f"dpkg-query --status {UNIT}; dpkg-query --listfiles {UNIT}; {scripts}")

    def wait(self, digits: list[dict]) -> None:
        """Wait until the server serves again."""
        for _ in range(60):
            try:
                assert self.is_right(digits)
            except (AssertionError, requests.ConnectionError):
                time.sleep(1)
            else:
                return
        raise AssertionError("the server does not come back")

    def write(self, path: str, data: bytes | str) -> None:
        encoded = base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()
        self.host.check_output(f"echo {encoded} | base64 --decode > {path}")

    def is_right(self, digits: list[dict]) -> bool:
        return min(self.accuracy(model, digits) for model in ("MLP", "MLP_custom")) >= 0.95


@pytest.fixture(scope="session")
def offered(publish) -> dict[str, str]:
    """A repository with more versions than the lab's own, 2.20.0 to 2.22.0 of them faulty."""
    more = packages.servers("2.18.0", "2.19.0", "2.19.1", "2.20.0", "2.21.0", "2.22.0")
    return publish("upgrades", [*more, killing(packages.UNIVERSAL, "2.19.2")]).variables()


@pytest.fixture(scope="session")
def play_on(play, offered):
    """Play serving.yml on one host with variables of the package."""

    def run(name: str, *arguments: str, **variables):
        given = {f"tfserving_package_{key}": value for key, value in variables.items()}
        return play(SERVING, f"--limit={name}", *arguments, variables=offered | given)

    return run


@pytest.fixture(scope="session")
def play_package(play, tmp_path_factory):
    """Play the role tfserving_package alone on one host: apt's sources stay as they are, and nothing is restarted."""
    playbook = tmp_path_factory.mktemp("playbooks") / "package_only.yml"
    role = {"hosts": "tfserving", "become": True, "gather_facts": False}
    playbook.write_text(json.dumps([{**role, "roles": ["modelops.tensorflow_serving.tfserving_package"]}]))

    def run(name: str, *arguments: str, **variables):
        given = {f"tfserving_package_{key}": value for key, value in variables.items()}
        return play(str(playbook), f"--limit={name}", *arguments, variables=given)

    return run


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Build the .deb of a version that no repository has; fields are added to its control file."""

    def run(version: str, **fields: str) -> Path:
        into = tmp_path_factory.mktemp("debs")
        package = packages.server(version)
        packages.build_package(package, into, into)
        deb, tree = into / package.file_name, into / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
        with (tree / "DEBIAN/control").open("a") as control:
            control.writelines(f"{name}: {value}\n" for name, value in fields.items())
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, deb], check=True, capture_output=True)
        return deb

    return run


@pytest.fixture
def upgraded(server_on) -> Host:
    return Host(server_on(UPGRADED).host)


@pytest.fixture
def switched(server_on) -> Host:
    return Host(server_on(SWITCHED).host)


@contextmanager
def one_restart(host: Host, digits: list[dict]):
    """Check that what happens inside costs one restart, and that predictions are right before and after."""
    assert host.is_right(digits)
    before = host.starts()
    yield
    assert host.starts() == before + 1
    assert host.is_right(digits)
    assert host.left_in_store() == ""


@contextmanager
def old_process_serves_on(host: Host, digits: list[dict]):
    pid = host.main_pid()
    yield
    assert host.main_pid() == pid
    assert host.is_right(digits)
    assert host.left_in_store() == ""


def test_check_mode_says_what_would_change_and_changes_nothing(play_on, upgraded, digits):
    with old_process_serves_on(upgraded, digits):
        played = play_on(UPGRADED, "--check", "--diff", version="2.19.*")
    assert not played.failed, played.text
    assert "-tensorflow-model-server 2.18.0\n+tensorflow-model-server 2.19.1\n" in played.text
    assert upgraded.installed() == ["tensorflow-model-server 2.18.0"]


def test_pattern_upgrades_to_the_newest_that_fits_and_holds_it(play_on, upgraded, digits):
    with one_restart(upgraded, digits):
        played = play_on(UPGRADED, version="2.19.*", hold=True)
    assert not played.failed, played.text
    assert upgraded.installed() == ["tensorflow-model-server 2.19.1"]
    assert upgraded.host.check_output("apt-mark showhold") == "tensorflow-model-server"
    assert upgraded.host.check_output(f"apt-mark showmanual {UNIT}") == UNIT
    policy = upgraded.host.check_output(f"apt-cache policy {UNIT}").partition("***")[2]
    assert "http://packages.lab/upgrades stable/tensorflow-model-server amd64" in policy.partition("2.18.0")[0]


def test_program_that_does_not_run_is_put_back_and_restarts_nothing(play_on, upgraded, switched, digits):
    """On one host it dies of SIGILL, on the other it lacks a symbol of the C library."""
    version = f"{{{{ '2.21.0' if inventory_hostname == '{UPGRADED}' else '2.22.0' }}}}"
    with old_process_serves_on(upgraded, digits), old_process_serves_on(switched, digits):
        played = play_on(f"{UPGRADED},{SWITCHED}", "--extra-vars=tfserving_serial=2", version=version, hold=True)
    assert {name: counts["failed"] for name, counts in played.recap.items()} == {UPGRADED: 1, SWITCHED: 1}
    for words in (
        "tensorflow-model-server 2.21.0 does not run here: this CPU lacks an instruction that the build uses (SIGILL): "
        "set tfserving_package_variant to universal. tensorflow-model-server 2.19.1 was restored.",
        "tensorflow-model-server 2.22.0 does not run here: it was built for a newer distribution than this host's "
        "(GLIBC_2.99 is missing): choose an older tfserving_package_version or upgrade the host. "
        "tensorflow-model-server 2.18.0 was restored.",
    ):
        assert words in played.words
    assert upgraded.installed() == ["tensorflow-model-server 2.19.1"]
    assert upgraded.host.check_output("apt-mark showhold") == "tensorflow-model-server"
    assert switched.installed() == ["tensorflow-model-server 2.18.0"]


def test_version_that_does_not_serve_is_rolled_back_and_the_old_one_serves(play_on, upgraded, digits):
    played = play_on(UPGRADED, version="2.20.0", hold=True)
    assert played.failed
    assert "Failed to start server. Error: UNKNOWN: this build cannot serve" in played.words
    assert "tensorflow-model-server 2.19.1 was restored. What served before serves." in played.words
    assert upgraded.installed() == ["tensorflow-model-server 2.19.1"]
    assert upgraded.is_right(digits)
    assert upgraded.left_in_store() == ""


def test_next_run_downgrades_after_the_rollback_and_leaves_the_hold(play_on, upgraded, digits):
    with one_restart(upgraded, digits):
        played = play_on(UPGRADED, version="2.18.0")
    assert not played.failed, played.text
    assert upgraded.installed() == ["tensorflow-model-server 2.18.0"]
    assert upgraded.host.check_output("apt-mark showhold") == "tensorflow-model-server"


def test_hold_is_released_when_asked(play_on, upgraded, digits):
    with old_process_serves_on(upgraded, digits):
        played = play_on(UPGRADED, version="2.18.0", hold=False)
    assert (played.failed, played.changed()) == (False, 1), played.text
    assert upgraded.host.check_output("apt-mark showhold") == ""


def test_check_mode_tells_of_a_hold_before_the_package_is_there(play_package, upgraded):
    played = play_package(UPGRADED, "--check", "--diff", variant="universal", hold=True)
    assert (played.failed, played.changed()) == (False, 1), played.text
    assert "-held: false\n+held: true\n" in played.text
    assert upgraded.host.check_output("apt-mark showhold") == ""


UNVERIFIED = "/etc/apt/sources.list.d/unverified.list"
TRUSTING = "/etc/apt/apt.conf.d/99trusting"
# As found where people look for help with an expired key.
ADVICE = """\
APT::Get::AllowUnauthenticated "true";
APT::Get::Force-Yes "true";
Acquire::AllowInsecureRepositories "true";
"""


def test_unverified_package_is_refused_whatever_apt_is_told_to_allow(play_package, publish, upgraded, digits):
    source = publish("unverified", packages.servers("2.19.7"))
    for name in ("InRelease", "Release.gpg"):
        (source.root / "dists/stable" / name).unlink()
    upgraded.write(UNVERIFIED, f"deb {source.url()} stable tensorflow-model-server\n")
    upgraded.write(TRUSTING, ADVICE)
    try:
        upgraded.host.check_output("apt-get update")
        assert "2.19.7" in upgraded.host.check_output(f"apt-cache madison {UNIT}")
        with old_process_serves_on(upgraded, digits):
            played = play_package(UPGRADED, version="2.19.7")
        assert played.failed
        assert (
            "tensorflow-model-server 2.19.7 cannot be installed: E: There were unauthenticated packages" in played.words
        )
        assert upgraded.installed() == ["tensorflow-model-server 2.18.0"]
    finally:
        upgraded.host.check_output(f"rm {UNVERIFIED} {TRUSTING}; apt-get update")


def test_package_that_would_take_another_off_the_host_is_refused(play_package, build, upgraded, digits):
    deb = build("2.19.8", Conflicts="netbase")
    assert upgraded.host.package("netbase").is_installed
    with old_process_serves_on(upgraded, digits):
        played = play_package(UPGRADED, deb=str(deb), deb_sha256=hashlib.sha256(deb.read_bytes()).hexdigest())
    assert played.failed
    assert "2.19.8 cannot be installed: apt would also remove netbase." in played.words
    assert upgraded.host.package("netbase").is_installed
    assert upgraded.installed() == ["tensorflow-model-server 2.18.0"]


@pytest.fixture(scope="session")
def unknown_deb(build) -> bytes:
    """A version that apt does not know."""
    return build("2.18.5").read_bytes()


def test_rollback_to_a_version_that_apt_does_not_know_is_built_from_its_files(
    play_package, unknown_deb, upgraded, digits
):
    upgraded.write(f"{STORE}/../unknown.deb", unknown_deb)
    upgraded.host.check_output(
        f"dpkg --install {STORE}/../unknown.deb; rm {STORE}/../unknown.deb; systemctl restart {UNIT}"
    )
    upgraded.wait(digits)
    before = upgraded.dpkg_knows()
    with old_process_serves_on(upgraded, digits):
        played = play_package(UPGRADED, version="2.21.0")
    assert played.failed
    assert "For a rollback it was built from the installed files" in played.words
    assert "(SIGILL)" in played.words
    assert "tensorflow-model-server 2.18.5 was restored" in played.words
    assert upgraded.dpkg_knows() == before
    again = play_package(UPGRADED)
    assert (again.failed, again.changed()) == (False, 0), again.text


def test_change_without_a_rollback_is_refused_before_anything_is_changed(play_package, unknown_deb, upgraded, digits):
    altered = packages.LIBRARY + "/model_server/VERSION"
    upgraded.host.check_output(f"echo altered >> {altered}")
    with old_process_serves_on(upgraded, digits):
        played = play_package(UPGRADED, version="2.19.1")
    assert played.failed
    assert "a rollback to tensorflow-model-server 2.18.5, which is installed, would be impossible" in played.words
    assert f"not as they were installed: {altered}. Nothing was changed. What you can do:" in played.words
    assert upgraded.installed() == ["tensorflow-model-server 2.18.5"]


def test_next_run_repeats_the_rollback_that_failed(play_package, unknown_deb, upgraded, digits):
    """The disk was full, say: the broken version is there, and the package that served lies in the store."""
    new, previous = ({"name": UNIT, "version": version, "sha256": ""} for version in ("2.21.0", "2.18.5"))
    states = {"is_installed": False, "is_failed": True, "is_held": True}
    with old_process_serves_on(upgraded, digits):
        upgraded.host.check_output(f"apt-get install --yes {UNIT}=2.21.0")
        upgraded.host.check_output(f"mkdir --parents {STORE}/previous")
        upgraded.write(f"{STORE}/previous/{UNIT}_rebuilt.deb", unknown_deb)
        upgraded.write(f"{STORE}/change.json", json.dumps({"new": new, "previous": previous, **states}))
        looked = play_package(UPGRADED, "--check", "--diff")
        assert "-tensorflow-model-server 2.21.0\n+tensorflow-model-server 2.18.5\n" in looked.text
        played = play_package(UPGRADED)
    assert (played.failed, played.changed()) == (False, 1), played.text
    assert upgraded.installed() == ["tensorflow-model-server 2.18.5"]
    assert upgraded.host.check_output("apt-mark showhold") == UNIT


def test_known_version_replaces_a_version_that_apt_does_not_know(play_on, upgraded, digits):
    with one_restart(upgraded, digits):
        played = play_on(UPGRADED, version="2.18.0", hold=False)
    assert not played.failed, played.text
    assert upgraded.installed() == ["tensorflow-model-server 2.18.0"]
    assert upgraded.host.check_output("apt-mark showhold") == ""


def test_unknown_version_fails_with_those_that_apt_knows(play_on, upgraded, digits):
    with old_process_serves_on(upgraded, digits):
        played = play_on(UPGRADED, version="2.99.0")
    assert played.failed
    assert "apt does not know tensorflow-model-server 2.99.0. It knows tensorflow-model-server 2.22.0," in played.words


@contextmanager
def cpu_without_avx2(host: Host):
    fake = f"{STORE}.cpuinfo"
    host.host.check_output(f"sed 's/ avx2//; s/ fma / /' /proc/cpuinfo > {fake}")
    host.host.check_output(f"mount --bind {fake} /proc/cpuinfo")
    try:
        yield
    finally:
        host.host.check_output("umount /proc/cpuinfo")


def test_run_that_was_killed_amid_dpkg_leaves_the_old_process_and_the_next_run_finishes(play_on, switched, digits):
    """Auto picks the other variant, so the old package is gone and the new one half unpacked when all are killed."""

    def kept() -> str:
        # The record of what serves names the server's process, which is another one afterwards.
        files = "-type f -not -name .last-good.json -ls"
        return switched.host.check_output(f"find /etc/tensorflow-serving /var/lib/tensorflow-serving/models {files}")

    before = kept()
    with one_restart(switched, digits), cpu_without_avx2(switched):
        pid = switched.main_pid()
        assert play_on(SWITCHED, version="2.19.2").failed
        assert switched.installed() == []
        assert switched.main_pid() == pid
        assert switched.is_right(digits)
        played = play_on(SWITCHED, version="2.19.2", hold=True)
    assert not played.failed, played.text
    assert switched.installed() == ["tensorflow-model-server-universal 2.19.2"]
    assert switched.host.check_output("dpkg --audit") == ""
    assert kept() == before


def test_run_that_was_killed_before_the_restart_keeps_the_previous_package_and_the_next_run_finishes(
    play_on, play_package, switched, digits
):
    given = {"variant": "universal", "version": "2.19.1", "hold": True}
    with one_restart(switched, digits):
        pid = switched.main_pid()
        assert not play_package(SWITCHED, **given).failed
        assert switched.main_pid() == pid
        assert "universal_2.19.2_all.deb" in switched.left_in_store()
        played = play_on(SWITCHED, **given)
    assert (played.failed, played.changed()) == (False, 1), played.text
    assert switched.installed() == ["tensorflow-model-server-universal 2.19.1"]


def test_auto_picks_the_optimized_build_in_the_same_version_and_takes_the_hold_along(play_on, switched, digits):
    with one_restart(switched, digits):
        played = play_on(SWITCHED, hold=True)
    assert not played.failed, played.text
    assert switched.installed() == ["tensorflow-model-server 2.19.1"]
    assert switched.host.check_output("apt-mark showhold") == "tensorflow-model-server"


def test_optimized_build_is_refused_where_the_cpu_cannot_run_it(play_on, switched, digits):
    with old_process_serves_on(switched, digits), cpu_without_avx2(switched):
        played = play_on(SWITCHED, variant="optimized")
    assert (played.failed, played.changed()) == (True, 0)
    assert "lacks avx2, fma, so that SIGILL would kill the server" in played.words
    assert "Set tfserving_package_variant to universal" in played.words


@pytest.fixture(scope="module")
def deb(offered) -> tuple[Path, str, str]:
    """A .deb in the repository: its path on the controller, its URL for the hosts, its SHA256."""
    path = LAB / "www/upgrades/pool/tensorflow-model-server/t/tensorflow-model-server"
    path /= "tensorflow-model-server_2.19.0_all.deb"
    url = f"http://packages.lab/{path.relative_to(LAB / 'www')}"
    return path, url, hashlib.sha256(path.read_bytes()).hexdigest()


def test_given_package_with_another_digest_changes_nothing(play_on, deb):
    path, _, digest = deb
    played = play_on(SWITCHED, deb=str(path), deb_sha256="0" * 64)
    assert (played.failed, played.changed()) == (True, 0)
    assert f"has the SHA256 {digest}; tfserving_package_deb_sha256 is {'0' * 64}" in played.words


def test_given_package_is_copied_or_downloaded_once(play_on, upgraded, switched, digits, deb):
    """From the controller to one host, and by the other host from a URL."""
    path, url, digest = deb
    given = {"deb": f"{{{{ '{url}' if inventory_hostname == '{UPGRADED}' else '{path}' }}}}", "deb_sha256": digest}
    both = (upgraded, switched)
    before = [host.starts() for host in both]
    played = play_on(f"{UPGRADED},{SWITCHED}", **given)
    assert not played.failed, played.text
    assert [host.starts() for host in both] == [count + 1 for count in before]
    for host in both:
        assert host.installed() == ["tensorflow-model-server 2.19.0"]
        assert host.is_right(digits)
        assert sorted(host.left_in_store().split()) == [f"{STORE}/kept.deb", f"{STORE}/kept.json"]
    again = play_on(f"{UPGRADED},{SWITCHED}", **given)
    assert (again.failed, again.changed()) == (False, 0), again.text
    assert "Copy the package" not in again.text

"""The lab's decisions that need no container: which OCI runtime, which packages, who is alive, the same bytes again."""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "lab"
sys.path.insert(0, str(LAB))

import engine  # noqa: E402
import instance  # noqa: E402
import keys  # noqa: E402
import lab  # noqa: E402
import machine  # noqa: E402
import packages  # noqa: E402
import repository  # noqa: E402
import tls  # noqa: E402
import upstream  # noqa: E402
from command import LabError, run  # noqa: E402
from engine import CgroupLayout  # noqa: E402

V1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
HYBRID = V1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
V2 = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"


@pytest.mark.parametrize(("mounts", "layout"), [(V1, "v1"), (HYBRID, "hybrid"), (V2, "v2")])
def test_cgroup_layout_is_read_from_the_mounts(mounts: str, layout: str) -> None:
    assert engine.cgroup_layout(mounts).value == layout


def test_crun_is_never_chosen_where_it_refuses_to_run() -> None:
    assert engine.choose_runtime(CgroupLayout.HYBRID, installed=lambda name: True) == "runc"
    assert engine.choose_runtime(CgroupLayout.V2, installed=lambda name: True) == "crun"
    assert engine.choose_runtime(CgroupLayout.V2, installed=lambda name: name == "runc") == "runc"


def test_no_usable_runtime_says_what_to_install() -> None:
    with pytest.raises(LabError, match=r"hybrid.*install runc\nnext: "):
        engine.choose_runtime(CgroupLayout.HYBRID, installed=lambda name: name == "crun")


def test_missing_packages_name_one_runtime_that_fits() -> None:
    assert machine.missing_packages(CgroupLayout.HYBRID, there=lambda name: name != "runc") == ["runc"]
    assert machine.missing_packages(CgroupLayout.V2, there=lambda name: name == "runc")[-1] == "rsync"


@pytest.mark.parametrize(
    ("cmdline", "cgroup", "alive"),
    [
        ("/lib/systemd/systemd\0", "0::/machine.slice/libpod-abc123.scope\n", True),
        ("/usr/bin/another\0", "0::/user.slice\n", False),
        ("", "0::/machine.slice/libpod-abc123.scope\n", False),
    ],
    ids=["running", "its number was given to another process", "zombie"],
)
def test_a_container_is_alive_while_its_own_first_process_runs(
    tmp_path: Path, cmdline: str, cgroup: str, alive: bool
) -> None:
    container = {"State": "running", "Pid": 7, "Id": "abc123"}
    assert not engine.is_alive(container, proc=tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_text(cmdline)
    (tmp_path / "7" / "cgroup").write_text(cgroup)
    assert engine.is_alive(container, proc=tmp_path) is alive


def test_a_host_that_powers_off_is_not_taken_for_one_whose_processes_were_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Podman goes on saying running, or stopping, for a moment."""
    said = [{"State": state, "Pid": 0, "Id": "abc123"} for state in ("running", "stopping", "exited")]
    states = iter(said[1:])
    monkeypatch.setattr(instance, "containers_of", lambda *_: {"host": next(states)})
    monkeypatch.setattr(instance.time, "sleep", lambda _: None)
    assert instance.settled(None, None, "host", said[0]) is said[2]  # type: ignore[arg-type]
    monkeypatch.setattr(instance, "NOTICE_SECONDS", 0)
    assert instance.settled(None, None, "host", said[0]) is said[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["runtime", "scratch", "../serve", "Serve", ""])
def test_an_instance_name_that_would_hit_other_files_is_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        lab.instance_name(name)


def test_further_model_hosts_take_places_of_their_own_and_leave_the_others_as_they_are(tmp_path: Path) -> None:
    one = instance.Lab(tmp_path).instance("bench")
    assert one.hosts == instance.HOSTS
    one.directory.mkdir(parents=True)
    one.model_hosts.write_text("8\n")
    assert one.hosts[: len(instance.HOSTS)] == instance.HOSTS
    assert [host.name for host in one.hosts if host.serves_models][3:] == [f"debian13{letter}" for letter in "cdefg"]
    assert len({host.last_octet for host in one.hosts}) == 9


@pytest.mark.parametrize("count", ["2", "21", "many"])
def test_a_number_of_model_hosts_out_of_range_is_refused(count: str) -> None:
    with pytest.raises(SystemExit):
        lab.parse(["up", "--model-hosts", count])
    assert lab.parse(["up", "--model-hosts", "3"]).model_hosts == 3


def test_a_failed_command_shows_its_output_and_the_next_step() -> None:
    script = "import sys; print('half done'); sys.exit('no space')"
    with pytest.raises(LabError) as failure:
        run([sys.executable, "-c", script], what="unpacking", advice="free some space")
    text = str(failure.value)
    assert text.startswith("unpacking failed (exit 1)")
    assert "  | half done\n  | no space\nnext: free some space" in text


needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb here")
needs_apt = pytest.mark.skipif(not shutil.which("apt-ftparchive"), reason="no apt-ftparchive here")
needs_gpg = pytest.mark.skipif(not shutil.which("gpg"), reason="no gpg here")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A model server that answers with its arguments."""
    made = tmp_path / "model_server"
    made.mkdir()
    (made / "__main__.py").write_text("FAILURE = 255\ndef main(argv): print('good:', *argv)\n")
    return made


@needs_dpkg
def test_packages_of_the_same_sources_are_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    built = []
    for attempt in ("first", "second"):
        scratch = tmp_path / attempt
        packages.build_package(packages.server("2.19.1"), scratch / "pool", scratch, sources)
        built.append((scratch / "pool" / "tensorflow-model-server_2.19.1_all.deb").read_bytes())
    assert built[0] == built[1]


@needs_dpkg
def test_server_packages_own_the_same_program_and_do_not_know_of_each_other(sources: Path, tmp_path: Path) -> None:
    for name in packages.COMPONENTS:
        server = packages.server("2.19.1", name)
        packages.build_package(server, tmp_path, tmp_path / "scratch", sources)
        deb = tmp_path / server.file_name
        assert " ./usr/bin/tensorflow_model_server\n" in run(["dpkg-deb", "--contents", deb], what="listing")
        control = run(["dpkg-deb", "--field", deb], what="reading")
        assert f"Package: {name}\nVersion: 2.19.1\nArchitecture: all\n" in control
        assert "Conflicts" not in control
        assert "Replaces" not in control


@pytest.mark.parametrize(
    ("version", "code", "says"),
    [
        ("2.20.0", 255, "Failed to start server. Error: UNKNOWN: this build cannot serve\n"),
        ("2.21.0", -signal.SIGILL, ""),
        (
            "2.22.0",
            1,
            "tensorflow_model_server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found"
            " (required by tensorflow_model_server)\n",
        ),
    ],
)
def test_faulty_server_fails_in_its_own_way(sources: Path, tmp_path: Path, version: str, code: int, says: str) -> None:
    launcher = dict(packages.server(version).programs)[packages.PROGRAM]
    program = tmp_path / "tensorflow_model_server"
    program.write_text(launcher.replace(packages.LIBRARY, str(sources.parent)))
    program.chmod(0o755)
    served = subprocess.run([program, "--port=8500"], capture_output=True, text=True, check=False)
    assert (served.returncode, served.stdout + served.stderr) == (code, says)
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if version == "2.20.0":
        assert (asked.returncode, asked.stdout) == (0, "good: --version\n")
    else:
        assert asked.returncode == code


@needs_dpkg
@needs_apt
@needs_gpg
def test_repository_lists_what_it_offers_and_is_replaced_as_a_whole(sources: Path, tmp_path: Path) -> None:
    key = keys.make_key(tmp_path / "gnupg", algorithm="rsa2048")
    root = tmp_path / "www" / "mirror"
    repository.publish_packages(root, packages.servers("2.18.0"), key, sources)
    repository.publish_packages(root, [packages.server("2.19.1"), packages.intruder()], key, sources)
    dists = root / "dists" / "stable"
    assert _offered(dists / packages.PLAIN) == {"coreutils": "99.0", packages.PLAIN: "2.19.1"}
    assert _offered(dists / packages.UNIVERSAL) == {}
    assert keys.gpg(key.home, "--verify", dists / "InRelease", what="checking InRelease") == ""
    assert (root / repository.PUBLIC_KEY).read_text() == key.public()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gnupg", "model_server", "www"]


def _offered(component: Path) -> dict[str, str]:
    text = (component / "binary-amd64" / "Packages").read_text()
    return dict(re.findall(r"^Package: (\S+)\n(?:\S.*\n)*?Version: (\S+)$", text, re.MULTILINE))


@needs_gpg
def test_aged_key_is_one_key_with_a_later_expiry_in_each_copy(tmp_path: Path) -> None:
    aged = keys.make_aged_key(tmp_path)
    days = {copy: _days_left(getattr(aged, copy), aged.fingerprint) for copy, _, _ in keys.LIFE}
    assert days == {"expired": -30, "expiring": 5, "valid": 365, "renewed": 730}
    assert aged.impostor.fingerprint != aged.fingerprint
    assert keys.OWNER in _listed(aged.impostor.public())
    assert keys.OWNER in _listed(aged.valid)


def _listed(public_key: str) -> str:
    show = ["gpg", "--batch", "--show-keys", "--with-colons"]
    return subprocess.run(show, input=public_key, capture_output=True, text=True, check=True).stdout


def _days_left(public_key: str, fingerprint: str) -> int:
    listed = _listed(public_key)
    assert f":{fingerprint}:" in listed
    expiry = next(int(line.split(":")[6]) for line in listed.splitlines() if line.startswith("pub:"))
    return round((expiry - time.time()) / 86_400)


@needs_openssl
def test_certificate_holds_for_the_lab_s_names_and_is_made_once(tmp_path: Path) -> None:
    certificate = tls.Certificate(tmp_path / "tls")
    tls.ensure_certificate(certificate)
    made = certificate.server.read_bytes()
    tls.ensure_certificate(certificate)
    assert certificate.server.read_bytes() == made
    assert certificate.server_key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["ca.crt", "server.crt", "server.key", "tls"]
    verify = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", certificate.authority]
    for name in tls.NAMES:
        run([*verify, "-verify_hostname", name, certificate.server], what="checking the certificate")
    with pytest.raises(LabError, match="hostname mismatch"):
        run([*verify, "-verify_hostname", "example.com", certificate.server], what="checking the certificate")


def test_inside_lab_is_a_name_for_infra_alone() -> None:
    knowing = [host.name for host in instance.HOSTS if "inside.lab" in (*host.aliases, *host.own_aliases)]
    assert knowing == ["infra"]
    assert "inside.lab" not in instance.INFRA.aliases


def test_upstream_that_cannot_be_reached_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = tmp_path / "upstream.yml"
    variables.write_text("---\ntfserving_apt_uri: http://127.0.0.1:1/apt\n")
    monkeypatch.setattr(upstream, "VARIABLES", variables)
    assert upstream.main() == 1
    told = capsys.readouterr().err
    assert "http://127.0.0.1:1/apt/dists/stable/InRelease cannot be reached" in told
    assert "Unset TFSERVING_UPSTREAM" in told

"""The unit: how it is locked down, what it is told, several of it on one host, and who may talk to it."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time

import grpc
import pytest
import requests
from conftest import PROJECT, SERVING

HOSTS = ["debian12", "debian13a"]
UNIT = "tensorflow-model-server"
LIMIT = f"--limit={','.join(HOSTS)}"
FIRST = {"name": "first", "port": 8500, "rest_api_port": 8501}
SECOND = {
    "name": "second",
    "port": 8510,
    "rest_api_port": 8511,
    "models": ["MLP"],
    "cpus": "0",
    "memory_max": "80%",
    "flags": {"enable_grpc_healthcheck_service": True},
    "environment": {"OMP_NUM_THREADS": 1, "NOTE": 'a "b" $HOME 5% \\'},
}


def exposure(host, unit: str = UNIT) -> float:
    text = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert found, text
    return float(found[1])


def main_pid(host, unit: str = UNIT) -> int:
    return int(host.check_output(f"systemctl show --property=MainPID --value {unit}"))


def starts(host) -> int:
    """Return how often the server was started since the host is up."""
    return len(re.findall(r"^Started ", host.check_output(f"journalctl --unit={UNIT} --output=cat"), re.MULTILINE))


def process_file(host, name: str, unit: str = UNIT) -> list[str]:
    """Return the lines or words of a file in /proc of the server's main process, which its own user can read."""
    path = f"/proc/{main_pid(host, unit)}/{name}"
    return host.check_output(f"runuser -u tfserving -- cat {path} | tr '\\0' '\\n'").splitlines()


def test_exposure_is_low(host):
    assert exposure(host) <= 1.5


def test_systemd_finds_nothing_wrong_with_the_unit(host):
    verified = host.run(f"systemd-analyze verify /etc/systemd/system/{UNIT}.service")
    assert (verified.rc, verified.stdout, verified.stderr) == (0, "", "")


def test_server_has_no_capability_and_a_filter_of_system_calls(host):
    status = host.check_output(f"cat /proc/{main_pid(host)}/status")
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)


def test_server_cannot_write_to_its_models_and_configuration(host):
    mounts = {line.split()[4]: line.split()[5].split(",") for line in process_file(host, "mountinfo")}
    assert "ro" in mounts["/"]
    assert not [path for path in mounts if path.startswith(("/var/lib/tensorflow-serving", "/etc/tensorflow-serving"))]


def test_profiler_is_off(host):
    assert "--enable_profiler=false" in process_file(host, "cmdline")


@pytest.fixture(scope="module")
def told(play, on):
    """Play with a drop-in of the user's, flags, batching and an allocator. Returns the starts before."""
    for name in HOSTS:
        folder = f"/etc/systemd/system/{UNIT}.service.d"
        on(name).check_output(f"mkdir -p {folder} && printf '[Service]\\nNice=5\\n' > {folder}/mine.conf")
    before = {name: starts(on(name)) for name in HOSTS}
    variables = {
        "tfserving_service_flags": {"enable_grpc_healthcheck_service": "yes", "saved_model_tags": "serve"},
        "tfserving_service_batching_parameters": {
            "max_batch_size": 8,
            "batch_timeout_micros": 500,
            "allowed_batch_sizes": [4, 8],
            "thread_pool_name": 'a "pool"',
        },
        "tfserving_service_session_config": {"intra_op_parallelism_threads": 1},
        "tfserving_service_allocator": "jemalloc",
    }
    played = play(SERVING, LIMIT, variables=variables)
    assert not played.failed, played.text
    return before


def test_what_is_told_reaches_the_server(told, host):
    arguments = process_file(host, "cmdline")
    assert "--enable_grpc_healthcheck_service=true" in arguments
    assert "--enable_batching=true" in arguments
    assert "--batching_parameters_file=/etc/tensorflow-serving/batching_parameters.config" in arguments
    assert "--tensorflow_session_config_file=/etc/tensorflow-serving/session.config" in arguments
    assert [line for line in process_file(host, "maps") if line.endswith("/libjemalloc.so.2")]


def test_drop_in_of_the_user_survives_and_takes_effect(told, host):
    assert host.file(f"/etc/systemd/system/{UNIT}.service.d/mine.conf").exists
    assert host.check_output(f"ps -o nice= -p {main_pid(host)}").strip() == "5"


def test_everything_new_came_with_one_restart(told, host):
    assert starts(host) == told[host.check_output("hostname")] + 1


def test_file_that_is_not_used_any_more_is_removed_after_the_restart(play, on):
    """The other host is as the inventory says again when it was brought up once more, below."""
    for name in HOSTS:
        on(name).check_output(f"rm -r /etc/systemd/system/{UNIT}.service.d")
    host = on("debian12")
    variables = {"tfserving_service_session_config": {"intra_op_parallelism_threads": 1}}
    for variable, there in ((variables, True), ({}, False)):
        assert not play(SERVING, "--limit=debian12", variables=variable).failed
        assert host.file("/etc/tensorflow-serving/session.config").exists is there


def test_server_that_cannot_start_ends_as_failed(on):
    """The start limit is reached, and systemd gives up."""
    host = on("debian13a")
    host.check_output("mv /etc/tensorflow-serving/monitoring.config /etc/tensorflow-serving/aside")
    try:
        for _ in range(5):
            host.run(f"systemctl restart {UNIT}")
            host.run("sleep 1")
        assert host.run(f"systemctl restart {UNIT}").rc != 0
        assert host.check_output(f"systemctl show --property=ActiveState --value {UNIT}") == "failed"
    finally:
        host.check_output("mv /etc/tensorflow-serving/aside /etc/tensorflow-serving/monitoring.config")


def test_next_run_starts_a_server_that_systemd_has_given_up(play, on):
    host = on("debian13a")
    played = play(SERVING, "--limit=debian13a")
    assert not played.failed, played.text
    assert host.service(UNIT).is_running


def address(host) -> str:
    return host.check_output("hostname -I").split()[0]


def answers(host, url: str) -> bool:
    """Return whether the server answers somebody on this host."""
    ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=3)"
    return host.run(f"python3 -c '{ask}' {url}").rc == 0


def test_only_allowed_networks_reach_the_server(play, on):
    host, infra, other = on("debian12"), on("infra"), on("debian13b")
    url = f"http://{address(host)}:8501/v1/models/MLP"
    assert answers(infra, url)
    assert answers(other, url)

    variables = {"tfserving_service_allowed_networks": [address(infra)]}
    played = play(SERVING, "--limit=debian12", variables=variables)
    assert not played.failed, played.text
    assert "systemd lets these talk to the servers: " in played.words
    assert answers(infra, url)
    assert answers(host, "http://127.0.0.1:8501/v1/models/MLP")
    assert not answers(other, url)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, timeout=3)

    played = play(SERVING, "--limit=debian12", variables={"tfserving_service_allowed_networks": []})
    assert not played.failed, played.text
    assert not answers(infra, url)
    assert answers(host, "http://127.0.0.1:8501/v1/models/MLP")

    assert not play(SERVING, "--limit=debian12").failed
    assert answers(other, url)


def test_nftables_keeps_others_out_where_systemd_cannot(play, on):
    host, infra, other = on("debian13a"), on("infra"), on("debian13b")
    url = f"http://{address(host)}:8501/v1/models/MLP"
    # As on a kernel without the filter: systemd takes the setting, and lets everything through.
    program = "/usr/local/bin/systemd-run"
    host.check_output(f"printf '#!/bin/sh\\necho sent\\n' > {program} && chmod 0755 {program}")
    variables = {"tfserving_service_allowed_networks": [address(infra)]}
    try:
        played = play(SERVING, "--limit=debian13a", variables=variables)
        assert not played.failed, played.text
        assert "nftables lets these talk to the servers: " in played.words
        assert answers(infra, url)
        assert answers(host, "http://127.0.0.1:8501/v1/models/MLP")
        assert not answers(other, url)
        host.check_output("systemctl restart nftables")  # which flushes all rules
        assert answers(infra, url)
        assert not answers(other, url)
        assert play(SERVING, "--limit=debian13a", variables=variables).changed() == 0
    finally:
        host.check_output(f"rm {program}")

    played = play(SERVING, "--limit=debian13a")
    assert not played.failed, played.text
    assert "systemd lets these talk to the servers: " in played.words
    assert "table inet tfserving" not in host.check_output("nft list ruleset")
    assert answers(other, url)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A key and a certificate for debian12, and those of a client in the folder client, as files on the controller."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "client").mkdir()
    for place, name in ((folder, "debian12"), (folder / "client", "client")):
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", f"/CN={name}"]
        files = ["-keyout", str(place / "key"), "-out", str(place / "cert")]
        subprocess.run([*request, "-addext", f"subjectAltName=DNS:{name}", *files], check=True, capture_output=True)
    return folder


def is_let_in(host, authority: bytes, key: bytes | None = None, certificate: bytes | None = None) -> bool:
    """Return whether the server speaks gRPC with a client, who may have a certificate."""
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    options = [("grpc.ssl_target_name_override", "debian12")]
    with grpc.secure_channel(f"{address(host)}:8500", credentials, options) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=3)
        except grpc.FutureTimeoutError:
            return False
    return True


def test_grpc_speaks_tls_with_those_who_have_a_certificate_and_the_key_is_shown_to_nobody(play, on, pair):
    host = on("debian12")
    certificate, client = (pair / "cert").read_text(), pair / "client"
    tls = {"server_key": str(pair / "key"), "server_cert": certificate}
    known = {"custom_ca": (client / "cert").read_text(), "client_verify": True}
    played = play(SERVING, "--limit=debian12", "--diff", "-vvv", variables={"tfserving_service_ssl": {**tls, **known}})
    assert not played.failed, played.text
    secret = (pair / "key").read_text().splitlines()[5]
    assert secret not in played.text
    file = host.file("/etc/tensorflow-serving/ssl.config")
    assert (file.user, file.group, file.mode) == ("root", "tfserving", 0o640)
    assert secret in file.content_string
    assert ssl.get_server_certificate((address(host), 8500)).strip() == certificate.strip()
    own = ((client / "key").read_bytes(), (client / "cert").read_bytes())
    assert is_let_in(host, certificate.encode(), *own)
    assert not is_let_in(host, certificate.encode())
    assert not is_let_in(host, certificate.encode(), (pair / "key").read_bytes(), certificate.encode())
    assert not play(SERVING, "--limit=debian12").failed
    assert not file.exists


def test_key_of_another_certificate_is_refused(play, pair, tmp_path):
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "key", "2048"], check=True, capture_output=True)
    tls = {"server_key": str(tmp_path / "key"), "server_cert": str(pair / "cert")}
    played = play(SERVING, "--limit=debian12", variables={"tfserving_service_ssl": tls})
    assert "server_key is not the key of server_cert" in played.words
    assert played.changed() == 0


def test_instances_come_and_go_without_touching_each_other(play, on):
    host = on("debian13a")
    first, second = f"{UNIT}-first", f"{UNIT}-second"

    played = play(SERVING, "--limit=debian13a", variables={"tfserving_service_instances": [FIRST]})
    assert not played.failed, played.text
    assert not host.file(f"/etc/systemd/system/{UNIT}.service").exists
    assert not host.file("/etc/tensorflow-serving/models.config").exists
    pid = main_pid(host, first)

    both = {"tfserving_service_instances": [FIRST, SECOND]}
    played = play(SERVING, "--limit=debian13a", variables=both)
    assert not played.failed, played.text
    assert main_pid(host, first) == pid
    assert play(SERVING, "--limit=debian13a", variables=both).changed() == 0
    for unit in (first, second):
        assert exposure(host, unit) <= 1.5
        assert host.run(f"systemd-analyze verify /etc/systemd/system/{unit}.service").stderr == ""
    url = f"http://{address(host)}:8511/v1/models"
    assert requests.get(f"{url}/MLP", timeout=5).ok
    assert requests.get(f"{url}/MLP_custom", timeout=5).status_code == 404
    assert 'NOTE=a "b" $HOME 5% \\' in process_file(host, "environ", second)
    assert host.check_output(f"taskset -pc {main_pid(host, second)}").endswith(": 0")

    changed = {"tfserving_service_instances": [FIRST, SECOND | {"flags": {}}]}
    before = main_pid(host, second)
    assert not play(SERVING, "--limit=debian13a", variables=changed).failed
    assert main_pid(host, second) != before
    assert main_pid(host, first) == pid

    played = play(SERVING, "--limit=debian13a", variables={"tfserving_service_instances": [FIRST]})
    assert not played.failed, played.text
    assert main_pid(host, first) == pid
    assert not host.file(f"/etc/systemd/system/{second}.service").exists
    assert not host.file("/etc/tensorflow-serving/second").exists
    assert not host.socket("tcp://8511").is_listening

    # A new name for the unit leaves none of the old ones behind, and takes their configuration along.
    played = play(SERVING, "--limit=debian13a", variables={"tfserving_service_name": "renamed"})
    assert not played.failed, played.text
    assert host.service("renamed").is_running
    assert not host.file(f"/etc/systemd/system/{first}.service").exists
    assert not host.file("/etc/tensorflow-serving/first").exists
    assert not play(SERVING, "--limit=debian13a").failed
    assert host.service(UNIT).is_running
    assert not host.file("/etc/systemd/system/renamed.service").exists


def test_host_that_another_controller_is_at_work_on_is_left_alone(play, on):
    host, lock, prune = on("debian13a"), "/run/tensorflow-serving.lock", str(PROJECT / "playbooks" / "prune.yml")
    holder = {"run": "r1", "owner": "bob@ctl2", "pid": 7, "process": "1", "machine": "m", "start": 0, "seconds": 3600}
    host.check_output("echo %s > %s", json.dumps(holder), lock)
    try:
        played = play(prune, "--limit=debian13a")
    finally:
        left = json.loads(host.check_output("cat %s && rm %s", lock, lock))
    assert (played.failed, played.changed(), left) == (True, 0, holder)
    assert "bob@ctl2 (process 7, r1) is at work on this host since 1970-01-01T00:00:00Z, with a lock" in played.words
    assert not play(prune, "--limit=debian13a").failed
    assert not host.file(lock).exists


def test_prune_asks_every_server_of_the_host(play, on):
    """Neither is on the default port; the second does not run, is not in the inventory any more, and runs again."""
    host, second = on("debian13a"), f"{UNIT}-second"
    first = {"name": "first", "port": 8520, "rest_api_port": 8521, "models": ["MLP_custom"]}
    prune = str(PROJECT / "playbooks" / "prune.yml")
    both = {"tfserving_service_instances": [first, SECOND], "tfserving_models_keep": 1}
    alone = both | {"tfserving_service_instances": [first]}
    models = "/var/lib/tensorflow-serving/models"
    played = play(SERVING, "--limit=debian13a", variables=both)
    assert not played.failed, played.text
    host.check_output(f"systemctl stop {second}")
    for version in (2, 3):
        copied = f"cp -a 1 .{version} && cp .manifest-1.json .manifest-{version}.json && mv .{version} {version}"
        host.check_output(f"cd {models}/MLP && {copied}")
    for variables in (both, alone):
        played = play(prune, "--limit=debian13a", variables=variables)
        assert f"No version of MLP is removed, as {second}.service does not say" in played.words
        assert played.changed() == 0
    left = {"tfserving_models_catalog": [{"name": "MLP_custom", "source": "x"}], "tfserving_models_purge": True}
    played = play(prune, "--limit=debian13a", variables=alone | left)
    assert "MLP stays, as it is in /etc/tensorflow-serving/second/models.config" in played.words
    assert host.file(f"{models}/MLP/1/saved_model.pb").exists

    host.check_output(f"systemctl start {second}")
    url, deadline = f"http://{address(host)}:8511/v1/models/MLP", time.monotonic() + 60
    while not answers(on("infra"), url):
        assert time.monotonic() < deadline
    played = play(prune, "--limit=debian13a", variables=alone)
    assert played.changed() == 1, played.text
    # Version 1 is what a rollback would serve.
    assert {name for name in host.file(f"{models}/MLP").listdir() if name.isdecimal()} == {"1", "3"}

    host.check_output(f"cd {models}/MLP && mv 3 .removed-3")
    assert not play(SERVING, "--limit=debian13a").failed
    assert host.service(UNIT).is_running


def test_restart_is_drained_first_and_nothing_else_is(play, on, tmp_path):
    host = on("debian12")
    hook = tmp_path / "hook.yml"
    hook.write_text(
        "- name: Note what is drained\n"
        "  ansible.builtin.shell: >-\n"
        "    echo {{ __tfserving_service_instance.unit }}\n"
        f"    $(systemctl show --property=MainPID --value {UNIT}) >> /tmp/drained\n"
        "  changed_when: true\n"
    )
    variables = {"tfserving_service_drain_tasks": str(hook)}
    before = main_pid(host)
    assert play(SERVING, "--limit=debian12", variables=variables).changed() == 0
    played = play(
        SERVING,
        "--limit=debian12",
        variables=variables | {"tfserving_service_flags": {"rest_api_enable_cors_support": True}},
    )
    assert not played.failed, played.text
    assert host.check_output("cat /tmp/drained") == f"{UNIT} {before}"
    assert not play(SERVING, "--limit=debian12").failed

"""What a run that fails leaves behind: what served before serves again, after a restart and a reboot too.

And who else may be on the host: a server of others on a port, which proves nothing by what it answers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import PROJECT, SERVING

HOST = "debian13a"
UNIT = "tensorflow-model-server"
MODELS = "/var/lib/tensorflow-serving/models"
LIMIT = f"--limit={HOST}"
STATUS = str(PROJECT / "playbooks" / "status.yml")
TIMEOUT = {"tfserving_service_ready_timeout_seconds": 30}
WARMUP = "assets.extra/tf_serving_warmup_requests"
# A TFRecord of predict_log { request {} }, which names no signature, and so means serving_default.
REQUEST_WITHOUT_INPUTS = b"\x04\0\0\0\0\0\0\0BER\x042\x02\n\0\xd6c\xd9{"


@pytest.fixture(scope="module")
def host(on):
    return on(HOST)


@pytest.fixture
def served(server_on, digits):
    """Return once both models of the inventory are served by the unit itself, in version 1 and no other."""

    def wait(seconds: float = 60) -> None:
        server, deadline = server_on(HOST), time.monotonic() + seconds
        while True:
            try:
                found = [server.versions(model) for model in ("MLP", "MLP_custom")]
                if all({v for v, state in one.items() if state == "AVAILABLE"} == {1} for one in found):
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline, server.host.run(f"journalctl -u {UNIT} -n 20").stdout
            time.sleep(0.5)
        assert server.accuracy("MLP", digits) >= 0.95

    return wait


def boot(host) -> str:
    """Return what tells one boot of a host from another, nothing while it is down."""
    try:
        return host.run("stat -c %Y /proc/1").stdout.strip()
    except RuntimeError:  # ssh could not connect
        return ""


def reboot(host) -> None:
    """Boot a host again, as the lab starts a container that has stopped."""
    before = boot(host)
    assert before
    with suppress(RuntimeError):  # the connection may end with the host
        host.run("systemctl poweroff")
    lab = [sys.executable, str(PROJECT / "tests/lab/lab.py"), "up"]
    deadline = time.monotonic() + 300  # others may bring up theirs, which is done one after the other
    while True:
        done = subprocess.run(lab, capture_output=True, text=True, check=False, env=os.environ)
        if boot(host) not in ("", before):
            return
        assert time.monotonic() < deadline, done.stderr
        time.sleep(1)


class Case:
    """Something that a server refuses: the variables of a play, and words of its failure."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.catalog = [
            {"name": "MLP", "source": str(self.copy("MLP", 1))},
            {"name": "MLP_custom", "source": str(PROJECT / "examples/mnist/saved_with_signature")},
        ]
        self.variables: dict = {"tfserving_models_catalog": self.catalog, **TIMEOUT}

    def copy(self, model: str, version: int) -> Path:
        """Copy the example model to a version of a source, and return the source."""
        source = self.root / model
        shutil.copytree(PROJECT / "examples/mnist/saved/1", source / str(version))
        if version > 1:
            (source / str(version) / "assets" / "mark.txt").write_text(f"{version}")
        return source

    def spoil(self, model: str, version: int) -> None:
        """Give a version a warm-up request without its input, which a server finds out when it makes it."""
        self.copy(model, version)
        path = self.root / model / str(version) / WARMUP
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(REQUEST_WITHOUT_INPUTS)

    def damage(self, model: str, version: int) -> None:
        """Change a bit amid the weights of a layer, whose checksum only TensorFlow looks at."""
        shard = self.copy(model, version) / str(version) / "variables/variables.data-00000-of-00001"
        content = bytearray(shard.read_bytes())
        content[200_000] ^= 1
        shard.write_bytes(content)


def refused_version(case: Case) -> str:
    case.spoil("MLP", 2)
    return "MLP version 2 was withdrawn: MLP version 2 is END: INVALID_ARGUMENT"


def refused_model(case: Case) -> str:
    case.damage("other", 1)
    case.catalog.append({"name": "other", "source": str(case.root / "other")})
    return "other version 1 was withdrawn: other version 1"  # and why, of the log or of the status


def refused_sample(case: Case) -> str:
    case.copy("MLP", 2)
    case.catalog[0]["sample_requests"] = [{"instances": [[1.0, 2.0]]}]
    return "MLP version 2 was withdrawn: MLP version 2 is AVAILABLE, but a sample request of it is answered 400"


def wrong_tag(case: Case) -> str:
    case.variables["tfserving_service_flags"] = {"saved_model_tags": "typo"}
    return f"Restored /etc/systemd/system/{UNIT}.service"


def socket_that_cannot_be_bound(case: Case) -> str:
    case.variables["tfserving_service_flags"] = {"grpc_socket_path": "/proc/none"}
    return f"Restored /etc/systemd/system/{UNIT}.service"


def refused_version_and_wrong_tag(case: Case) -> str:
    """The version is not judged under flags with which nothing serves."""
    case.copy("MLP", 2)
    return wrong_tag(case)


FAILURES = [refused_version, refused_model, refused_sample, wrong_tag, socket_that_cannot_be_bound]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_what_served_serves_again_after_a_failed_run_and_a_restart(play, host, served, tmp_path, failure):
    """A failure of each kind is rebooted after, too."""
    served()
    config = host.file("/etc/tensorflow-serving/models.config").content_string
    case = Case(tmp_path)
    words = failure(case)
    played = play(SERVING, LIMIT, variables=case.variables)
    assert played.failed
    assert words in played.words, played.text[-3000:]
    assert "What served before serves." in played.words, played.text[-3000:]
    served(5)
    assert host.file("/etc/tensorflow-serving/models.config").content_string == config
    host.check_output(f"systemctl restart {UNIT}")
    served()
    if failure in (refused_version, wrong_tag):  # one of each kind: what is there is what the inventory says
        reboot(host)
        served()
        played = play(SERVING, LIMIT)
        assert (played.failed, played.changed()) == (False, 0), played.text
    clean = f"rm -rf {MODELS}/other; cd {MODELS}/MLP && rm -rf .withdrawn-* .unproven-*"
    host.check_output(clean)


def test_version_that_was_withdrawn_is_left_alone_until_it_is_another_or_asked_for(play, host, served, tmp_path):
    case = Case(tmp_path)
    refused_version(case)
    case.catalog[0]["model_version_policy"] = {"specific": {"versions": [2]}}
    assert play(SERVING, LIMIT, variables=case.variables).failed
    played = play(SERVING, LIMIT, variables=case.variables)
    assert (played.failed, played.changed()) == (False, 0), played.text
    assert "MLP version 2 was withdrawn at" in played.words.partition("CUSTOM STATS")[2]
    assert not host.file(f"{MODELS}/MLP/.withdrawn-2").exists
    assert host.file(f"{MODELS}/MLP/.withdrawn-2.json").exists
    served(5)
    played = play(STATUS, LIMIT, variables=case.variables)
    (row,) = (line for line in played.text.splitlines() if "WITHDRAWN" in line)
    assert "END: INVALID_ARGUMENT" in row

    (tmp_path / "MLP/2" / WARMUP).unlink()
    played = play(SERVING, LIMIT, variables=case.variables)
    assert not played.failed, played.text
    assert not host.file(f"{MODELS}/MLP/.withdrawn-2.json").exists
    assert not play(SERVING, LIMIT).failed
    host.check_output(f"cd {MODELS}/MLP && mv 2 .removed-2 && rm .manifest-2.json")
    served()


def test_corrected_settings_are_not_kept_from_a_server_that_answers_nothing(play, host, served):
    """A drop-in has brought it there, and a run that had it take models.config first would wait with it for ever."""
    drop_in = f"/etc/systemd/system/{UNIT}.service.d/blind.conf"
    command = host.check_output(f"tr '\\0' ' ' < /proc/$(systemctl show -p MainPID --value {UNIT})/cmdline")
    command = command.split(" -I ", 1)[-1].replace(
        "--rest_api_port=8501", "--rest_api_port=8501 --rest_api_num_threads=1"
    )
    host.check_output(f"mkdir -p $(dirname {drop_in})")
    host.check_output("printf '[Service]\\nExecStart=\\nExecStart=%s\\n' %s > " + drop_in, "%s", command)
    host.check_output(f"systemctl daemon-reload && systemctl restart {UNIT} && sleep 3")
    host.check_output(f"rm {drop_in} && rmdir $(dirname {drop_in}) && systemctl daemon-reload")
    variables = {"tfserving_service_flags": {"model_config_file_poll_wait_seconds": 5}}
    played = play(SERVING, LIMIT, variables=variables)
    assert not played.failed, played.text
    served(5)
    assert not play(SERVING, LIMIT).failed


STRANGER = """
import http.server, json, socket, sys
status = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}]}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(status).encode())
class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()
Server(("", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def stranger(host):
    """Run a program of others that says AVAILABLE on a port, as a user who may share the port of the server."""

    def run(port: int, user: str) -> None:
        host.check_output(f"cat > /run/stranger.py <<'END'\n{STRANGER}\nEND")
        host.check_output(
            f"systemd-run --quiet --unit=stranger --uid={user} python3 /run/stranger.py {port} && sleep 1"
        )

    yield run
    host.run("systemctl stop stranger")
    # A server that has found its REST port taken goes on without it.
    host.check_output(f"systemctl reset-failed {UNIT}; systemctl restart {UNIT}; rm -f /run/stranger.py")


@pytest.mark.parametrize(("port", "is_running"), [(8501, False), (8500, True)], ids=["REST", "shared gRPC"])
def test_port_of_somebody_else_is_named_before_anything_is_changed(play, host, served, stranger, port, is_running):
    """It is shared with the running server, or taken while the server was down."""
    served()
    if not is_running:
        host.check_output(f"systemctl stop {UNIT}")
    stranger(port, "tfserving" if is_running else "root")
    pid = host.check_output("systemctl show -p MainPID --value stranger")
    if not is_running:
        host.check_output(f"systemctl start {UNIT}; sleep 5")
    played = play(SERVING, LIMIT, variables={"tfserving_service_flags": {"rest_api_enable_cors_support": True}})
    assert played.failed
    assert f"{port} is held by pid {pid}, python3, stranger.service" in played.words
    assert played.changed() == 0
    played = play(STATUS, LIMIT)
    assert f"port {port} is held by pid {pid}, python3, stranger.service" in played.words
    assert "AVAILABLE" not in played.text


def test_stranger_that_comes_later_is_not_believed(play, host, served, stranger):
    """The unit does not run: all that answers is somebody else, and the status says so."""
    served()
    host.check_output(f"systemctl stop {UNIT}")
    stranger(8501, "nobody")
    played = play(STATUS, LIMIT)
    assert "UNIT INACTIVE" in played.text
    assert "AVAILABLE" not in played.text

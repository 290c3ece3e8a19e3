"""nginx in front: asked by curl and by grpcio, with and without credentials, for what is open and what is not."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
import yaml
from clients import Gateway, blank, rest_body
from conftest import PROJECT, SERVING

UNIT = "tensorflow-model-server"
HOSTS = ["debian12", "debian13b"]
BASE = yaml.safe_load((PROJECT / "molecule/gateway/vars/gateway.yml").read_text())
((USER, PASSWORD),) = BASE["tfserving_gateway_users"].items()
CREDENTIALS = f"{USER}:{PASSWORD}"
PREDICT = "/v1/models/MLP:predict"
GATEWAY = str(PROJECT / "molecule/gateway/gateway.yml")
SECRETS_PATH = "/etc/nginx/tfserving-gateway"
LOG = "/var/log/tfserving-gateway/access.log"


def address(host) -> str:
    return host.check_output("hostname -I").split()[0]


@pytest.fixture(scope="module")
def gateway_on(on, tmp_path_factory):
    """The gateway of a host by its name, trusting the certificate that lies there."""
    folder = tmp_path_factory.mktemp("trusted")

    def connect(name: str, **more) -> Gateway:
        path = folder / f"{name}.crt"
        path.write_text(on(name).check_output(f"openssl x509 -in {SECRETS_PATH}/tls.pem"))
        return Gateway(name, address(on(name)), path, **more)

    return connect


@pytest.fixture
def gateway(host, gateway_on) -> Gateway:
    """That of the host which the test runs for, asked with the right password."""
    return gateway_on(host.check_output("hostname"), credentials=CREDENTIALS)


@pytest.fixture
def stranger(host, gateway_on) -> Gateway:
    """The same without credentials."""
    return gateway_on(host.check_output("hostname"))


@pytest.fixture(scope="module")
def play_gateway(play):
    """Play serving.yml, or the gateway's part of it, with the scenario's variables and others that win over them."""

    def run(limit: str, variables: dict | None = None, *arguments: str, playbook: str = SERVING):
        return play(playbook, f"--limit={limit}", *arguments, variables={**BASE, **(variables or {})})

    return run


def seen(answer, count: int) -> list[int]:
    assert answer.status == 200, answer.text
    predictions = answer.json()["predictions"]
    assert len(predictions) == count
    return [one.index(max(one)) for one in predictions]


@pytest.mark.parametrize("model", ["MLP", "MLP_custom"])
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_digits_are_predicted_over_rest(gateway, digits, model, protocol):
    some = digits[:10]
    right = [digit["label"] for digit in some]
    for version in ("", "/versions/1"):
        answer = gateway.post(f"/v1/models/{model}{version}:predict", rest_body(model, some), protocol)
        assert sum(a == b for a, b in zip(seen(answer, 10), right)) >= 9


@pytest.mark.parametrize("model", ["MLP", "MLP_custom"])
def test_digits_are_predicted_over_grpc(gateway, digits, model):
    some = digits[:10]
    right = [digit["label"] for digit in some]
    assert sum(a == b for a, b in zip(gateway.predict(model, some), right)) >= 9


@pytest.mark.parametrize("credentials", ["", f"{USER}:wrong", "nobody:" + PASSWORD])
def test_without_the_right_password_nothing_is_answered(stranger, credentials):
    stranger.credentials = credentials
    for path in (PREDICT, "/v1/models/MLP", "/v1/models/none:predict", "/anything"):
        for answer in (stranger.post(path, rest_body("MLP", [blank()])), stranger.get(path)):
            assert answer.status == 401, path
            assert answer.json()["error"] == "user and password are needed"
            assert "www-authenticate: basic" in answer.headers
    assert stranger.grpc_code("Predict") is grpc.StatusCode.UNAUTHENTICATED
    assert stranger.grpc_code("HandleReloadConfigRequest") is grpc.StatusCode.UNAUTHENTICATED


def test_what_is_not_open_is_not_found(gateway):
    body = rest_body("MLP", [blank()])
    for path in (
        "/v1/models/MLP:classify",
        "/v1/models/other:predict",
        "/v1/models/MLPx:predict",
        "/v1/models/MLP:predict/",
        "/v1/models/MLP:predict%0a",
        "/v1/models/MLP:predict%0d%0a",
        "/v1/models/MLP/versions/one:predict",
    ):
        assert gateway.post(path, body).status == 404, path
    for path in ("/v1/models/MLP", "/v1/models/MLP/metadata", "/monitoring/prometheus/metrics", PREDICT, "/error"):
        assert gateway.get(path).status == 404, path
    assert gateway.grpc_code("GetModelStatus") is grpc.StatusCode.UNIMPLEMENTED
    assert gateway.grpc_code("HandleReloadConfigRequest") is grpc.StatusCode.UNIMPLEMENTED


def test_server_is_asked_for_the_path_that_was_let_through(host, gateway):
    """A path is let through as nginx reads it, so that is what the server has to get."""
    body = rest_body("MLP", [blank()])
    for path in (
        "/v1/models/MLP/metadata/../../MLP:predict",
        "/v1/models/%4dLP:predict",
        f"//monitoring/..{PREDICT}",
        f"{PREDICT}?token=hidden-from-the-log",
    ):
        assert gateway.post(path, body).status == 200, path
    assert "hidden-from-the-log" not in host.check_output(f"cat {LOG}")


@pytest.mark.parametrize("label", ["blue-green", "a b", "100%", "%41", 'a"b', "a\\b", "{$a}", "[x]", "..", "é", "?#"])
def test_label_of_any_text_reaches_the_server(gateway, label):
    """No model has such a label, and the server says which one it has got."""
    answer = gateway.post(f"/v1/models/MLP/labels/{quote(label)}:predict", rest_body("MLP", [blank()]))
    assert (answer.status, answer.json()) == (400, {"error": f"Unrecognized servable version label: {label}"})


def test_label_that_the_catalogue_would_refuse_is_not_let_through(gateway):
    for label in ("a%2fb", "a%3ab", "a%0d%0ab", "a%7f", ""):
        assert gateway.post(f"/v1/models/MLP/labels/{label}:predict", rest_body("MLP", [blank()])).status == 404, label


def closed_connections(host) -> int:
    """Return how many connections to the REST port the kernel still remembers, which it does for a minute."""
    rows = map(str.split, host.check_output("cat /proc/net/tcp /proc/net/tcp6").splitlines())
    return sum(row[3] == "06" and any(address.endswith(":2135") for address in row[1:3]) for row in rows)


def test_health_is_for_everybody_and_one_word(host, stranger):
    """And the server is not asked each time: clients need no password here."""
    answer = stranger.get("/healthz")
    assert (answer.status, answer.text) == (200, "ok\n")
    assert stranger.get("/health-of-server").status == 404
    before = closed_connections(host)
    codes = stranger.codes("/healthz?[1-100]")
    assert set(codes) == {"200"}
    assert closed_connections(host) - before < 20


def test_plain_http_and_old_tls_are_refused(stranger):
    plain = subprocess.run(
        ["curl", "--silent", f"http://{stranger.address}:8443/healthz"], capture_output=True, text=True, check=False
    )
    assert "not https" in plain.stdout
    assert stranger.get("/healthz", "--tls-max", "1.2").status == 200
    assert stranger.get("/healthz", "--tls-max", "1.1").status == 0


ASK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"


@pytest.mark.parametrize("port", [8500, 8501])
def test_ports_of_the_server_answer_the_host_alone(host, on, port):
    assert host.run(f"python3 -c '{ASK}' 127.0.0.1 {port}").rc == 0
    assert on("infra").run(f"python3 -c '{ASK}' {address(host)} {port}").rc != 0
    assert subprocess.run(["python3", "-c", ASK, address(host), str(port)], capture_output=True).returncode != 0
    assert on("infra").run(f"python3 -c '{ASK}' {address(host)} 8443").rc == 0


def exposure(host) -> float:
    text = host.check_output("systemd-analyze security --no-pager nginx.service")
    return float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", text)[0])


def is_hardened(host) -> bool:
    """Return whether the process that runs is."""
    pid = host.check_output("systemctl show --property=MainPID --value nginx.service")
    return "NoNewPrivs:\t1" in host.check_output(f"cat /proc/{pid}/status")


def test_nginx_is_hardened(host):
    assert exposure(host) <= 3.0
    assert is_hardened(host)


def test_example_site_of_debian_is_gone(host):
    assert not host.socket("tcp://80").is_listening


def test_request_that_is_too_large_is_refused(gateway, tmp_path):
    body = tmp_path / "body"
    body.write_text(" " * (16 * 1024 * 1024 + 1))
    answer = gateway.get(PREDICT, "--data-binary", f"@{body}", "--http1.1")
    assert answer.status == 413
    assert answer.json() == {"error": "the request is larger than 16 MB"}


def test_key_and_users_are_roots(host):
    for name, group in (("tls.pem", "root"), ("users", "www-data")):
        file = host.file(f"{SECRETS_PATH}/{name}")
        assert (file.user, file.group, file.mode) == ("root", group, 0o640)
    assert PASSWORD not in host.file(f"{SECRETS_PATH}/users").content_string
    key = host.check_output(f"sed -n '/PRIVATE KEY/{{n;p}}' {SECRETS_PATH}/tls.pem").split()[0]
    for secret in (key, PASSWORD):
        found = host.run(f"find /etc /run /var/log /tmp -xdev -type f -perm -o=r -exec grep -lF '{secret}' {{}} +")
        assert found.stdout == ""
    assert PASSWORD not in host.check_output(f"cat {LOG}")
    assert host.check_output("ls -A /run/tfserving-gateway") == ""


def test_log_is_for_root_and_adm_alone_also_after_rotation(host, stranger):
    """Debian's rotation of nginx's other logs is in the same run, and has the workers own all logs."""
    for rotation in range(2):
        file = host.file(LOG)
        assert (file.user, file.group, file.mode) == ("root", "adm", 0o640)
        deadline = time.monotonic() + 10
        while f'"/rotation-{rotation}"' not in host.check_output(f"cat {LOG}"):
            assert time.monotonic() < deadline
            stranger.get(f"/rotation-{rotation}")
        if not rotation:
            host.check_output("logrotate --force /etc/logrotate.conf")
    assert '"/rotation-0"' not in host.check_output(f"cat {LOG}")
    rotated = host.file(f"{LOG}.1")
    assert (rotated.user, rotated.group, rotated.mode) == ("root", "adm", 0o640)


# From here on debian12 is told something else, test by test, and is as before in the end.


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> Path:
    """Files NAME.key and NAME.crt: an authority, what it signed for server and client, and a foreign client."""
    folder = tmp_path_factory.mktemp("tls")

    def make(name: str, *more: str) -> None:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", f"{folder}/{name}.key"]
        openssl("req", "-x509", *curve, "-out", f"{folder}/{name}.crt", "-days", "2", "-subj", f"/CN={name}", *more)

    signed = ["-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key"]
    make("ca")
    make("server", *signed, "-addext", "subjectAltName=DNS:debian12", "-addext", "basicConstraints=CA:FALSE")
    make("client", *signed, "-addext", "basicConstraints=CA:FALSE")
    make("foreign")
    return folder


FOREIGN = "/etc/nginx/conf.d/foreign.conf"


@pytest.fixture(scope="module")
def mutual(play_gateway, on, tls):
    """Play debian12 with a certificate that is given, clients with certificates, everything open, few requests.

    And with a site of somebody else.
    """
    on("debian12").check_output(f"echo 'server {{ listen 127.0.0.1:8081; return 200; }}' > {FOREIGN}")
    variables = {
        "tfserving_gateway_tls_self_signed": False,
        "tfserving_gateway_tls_certificate": str(tls / "server.crt"),
        "tfserving_gateway_tls_key": (tls / "server.key").read_text(),
        "tfserving_gateway_client_ca": str(tls / "ca.crt"),
        "tfserving_gateway_open": ["predict", "status", "metadata", "metrics"],
        "tfserving_gateway_client_limits": {"requests_per_second": 2, "burst": 30},
    }
    played = play_gateway("debian12", variables, "-vvv", "--diff", playbook=GATEWAY)
    assert not played.failed, played.text
    return variables, played


@pytest.fixture
def client(mutual, on, tls) -> Gateway:
    files = {"certificate": tls / "client.crt", "key": tls / "client.key"}
    return Gateway("debian12", address(on("debian12")), tls / "ca.crt", CREDENTIALS, **files)


def test_no_secret_is_shown(mutual, on, tls):
    _, played = mutual
    assert "client_ca.pem" in played.text  # the diff of the site is there
    hashed = on("debian12").check_output(f"cut -d: -f2 {SECRETS_PATH}/users")
    for secret in (PASSWORD, hashed, (tls / "server.key").read_text().splitlines()[1]):
        assert secret not in played.text
        assert json.dumps(secret)[1:-1] not in played.text


def test_right_certificate_is_let_in(client, digits):
    answer = client.post(PREDICT, rest_body("MLP", digits[:5]))
    assert seen(answer, 5) == client.predict("MLP", digits[:5])


def test_missing_and_foreign_certificates_are_refused(client, tls):
    body = rest_body("MLP", [blank()])
    client.certificate, client.key = tls / "foreign.crt", tls / "foreign.key"
    assert client.post(PREDICT, body).status == 400
    assert client.grpc_code("Predict") is not grpc.StatusCode.OK
    client.certificate = client.key = None
    assert client.post(PREDICT, body).status == 403
    assert client.get("/v1/models/nothing").status == 403
    assert client.grpc_code("Predict") is grpc.StatusCode.PERMISSION_DENIED
    assert client.get("/healthz").status == 200


def test_with_a_certificate_the_password_is_needed_too(client):
    client.credentials = ""
    assert client.post(PREDICT, rest_body("MLP", [blank()])).status == 401


def test_what_is_opened_is_answered(client):
    assert client.get("/v1/models/MLP").json()["model_version_status"][0]["state"] == "AVAILABLE"
    assert "signature_def" in client.get("/v1/models/MLP/metadata").text
    assert ":tensorflow:serving:request_count" in client.get("/monitoring/prometheus/metrics").text
    assert client.grpc_code("GetModelStatus") is grpc.StatusCode.OK
    assert client.grpc_code("HandleReloadConfigRequest") is grpc.StatusCode.UNIMPLEMENTED


def test_too_many_requests_are_refused(client):
    """Health checks are not counted, and wrong passwords are on every path, however near it is to theirs."""
    assert set(client.codes("/v1/models/MLP?[1-60]")) == {"200", "429"}
    answer = client.get("/v1/models/MLP")
    assert answer.status == 429
    assert "retry-after: 1" in answer.headers
    client.credentials = f"{USER}:wrong"
    for path in ("/healthz[1-20]", "/healthz/[1-20]", "/HEALTHZ?[1-20]", "/[1-20]"):
        assert "429" in client.codes(path), path
    assert set(client.codes("/healthz?[1-60]")) == {"200"}
    time.sleep(1)


def test_nginx_is_not_hardened_beside_another_site(mutual, on):
    _, played = mutual
    assert f"nginx is not hardened, as it serves more than the gateway: {FOREIGN}" in played.words
    assert exposure(on("debian12")) > 9
    assert not is_hardened(on("debian12"))
    assert on("debian12").run(f"python3 -c '{ASK}' 127.0.0.1 8081").rc == 0


def test_second_run_changes_nothing(mutual, play_gateway):
    variables, _ = mutual
    played = play_gateway("debian12", variables, playbook=GATEWAY)
    assert not played.failed, played.text
    assert played.changed() == 0


def test_site_that_nginx_refuses_leaves_the_old_one_serving(play_gateway, mutual, on, client):
    host = on("debian12")
    before = host.check_output("cat /etc/nginx/conf.d/tfserving-gateway.conf")
    other = "limit_req_zone $host zone=tfserving_requests:9m rate=1r/s;"
    host.check_output(f"echo '{other}' > /etc/nginx/conf.d/other.conf")
    try:
        played = play_gateway("debian12", playbook=GATEWAY)
    finally:
        host.check_output("rm /etc/nginx/conf.d/other.conf")
    assert played.failed
    assert "tfserving_requests" in played.words
    assert "nginx serves as before" in played.words
    assert host.check_output("cat /etc/nginx/conf.d/tfserving-gateway.conf") == before
    assert host.file(f"{SECRETS_PATH}/client_ca.pem").exists
    assert host.check_output("ls -A /run/tfserving-gateway") == ""
    assert client.get("/healthz").status == 200


def test_port_that_another_has_leaves_the_old_one_serving(play_gateway, mutual, on, client):
    """nginx finds out only when it reloads, and systemctl says that all is well."""
    host = on("debian12")
    host.check_output("systemd-run --unit=squatter python3 -m http.server 9443")
    try:
        played = play_gateway("debian12", {"tfserving_gateway_port": 9443}, playbook=GATEWAY)
    finally:
        host.check_output("systemctl stop squatter")
    assert played.failed
    assert "bind() to 0.0.0.0:9443 failed" in played.words
    assert " 9443" not in host.check_output("cat /etc/nginx/conf.d/tfserving-gateway.conf")
    assert host.run("nginx -t").rc == 0
    assert client.get("/healthz").status == 200


def test_gateway_that_nobody_guards_is_refused_before_anything_changes(play_gateway):
    played = play_gateway("debian12", {"tfserving_gateway_users": {}})
    assert played.failed
    assert "tfserving_gateway_allow_anonymous: true" in played.words
    assert played.changed() == 0


def main_pid(host) -> str:
    return host.check_output(f"systemctl show --property=MainPID --value {UNIT}")


class Stream:
    """Clients that send one long request after the other, and write down when each began and what came back."""

    def __init__(self, gateway: Gateway, body: Path, threads: int = 4) -> None:
        self.answers: list[tuple[float, float, int, str]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(gateway, body)) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self, gateway: Gateway, body: Path) -> None:
        while not self._over.is_set():
            began = time.time()
            answer = gateway.get(PREDICT, "--data-binary", f"@{body}")
            self.answers.append((began, time.time(), answer.status, answer.headers))
            if answer.status == 503:
                time.sleep(0.2)

    def stop(self) -> list[tuple[float, float, int, str]]:
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.answers


def test_restart_lets_open_requests_end_and_refuses_new_ones(play_gateway, on, gateway_on, tmp_path):
    """Also takes debian12 back to the scenario's variables, apart from the one that restarts the server."""
    host = on("debian12")
    host.check_output(f"rm {FOREIGN}")
    played = play_gateway("debian12", playbook=GATEWAY)
    assert not played.failed, played.text
    assert is_hardened(host)
    assert not host.file(f"{SECRETS_PATH}/client_ca.pem").exists
    body = tmp_path / "long"
    body.write_text(json.dumps(rest_body("MLP", [blank()] * 500)))
    errors = len(host.check_output("cat /var/log/nginx/error.log").splitlines())
    before = main_pid(host)

    stream = Stream(gateway_on("debian12", credentials=CREDENTIALS), body)
    try:
        played = play_gateway("debian12", {"tfserving_service_flags": {"rest_api_enable_cors_support": True}})
    finally:
        answers = stream.stop()
    assert not played.failed, played.text
    assert main_pid(host) != before

    refused = [answer for answer in answers if answer[2] == 503]
    assert refused
    assert all("retry-after: 2" in headers for _, _, _, headers in refused)
    assert {status for _, _, status, _ in answers} == {200, 503}
    first = min(end for _, end, _, _ in refused)
    assert [began for began, end, status, _ in answers if status == 200 and began < first < end], "none was open"
    assert answers[-1][2] == 200
    logged = host.check_output("cat /var/log/nginx/error.log").splitlines()[errors:]
    assert not [line for line in logged if "upstream" in line and "health" not in line]


def test_run_that_was_cut_while_drained_is_mended_by_the_next(play_gateway, on, gateway_on):
    host = on("debian12")
    gateway = gateway_on("debian12", credentials=CREDENTIALS)
    stranger = gateway_on("debian12")
    host.check_output(f"touch /run/tfserving-gateway/{UNIT}")
    answer = gateway.post(PREDICT, rest_body("MLP", [blank()]))
    assert answer.status == 503
    assert "retry-after: 2" in answer.headers
    assert gateway.grpc_code("Predict") is grpc.StatusCode.UNAVAILABLE
    assert stranger.get("/healthz").status == 503
    assert stranger.post(PREDICT, "{}").status == 401
    played = play_gateway("debian12")
    assert not played.failed, played.text
    assert stranger.get("/healthz").status == 200
    assert gateway.post(PREDICT, rest_body("MLP", [blank()])).status == 200


def test_health_says_that_the_server_is_down(on, gateway_on):
    host, gateway = on("debian12"), gateway_on("debian12", credentials=CREDENTIALS)
    host.check_output(f"systemctl stop {UNIT}")
    try:
        time.sleep(1)  # so old may an answer be
        assert gateway.get("/healthz").status == 503
        assert gateway.post(PREDICT, rest_body("MLP", [blank()])).status == 503
    finally:
        host.check_output(f"systemctl start {UNIT}")


SEVERAL = {
    "tfserving_service_instances": [
        {"name": "both", "port": 8500, "rest_api_port": 8501},
        {"name": "one", "port": 8510, "rest_api_port": 8511, "models": ["MLP_custom"]},
    ],
    "tfserving_models_catalog": [
        {"name": "MLP", "source": "{{ examples_directory }}/saved", "version_labels": {"canary": 1}},
        {"name": "MLP_custom", "source": "{{ examples_directory }}/saved_with_signature"},
    ],
}
# No model has version 2, so that a client which got what a copy got would get an error.
TRAFFIC = {
    "MLP": {"split": {"canary": 30}, "mirror": {2: 20}},
    "MLP_custom": {"split": {1: 50}, "sticky": "header X-User"},
}


@pytest.fixture(scope="module")
def several(play_gateway, gateway_on) -> Gateway:
    """Play debian12 with two servers, metrics open, and shares of the requests that go elsewhere."""
    more = {"tfserving_gateway_open": ["predict", "metrics"], "tfserving_gateway_traffic": TRAFFIC}
    played = play_gateway("debian12", {**SEVERAL, **more})
    assert not played.failed, played.text
    return gateway_on("debian12", credentials=CREDENTIALS)


@pytest.fixture
def logged(on):
    """Return a function: the lines that have been logged since the test began, once so many are no copies."""
    text = f"cat {LOG}"
    mark = len(on("debian12").check_output(text).splitlines())

    def read(count: int) -> list[dict]:
        deadline = time.monotonic() + 10
        while True:
            lines = [json.loads(line) for line in on("debian12").check_output(text).splitlines()[mark:]]
            if sum(not line["mirrored"] for line in lines) >= count or time.monotonic() > deadline:
                return lines
            time.sleep(0.2)

    return read


def test_share_goes_to_the_label_and_copies_to_a_version_that_no_client_sees(several, logged):
    codes = several.codes(f"{PREDICT}?[1-300]", "--data-binary", json.dumps(rest_body("MLP", [blank()])))
    assert codes == ["200"] * 300
    lines = logged(300)
    answered = [line for line in lines if not line["mirrored"]]
    assert {(line["model"], line["version"], line["status"]) for line in answered} == {("MLP", "", "200")}
    assert len(answered) == 300
    assert {line["label"] for line in answered} == {"", "canary"}
    assert 50 <= sum(line["label"] == "canary" for line in answered) <= 130
    copies = [line for line in lines if line["mirrored"]]
    assert {(one["model"], one["version"], one["label"], one["status"]) for one in copies} == {("MLP", "2", "", "404")}
    assert 25 <= len(copies) <= 95
    assert all(one["path"] == PREDICT and one["remote_user"] == USER and one["request_time"] < 30 for one in lines)


def test_request_that_names_a_version_is_left_alone(several, logged):
    body = json.dumps(rest_body("MLP", [blank()]))
    assert several.codes("/v1/models/MLP/versions/1:predict?[1-20]", "--data-binary", body) == ["200"] * 20
    assert {(line["version"], line["label"], line["mirrored"]) for line in logged(20)} == {("1", "", False)}


def test_client_with_the_header_stays_where_it_is(several, logged):
    body = json.dumps(rest_body("MLP_custom", [blank()]))
    users = [f"user-{number}" for number in range(10)]
    for user in users:
        codes = several.codes(
            "/v1/models/MLP_custom:predict?[1-5]", "--data-binary", body, "--header", f"X-User: {user}"
        )
        assert codes == ["200"] * 5
    versions = [line["version"] for line in logged(50)]
    by_user = {user: set(versions[5 * number : 5 * number + 5]) for number, user in enumerate(users)}
    assert all(len(found) == 1 for found in by_user.values()), by_user
    assert set(versions) == {"", "1"}


def test_client_can_write_nothing_into_the_log_but_its_own_words(several, logged):
    label = 'a", "mirrored", "b\\'
    assert several.post(f"/v1/models/MLP/labels/{quote(label)}:predict", rest_body("MLP", [blank()])).status == 400
    several_of_nobody = replace(several, credentials='x", "mirrored\n{}:')
    assert several_of_nobody.get('/none"\\').status == 401
    lines = logged(2)
    assert [(line["label"], line["status"], line["mirrored"]) for line in lines] == [
        (label, "400", False),
        ("", "401", False),
    ]
    assert lines[1]["remote_user"] == 'x", "mirrored\n{}'


def test_model_goes_to_the_instances_that_serve_it(several, on, digits):
    host, gateway = on("debian12"), several

    def statuses(count: int = 4) -> dict[str, set[int]]:
        """Ask more than once, as both instances take their turns."""
        body = {model: rest_body(model, [blank()]) for model in ("MLP", "MLP_custom")}
        return {
            model: {gateway.post(f"/v1/models/{model}:predict", body[model]).status for _ in range(count)}
            for model in body
        }

    assert statuses() == {"MLP": {200}, "MLP_custom": {200}}
    for model in ("MLP", "MLP_custom"):
        assert len(gateway.predict(model, digits[:2])) == 2
        assert len(gateway.predict(model, digits[:2], ("tfserving-model", model))) == 2
    counts = {name: gateway.get(f"/monitoring/prometheus/metrics/{name}").text for name in ("both", "one")}
    assert all('model_name="MLP_custom",status="OK"' in text for text in counts.values())
    assert 'model_name="MLP",status="OK"' not in counts["one"]

    host.check_output(f"touch /run/tfserving-gateway/{UNIT}-both")
    assert statuses() == {"MLP": {503}, "MLP_custom": {200}}
    assert len(gateway.predict("MLP_custom", digits[:2], ("tfserving-model", "MLP_custom"))) == 2
    assert [gateway.get(path).status for path in ("/healthz", "/healthz/both", "/healthz/one")] == [503, 503, 200]
    host.check_output(f"rm /run/tfserving-gateway/{UNIT}-both")


def test_off_takes_the_gateway_away_and_opens_no_port(play_gateway, on):
    """It was on before; the inventory says who reaches the servers directly, and it names nobody."""
    host = on("debian12")
    variables = {**SEVERAL, "tfserving_gateway_enabled": False}
    played = play_gateway("debian12", variables, "--diff")
    assert not played.failed, played.text
    assert played.changed() == 1
    assert "--- before: /etc/nginx/conf.d/tfserving-gateway.conf" in played.text
    assert "The gateway is off, and tfserving_service_allowed_networks names nobody." in played.words
    again = play_gateway("debian12", variables, playbook=GATEWAY)
    assert (again.failed, again.changed()) == (False, 0)

    for port in (8443, 8500, 8511):
        assert on("infra").run(f"python3 -c '{ASK}' {address(host)} {port}").rc != 0
    assert host.service("nginx").is_running
    assert not host.socket("tcp://8443").is_listening
    for path in (SECRETS_PATH, "/etc/logrotate.d/tfserving-gateway", "/run/tfserving-gateway"):
        assert not host.file(path).exists
    assert host.check_output("ls /etc/nginx/conf.d /etc/systemd/system/nginx.service.d | grep tfserving || true") == ""
    assert host.check_output(f"stat --format=%a {LOG}") == "640"

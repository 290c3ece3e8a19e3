"""What can be seen of the fleet: metrics, alerts and dashboard with a real Prometheus, and the status of servers."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
import yaml
from conftest import PROJECT

HOSTS = ["debian12", "debian13a"]
LIMIT = f"--limit=localhost,{','.join(HOSTS)}"
MONITORING = str(PROJECT / "playbooks/monitoring.yml")
STATUS = str(PROJECT / "playbooks/status.yml")
TEXTFILES = "/var/lib/prometheus/node-exporter"
VERSIONS = f"{TEXTFILES}/tfserving-versions.prom"
KEY = "tfserving_apt_signing_key_expiry_timestamp_seconds"
METRIC = r":tensorflow:[a-z_:]+"


@pytest.fixture(scope="module")
def monitor(play, server_on, tmp_path_factory):
    """Play monitoring.yml into a directory, which is the directory attribute, as one does without a host for it."""
    directory = tmp_path_factory.mktemp("monitoring")
    # The controller does not know the lab's names.
    addresses = {name: {"tfserving_monitoring_address": server_on(name).address} for name in HOSTS}
    inventory = directory / "addresses.yml"
    inventory.write_text(yaml.safe_dump({"tfserving": {"hosts": addresses}}))
    variables = {
        "tfserving_monitoring_hosts": HOSTS,
        "tfserving_monitoring_prometheus_path": str(directory),
        "tfserving_monitoring_grafana_path": str(directory),
        "tfserving_monitoring_prometheus_service": "",
        "tfserving_monitoring_prometheus_config_path": "",
        "tfserving_monitoring_promtool": shutil.which("promtool") or "/usr/bin/promtool",
        "tfserving_monitoring_scrape_interval_seconds": 1,
    }

    def run(*arguments: str, **more):
        played = play(MONITORING, LIMIT, f"--inventory={inventory}", *arguments, variables={**variables, **more})
        assert not played.failed, played.text
        return played

    run.directory = directory
    return run


@pytest.fixture(scope="module")
def watched(monitor, server_on, digits):
    """A directory with what monitoring.yml writes for Prometheus and Grafana."""
    server_on("debian12").host.check_output(f"mkdir -p {TEXTFILES}")
    assert monitor("--check").recap["debian12"]["changed"] > 0
    assert not server_on("debian12").host.file(VERSIONS).exists
    monitor()
    again = monitor()
    assert again.changed() == 0, again.text
    for name in HOSTS:
        server_on(name).predict("MLP", {"instances": [digits[0]["pixels"]]})
    yield monitor.directory
    server_on("debian12").host.check_output(f"rm -r {TEXTFILES}")


def queries(directory) -> dict[str, str]:
    """Return the queries of the dashboard's panels by their titles."""
    dashboard = json.loads((directory / "tensorflow-serving.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": re.sub(r"\$(host|model)\b", ".*", target["expr"]).replace(
            "$__rate_interval", "10s"
        )
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }


def test_server_has_every_metric_of_dashboard_and_rules(watched, server):
    rules = (watched / "rules.yml").read_text()
    used = set(re.findall(METRIC, rules + " ".join(queries(watched).values())))
    assert len(used) == 3
    text = server.get("/monitoring/prometheus/metrics").text
    assert used <= set(re.findall(rf"^({METRIC})\{{", text, re.MULTILINE))


def test_end_of_the_signing_key_is_shown_where_there_is_a_node_exporter(watched, on):
    text = on("debian12").check_output(f"cat {TEXTFILES}/tfserving-key.prom")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text + "\n", text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    found = re.search(rf'^{KEY}{{host="debian12",fingerprint="[0-9A-F]{{40}}"}} (\S+)$', text, re.MULTILINE)
    assert found, text
    assert float(found[1]) > time.time()
    assert not on("debian13a").file(TEXTFILES).exists


def checked_samples(host) -> str:
    """Have the host ask its servers, and return the file once promtool has checked it."""
    host.check_output("systemctl start tfserving-versions.service")
    text = host.check_output(f"cat {VERSIONS}")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text + "\n", text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    return text


def test_state_of_the_versions_is_shown_where_there_is_a_node_exporter(watched, on):
    host = on("debian12")
    text = checked_samples(host)
    for line in (
        'tfserving_server_answers{host="debian12"} 1',
        'tfserving_model_available_versions{host="debian12",model="MLP"} 1',
        'tfserving_model_available_versions{host="debian12",model="MLP_custom"} 1',
    ):
        assert line in text.splitlines()
    assert "tfserving_version_failed{" not in text
    assert host.service("tfserving-versions.timer").is_running
    assert host.service("tfserving-versions.timer").is_enabled
    assert not on("debian13a").file("/etc/systemd/system/tfserving-versions.timer").exists


def test_unit_that_asks_for_the_versions_is_locked_down(watched, on):
    score = on("debian12").check_output("systemd-analyze security --no-pager tfserving-versions.service | tail -1")
    assert float(re.search(r"service: (\S+)", score)[1]) < 2


class NodeExporter(HTTPServer):
    """Shows a host's files as its node exporter would."""

    def __init__(self, host) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = host.check_output(f"cat {TEXTFILES}/*.prom") + "\n"
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Prometheus:
    """A Prometheus of its own that reads the files."""

    def __init__(self, directory, node_exporter: NodeExporter) -> None:
        config = yaml.safe_load((directory / "scrape.yml").read_text())
        node = {"targets": [f"127.0.0.1:{node_exporter.server_port}"]}
        config["scrape_configs"].append({"job_name": "node", "scrape_interval": "2s", "static_configs": [node]})
        config |= {"rule_files": [str(directory / "rules.yml")], "global": {"evaluation_interval": "1s"}}
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
        self.process = subprocess.Popen(
            [*command, f"--web.listen-address={self.url.removeprefix('http://')}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def query(self, text: str) -> list[dict]:
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": text}, timeout=10)
        assert answer.ok, answer.text
        return answer.json()["data"]["result"]

    def wait_for(self, text: str) -> list[dict]:
        """Return what a query comes to, once it comes to something."""
        deadline = time.monotonic() + 40
        while True:
            try:
                result = self.query(text)
            except requests.ConnectionError:
                result = []
            if result:
                return result
            assert time.monotonic() < deadline, text
            time.sleep(0.5)


@pytest.fixture(scope="module")
def prometheus(watched, on):
    node_exporter = NodeExporter(on("debian12"))
    running = Prometheus(watched, node_exporter)
    yield running
    running.process.terminate()
    running.process.wait(timeout=20)
    node_exporter.shutdown()


def test_prometheus_finds_every_server(prometheus):
    servers = 'up{job="tensorflow-serving"}'
    prometheus.wait_for(f"sum({servers}) == {len(HOSTS)}")
    found = prometheus.query(servers)
    assert sorted(one["metric"]["host"] for one in found) == HOSTS


def test_every_panel_shows_something(prometheus, watched, server_on, digits):
    server = server_on("debian12")
    prometheus.wait_for("up")
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        server.predict("MLP", {"instances": [digits[0]["pixels"]]})
        server.post("MLP", {"instances": "none"})
        time.sleep(0.1)
    silent = {name for name, query in queries(watched).items() if not prometheus.query(query)}
    assert silent == {"Versions that a server could not load A"}
    (version,) = [
        one["metric"]["version"]
        for one in prometheus.query(queries(watched)["Versions that a server has loaded A"])
        if (one["metric"]["host"], one["metric"]["model"]) == ("debian12", "MLP")
    ]
    assert version == "1"


# Status


@pytest.fixture(scope="module")
def drifted(play, server_on, tmp_path_factory):
    """Status of three hosts: one as it should be, one on which somebody copied a version, one that is not there.

    Returns the play, the page and the rows.
    """
    directory = tmp_path_factory.mktemp("status")
    gone = directory / "gone.yml"
    address = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": ""}
    gone.write_text(yaml.safe_dump({"tfserving": {"hosts": {"gone": address}}}))
    server = server_on("debian13a")
    models = "/var/lib/tensorflow-serving/models/MLP"
    server.host.check_output(f"cp -a {models}/1 {models}/.copy && mv {models}/.copy {models}/2")
    try:
        deadline = time.monotonic() + 30
        while server.versions("MLP") != {2: "AVAILABLE", 1: "END"}:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        variables = {"report": str(directory / "fleet.html"), "json": str(directory / "fleet.json")}
        played = play(STATUS, f"{LIMIT},gone", f"--inventory={gone}", variables=variables)
    finally:
        server.host.check_output(f"rm -r {models}/2")
        while server.versions("MLP").get(1) != "AVAILABLE":
            time.sleep(0.3)
    return played, (directory / "fleet.html").read_text(), json.loads((directory / "fleet.json").read_text())["rows"]


def row_of(rows: list[dict], host: str, model: str | None, version: int | None) -> dict:
    (row,) = (one for one in rows if (one["host"], one["model"], one["version"]) == (host, model, version))
    return row


def test_row_of_a_host_as_it_should_be(drifted, on):
    played, page, rows = drifted
    manifest = on("debian12").check_output("cat /var/lib/tensorflow-serving/models/MLP/.manifest-1.json")
    digest = json.loads(manifest)["digest"]
    row = row_of(rows, "debian12", "MLP", 1)
    assert (row["state"], row["full_digest"], row["drift"], row["verdict"]) == ("AVAILABLE", digest, "", "served")
    assert ["debian12", "MLP", "1", "AVAILABLE", digest[:12]] in [line.split() for line in played.text.splitlines()]
    assert f'<td class="digest">{digest[:12]}</td>' in page


def test_host_that_serves_what_the_catalogue_does_not_say_is_drift(drifted):
    played, page, rows = drifted
    said = "the catalogue says to serve version 1"
    assert row_of(rows, "debian13a", "MLP", 1)["drift"] == said
    assert row_of(rows, "debian13a", "MLP_custom", 1)["drift"] == ""
    assert row_of(rows, "debian13a", "MLP", 2)["digest"] is None
    assert re.search(rf"^debian13a +MLP +1 +END +[0-9a-f]{{12}} +{said}$", played.text, re.MULTILINE)
    assert re.search(rf'<tr class="drift"><td class="host">debian13a</td>.*{said}', page)


def test_host_that_cannot_be_reached_is_drift(drifted):
    played, page, rows = drifted
    row = row_of(rows, "gone", None, None)
    assert (row["state"], row["verdict"]) == ("HOST UNREACHABLE", "drift")
    assert "refused" in row["drift"]
    assert re.search(r"^gone +HOST UNREACHABLE +\S+", played.text, re.MULTILINE)
    assert html.escape(row["drift"]) in page
    assert "3 hosts" in page
    assert "Drift on 2." in page


def test_page_takes_nothing_from_elsewhere(drifted):
    _, page, _ = drifted
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(", page.replace("http-equiv", ""))


def test_every_instance_has_rows(play):
    instances = [{"name": ""}, {"name": "second", "rest_api_port": 8511, "models": ["MLP"]}]
    played = play(STATUS, "--limit=debian12", variables={"tfserving_service_instances": instances})
    assert not played.failed, played.text
    assert re.search(r"^debian12 +MLP_custom +1 +AVAILABLE", played.text, re.MULTILINE)
    assert re.search(r"^debian12 +second +MLP +UNIT INACTIVE", played.text, re.MULTILINE)


def test_table_has_colours_where_ansible_has(play):
    served = r"^\x1b\[[0-9;]*mdebian12 +MLP +1 +AVAILABLE.*\x1b\[0m$"
    plain = play(STATUS, "--limit=debian12").text
    assert "\x1b" not in plain
    coloured = play(STATUS, "--limit=debian12", env={"ANSIBLE_FORCE_COLOR": "1"}).text
    assert re.search(served, coloured, re.MULTILINE)


# Last, as the server tells of a version that failed until it is restarted.

FAILED = "/var/lib/tensorflow-serving/models/MLP/9"


@pytest.fixture
def failing_version(server_on):
    """Put a version that cannot be loaded on a host; it is taken away and the server restarted afterwards."""
    hosts = []

    def put(name: str, command: str):
        server = server_on(name)
        hosts.append(server.host)
        server.host.check_output(command)
        deadline = time.monotonic() + 30
        while {9: "END", 1: "AVAILABLE"}.items() - server.versions("MLP").items():
            assert time.monotonic() < deadline
            time.sleep(0.3)
        return server

    yield put
    for host in hosts:
        host.check_output(f"rm -rf {FAILED} && systemctl restart tensorflow-model-server")
        host.check_output("timeout 30 sh -c 'until ss -ltn | grep -q :8501; do sleep 0.2; done'")


def alert_on(host: str) -> str:
    return f'ALERTS{{alertname="TfservingVersionNotLoaded", host="{host}", model="MLP", version="9"}}'


def test_version_without_saved_model_pb_sets_off_an_alert_though_the_server_does_not_count_it(
    prometheus, failing_version
):
    server = failing_version("debian12", f"mkdir {FAILED}")
    failed = 'tfserving_version_failed{host="debian12",model="MLP",version="9",error_code="NOT_FOUND"} 1'
    assert failed in checked_samples(server.host).splitlines()
    assert FAILED not in server.get("/monitoring/prometheus/metrics").text
    prometheus.wait_for(alert_on("debian12"))
    assert not prometheus.query('ALERTS{alertname="TfservingModelWithoutVersion"}')
    # The server goes on about a version that has been removed; nobody has to do anything any more.
    server.host.check_output(f"rmdir {FAILED}")
    assert "tfserving_version_failed" not in checked_samples(server.host)
    assert server.versions("MLP")[9] == "END"
    prometheus.wait_for(f"absent({alert_on('debian12')})")


def test_version_that_cannot_be_loaded_sets_off_an_alert_without_a_node_exporter(prometheus, failing_version):
    models = FAILED.rpartition("/")[0]
    failing_version(
        "debian13a",
        f"cp -a {models}/1 {models}/.9 && rm {models}/.9/variables/variables.data-* && mv {models}/.9 {FAILED}",
    )
    prometheus.wait_for(alert_on("debian13a"))


def test_server_that_does_not_answer_is_shown(watched, on):
    host = on("debian12")
    host.check_output("systemctl stop tensorflow-model-server")
    try:
        text = checked_samples(host)
    finally:
        host.check_output("systemctl start tensorflow-model-server")
        host.check_output("timeout 30 sh -c 'until ss -ltn | grep -q :8501; do sleep 0.2; done'")
    assert 'tfserving_server_answers{host="debian12"} 0' in text.splitlines()
    assert "tfserving_model_available_versions" not in text


def test_nothing_is_left_for_a_node_exporter_that_is_not_wanted(monitor, watched, on):
    host = on("debian12")
    would = monitor("--check", tfserving_monitoring_textfile_enabled=False)
    assert would.recap["debian12"]["changed"] > 0
    assert host.service("tfserving-versions.timer").is_running
    monitor(tfserving_monitoring_textfile_enabled=False)
    assert host.check_output(f"ls -A {TEXTFILES}") == ""
    assert host.check_output("find / -xdev -name 'tfserving-versions*'") == ""
    assert host.check_output("systemctl list-units --all --no-legend --plain 'tfserving-versions*'") == ""
    assert monitor(tfserving_monitoring_textfile_enabled=False).changed() == 0

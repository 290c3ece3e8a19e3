"""What can be seen of the fleet: metrics, alerts and dashboard with a real Prometheus, and the status of servers."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket
import subprocess
import time

import pytest
import requests
import yaml
from conftest import PROJECT

HOSTS = ["debian12", "debian13a"]
LIMIT = f"--limit=localhost,{','.join(HOSTS)}"
MONITORING = str(PROJECT / "playbooks/monitoring.yml")
STATUS = str(PROJECT / "playbooks/status.yml")
TEXTFILES = "/var/lib/prometheus/node-exporter"
KEY = "tfserving_apt_signing_key_expiry_timestamp_seconds"
METRIC = r":tensorflow:[a-z_:]+"


@pytest.fixture(scope="module")
def watched(play, server_on, digits, tmp_path_factory):
    """A directory with what monitoring.yml writes for Prometheus and Grafana."""
    directory = tmp_path_factory.mktemp("monitoring")
    # The controller does not know the lab's names.
    addresses = {name: {"tfserving_monitoring_address": server_on(name).address} for name in HOSTS}
    inventory = directory / "addresses.yml"
    inventory.write_text(yaml.safe_dump({"tfserving": {"hosts": addresses}}))
    server_on("debian12").host.check_output(f"mkdir -p {TEXTFILES}")
    variables = {
        "tfserving_monitoring_hosts": HOSTS,
        "tfserving_monitoring_prometheus_path": str(directory),
        "tfserving_monitoring_grafana_path": str(directory),
        "tfserving_monitoring_prometheus_service": "",
        "tfserving_monitoring_prometheus_config_path": "",
        "tfserving_monitoring_promtool": shutil.which("promtool") or "/usr/bin/promtool",
        "tfserving_monitoring_scrape_interval_seconds": 1,
    }
    played = play(MONITORING, LIMIT, f"--inventory={inventory}", variables=variables)
    assert not played.failed, played.text
    again = play(MONITORING, LIMIT, f"--inventory={inventory}", variables=variables)
    assert again.changed() == 0, again.text
    for name in HOSTS:
        server_on(name).predict("MLP", {"instances": [digits[0]["pixels"]]})
    yield directory
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


class Prometheus:
    """A Prometheus of its own that reads the files."""

    def __init__(self, directory) -> None:
        config = yaml.safe_load((directory / "scrape.yml").read_text())
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
def prometheus(watched):
    running = Prometheus(watched)
    yield running
    running.process.terminate()
    running.process.wait(timeout=20)


def test_prometheus_finds_every_server(prometheus):
    prometheus.wait_for(f"sum(up) == {len(HOSTS)}")
    found = prometheus.query("up")
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
    # No version has failed here, and nobody asks the node exporters.
    assert silent == {"Versions that a server could not load A", "Signing key ends in A"}
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
    assert re.search(r"^debian12 +second +MLP +UNREACHABLE", played.text, re.MULTILINE)


def test_table_has_colours_where_ansible_has(play):
    served = r"^\x1b\[[0-9;]*mdebian12 +MLP +1 +AVAILABLE.*\x1b\[0m$"
    plain = play(STATUS, "--limit=debian12").text
    assert "\x1b" not in plain
    coloured = play(STATUS, "--limit=debian12", env={"ANSIBLE_FORCE_COLOR": "1"}).text
    assert re.search(served, coloured, re.MULTILINE)


# Last, as the server tells of a version that failed until it is restarted.


@pytest.fixture
def failing_server(server_on):
    """The server of debian12 with a version that cannot be loaded, and without it and restarted afterwards."""
    server = server_on("debian12")
    path = "/var/lib/tensorflow-serving/models/MLP/9"
    # Without saved_model.pb the server would count no attempt.
    server.host.check_output(f"mkdir {path}.new && echo junk > {path}.new/saved_model.pb && mv {path}.new {path}")
    yield server
    server.host.check_output(f"rm -r {path} && systemctl restart tensorflow-model-server")
    server.host.check_output("timeout 30 sh -c 'until ss -ltn | grep -q :8501; do sleep 0.2; done'")


def test_version_that_cannot_be_loaded_sets_off_an_alert(prometheus, failing_server):
    found = prometheus.wait_for('ALERTS{alertname="TfservingVersionNotLoaded", host="debian12"}')
    assert found[0]["metric"]["model_path"].endswith("/MLP/9")
    assert not prometheus.query('ALERTS{alertname="TfservingModelWithoutVersion"}')

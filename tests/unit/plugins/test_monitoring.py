"""What playbooks/monitoring.yml writes: read by promtool, and by what a real server was seen to count."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.modelops.tensorflow_serving.plugins.filter.scrape_targets import scrape_targets

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = json.loads((ROOT / "tests/unit/lab/model_server/rest-golden.json").read_text())
DASHBOARD = json.loads((ROOT / "roles/tfserving_monitoring/files/dashboard.json").read_text())

# The recording keeps the lines that begin with :tensorflow:serving: only. A real server was seen to have this one too.
ALSO_SEEN = {":tensorflow:cc:saved_model:load_attempt_count": "counter"}
# Not the server's: up is Prometheus's own, one is written by tasks/key.yml, the others by the program of the timer.
VERSIONS_PROGRAM = (ROOT / "roles/tfserving_monitoring/files/tfserving_versions.py").read_text()
OF_VERSIONS = re.findall(r'^    "(tfserving_\w+)": "', VERSIONS_PROGRAM, re.MULTILINE)
OURS = dict.fromkeys(["up", "tfserving_apt_signing_key_expiry_timestamp_seconds", *OF_VERSIONS], "gauge")
UNNAMED = "does not name these files yet"

INVENTORY = {
    "tfserving": {
        "hosts": {
            "web1": {},
            "web2": {
                "ansible_host": "192.0.2.2",
                "tfserving_service_instances": [
                    {"name": "first", "port": 8500, "rest_api_port": 8501},
                    {"name": "second", "port": 8510, "rest_api_port": 8511},
                ],
            },
            "web3": {"tfserving_service_monitoring_enabled": False},
        }
    }
}


def play(directory: Path, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Play monitoring.yml into a directory of this machine."""
    inventory = directory / "inventory.yml"
    controller = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"localhost": controller}, "children": INVENTORY}}))
    promtool = subprocess.run(["sh", "-c", "command -v promtool"], capture_output=True, text=True, check=False)
    given = {
        "tfserving_monitoring_prometheus_path": str(directory / "prometheus"),
        "tfserving_monitoring_grafana_path": str(directory / "grafana"),
        "tfserving_monitoring_prometheus_service": "",
        "tfserving_monitoring_prometheus_config_path": "",
        "tfserving_monitoring_promtool": promtool.stdout.strip() or "/usr/bin/promtool",
        **variables,
    }
    command = ["ansible-playbook", f"--inventory={inventory}", "--limit=localhost", "playbooks/monitoring.yml"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        [*command, *arguments, "--extra-vars", json.dumps(given)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def promtool(*arguments: str | Path) -> str:
    """Run promtool, of the package prometheus, and return what it prints."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the playbook wrote."""
    directory = tmp_path_factory.mktemp("monitoring")
    done = play(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture(scope="module")
def rules(placed: Path) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((placed / "prometheus/rules.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_promtool_takes_the_files(placed: Path) -> None:
    assert "SUCCESS" in promtool("check", "config", placed / "prometheus/scrape.yml")
    assert "9 rules found" in promtool("check", "rules", placed / "prometheus/rules.yml")


def test_every_instance_is_a_target(placed: Path) -> None:
    targets = json.loads((placed / "prometheus/tensorflow-serving.targets.json").read_text())
    assert [(one["targets"], one["labels"]["host"], one["labels"]["server"]) for one in targets] == [
        (["web1:8501"], "web1", ""),
        (["192.0.2.2:8501"], "web2", "first"),
        (["192.0.2.2:8511"], "web2", "second"),
    ]
    assert {one["labels"]["__metrics_path__"] for one in targets} == {"/monitoring/prometheus/metrics"}


def test_second_run_changes_nothing_and_is_silent_about_a_configuration_that_names_the_files(placed: Path) -> None:
    config = placed / "prometheus.yml"
    config.write_text(f"rule_files: [{placed}/prometheus/rules.yml]\n")
    printed = play(placed, tfserving_monitoring_prometheus_config_path=str(config)).stdout
    assert "changed=0" in printed
    assert UNNAMED not in printed


def test_check_mode_tells_and_writes_nothing(tmp_path: Path) -> None:
    done = play(tmp_path, "--check")
    assert done.returncode == 0, done.stdout
    assert not re.search(r"changed=0\b", done.stdout)
    assert not (tmp_path / "prometheus").exists()


def test_missing_promtool_is_said_before_anything_changes(tmp_path: Path) -> None:
    done = play(tmp_path, tfserving_monitoring_promtool="/nowhere/promtool")
    assert done.returncode != 0
    assert "Install the package prometheus" in " ".join(done.stdout.split())
    assert not (tmp_path / "prometheus").exists()


def test_rule_that_promtool_refuses_leaves_the_old_file(placed: Path) -> None:
    before = (placed / "prometheus/rules.yml").read_bytes()
    done = play(placed, tfserving_monitoring_alert_limits={"failed_requests_percent": "5 5"})
    assert done.returncode != 0
    assert (placed / "prometheus/rules.yml").read_bytes() == before


def test_options_for_gateways_reach_their_job_only_and_a_configuration_without_the_files_is_pointed_out(
    tmp_path: Path,
) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text("scrape_configs: []\n")
    (tmp_path / "password").write_text("secret")
    options = {"basic_auth": {"username": "prometheus", "password_file": str(tmp_path / "password")}}
    done = play(
        tmp_path,
        tfserving_monitoring_gateway_scrape_options=options,
        tfserving_monitoring_prometheus_config_path=str(config),
    )
    assert done.returncode == 0, done.stdout
    jobs = yaml.safe_load((tmp_path / "prometheus/scrape.yml").read_text())["scrape_configs"]
    assert ["basic_auth" in job for job in jobs] == [False, True]
    assert UNNAMED in done.stdout


# Targets


def test_host_behind_a_gateway_is_asked_there() -> None:
    instances = [{"name": ""}, {"name": "second"}]
    host = {
        "tfserving_gateway_enabled": True,
        "tfserving_gateway_open": ["predict", "metrics"],
        "tfserving_service_instances": instances,
        "tfserving_monitoring_address": "2001:db8::1",
    }
    jobs = scrape_targets(["web1"], {"web1": host})
    assert list(jobs) == ["tensorflow-serving-gateway"]
    assert [(one["targets"], one["labels"]["__metrics_path__"]) for one in jobs["tensorflow-serving-gateway"]] == [
        (["[2001:db8::1]:8443"], "/monitoring/prometheus/metrics"),
        (["[2001:db8::1]:8443"], "/monitoring/prometheus/metrics/second"),
    ]


def test_gateway_that_hides_the_metrics_is_an_error() -> None:
    with pytest.raises(AnsibleFilterError, match="Add metrics to its tfserving_gateway_open"):
        scrape_targets(["web1"], {"web1": {"tfserving_gateway_enabled": True}})


# Queries


def known_metrics() -> set[str]:
    """Return the names that Prometheus has of a server's metrics."""
    (recorded,) = (one["response"] for one in GOLDEN if one["path"] == "/monitoring/prometheus/metrics")
    types = dict(line.split()[2:] for line in recorded if line.startswith("# TYPE "))
    names: set[str] = set()
    for name, kind in (types | ALSO_SEEN | OURS).items():
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def used_metrics(query: str) -> set[str]:
    """Return the names of metrics in a query: what is before a selector or a range, or stands alone."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', query)
    return set(re.findall(r":[a-zA-Z_:]+|\bup\b|\btfserving_[a-z_]+", bare))


def dashboard_queries() -> dict[str, str]:
    """Return the queries of the panels and of the variables, with Grafana's variables filled in."""
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }
    variables = {
        one["name"]: re.sub(r"^label_values\((.*), \w+\)$", r"\1", one["query"]["query"])
        for one in DASHBOARD["templating"]["list"]
        if one["type"] == "query"
    }
    filled = {}
    for name, query in (panels | variables).items():
        text = re.sub(r"\$(host|model)\b", ".*", query).replace("$__rate_interval", "1m")
        assert "$" not in text.replace('"$1"', ""), f"{name} has a variable that nobody fills in: {text}"
        filled[name] = text
    return filled


@pytest.mark.parametrize("name", dashboard_queries())
def test_query_of_the_dashboard_asks_for_what_a_server_has(name: str) -> None:
    used = used_metrics(dashboard_queries()[name])
    assert used
    assert used <= known_metrics()


def test_rules_use_all_that_the_host_says_of_its_versions(rules: list[dict[str, Any]]) -> None:
    assert len(OF_VERSIONS) == 5
    assert set(OF_VERSIONS) <= set().union(*(used_metrics(rule["expr"]) for rule in rules))


def test_every_rule_asks_for_what_a_server_has(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        used = used_metrics(rule["expr"])
        assert used, rule["alert"]
        assert used <= known_metrics(), rule["alert"]


def test_promtool_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """As rules, since that is what it reads."""
    recorded = [{"record": f"q{number}", "expr": query} for number, query in enumerate(dashboard_queries().values())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", file)


def test_dashboard_is_whole() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


# Alerts: what Prometheus makes of the rules as time goes by. A sample a minute.

SERVER = 'job="tensorflow-serving",instance="web1:8501",host="web1"'
COUNT = ":tensorflow:serving:request_count"
LOADS = ":tensorflow:cc:saved_model:load_attempt_count"
PATH = "/var/lib/tensorflow-serving/models/MLP"
BUCKET = f':tensorflow:serving:request_latency_bucket{{{SERVER},model_name="MLP",API="Predict",entrypoint="REST"'
EXPIRY = 'tfserving_apt_signing_key_expiry_timestamp_seconds{host="web1",fingerprint="916E"}'
DAY = 86400
# What the host says itself, scraped from its node exporter.
NODE = 'job="node",instance="web1:9100",host="web1"'
LAST_RUN = f"tfserving_versions_last_run_timestamp_seconds{{{NODE}}}"
WITHDRAWN = f'tfserving_version_withdrawn{{{NODE},model="MLP",version="2"}}'


def load(version: int, status: str, values: str) -> tuple[str, str]:
    return f'{LOADS}{{{SERVER},model_path="{PATH}/{version}",status="{status}"}}', values


def failed(version: int, values: str) -> tuple[str, str]:
    return f'tfserving_version_failed{{{NODE},model="MLP",version="{version}",error_code="NOT_FOUND"}}', values


def available(values: str) -> tuple[str, str]:
    return f'tfserving_model_available_versions{{{NODE},model="MLP"}}', values


def answers(values: str) -> tuple[str, str]:
    return f"tfserving_server_answers{{{NODE}}}", values


def asked(status: str, values: str) -> tuple[str, str]:
    return f'{COUNT}{{{SERVER},model_name="MLP",status="{status}"}}', values


@pytest.mark.parametrize(
    ("alert", "series", "fires", "silent"),
    [
        pytest.param("TfservingServerDown", [(f"up{{{SERVER}}}", "1x9 0x20")], ["14m"], ["9m", "11m"], id="down"),
        pytest.param("TfservingServerDown", [answers("1x9 0x20")], ["14m"], ["9m", "11m"], id="down for its host"),
        pytest.param(
            "TfservingServerDown", [(f"up{{{SERVER}}}", "0x9"), answers("0x9")], ["5m"], [], id="down for both"
        ),
        pytest.param(
            "TfservingVersionNotLoaded", [load(2, "fail", "_x9 1x60")], ["11m", "20m"], ["8m", "45m"], id="first time"
        ),
        pytest.param(
            "TfservingVersionNotLoaded", [load(2, "fail", "1x40 2x60")], ["45m"], ["30m", "70m"], id="next time"
        ),
        pytest.param("TfservingVersionNotLoaded", [load(2, "success", "_x9 1x60")], [], ["11m"], id="loaded"),
        pytest.param(
            "TfservingVersionNotLoaded", [failed(2, "_x9 1x40 stale")], ["10m", "45m"], ["8m", "51m"], id="in no count"
        ),
        pytest.param(
            "TfservingVersionNotLoaded",
            [failed(2, "_x9 1x60"), load(2, "fail", "_x9 1x60")],
            ["11m", "45m"],
            ["8m"],
            id="in both",
        ),
        pytest.param(
            "TfservingModelWithoutVersion",
            [load(1, "fail", "_x9 1x60"), load(2, "fail", "_x9 1x60")],
            ["14m"],
            ["9m"],
            id="none",
        ),
        pytest.param(
            "TfservingModelWithoutVersion",
            [available("1x9 0x60"), load(2, "success", "1x70")],
            ["14m"],
            ["9m", "11m"],
            id="a warm-up that failed",
        ),
        pytest.param(
            "TfservingModelWithoutVersion", [available("0x60"), load(2, "fail", "1x70")], ["5m"], [], id="none in both"
        ),
        pytest.param(
            "TfservingModelWithoutVersion",
            [load(2, "fail", "1x60"), load(1, "success", "1x60")],
            [],
            ["14m"],
            id="the old one serves",
        ),
        pytest.param("TfservingVersionWithdrawn", [(WITHDRAWN, "1x9 stale")], ["5m"], ["11m"], id="withdrawn"),
        pytest.param("TfservingStatusStale", [(LAST_RUN, "0+60x20 1200x20")], ["30m"], ["20m", "26m"], id="stale"),
        pytest.param(
            "TfservingRequestsFail", [asked("OK", "0+90x30"), asked("NOT_FOUND", "0+10x30")], ["20m"], ["2m"], id="10 %"
        ),
        pytest.param(
            "TfservingRequestsFail", [asked("OK", "0+97x30"), asked("NOT_FOUND", "0+3x30")], [], ["20m"], id="3 %"
        ),
        pytest.param(
            "TfservingRequestsSlow",
            [(f'{BUCKET},le="100000"}}', "0+50x40"), (f'{BUCKET},le="2e+06"}}', "0+99.9x40"),
             (f'{BUCKET},le="+Inf"}}', "0+100x40")],
            ["20m"],
            ["5m"],
            id="slow",
        ),
        pytest.param(
            "TfservingRequestsSlow",
            [(f'{BUCKET},le="100000"}}', "0+100x40"), (f'{BUCKET},le="+Inf"}}', "0+100x40")],
            [],
            ["20m"],
            id="quick",
        ),
        pytest.param("TfservingSigningKeyExpires", [(EXPIRY, f"{29 * DAY}x9")], ["5m"], [], id="ends soon"),
        pytest.param("TfservingSigningKeyExpires", [(EXPIRY, f"{31 * DAY}x9")], [], ["5m"], id="lasts"),
        pytest.param("TfservingSigningKeyExpires", [(EXPIRY, "Inf Inf Inf Inf Inf Inf")], [], ["5m"], id="has no end"),
        pytest.param("TfservingSigningKeyExpires", [(EXPIRY, "60x9")], [], ["5m"], id="is over: the other alert"),
        pytest.param("TfservingSigningKeyExpired", [(EXPIRY, "120x9")], ["3m"], ["1m"], id="is over"),
    ],
)  # fmt: skip
def test_alert_fires_when_it_should(
    placed: Path,
    tmp_path: Path,
    rules: list[dict[str, Any]],
    alert: str,
    series: list[tuple[str, str]],
    fires: list[str],
    silent: list[str],
) -> None:
    (rule,) = (one for one in rules if one["alert"] == alert)
    samples = [{"series": name, "values": values} for name, values in series]
    # An alert that fires is seen as the series ALERTS, whatever its labels and words.
    seen = f'count(ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}})'
    tests = [
        {"expr": seen, "eval_time": time, "exp_samples": [{"labels": "{}", "value": 1}] if time in fires else []}
        for time in [*fires, *silent]
    ]
    file = tmp_path / "test.yml"
    test = {"interval": "1m", "input_series": samples, "promql_expr_test": tests}
    rules_file = str(placed / "prometheus/rules.yml")
    file.write_text(yaml.safe_dump({"rule_files": [rules_file], "evaluation_interval": "1m", "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", file)


@pytest.mark.parametrize(
    ("alert", "series", "labels", "annotations"),
    [
        pytest.param(
            "TfservingRequestsFail",
            [asked("OK", "0+90x30"), asked("NOT_FOUND", "0+10x30")],
            {"severity": "warning", "host": "web1", "model_name": "MLP"},
            {"summary": "web1: 10.0 % of the requests to MLP fail"},
            id="requests",
        ),
        *(
            pytest.param(
                "TfservingVersionNotLoaded",
                series,
                {"severity": "warning", "host": "web1", "model": "MLP", "version": "2"},
                {
                    "summary": "web1: version 2 of MLP could not be loaded",
                    "description": "The version that was served before goes on. playbooks/status.yml shows the "
                    "server's own words.",
                },
                id=name,
            )
            for name, series in {
                "counted": [load(2, "fail", "_x9 1x30")],
                "not counted": [failed(2, "1x30")],
                "both": [failed(2, "1x30"), load(2, "fail", "_x9 1x30")],
            }.items()
        ),
    ],
)
def test_alert_names_the_host_and_the_model_in_words(
    placed: Path,
    tmp_path: Path,
    alert: str,
    series: list[tuple[str, str]],
    labels: dict[str, str],
    annotations: dict[str, str],
) -> None:
    wanted = {"exp_labels": labels, "exp_annotations": annotations}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "alert_rule_test": [{"eval_time": "20m", "alertname": alert, "exp_alerts": [wanted]}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(placed / "prometheus/rules.yml")], "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", file)

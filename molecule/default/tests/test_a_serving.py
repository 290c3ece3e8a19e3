"""What serving.yml promises, asked of the hosts and of the running service."""

import json
import subprocess
import sys

import pytest
from conftest import PROJECT

MODELS = ("MLP", "MLP_custom")
BASE = "/var/lib/tensorflow-serving/models"


def test_package_comes_from_the_signed_repository(host):
    assert host.package("tensorflow-model-server").is_installed
    policy = host.check_output("apt-cache policy tensorflow-model-server")
    installed = policy.partition("***")[2]
    assert "http://packages.lab/tensorflow-serving-apt stable/tensorflow-model-server amd64" in installed


def test_source_trusts_its_own_keyring_only(host):
    source = host.file("/etc/apt/sources.list.d/tensorflow-serving.sources").content_string
    assert "Signed-By: /etc/apt/keyrings/tensorflow-serving.gpg" in source
    assert "Components: tensorflow-model-server tensorflow-model-server-universal" in source
    keyring = host.file("/etc/apt/keyrings/tensorflow-serving.gpg")
    assert (keyring.user, keyring.group, keyring.mode) == ("root", "root", 0o644)
    trusted = host.check_output("find /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d -newer /etc/hostname -type f || true")
    assert trusted == ""


def test_proxy_is_set_where_the_inventory_says_so_and_for_that_host_only(host):
    conf = host.file("/etc/apt/apt.conf.d/90tensorflow-serving-proxy")
    if host.check_output("hostname") == "debian13b":
        settings = [line for line in conf.content_string.splitlines() if not line.startswith("#")]
        assert settings == [
            'Acquire::http::Proxy::packages.lab "http://proxy.lab:3128";',
            'Acquire::https::Proxy::packages.lab "http://proxy.lab:3128";',
        ]
    else:
        assert not conf.exists


def test_unit_is_enabled_and_runs_under_its_own_user(host, server):
    service = host.service("tensorflow-model-server")
    assert service.is_enabled
    assert service.is_running
    process = host.process.get(pid=server.main_pid())
    assert (process.user, process.group) == ("tfserving", "tfserving")
    shell = host.user("tfserving").shell
    assert shell == "/usr/sbin/nologin"


def test_models_config_lists_both_models(host):
    config = host.file("/etc/tensorflow-serving/models.config").content_string
    for model in MODELS:
        assert f'name: "{model}"' in config
        assert f'base_path: "{BASE}/{model}"' in config
    assert config.count('model_platform: "tensorflow"') == len(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_version_is_available(server, model):
    assert server.versions(model) == {1: "AVAILABLE"}


@pytest.mark.parametrize("model", MODELS)
def test_held_out_digits_are_predicted_right(server, digits, model):
    assert server.accuracy(model, digits) >= 0.95


def test_metrics_count_the_predictions(server, digits):
    server.accuracy("MLP", digits)
    metrics = server.get("/monitoring/prometheus/metrics")
    assert metrics.status_code == 200
    assert ':tensorflow:serving:request_count{model_name="MLP",status="OK"}' in metrics.text


@pytest.mark.parametrize("model", MODELS)
def test_models_are_readable_by_the_server_and_writable_by_root_only(host, model):
    for entry in host.check_output(f"find {BASE}/{model}/1 -printf '%y %u %g %m %p\n'").splitlines():
        kind, user, group, mode, path = entry.split()
        assert (user, group) == ("root", "tfserving"), path
        # The directory keeps others out.
        assert mode == {"d": "750", "f": "644"}[kind], path
    directory = host.file(f"{BASE}/{model}")
    assert (directory.user, directory.group, directory.mode) == ("root", "tfserving", 0o751)


@pytest.mark.parametrize("model", MODELS)
def test_nothing_but_versions_and_their_manifests_is_left(host, model):
    assert sorted(host.check_output(f"ls --almost-all {BASE}/{model}").split()) == [".manifest-1.json", "1"]
    manifest = json.loads(host.file(f"{BASE}/{model}/.manifest-1.json").content_string)
    for name, facts in manifest["files"].items():
        assert host.file(f"{BASE}/{model}/1/{name}").sha256sum == facts["sha256"]


def test_configuration_is_roots(host):
    config = host.file("/etc/tensorflow-serving/models.config")
    assert (config.user, config.group, config.mode) == ("root", "tfserving", 0o640)
    unit = host.file("/etc/systemd/system/tensorflow-model-server.service")
    assert (unit.user, unit.group, unit.mode) == ("root", "root", 0o644)


@pytest.mark.parametrize("client", ["client_rest.py", "client_grpc.py"])
@pytest.mark.parametrize(("model", "signature"), [("MLP", "serving_default"), ("MLP_custom", "call")])
def test_example_client_prints_the_digits(server_on, client, model, signature):
    command = [sys.executable, str(PROJECT / "examples" / "mnist" / client), "--count=20"]
    done = subprocess.run(
        [*command, f"--host={server_on('debian12').address}", f"--model={model}", f"--signature={signature}"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [row for row in map(str.split, done.stdout.splitlines()) if len(row) == 3 and row[0].isdigit()]
    assert len(rows) == 20
    assert sum(label == predicted for label, predicted, _ in rows) >= 19

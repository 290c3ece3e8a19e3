"""What the model servers of a host say of their versions, as the program of the timer writes it for Prometheus."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    render_models_config,
)

PROGRAM = Path(__file__).resolve().parents[3] / "roles/tfserving_monitoring/files/tfserving_versions.py"
OK = ("OK", "")
UNIT = r"""[Unit]
Description=TensorFlow Serving

[Service]
ExecStart=/usr/bin/tensorflow_model_server \
  --port=8500 \
  --rest_api_port={port} \
  --rest_api_timeout_in_ms=30000

[X-Tfserving]
InstanceOf=tensorflow-model-server
ConfigPath={config_path}
"""


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tfserving_versions", PROGRAM)
    assert spec
    assert spec.loader
    module = sys.modules["tfserving_versions"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Host:
    """A host's units, configuration, models and the node exporter's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units = path / "units"
        self.textfiles = path / "textfiles"
        self.file = self.textfiles / "tfserving-versions.prom"
        for directory in (self.units, self.textfiles):
            directory.mkdir()

    def model(self, name: str, *versions: str) -> Path:
        """Make a model's directory with directories of its versions."""
        base_path = self.path / "models" / name
        for version in versions:
            (base_path / version).mkdir(parents=True, exist_ok=True)
        return base_path

    def serve(self, port: int, *models: str, instance: str = "") -> Path:
        """Write the unit of a server and its models.config."""
        config_path = self.path / f"config{instance}"
        config_path.mkdir()
        entries = [
            {"name": name, "base_path": str(self.path / "models" / name), "model_platform": "tensorflow"}
            for name in models
        ]
        (config_path / "models.config").write_text(render_models_config(entries))
        unit = self.units / f"tensorflow-model-server{instance and '-'}{instance}.service"
        unit.write_text(UNIT.format(port=port, config_path=config_path))
        return config_path / "models.config"

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the program as its unit does."""
        command = [sys.executable, "-I", PROGRAM, f"--unit-path={self.units}", "--host=web1", *arguments]
        environment = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=30)

    def write(self) -> subprocess.CompletedProcess[str]:
        return self.run(f"--directory={self.textfiles}")

    def samples(self) -> set[str]:
        """Run the program, have promtool check what it writes, and return that without help, types and the time."""
        done = self.write()
        assert done.returncode == 0, done.stderr
        text = self.file.read_text()
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        lines = {line for line in text.splitlines() if not line.startswith("#")}
        (run,) = (line for line in lines if line.startswith("tfserving_versions_last_run_timestamp_seconds{"))
        assert abs(time.time() - float(run.split()[1])) < 20
        return lines - {run}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_version_that_the_server_has_ended_with_an_error_is_shown(host: Host, serving: StubServer) -> None:
    host.model("MLP", "1", "2")
    host.serve(serving.port, "MLP")
    serving.answer_status("MLP", (2, "END", "NOT_FOUND", "Could not\nfind it"), (1, "AVAILABLE", *OK))
    assert host.samples() == {
        'tfserving_server_answers{host="web1"} 1',
        'tfserving_model_available_versions{host="web1",model="MLP"} 1',
        'tfserving_version_failed{host="web1",model="MLP",version="2",error_code="NOT_FOUND"} 1',
    }


@pytest.mark.parametrize(
    ("version", "state", "code", "versions"),
    [
        pytest.param(2, "END", "OK", ["1", "2"], id="was unloaded"),
        pytest.param(2, "LOADING", "NOT_FOUND", ["1", "2"], id="is tried again"),
        pytest.param(2, "END", "NOT_FOUND", ["1", ".withdrawn-2"], id="has failed and was removed"),
    ],
)
def test_version_that_nobody_needs_to_mend_is_not_shown(
    host: Host, serving: StubServer, version: int, state: str, code: str, versions: list[str]
) -> None:
    host.model("MLP", *versions)
    host.serve(serving.port, "MLP")
    serving.answer_status("MLP", (version, state, code, ""), (1, "AVAILABLE", *OK))
    assert not [line for line in host.samples() if "failed" in line]


def test_failed_version_in_a_directory_with_leading_zeros_is_shown(host: Host, serving: StubServer) -> None:
    host.model("MLP", "0002")
    host.serve(serving.port, "MLP")
    serving.answer_status("MLP", (2, "END", "DATA_LOSS", ""))
    assert [line for line in host.samples() if 'version="2",error_code="DATA_LOSS"' in line]


def test_failed_version_of_a_model_that_is_not_on_the_host_is_shown(host: Host, serving: StubServer) -> None:
    host.serve(serving.port, "MLP")
    serving.answer_status("MLP", (2, "END", "DATA_LOSS", ""))
    assert [line for line in host.samples() if 'version="2",error_code="DATA_LOSS"' in line]


def test_model_without_an_available_version_and_one_that_the_server_does_not_know_have_none(
    host: Host, serving: StubServer
) -> None:
    host.serve(serving.port, "failed", "unknown")
    serving.answer_status("failed", (1, "LOADING", *OK))
    assert {
        'tfserving_model_available_versions{host="web1",model="failed"} 0',
        'tfserving_model_available_versions{host="web1",model="unknown"} 0',
    } <= host.samples()


def test_every_server_is_asked_and_one_that_does_not_answer_is_shown(host: Host, serving: StubServer) -> None:
    host.serve(serving.port, "MLP", instance="first")
    host.serve(unused_port(), "MLP", instance="second-one")
    (host.units / "nginx.service").write_text("[Service]\nExecStart=/usr/sbin/nginx --rest_api_port=1\n")
    (host.units / "gone.service").symlink_to("/nowhere")
    serving.answer_status("MLP", (1, "AVAILABLE", *OK))
    assert host.samples() == {
        'tfserving_server_answers{host="web1",server="first"} 1',
        'tfserving_model_available_versions{host="web1",server="first",model="MLP"} 1',
        'tfserving_server_answers{host="web1",server="second-one"} 0',
    }
    assert [path for _, path in serving.requests] == ["/v1/models/MLP"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((200, b"<html>"), id="no JSON"),
        pytest.param((200, b'{"model_version_status": [{}]}'), id="another JSON"),
        pytest.param((500, b'{"model_version_status": []}'), id="an error"),
    ],
)
def test_what_answers_otherwise_is_no_server(host: Host, serving: StubServer, answer: tuple[int, bytes]) -> None:
    host.serve(serving.port, "MLP")
    serving.answers["/v1/models/MLP"] = answer
    assert host.samples() == {'tfserving_server_answers{host="web1"} 0'}


def test_server_without_a_model_and_host_without_a_server_are_no_problem(host: Host, serving: StubServer) -> None:
    assert host.samples() == set()
    host.serve(serving.port)
    host.serve(unused_port(), instance="down")
    assert host.samples() == {
        'tfserving_server_answers{host="web1"} 1',
        'tfserving_server_answers{host="web1",server="down"} 0',
    }


def test_no_proxy_is_asked(host: Host, serving: StubServer, proxy: StubServer) -> None:
    host.serve(serving.port, "MLP")
    serving.answer_status("MLP", (1, "AVAILABLE", *OK))
    assert host.run(http_proxy=proxy.url, HTTP_PROXY=proxy.url).returncode == 0
    assert serving.requests
    assert not proxy.requests


def test_withdrawn_versions_are_shown_once_whatever_their_mark_says(host: Host, serving: StubServer) -> None:
    base_path = host.model("MLP", "1", ".withdrawn-2", ".withdrawn-4")
    (base_path / ".withdrawn-2.json").write_text("no JSON")
    (base_path / ".withdrawn-3.json").mkdir()
    (base_path / ".withdrawn-x.json").touch()
    (base_path / ".withdrawn-5.json.new").touch()
    host.serve(serving.port, "MLP", instance="first")
    host.serve(unused_port(), "MLP", instance="second")
    serving.answer_status("MLP", (1, "AVAILABLE", *OK))
    assert {line for line in host.samples() if "withdrawn" in line} == {
        'tfserving_version_withdrawn{host="web1",model="MLP",version="2"} 1',
        'tfserving_version_withdrawn{host="web1",model="MLP",version="3"} 1',
    }
    assert host.file.read_text().count("tfserving_version_withdrawn{") == 2
    (base_path / "3").mkdir()  # a newer version than the second is there now, and than the third none
    (base_path / ".withdrawn-4.json").touch()
    never_served = base_path.parent / "never served"
    never_served.mkdir()
    (never_served / ".withdrawn-1.json").touch()
    assert {line for line in host.samples() if "withdrawn" in line} == {
        'tfserving_version_withdrawn{host="web1",model="MLP",version="4"} 1',
        'tfserving_version_withdrawn{host="web1",model="never served",version="1"} 1',
    }


def test_whatever_the_server_calls_an_error_is_one_line(host: Host, serving: StubServer) -> None:
    host.serve(serving.port, "MLP")
    serving.answer_status("MLP", (2, "END", 'A"} 1\nup 0\\' + 90 * "x", ""))
    (line,) = (line for line in host.samples() if "failed" in line)
    assert re.search(r'error_code="A_1_up_0_x{31}"} 1$', line)


def test_nasty_label_is_escaped(program: ModuleType) -> None:
    metrics = program.Metrics('web"1\\\n')
    metrics.add("tfserving_server_answers", 1)
    assert metrics.text().splitlines()[2:] == ['tfserving_server_answers{host="web\\"1\\\\\\n"} 1']


@pytest.mark.parametrize("base_path", ['/a "b" \\ c\nd é', "/plain"])
def test_models_config_is_read_as_it_is_written(program: ModuleType, base_path: str) -> None:
    entries = [
        {
            "name": name,
            "base_path": base_path,
            "model_platform": "tensorflow",
            "model_version_policy": {"specific": {"versions": [1, 2]}},
            "version_labels": {"name": 1, "base_path": 2},
        }
        for name in ("MLP", "config")
    ]
    written = "# config { name: 'no' }\n" + render_models_config(entries)
    assert program.base_paths(written) == {"MLP": base_path, "config": base_path}


def test_only_what_stands_in_an_entry_itself_is_read(program: ModuleType) -> None:
    written = """
      model_config_list: < config: < name: 'MLP' # name: "no"
        more { name: "no" base_path: "/no" } base_path: '/models/MLP' > config { name: "bare" } >
    """
    assert program.base_paths(written) == {"MLP": "/models/MLP", "bare": ""}


def test_file_is_replaced_at_once_and_follows_no_link(host: Host, serving: StubServer, tmp_path: Path) -> None:
    host.serve(serving.port)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    host.file.symlink_to(precious)
    (host.textfiles / ".tfserving-versions.prom.new").symlink_to(precious)
    before = os.umask(0o077)
    try:
        host.samples()
    finally:
        os.umask(before)
    assert precious.read_text() == "precious"
    assert stat.S_IMODE(host.file.lstat().st_mode) == 0o644
    assert [path.name for path in host.textfiles.iterdir()] == [host.file.name]


def test_configuration_that_cannot_be_read_leaves_the_old_file(host: Host, serving: StubServer) -> None:
    config = host.serve(serving.port)
    host.samples()
    before = host.file.stat().st_ino
    config.unlink()
    done = host.write()
    assert done.returncode == 1
    assert str(config) in done.stderr
    assert host.file.stat().st_ino == before


def test_without_a_directory_the_metrics_are_printed(host: Host, serving: StubServer) -> None:
    host.serve(serving.port)
    assert 'tfserving_server_answers{host="web1"} 1' in host.run().stdout.splitlines()
    assert not host.file.exists()


def test_server_that_says_nothing_does_not_answer(
    host: Host, serving: StubServer, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "TIMEOUT_SECONDS", 0.2)
    host.serve(serving.port, "MLP")
    serving.delay_seconds = 1
    assert 'tfserving_server_answers{host="web1"} 0' in program.collect("web1", host.units).splitlines()

"""Several servers on one host: what each entry comes to, what is refused, and which units are the role's."""

from __future__ import annotations

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.filter.due_restarts import due_restarts
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common import systemd
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import Holder
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._host import look
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import instances as server_instances
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.flags import KNOWN_FLAGS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    Host,
    Instance,
    InstancesError,
    cpu_numbers,
    displaced,
    family,
    foreign_ports,
    foreign_units,
    instances,
    stale_units,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import serving_host_info

HOST = Host(flags=KNOWN_FLAGS, cpus=set(range(8)), numa_nodes={0, 1})
ROLE: dict[str, Any] = {
    "unit": "serving",
    "config_path": "/etc/serving",
    "models": ["a", "b"],
    "settings": {
        "model_config_file": {"variable": "v", "file": "models.config", "value": True},
        "ssl_config_file": {"variable": "v", "file": "ssl.config", "value": True},
        "platform_config_file": {"variable": "v", "file": "platform.config", "value": False},
    },
    "flags": {"grpc_max_threads": 8, "saved_model_tags": "serve"},
    "environment": {"TF_CPP_MIN_LOG_LEVEL": 0},
    "port": 8500,
    "rest_api_port": 8501,
}
OTHER = {"name": "other", "port": 8510, "rest_api_port": 8511}


def made(*entries: dict[str, Any]) -> list[Instance]:
    return instances(list(entries), ROLE, HOST)


def refused(*entries: dict[str, Any]) -> str:
    with pytest.raises(InstancesError) as error:
        made(*entries)
    return str(error.value)


def test_entry_without_anything_is_as_the_roles_variables_say() -> None:
    (one,) = made({})
    assert (one.unit, one.config_path, one.models) == ("serving", "/etc/serving", ["a", "b"])
    assert one.files == ["ssl.config"]
    assert one.environment == ["TF_CPP_MIN_LOG_LEVEL=0"]
    assert one.command == [
        "--grpc_max_threads=8",
        "--model_config_file=/etc/serving/models.config",
        "--port=8500",
        "--rest_api_port=8501",
        "--saved_model_tags=serve",
        "--ssl_config_file=/etc/serving/ssl.config",
    ]


def test_named_instance_has_its_own_unit_directory_models_flags_and_environment() -> None:
    given = {**OTHER, "models": ["b"], "flags": {"grpc_max_threads": 2}, "environment": {"OMP_NUM_THREADS": 4}}
    _, one = made({}, given)
    assert (one.unit, one.config_path, one.models) == ("serving-other", "/etc/serving/other", ["b"])
    assert {"--grpc_max_threads=2", "--port=8510", "--saved_model_tags=serve"} <= set(one.command)
    assert "--ssl_config_file=/etc/serving/other/ssl.config" in one.command
    assert one.environment == ["OMP_NUM_THREADS=4", "TF_CPP_MIN_LOG_LEVEL=0"]


def test_problem_of_all_instances_is_told_once_with_its_variable() -> None:
    role = {**ROLE, "flags": {"num_load_threads": 1}}
    with pytest.raises(InstancesError) as error:
        instances([{"name": "first"}, {**OTHER, "flags": {"saved_model_tags": "serve"}}], role, HOST)
    (line,) = str(error.value).splitlines()
    assert line.startswith("num_load_threads in tfserving_service_flags is 1; it has to be at least 2")


def test_flag_of_an_entry_leaves_to_the_server_what_all_others_set() -> None:
    _, one = made({}, {**OTHER, "flags": {"grpc_max_threads": None, "rest_api_timeout_in_ms": 90000}})
    assert not [word for word in one.command if "grpc_max_threads" in word]
    assert one.rest_api_timeout_seconds == 90


def test_null_in_an_entry_is_as_if_it_were_not_there() -> None:
    assert made({"port": None, "cpus": None, "flags": None, "models": None}) == made({})


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([OTHER, {**OTHER, "port": 1024, "rest_api_port": 1025}], "instance other is listed 2 times"),
        ([{}, {}], "the instance without a name is listed 2 times"),
        ([{}, {**OTHER, "port": 8501}], "the instance without a name and instance other both have port 8501"),
        ([{}, {"name": "other"}], "both have port 8500"),
        ([{"rest_api_port": 80}], "rest_api_port is 80; it has to be from 1024 to 65535"),
        ([{"port": 9, "rest_api_port": 70000}], "rest_api_port is 70000"),
        ([{"port": 9000, "rest_api_port": 9000}], "rest_api_port of tfserving_service_instances are both 9000"),
        ([{"name": "Böse"}], "a name is made of small letters, digits and hyphens"),
        ([{"name": "../x"}], "a name is made of"),
        ([{"name": "a\nb"}], "instance a\\nb: a name is made of"),
        ([{"name": "a" * 250}], "its name has 250 letters; with serving before it, it may have at most 239"),
        ([{"models": ["a", "c"]}], "tfserving_models_catalog has no c."),
        ([{"cpus": "0-8"}], "the host has no CPU 8"),
        ([{"cpus": "0-4000000000"}], "it has to be a list such as 0-7,16-23"),
        ([{"cpus": "0-9999"}], "the host has no CPU 8, 9, 10, 11, 12, 13, 14, 15; `lscpu` lists them"),
        ([{"cpus": "3-0"}], "cpus is 3-0: 3-0 ends before it begins"),
        ([{"cpus": "all"}], "it has to be a list such as 0-7,16-23"),
        ([{"numa_node": 2}], "numa_node is 2, and the host has no such node"),
        ([{"memory_max": "24GB"}], "memory_max is 24GB; it has to be a size of at least 64M, such as 24G"),
        ([{"memory_max": "0"}], "memory_max is 0; it has to be a size of at least 64M"),
        ([{"memory_max": "1"}], "memory_max is 1; it has to be a size of at least 64M"),
        ([{"memory_high": "200%"}], "memory_high is 200%; it has to be a size of at least 64M"),
        ([{"memory_high": "0%"}], "or a share of the host's memory up to 100%"),
        (
            [{"environment": {"A": "x\rUser=root"}}],
            "environment: A is 'x\\rUser=root'; take the control",
        ),
        ([{"flags": {"saved_model_tags": "a\nb"}}], "flags: saved_model_tags is 'a\\nb'; take the control"),
        ([{"environment": {"TF_CPP_MIN_LOG_LEVEL": 3}}], "TF_CPP_MIN_LOG_LEVEL is 3; it has to be 0 or 1"),
        (
            [{"flags": {"file_system_poll_wait_seconds": -1}}],
            "file_system_poll_wait_seconds in tfserving_service_instances: the instance without a name, flags is -1",
        ),
        ([{"flags": {"rest_api_num_threads": 1}}], "with one thread REST answers nothing"),
        ([{"flags": {"grpc_channel_arguments": "a=1,b"}}], "each argument has to be name=value"),
        ([{"environment": {"A-B": 1}}], "A-B is no name of an environment variable"),
        ([{**OTHER, "flags": {"enable_batchin": 1}}], "instance other, flags: the server has no flag enable_batchin"),
        ([{"flags": {"port": 1}}], "port is set by tfserving_service_port; set that instead"),
        ([{**OTHER, "flags": {"port": 1}}], "port is set by port of tfserving_service_instances"),
    ],
)
def test_bad_entry_is_refused(entries: list[dict[str, Any]], words: str) -> None:
    assert words in refused(*entries)


@pytest.mark.parametrize("unit", ["a/b", "a\nb", "serving.service", "", "a@b", "../x"])
def test_name_that_is_no_units_is_refused(unit: str) -> None:
    with pytest.raises(InstancesError, match="tfserving_service_name is .*; it has to be the name of a unit without"):
        instances([{}], {**ROLE, "unit": unit}, HOST)


def test_sizes_and_shares_are_memory() -> None:
    assert made({"memory_high": "64M", "memory_max": "12.5%"}, {**OTHER, "memory_max": "infinity"})


def test_flag_that_is_wrong_for_all_is_told_once() -> None:
    with pytest.raises(InstancesError) as error:
        instances([{**OTHER, "name": "x"}, {}], {**ROLE, "environment": {"A-B": 1}}, HOST)
    assert str(error.value).count("A-B") == 2


@pytest.mark.parametrize("path", ["metrics", "//metrics", "/v1/models/a", "/v1", "/", "/{a}", "/a\n"])
def test_metrics_are_not_where_the_models_are(path: str) -> None:
    with pytest.raises(InstancesError, match="tfserving_service_monitoring_path is .*; it has to begin with one slash"):
        instances([{}], {**ROLE, "monitoring_path": path}, HOST)
    assert instances([{}], {**ROLE, "monitoring_path": "/v1metrics"}, HOST)


def test_port_of_somebody_else_is_refused_with_process_program_and_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {
        8500: [Holder(7, "tensorflow_mode", "/system.slice/serving.service")],
        8501: [
            Holder(7, "tensorflow_mode", "/system.slice/serving.service"),
            Holder(815, "python3", "/system.slice/tfserving.service"),
        ],
    }
    monkeypatch.setattr(server_instances, "holders", lambda port: there.get(port, []))
    ours = {"serving": "/system.slice/serving.service"}
    (problem,) = foreign_ports(made({}, OTHER), ours)
    assert "8501 is held by pid 815, python3, tfserving.service. Stop that" in problem
    assert "(tfserving_service_rest_api_port)" in problem
    assert len(foreign_ports(made({}), {})) == 2


def test_instance_on_a_port_that_another_gets_has_to_stop_first(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {8510: [Holder(7, "tensorflow_mode", "/system.slice/serving.service")]}
    monkeypatch.setattr(server_instances, "holders", lambda port: there.get(port, []))
    ours = {"serving": "/system.slice/serving.service", "serving-other": ""}
    assert displaced(made({}, OTHER), ours) == ["serving"]
    assert displaced(made({"port": 8510}), ours) == []


@pytest.mark.parametrize(("text", "numbers"), [("0-2,5", {0, 1, 2, 5}), ("1 3", {1, 3}), ("", set()), ("7\n", {7})])
def test_cpus_are_counted(text: str, numbers: set[int]) -> None:
    assert cpu_numbers(text) == numbers


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(server_instances, "UNIT_PATH", tmp_path)
    return tmp_path


def unit_file(folder: Path, unit: str, base: str, config_path: str, more: str = "") -> None:
    text = f"[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true \\\n  --port=1\n{more}"
    (folder / f"{unit}.service").write_text(f"{text}[X-Tfserving]\nInstanceOf={base}\nConfigPath={config_path}\n")


def test_unlisted_instances_are_found_by_their_mark(units: Path) -> None:
    unit_file(units, "serving-other", "serving", "/etc/serving/other")
    unit_file(units, "serving-b", "serving", "/etc/serving/b", more="Environment=A=%%\n")
    unit_file(units, "staging-c", "staging", "/etc/staging/c")
    unit_file(units, "staging", "staging", "/etc/serving/staging")
    (units / "serving-mine.service").write_text("[Service]\nExecStart=/bin/true\n")
    (units / "serving-half.service").write_text("[X-Tfserving]\nInstanceOf=serving\n")
    (units / "serving.service").write_text("[Service]\nExecStart=/bin/true\n")
    (units / "binary.service").write_bytes(b"\xff[X-Tfserving]\n")
    assert stale_units(family("serving", "/etc/serving"), {one.unit: one.config_path for one in made({}, OTHER)}) == [
        {"unit": "serving-b", "config_path": "/etc/serving/b", "has_config": True}
    ]


def test_units_of_an_earlier_name_are_stale_and_their_directories_have_new_owners(units: Path) -> None:
    unit_file(units, "old", "old", "/etc/serving")
    unit_file(units, "old-other", "old", "/etc/serving/other")
    unit_file(units, "old-gone", "old", "/etc/serving/gone")
    unit_file(units, "older", "older", "/etc/older")
    stale = {
        one["unit"]: one
        for one in stale_units(
            family("serving", "/etc/serving"), {one.unit: one.config_path for one in made({}, OTHER)}
        )
    }
    assert stale == {
        "old": {"unit": "old", "config_path": "/etc/serving", "has_config": False},
        "old-gone": {"unit": "old-gone", "config_path": "/etc/serving/gone", "has_config": True},
        "old-other": {"unit": "old-other", "config_path": "/etc/serving/other", "has_config": False},
    }


def test_unit_of_somebody_else_is_refused_wherever_it_lies(units: Path) -> None:
    unit_file(units, "serving", "serving", "/etc/serving")
    (units / "ssh.service").write_text("[Service]\nExecStart=/bin/true\n")
    fragments = {
        "serving": str(units / "serving.service"),
        "ssh": str(units / "ssh.service"),
        "cron": "/usr/lib/systemd/system/cron.service",
        "new": "",
    }
    ssh, cron = foreign_units(fragments, fragments)
    assert f"ssh.service is there already, in {units}/ssh.service, and this role did not write it" in ssh
    assert "systemctl disable --now cron; rm /usr/lib/systemd/system/cron.service" in cron


NASTY = ["a b", 'say "hi"', "5%", "back\\slash", "$HOME ${HOME}", "é", ";", "#x", "'", "a\\nb", ""]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd checks what is quoted for it")
def test_systemd_takes_any_quoted_word(tmp_path: Path) -> None:
    words = " ".join(systemd.quoted_argument(word) for word in NASTY)
    lines = "".join(f"Environment={systemd.quoted('X=' + word)}\n" for word in NASTY)
    path = tmp_path / "quoted.service"
    path.write_text(f"[Service]\nExecStart=/bin/echo {words}\n{lines}")
    done = subprocess.run(  # noqa: S603
        ["systemd-analyze", "verify", "--man=no", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if str(path) in line or "quoted.service" in line] == []


def test_plain_word_is_not_quoted() -> None:
    assert systemd.quoted_argument("--a_b=/c/d.e,f:1") == "--a_b=/c/d.e,f:1"
    assert systemd.quoted_argument('--a=$x "5%"') == '"--a=$$x \\"5%%\\""'
    assert systemd.quoted("A=$x") == '"A=$x"'


def test_look_at_a_host_says_what_the_servers_run(
    run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_host_info.AnsibleModule, "run_command", answer_of_systemd)
    monkeypatch.setattr(look, "PROGRAM", "/no/such/program")
    servers = {"unit": "no-such-unit", "models_base_path": "/srv/models", "models": ["a"]}
    paths = {"config_path": "/etc/no-such", "data_path": "/var/lib/no-such"}
    arguments = {"user": "tfserving", "group": "tfserving", **paths}
    result = run_module(serving_host_info, check=True, servers={**servers, "instances": [{}]}, **arguments)
    assert "failed" not in result, result["msg"]
    assert (result["changed"], result["account"]) == (False, {"is_ready": False})
    assert "package" not in result
    found = result["servers"]
    assert (found["systemd_version"], found["running"], found["outdated"], found["files"]) == (257, [], {}, {})
    assert found["instances"][0]["command"] == ["--port=8500", "--rest_api_port=8501"]
    servers["instances"] = [{"flags": {"prt": 1}}]
    result = run_module(serving_host_info, servers=servers, **{**arguments, "user": "root"})
    assert "The nearest one is port." in result["msg"]  # all at once
    assert "tfserving_user is root" in result["msg"]


def answer_of_systemd(_: Any, command: list[str], **__: Any) -> tuple[int, str, str]:
    if "--version" in command:
        return 0, "systemd 257 (257.1~x)", ""
    return 0, "LoadState=not-found\nActiveState=inactive\nMainPID=0\nControlGroup=\nFragmentPath=\n", ""


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({}, []),
        ({"outdated": {"serving": ["its command line"]}}, ["serving"]),
        ({"files": {"/etc/a": "another"}}, ["serving"]),
        ({"files": {}}, ["serving"]),
        ({"files": {}, "running": []}, []),
        ({"running": ["before", "serving"]}, ["before"]),  # as after a change of tfserving_service_name
    ],
)
def test_restart_is_due_where_a_running_server_would_read_something_else(
    change: dict[str, Any], due: list[str]
) -> None:
    files = [{"unit": "serving", "path": "/etc/a", "content": "x"}]
    there = {
        "instances": [{"unit": "serving"}],
        "files": {"/etc/a": sha256(b"x").hexdigest()},
        "running": ["serving"],
        "outdated": {},
    }
    assert due_restarts({"servers": {**there, **change}}, files) == due


def test_restart_is_due_where_the_package_changes() -> None:
    servers = {"instances": [{"unit": "serving"}], "files": {}, "running": ["serving"], "outdated": {}}
    assert due_restarts({"servers": servers, "package": {"change_needed": True}}, []) == ["serving"]
    assert due_restarts({"servers": servers, "package": {"change_needed": False}}, []) == []


@pytest.mark.parametrize(
    ("release", "machine", "words"),
    [
        (
            'ID=debian\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
            "aarch64",
            "Debian GNU/Linux 13 (trixie) on aarch64",
        ),
        ('ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\n', "x86_64", ""),
        (
            "ID=fedora\nPRETTY_NAME=Fedora\n",
            "x86_64",
            "web1 is Fedora on x86_64. TensorFlow Serving is packaged for Debian",
        ),
        ("", "x86_64", "an unknown system"),
    ],
)
def test_host_for_which_there_is_no_package_is_refused(
    release: str, machine: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(release)
    monkeypatch.setattr(look.platform, "machine", lambda: machine)
    problems: list[str] = []
    look.platform_facts("web1", problems, root=tmp_path)
    assert words in "".join(problems)
    assert bool(problems) is bool(words)

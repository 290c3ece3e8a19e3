"""All that is wrong with the input of all roles is said at once, before any host is asked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.modelops.tensorflow_serving.plugins.action import check_input
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils import role_input, variable_names
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.role_checks import CHECKS, sha256_once

ROOT = Path(__file__).resolve().parents[3]
SERVING = ROOT / "playbooks/serving.yml"
# Exported with one version, number 1.
SOURCE = ROOT / "tests/unit/plugins/saved_models/constant"
CATALOG = [{"name": "MLP", "source": str(SOURCE), "versions": [1]}]
SERVER = "tfserving_service_"


def play(playbook: Path, inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook from the checkout. No host of these inventories can be reached."""
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "2000"}
    command = ["ansible-playbook", "-i", str(inventory), str(playbook), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=300, check=False
    )


def inventory_of(folder: Path, hosts: dict[str, Any], **variables: Any) -> Path:
    file = folder / "inventory.json"
    for host in hosts.values():
        host["ansible_host"] = "unreachable.invalid"
    file.write_text(json.dumps({"all": {"vars": variables, "children": {"tfserving": {"hosts": hosts}}}}))
    return file


def said(done: subprocess.CompletedProcess[str], host: str) -> str:
    """Return what the one failed task says of a host."""
    (found,) = re.findall(rf"^fatal: \[{host}\].*?(?=^\S)", done.stdout, re.MULTILINE | re.DOTALL)
    return " ".join(found.split())


def test_problems_of_all_roles_and_hosts_are_said_in_one_play(tmp_path: Path) -> None:
    hosts = {
        "web1": {
            "tfserving_apt_suite": "stable\nTrusted: yes",
            "tfserving_package_variant": "fastest",
            "tfserving_models_catalog": [{"name": "MLP", "source": "/nowhere"}],
            "tfserving_service_port": 8501,
            "tfserving_service_rest_prot": 8502,
            "tfserving_region": "here",
            "tfserving_serial": 1,
        },
        "web2": {
            "tfserving_package_version": "newest",
            "tfserving_gateway_enabled": True,
            "tfserving_gateway_open": ["everything"],
            "tfserving_region": "there",
            "tfserving_team": "ours",
            "tfserving_allowed_extra_variables": ["tfserving_team"],
        },
        "web3": {},
    }
    done = play(SERVING, inventory_of(tmp_path, hosts, tfserving_models_catalog=CATALOG))
    for words in (
        r"tfserving_apt_suite is stable\nTrusted: yes; it has to be one word",
        "value of tfserving_package_variant must be one of: auto, optimized, universal, got: fastest",
        "tfserving_models_catalog: model MLP: /nowhere is not a directory on the controller",
        "tfserving_service_port and tfserving_service_rest_api_port are both 8501",
        "tfserving_service_rest_prot is unknown; the nearest name is tfserving_service_rest_api_port",
        "tfserving_serial is 1 in the inventory, where a play cannot see it",
    ):
        assert words in said(done, "web1")
    for words in (
        "tfserving_package_version is newest; it has to be a version",
        "value of tfserving_gateway_open must be one or more of: predict, classify",
    ):
        assert words in said(done, "web2")
    # A host with good input is asked next, and others are not held up by it.
    assert re.search(r"^web1 .*unreachable=0 +failed=1", done.stdout, re.MULTILINE)
    assert re.search(r"^web3 .*unreachable=1 +failed=0", done.stdout, re.MULTILINE)
    warnings = done.stdout + done.stderr
    assert warnings.count("tfserving_region is no variable of this collection") == 1
    assert "tfserving_team" not in warnings


ROLE_ALONE = """
- hosts: tfserving
  gather_facts: false
  roles: [modelops.tensorflow_serving.{role}]
"""


def test_role_that_is_used_alone_checks_its_input(tmp_path: Path) -> None:
    playbook = tmp_path / "alone.yml"
    playbook.write_text(ROLE_ALONE.format(role="tfserving_mirror") + ROLE_ALONE.format(role="tfserving_apt"))
    bad = {
        "tfserving_mirror_signing_key_fingerprint": "ABCD",
        "tfserving_mirror_debs": [{"src": "debs/x.deb", "sha256": "0" * 64}],
        "tfserving_apt_uri": "http://user:s3cret@host/",
        "tfserving_apt_proxy": "proxy",
        "tfserving_package_version": "newest",  # which these roles do not read
    }
    hosts = {"web1": bad, "web2": {**bad, "tfserving_mirror_signing_key_fingerprint": "0" * 40}}
    hosts["web2"]["tfserving_mirror_debs"] = [{"src": __file__, "sha256": "0" * 64}]
    done = play(playbook, inventory_of(tmp_path, hosts), "--limit", "web1")
    assert 'tfserving_mirror_signing_key_fingerprint is "ABCD"; it has to be all 40 hex digits' in said(done, "web1")
    assert "tfserving_mirror_debs: debs/x.deb with sha256" in said(done, "web1")
    assert "newest" not in done.stdout
    playbook.write_text(ROLE_ALONE.format(role="tfserving_apt"))
    done = play(playbook, tmp_path / "inventory.json", "--check")
    for host in hosts:
        assert "tfserving_apt_uri has to be http://HOST/PATH" in said(done, host)
        assert "tfserving_apt_proxy has to be http://HOST:PORT" in said(done, host)
    assert "s3cret" not in done.stdout + done.stderr


def test_role_after_the_check_of_a_play_does_not_check_again(tmp_path: Path) -> None:
    playbook = tmp_path / "twice.yml"
    playbook.write_text("""
- hosts: tfserving
  gather_facts: false
  tasks:
    - modelops.tensorflow_serving.check_input: {}
      register: __tfserving_input_checked
- hosts: tfserving
  gather_facts: false
  roles:
    - {role: modelops.tensorflow_serving.tfserving_apt, tfserving_apt_suite: two words}
""")
    done = play(playbook, inventory_of(tmp_path, {"web1": {}}, tfserving_models_catalog=CATALOG))
    assert "two words" not in done.stdout
    assert re.search(r"^web1 .*unreachable=1 +failed=0", done.stdout, re.MULTILINE)


def test_serial_from_the_command_line_is_seen(tmp_path: Path) -> None:
    inventory = inventory_of(tmp_path, {"web1": {"tfserving_serial": 1}}, tfserving_models_catalog=CATALOG)
    assert "in the inventory" not in play(SERVING, inventory, "-e", "tfserving_serial=1").stdout


def test_scrape_targets_are_those_of_the_inventory(tmp_path: Path) -> None:
    playbook = tmp_path / "monitoring.yml"
    playbook.write_text(ROLE_ALONE.format(role="tfserving_monitoring"))
    hosts: dict[str, Any] = {
        "web1": {"tfserving_monitoring_prometheus_path": "prometheus", "tfserving_service_monitoring_enabled": False},
        "web2": {"tfserving_gateway_enabled": True, "tfserving_monitoring_hosts": ["web2"]},
    }
    done = play(playbook, inventory_of(tmp_path, hosts, tfserving_monitoring_hosts=["web1"]))
    assert "None of the hosts in tfserving_monitoring_hosts (web1) has metrics" in said(done, "web1")
    assert "tfserving_monitoring_prometheus_path is prometheus; it has to begin with /" in said(done, "web1")
    assert "Prometheus cannot reach the metrics of web2 behind its gateway. Add metrics" in said(done, "web2")


# One play has a host for each case.

CASES_PLAYBOOK = """
- hosts: tfserving
  gather_facts: false
  tasks:
    - modelops.tensorflow_serving.check_input:
        roles: "{{ checked_roles | default(omit) }}"
"""
PACKAGE, DIGEST = b"!<arch>\n", hashlib.sha256(b"!<arch>\n").hexdigest()
GATEWAY = {
    "tfserving_gateway_enabled": "yes",
    "tfserving_gateway_users": {"fleet": "correct horse"},
    "tfserving_gateway_tls_self_signed": True,
}
PULLED = {"name": "MLP", "source": "http://host/{version}.tar", "versions": [1], "digests": {1: "0" * 64}}
# What an inventory says of a host, and how each problem begins.
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"tfserving_service_port": "8500", "tfserving_models_keep": "{{ 1 + 1 }}", **GATEWAY}, []),
    # What only the host can say is left to it.
    ({f"{SERVER}flags": {"a_flag_of_tomorrow": 1}, f"{SERVER}instances": [{"cpus": "0-999", "numa_node": 99}]}, []),
    ({"tfserving_models_keep": "many"}, ["argument 'tfserving_models_keep' is of type"]),
    (
        {"tfserving_models_catalog": [{**CATALOG[0], "model_version_policy": {"latest": {"num_version": 2}}}]},
        ["Unknown: tfserving_models_catalog.model_version_policy.latest.num_version. Supported parameters include"],
    ),
    (
        {"tfserving_models_catalog": [{"name": "MLP"}]},
        ["missing required arguments: source found in tfserving_models_catalog"],
    ),
    (
        {"tfserving_models_catalog": [{**CATALOG[0], "keep": 0, "version_labels": {"a/b": 1}}]},
        ["tfserving_models_catalog: model MLP: version_labels: label", "tfserving_models_catalog: model MLP: keep"],
    ),
    (
        {"tfserving_models_catalog": [PULLED], "tfserving_models_url_password": "s3cret"},
        ["tfserving_models_catalog: tfserving_models_url_password would be sent in plain text to http://host/1"],
    ),
    ({"tfserving_package_version": "{{ nowhere }}"}, ["tfserving_package_version cannot be worked out: "]),
    (
        {"tfserving_package_deb": "https://u:s3cret@host /x.deb", "tfserving_package_deb_sha256": "0" * 64},
        ["tfserving_package_deb has to be a path, or http(s)://HOST/PATH"],
    ),
    (
        {"tfserving_package_deb": "none.deb"},
        ["tfserving_package_deb_sha256 is empty", "tfserving_package_deb is none.deb, which is no file on the"],
    ),
    (
        {"tfserving_package_deb": "one.deb", "tfserving_package_deb_sha256": "0" * 64},
        [f"tfserving_package_deb is one.deb, which has the SHA256 {DIGEST}; tfserving_package_deb_sha256 is 000"],
    ),
    ({"tfserving_package_deb": "one.deb", "tfserving_package_deb_sha256": DIGEST.upper()}, []),
    ({"tfserving_apt_key": "/nowhere"}, ["tfserving_apt_key is /nowhere, and no such file is on the controller"]),
    ({"tfserving_apt_key": "-----BEGIN PGP PUBLIC KEY BLOCK-----"}, []),
    (
        {"tfserving_service_cpus": "0-3"},
        ["tfserving_service_cpus is an old name; write tfserving_service_instances: ["],
    ),
    ({"tfserving_user": 7, "tfserving_adopt_directories": "perhaps"}, ["argument 'tfserving_adopt_directories' is of"]),
    ({f"{SERVER}instances": []}, ["tfserving_service_instances is empty. Leave it out for one server"]),
    (
        {f"{SERVER}flags": {"num_load_threads": 1, "num_unload_threads": None}},
        [
            "tfserving_service_flags: num_unload_threads is null; it has to be at least 2",
            "num_load_threads in tfserving_service_flags is 1; it has to be at least 2",
        ],
    ),
    ({f"{SERVER}flags": {"port": 1}}, ["tfserving_service_flags: port is set by tfserving_service_port"]),
    ({f"{SERVER}session_config": {"intra": 8}}, [f"{SERVER}session_config: session.config cannot be written: "]),
    (
        {f"{SERVER}batching_parameters": {"max_batch_size": 8, "allowed_batch_sizes": [2, 4]}},
        [f"{SERVER}batching_parameters: batching_parameters.config cannot be written: the last of allowed_batch"],
    ),
    ({f"{SERVER}batching_parameters": {"max_batch_size": 8}}, []),
    ({f"{SERVER}batching_parameters": {}, f"{SERVER}ssl": {}}, []),
    (
        {f"{SERVER}ssl": {"server_key": "x-----BEGIN s3cret", "server_cert": "-----BEGIN "}},
        ["tfserving_service_ssl: server_key or server_cert is not PEM"],
    ),
    (
        {f"{SERVER}allowed_networks": ["10.1.2.3/16", "all"]},
        ["tfserving_service_allowed_networks: 10.1.2.3/16: ", "tfserving_service_allowed_networks: all: "],
    ),
    (
        {"tfserving_gateway_enabled": "perhaps"},
        ["argument 'tfserving_gateway_enabled' is of type "],
    ),
    (
        {"tfserving_gateway_enabled": True, "tfserving_gateway_port": 8501},
        [
            "No client may use the gateway yet",
            "The gateway has no certificate",
            "tfserving_gateway_port is 8501, a port of tensorflow-model-server",
        ],
    ),
    (
        {**GATEWAY, "tfserving_gateway_client_limits": {"burst": 0, "requests_per_second": None}},
        ["tfserving_gateway_client_limits: burst is 0; it has to be", "tfserving_gateway_client_limits: requests_per"],
    ),
    (
        {**GATEWAY, "tfserving_gateway_traffic": {"MLP": {"split": {"blue": 5, 1: 101}}, "other": {"mirror": {1: 5}}}},
        [
            "tfserving_gateway_traffic: MLP: split: 'blue' is neither a label",
            "tfserving_gateway_traffic: MLP: split: 1 is '101'; it has to be a percentage",
            "tfserving_gateway_traffic: tfserving_models_catalog has no model 'other'; use MLP",
        ],
    ),
    (
        {"checked_roles": ["tfserving_rollout"], "tfserving_rollout_traffic": {"mirror": 0, "shares": [5, 5, 101]}},
        [
            "tfserving_rollout_traffic: 0 is no share; it has to be more than 0",
            "tfserving_rollout_traffic: 101 is no share",
            "tfserving_rollout_traffic: shares are 5, 5, 101; each has to be larger than the last",
            "tfserving_rollout_traffic is set, and this host has no gateway",
        ],
    ),
    (
        {"checked_roles": ["tfserving_rollout"], **GATEWAY, "tfserving_rollout_traffic": {"seconds": 0}},
        ["tfserving_rollout_traffic has neither mirror nor shares", "tfserving_rollout_traffic: seconds is 0; a step"],
    ),
    (
        {"checked_roles": ["tfserving_rollout"], "tfserving_rollout_traffic": {"mirrors": 1}},
        ["Unknown: tfserving_rollout_traffic.mirrors"],
    ),
    (
        {
            "checked_roles": ["tfserving_rollout"],
            **GATEWAY,
            "tfserving_rollout_traffic": {"mirror": 0.01, "shares": ["33.33", 100]},
        },
        [],
    ),
    (
        {"checked_roles": ["tfserving_mirror"], "tfserving_mirror_upstream": {"suite": "two words"}},
        ["tfserving_mirror_upstream: suite is two words", "tfserving_mirror_signing_key_fingerprint is"],
    ),
    (
        {"checked_roles": ["tfserving_mirror"], "tfserving_mirror_upstream": None},
        ["tfserving_mirror_signing_key_fingerprint is", "tfserving_mirror_upstream is null and tfserving_mirror_debs"],
    ),
    ({"tfserving_gateway_enabled": False, "tfserving_gateway_port": 8501}, []),
    (
        {f"{SERVER}ssl": {"server_key": "/nowhere/key", "server_cert": "/nowhere/cert"}},
        ["server_key of tfserving_service_ssl is /nowhere/key, and no such file can be read on the controller"],
    ),
    # What follows from a variable that is wrong is not said as well.
    ({"tfserving_models_catalog": "{{ nowhere }}", **GATEWAY}, ["tfserving_models_catalog cannot be worked out: "]),
    ({"checked_roles": ["tfserving_apt"], "tfserving_package_version": "newest"}, []),
]


@pytest.fixture(scope="module")
def problems_of_cases(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    folder = tmp_path_factory.mktemp("cases")
    (folder / "cases.yml").write_text(CASES_PLAYBOOK)
    (folder / "files").mkdir()
    (folder / "files/one.deb").write_bytes(PACKAGE)
    hosts = {f"case{number}": dict(variables) for number, (variables, _) in enumerate(CASES)}
    done = play(folder / "cases.yml", inventory_of(folder, hosts, tfserving_models_catalog=CATALOG))
    assert "s3cret" not in done.stdout + done.stderr
    failed = dict(re.findall(r"^fatal: \[(\w+)\](.*?)(?=^\S)", done.stdout, re.MULTILINE | re.DOTALL))
    return [re.findall(r"^ +- (.*)$", failed.get(host, ""), re.MULTILINE) for host in hosts]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: "-".join(CASES[number][0]) or "good")
def test_each_problem_is_named_with_its_variable(number: int, problems_of_cases: list[list[str]]) -> None:
    found, problems = problems_of_cases[number], CASES[number][1]
    assert [line[: len(words)] for line, words in zip(found, problems)] == problems
    assert len(found) == len(problems)


def test_file_is_read_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "first"))
    (tmp_path / "one.deb").write_bytes(PACKAGE)
    assert sha256_once(tmp_path / "one.deb") == DIGEST
    (tmp_path / "one.deb").write_bytes(b"another")
    assert sha256_once(tmp_path / "one.deb") == DIGEST
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "second"))
    assert sha256_once(tmp_path / "one.deb") == hashlib.sha256(b"another").hexdigest()
    assert sha256_once(tmp_path / "none.deb") == ""


# Names


def names(*given: str, allowed: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    return variable_names.name_problems(given, check_input.KNOWN, allowed)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("tfserving_service_rest_prot", "tfserving_service_rest_api_port"),
        ("tfserving_models_catalogue", "tfserving_models_catalog"),
        ("tfserving_apt_no_proxies", "tfserving_apt_no_proxy"),
        ("tfserving_lock_minute", "tfserving_lock_minutes"),
        ("tfserving_allowed_extra_variable", "tfserving_allowed_extra_variables"),
    ],
)
def test_misspelt_name_is_an_error_with_the_nearest(name: str, nearest: str) -> None:
    (problem,), warnings = names(name)
    assert problem.startswith(f"{name} is unknown; the nearest name is {nearest}. ")
    assert warnings == []
    assert names(name, allowed=(name,)) == ([], [])


@pytest.mark.parametrize("name", ["tfserving_team", "tfserving_region", "tfserving_host_owner", "tfserving_room"])
def test_name_that_is_like_none_is_a_warning(name: str) -> None:
    problems, (warning,) = names(name)
    assert problems == []
    assert warning.startswith(f"{name} is no variable of this collection")
    assert names(name, allowed=(name,)) == ([], [])


def test_old_name_is_an_error_with_the_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(variable_names.RENAMED, "tfserving_service_account", "tfserving_user")
    (problem,), _ = names("tfserving_service_account")
    assert problem == "tfserving_service_account is an old name; write tfserving_user instead."


def test_variables_of_others_are_passed_over() -> None:
    assert names("ansible_host", "__tfserving_apt_key", "models") == ([], [])


def test_every_variable_of_roles_and_playbooks_is_known() -> None:
    used, groups = set(check_input.KNOWN), {"tfserving_at_once", "tfserving_restart", "tfserving_rollout_batch_"}
    for file in (ROOT / "roles").glob("*/tasks/*.yml"):
        used |= {*re.findall(r"register: (tfserving_\w+)", file.read_text())}
    for file in (ROOT / "playbooks").glob("*.yml"):
        code = "".join(re.sub(r"(^|\s)#.*", "", line) for line in file.read_text().splitlines(keepends=True))
        used |= {*re.findall(r"(?<![\w.])tfserving_\w+", code)} - {*role_input.roles()} - groups
    assert names(*used) == ([], [])


# What the speed of the check rests on


@pytest.mark.parametrize("role", role_input.roles().values(), ids=lambda role: role.name)
def test_defaults_of_a_role_are_of_the_types_that_it_says(role: role_input.Role) -> None:
    assert role.name in CHECKS or role.name == "tfserving_common"  # which the others depend on
    plain = {
        name: value
        for name, value in role.defaults.items()
        if name in role.options and "{{" not in yaml.safe_dump(str(value))
    }
    options = {name: role.options[name] for name in plain}
    result = ArgumentSpecValidator(options).validate(plain, validate_role_argument_spec=True)
    assert result.error_messages == []

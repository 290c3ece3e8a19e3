"""Bad input ends in a clear error before anything is changed, and what is served goes on being served.

One play has a host for each case, all of them the same machine. What else is wrong is told by unit tests.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field

import pytest
from conftest import LAB, PROJECT, SERVING

SAVED = PROJECT / "examples" / "mnist" / "saved"
HOST = "debian12"
NO_DEB = "/no/such/tensorflow-model-server.deb"


@dataclass
class Case:
    """What an inventory says of a host, and words of the error that it ends with."""

    words: list[str]
    variables: dict = field(default_factory=dict)


def catalog(source: str, **more) -> dict:
    return {"tfserving_models_catalog": [{"name": "MLP", "source": source, **more}]}


def instance(**more) -> dict:
    return {"tfserving_service_instances": [{"name": "second", "port": 8510, "rest_api_port": 8511, **more}]}


CASES = {
    "missing_source": Case(["model MLP: /nowhere is not a directory on the controller"], catalog("/nowhere")),
    "misspelt_policy": Case(
        ["tfserving_models_catalog", "num_version"],
        catalog(str(SAVED), model_version_policy={"latest": {"num_version": 2}}),
    ),
    "unknown_variant": Case(
        ["tfserving_package_variant", "universal"],
        {"tfserving_package_variant": "fastest"},
    ),
    "version_that_is_none": Case(
        ["tfserving_package_version is newest", '"2.19.*"'],
        {"tfserving_package_version": "newest"},
    ),
    "given_package_without_its_digest": Case(
        ["tfserving_package_deb_sha256 is empty", "64 hex digits"],
        {"tfserving_package_deb": "https://example.com/tensorflow-model-server.deb"},
    ),
    "given_package_that_is_missing": Case(
        ["tfserving_package_deb", "tensorflow-model-server.deb, which is no file on the controller"],
        {"tfserving_package_deb": NO_DEB, "tfserving_package_deb_sha256": "0" * 64},
    ),
    "directory_and_account_of_the_system": Case(
        [
            "tfserving_data_path is /srv, which is too broad",
            "tfserving_config_path is /dev/shm, which is the system's own",
            "tfserving_user is root, which is root",
            "tfserving_group is '0'; it has to be the name of an account",
        ],
        {
            "tfserving_data_path": "/srv",
            "tfserving_config_path": "/dev/shm",  # noqa: S108
            "tfserving_user": "root",
            "tfserving_group": "0",
        },
    ),
    "directory_of_others": Case(
        ["tfserving_data_path is /etc/ssh, which holds files, was not made by this collection"],
        {"tfserving_data_path": "/etc/ssh"},
    ),
    "models_where_another_account_can_write": Case(
        [
            "/var/local is not root's alone, and root works below it",
            "set tfserving_models_base_path to another directory",
        ],
        {"tfserving_models_base_path": "/var/local/models"},
    ),
    "models_that_the_unit_cannot_see": Case(
        ["tfserving_models_base_path is /root/models, which systemd hides from the unit"],
        {"tfserving_models_base_path": "/root/models"},
    ),
    "equal_ports": Case(
        ["tfserving_service_port", "tfserving_service_rest_api_port", "two different ports"],
        {"tfserving_service_port": 8501},
    ),
    "unit_of_others": Case(
        ["tfserving_service_name: ssh.service is there already", "this role did not write it"],
        {"tfserving_service_name": "ssh"},
    ),
    "value_that_breaks_out_of_its_line": Case(
        ["tfserving_service_environment: NOTE is 'x\\rExecStartPre=/bin/touch /run/broken'"],
        {"tfserving_service_environment": {"NOTE": "x\rExecStartPre=/bin/touch /run/broken"}},
    ),
    "unknown_flag": Case(
        ["no flag enable_profilr, and would ignore it. The nearest"],
        {"tfserving_service_flags": {"enable_profilr": False}},
    ),
    "batching_of_each_model_without_batching": Case(
        [
            "enable_per_model_batching_parameters in tfserving_service_flags is set without batching; set "
            "tfserving_service_batching_parameters"
        ],
        {"tfserving_service_flags": {"enable_per_model_batching_parameters": True}},
    ),
    "batching_parameters_that_the_server_refuses": Case(
        ["tfserving_service_batching_parameters: batching_parameters.config cannot be written:"],
        {"tfserving_service_batching_parameters": {"max_batch_size": 8, "allowed_batch_sizes": [2, 4]}},
    ),
    "misspelt_session_option": Case(
        ["tfserving_service_session_config: session.config cannot be written:"],
        {"tfserving_service_session_config": {"intra_op_threads": 8}},
    ),
    "cpus_that_are_no_list": Case(["cpus is 3-0: 3-0 ends before it begins"], instance(cpus="3-0")),
    "node_that_the_host_lacks": Case(
        ["instance second: numa_node is 99, and the host has no such node"], instance(numa_node=99)
    ),
    "address_with_a_networks_length": Case(
        ["10.1.0.0/16 is the network that it lies in"],
        {"tfserving_service_allowed_networks": ["10.1.2.3/16"]},
    ),
    "key_that_is_none": Case(
        ["tfserving_service_ssl: server_key or server_cert is not PEM"],
        {"tfserving_service_ssl": {"server_key": "x-----BEGIN s3cret", "server_cert": "-----BEGIN "}},
    ),
    "other_signing_key": Case(
        ["pinned is 0123456789ABCDEF0123456789ABCDEF01234567", "Nothing was changed"],
        {"tfserving_apt_key_fingerprint": "0123456789ABCDEF0123456789ABCDEF01234567"},
    ),
    "suite_with_a_line_break": Case(
        ["tfserving_apt_suite is stable\\nTrusted: yes; it has to be one word"],
        {"tfserving_apt_suite": "stable\nTrusted: yes"},
    ),
}


@pytest.fixture(scope="module")
def played(play, tmp_path_factory):
    """One play of serving.yml with all cases at once."""
    # Where things are is told by paths relative to the inventory. Many log in at a time, and sshd may turn one away.
    places = {"ansible_host": HOST, "lab_directory": str(LAB), "examples_directory": str(SAVED.parent)}
    places["ansible_ssh_retries"] = 5
    hosts = {name: {**places, **case.variables} for name, case in CASES.items()}
    inventory = tmp_path_factory.mktemp("inventory") / "cases.json"
    inventory.write_text(json.dumps({"all": {"children": {"tfserving": {"hosts": hosts}}}}))
    return play(SERVING, f"--inventory={inventory}", f"--limit={','.join(CASES)}")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_changes_nothing(played, name):
    assert (played.recap[name]["failed"], played.recap[name]["changed"]) == (1, 0)
    said = re.findall(rf"^(?:fatal|failed): \[{name}\].*?(?=^\S)", played.text, re.MULTILINE | re.DOTALL)
    text = " ".join(" ".join(said).replace("''", "'").split())  # YAML doubles a quotation mark, and breaks lines
    for words in CASES[name].words:
        assert words in text


def test_secret_is_not_shown(played):
    assert "s3cret" not in played.text


def test_published_version_that_changed_in_its_source_changes_nothing(play, tmp_path):
    shutil.copytree(SAVED / "1", tmp_path / "1")
    (tmp_path / "1" / "assets" / "more.txt").write_text("more\n")
    played = play(SERVING, f"--limit={HOST}", variables=catalog(str(tmp_path)))
    assert (played.recap[HOST]["failed"], played.recap[HOST]["changed"]) == (1, 0)
    for words in ("model MLP: version 1 is published with sha256", "as version 2"):
        assert words in played.words


def test_what_was_served_is_still_served(server, digits):
    assert server.versions("MLP") == {1: "AVAILABLE"}
    assert server.accuracy("MLP", digits) >= 0.95

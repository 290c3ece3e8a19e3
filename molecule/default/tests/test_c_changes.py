"""What the fleet does when the inventory changes: new versions, restarts, batches, a broken release."""

from __future__ import annotations

import re
import subprocess
import time

import pytest
from conftest import PROJECT, SERVING

HOSTS = ("debian12", "debian13a", "debian13b")
DISTRIBUTE = str(PROJECT / "playbooks/distribute.yml")
ROLLBACK = str(PROJECT / "playbooks/rollback.yml")


def wait_for(condition) -> None:
    """Wait for what the server does by itself at its next poll."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def rollout(play, second_version, server_on):
    """Distribute version 2, and then publish it, on all hosts.

    Returns the main processes before and after, and the play that published.
    """

    def pids() -> dict[str, int]:
        return {name: server_on(name).main_pid() for name in HOSTS}

    before = pids()
    distributed = play(DISTRIBUTE, variables={"examples_directory": str(second_version)})
    assert not distributed.failed, distributed.text
    assert {name: counts["changed"] for name, counts in distributed.recap.items()} == dict.fromkeys(HOSTS, 1)
    assert {tuple(server_on(name).versions("MLP")) for name in HOSTS} == {(1,)}
    played = play(SERVING, variables={"examples_directory": str(second_version)})
    assert not played.failed, played.text
    return before, pids(), played


@pytest.mark.parametrize("model", ["MLP", "MLP_custom"])
def test_new_version_is_served_and_the_old_one_unloaded(rollout, server, digits, model):
    wait_for(lambda: server.versions(model) == {2: "AVAILABLE", 1: "END"})
    assert server.accuracy(model, digits) >= 0.95


def test_new_version_restarts_nothing(rollout):
    before, after, _ = rollout
    assert before == after


def test_only_the_models_changed(rollout):
    _, _, played = rollout
    assert {name: counts["changed"] for name, counts in played.recap.items()} == dict.fromkeys(HOSTS, 1)


def test_predict_prints_a_table_for_every_host(rollout, play, second_version):
    played = play(str(PROJECT / "playbooks/predict.yml"), variables={"examples_directory": str(second_version)})
    assert not played.failed, played.text
    for name in HOSTS:
        right, sent = re.search(rf"^{name}: (\d+) of (\d+) predictions are right$", played.text, re.MULTILINE).groups()
        assert int(sent) == 80
        assert int(right) >= 76
    assert "model       version  digit  label  predicted  probability" in played.text
    assert played.changed() == 0


def test_status_lists_host_model_version_and_state(rollout, play):
    played = play(str(PROJECT / "playbooks/status.yml"))
    assert not played.failed, played.text
    rows = [line.split()[:4] for line in played.text.splitlines()]
    for name in HOSTS:
        assert [name, "MLP", "2", "AVAILABLE"] in rows
        assert [name, "MLP", "1", "END"] in rows


def test_restart_that_an_interrupted_run_left_out_is_made_up_for(rollout, play, second_version, server_on):
    server = server_on("debian13a")
    before = server.main_pid()
    server.host.check_output("touch /etc/systemd/system/tensorflow-model-server.service")
    variables = {"examples_directory": str(second_version)}
    played = play(SERVING, "--limit=debian13a", variables=variables)
    assert not played.failed, played.text
    assert played.changed() == 1
    assert server.main_pid() != before
    assert server.versions("MLP") == {2: "AVAILABLE"}
    assert play(SERVING, "--limit=debian13a", variables=variables).changed() == 0


def test_rollback_serves_what_was_served_before_until_the_catalogue_changes(rollout, play, second_version, server_on):
    server, limit = server_on("debian13b"), "--limit=debian13b"
    before = server.main_pid()
    variables = {"examples_directory": str(second_version)}
    chosen = {**variables, "tfserving_rollout_models": ["MLP"]}
    told = re.compile(r"^debian13b +MLP +2 +1 +{.*\"versions\": \[1\]", re.MULTILINE)
    played = play(ROLLBACK, limit, "--check", variables=chosen)
    assert not played.failed, played.text
    assert told.search(played.text)
    assert server.versions("MLP")[2] == "AVAILABLE"

    played = play(ROLLBACK, limit, variables=chosen)
    assert not played.failed, played.text
    assert told.search(played.text)
    assert server.versions("MLP")[1] == "AVAILABLE"
    wait_for(lambda: server.versions("MLP")[2] == "END")
    assert server.versions("MLP_custom")[2] == "AVAILABLE"
    assert server.main_pid() == before

    played = play(SERVING, limit, variables=variables)
    assert (played.failed, played.changed()) == (False, 0), played.text
    assert "MLP was rolled back at" in played.words
    assert server.versions("MLP")[1] == "AVAILABLE"
    status = play(str(PROJECT / "playbooks/status.yml"), limit, variables=variables)
    assert re.search(r"^debian13b +MLP +2 +END .*rolled back at .* says to serve version 2$", status.text, re.MULTILINE)
    assert re.search(r"^debian13b +\S+Z +\S+@\S+ +MLP +2 +1$", status.text, re.MULTILINE)


def test_rollback_starts_a_server_that_is_down_and_an_override_ends_it(rollout, play, second_version, server_on):
    server, limit = server_on("debian12"), "--limit=debian12"
    server.host.check_output("systemctl stop tensorflow-model-server")
    variables = {"examples_directory": str(second_version)}
    played = play(ROLLBACK, limit, variables=variables)
    assert not played.failed, played.text
    for model in ("MLP", "MLP_custom"):
        assert server.versions(model) == {1: "AVAILABLE"}
    played = play(SERVING, limit, variables={**variables, "tfserving_rollout_override": True})
    assert not played.failed, played.text
    for model in ("MLP", "MLP_custom"):
        assert server.versions(model)[2] == "AVAILABLE"


def test_going_back_in_the_catalogue_restarts_nothing(rollout, play, second_version, server_on, digits):
    """It also ends the hold of the rollback above."""
    server = server_on("debian13b")
    before = server.main_pid()
    models = [
        {
            "name": "MLP",
            "source": str(second_version / "saved"),
            "model_version_policy": {"specific": {"versions": [1]}},
            "version_labels": {"stable": 1},
        },
        {"name": "MLP_custom", "source": str(second_version / "saved_with_signature")},
    ]
    played = play(SERVING, "--limit=debian13b", variables={"tfserving_models_catalog": models})
    assert not played.failed, played.text
    assert server.versions("MLP")[1] == "AVAILABLE"
    wait_for(lambda: server.versions("MLP")[2] == "END")
    wait_for(lambda: server.post("MLP/labels/stable", {"instances": [digits[0]["pixels"]]}).ok)
    assert server.main_pid() == before
    play(SERVING, "--limit=debian13b", variables={"examples_directory": str(second_version)})
    assert server.versions("MLP")[2] == "AVAILABLE"


def test_other_package_version_restarts_the_server_once_and_it_serves(rollout, play, second_version, server_on, digits):
    server = server_on("debian13a")
    variables = {"examples_directory": str(second_version)}
    for version in ("2.18.0", "2.19.1"):
        variables["tfserving_package_version"] = version
        before = server.main_pid()
        played = play(SERVING, "--limit=debian13a", variables=variables)
        assert not played.failed, played.text
        assert played.changed() == 2  # the package and the restart
        assert f"ModelServer: {version}" in server.host.check_output("tensorflow_model_server --version")
        assert server.main_pid() != before
        assert server.accuracy("MLP", digits) >= 0.95
    assert server.host.check_output("systemctl show --property=NRestarts --value tensorflow-model-server") == "0"


# A wrong key for one host.
KEY = (
    "{{ '0' * 40 if inventory_hostname == 'debian12'"
    " else lookup('ansible.builtin.file', lab_directory ~ '/apt-key.fingerprint') }}"
)


def test_failed_batch_stops_the_rest(play, on):
    played = play(SERVING, variables={"tfserving_serial": 1, "tfserving_apt_key_fingerprint": KEY})
    assert played.failed
    assert {name: counts["failed"] for name, counts in played.recap.items()} == dict.fromkeys(HOSTS, 0) | {HOSTS[0]: 1}
    assert "Store the signing key" in played.text
    assert "Create the user" not in played.text
    assert not on(HOSTS[0]).file("/run/tensorflow-serving.lock").exists


def test_host_with_bad_input_stops_a_rollout_before_its_first_batch(play):
    port = "{{ 8501 if inventory_hostname == 'debian13b' else 8500 }}"
    played = play(SERVING, variables={"tfserving_serial": 1, "tfserving_service_port": port})
    assert played.failed
    assert "debian13b failed or cannot be reached, so the rollout goes no further" in played.words
    assert "Store the signing key" not in played.text
    assert played.changed() == 0


def test_without_batches_one_host_does_not_hold_up_the_others(play, second_version):
    variables = {"examples_directory": str(second_version), "tfserving_apt_key_fingerprint": KEY}
    played = play(SERVING, variables=variables)
    assert played.failed
    assert {name: counts["failed"] for name, counts in played.recap.items()} == {
        "debian12": 1,
        "debian13a": 0,
        "debian13b": 0,
    }


# With this tag no server finds a model. The other host keeps the flags of the inventory.
WRONG_START = (
    "{{ {'model_config_file_poll_wait_seconds': 2}"
    " | combine({'saved_model_tags': 'typo'} if inventory_hostname != 'debian13b' else {}) }}"
)


def test_start_settings_that_fail_end_the_run_at_the_first_host_with_a_restart(play, second_version, server_on, digits):
    """A host without a restart is not held up."""
    before = {name: server_on(name).main_pid() for name in HOSTS}
    variables = {"examples_directory": str(second_version), "tfserving_service_flags": WRONG_START}
    played = play(SERVING, variables=variables)
    (failed,) = (name for name, counts in played.recap.items() if counts["failed"])
    (spared,) = {"debian12", "debian13a"} - {failed}
    assert played.recap["debian13b"]["ok"] > played.recap[spared]["ok"]  # which was only looked at
    assert "What served before serves." in played.words
    for name in HOSTS:
        assert (server_on(name).main_pid() == before[name]) is (name != failed)
        assert server_on(name).accuracy("MLP", digits) >= 0.95


def test_role_is_chosen_by_its_tag(play, second_version):
    played = play(SERVING, "--tags=models", variables={"examples_directory": str(second_version)})
    assert (played.failed, played.changed()) == (False, 0), played.text
    assert "Publish the versions" in played.text
    assert "Store the signing key" not in played.text


def test_installed_collection_does_the_same(play, second_version, tmp_path):
    """From the tarball, played by its full name from a directory outside the checkout."""
    galaxy = ["ansible-galaxy", "collection"]
    subprocess.run([*galaxy, "build", "--output-path", tmp_path, PROJECT], check=True, capture_output=True)
    tarball = next(tmp_path.glob("modelops-tensorflow_serving-*.tar.gz"))
    contents = subprocess.run(["tar", "tf", tarball], check=True, capture_output=True, text=True).stdout.splitlines()
    assert "playbooks/serving.yml" in contents
    left_out = ("tests/", "molecule/", ".lab/", ".venv/", ".collections/")
    assert not [name for name in contents if name.startswith(left_out)]
    subprocess.run(
        [*galaxy, "install", "--force", "--collections-path", tmp_path / "installed", tarball],
        check=True,
        capture_output=True,
    )
    played = play(
        "modelops.tensorflow_serving.serving",
        variables={"examples_directory": str(second_version)},
        env={"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "installed")},
    )
    assert not played.failed, played.text
    assert played.changed() == 0


def test_monitoring_leaves_what_remove_takes_away(play, server_on, tmp_path):
    """The clean host that is looked at after remove.yml has had the timer and both files."""
    host = server_on("debian12").host
    textfiles = "/var/lib/prometheus/node-exporter"
    host.check_output(f"mkdir -p {textfiles}")
    variables = {
        "tfserving_monitoring_prometheus_path": str(tmp_path),
        "tfserving_monitoring_prometheus_service": "",
        "tfserving_monitoring_prometheus_config_path": "",
        "tfserving_monitoring_promtool": "",
    }
    played = play(str(PROJECT / "playbooks/monitoring.yml"), "--limit=localhost,debian12", variables=variables)
    assert not played.failed, played.text
    assert host.check_output(f"ls {textfiles}").split() == ["tfserving-key.prom", "tfserving-versions.prom"]
    assert host.service("tfserving-versions.timer").is_running


def test_server_that_does_not_start_fails_with_its_log(play, second_version, server_on):
    """The last test: it leaves a failed unit behind, which remove.yml has to take away too."""
    host = server_on("debian12").host
    drop_in = "/run/systemd/system/tensorflow-model-server.service.d"
    broken = "[Service]\\nRestart=no\\nExecStart=\\nExecStart=/bin/sh -c 'echo no such luck; exit 7'\\n"
    host.check_output(f"mkdir -p {drop_in}")
    host.check_output(f'printf "{broken}" > {drop_in}/broken.conf')
    played = play(SERVING, "--limit=debian12", variables={"examples_directory": str(second_version)})
    host.check_output(f"rm -r {drop_in}")
    assert played.failed
    assert "tensorflow-model-server.service is failed, so nothing is served" in played.words
    assert "no such luck" in played.words

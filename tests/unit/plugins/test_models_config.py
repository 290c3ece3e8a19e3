"""models.config with a server that runs: the lab's model server as a process, and a stand-in for systemctl."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LAB_TESTS = Path(__file__).resolve().parents[1] / "lab" / "model_server"
sys.path.append(str(LAB_TESTS))

import golden_models  # noqa: E402
from lab_server import LabServer, Traffic, is_open, running, wait_for  # noqa: E402

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (  # noqa: E402
    control_group,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle import models_config  # noqa: E402
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server import live_config, server_process  # noqa: E402
from ansible_collections.modelops.tensorflow_serving.plugins.modules import model_servers  # noqa: E402

LOAD, MOVE, DROP = "load what the labels will lead to", "move the labels", "drop what is not wanted any more"
TAKE = "take the new file"


@pytest.fixture(scope="session")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of a model, y = 0.5 x + version."""
    target = tmp_path_factory.mktemp("golden")
    golden_models.main(str(target))
    return target / "affine"


UNIT = (
    "LoadState=loaded\nUnitFileState=enabled\nFragmentPath=\nNeedDaemonReload=no\nInvocationID=1\n"
    "ExecMainStartTimestampMonotonic=9000000000000000\n"
)


class Host:
    """A directory with models and models.config, the server that reads it, and the module that writes it."""

    def __init__(self, root: Path, affine: Path, run_module: Callable[..., dict[str, Any]]) -> None:
        self.root, self.models, self.path = root, root / "models", root / "models.config"
        self._affine, self._run_module = affine, run_module
        self.server: LabServer | None = None

    def publish(self, model: str, version: int, like: int | None = None) -> Path:
        """Publish a version by one rename; it predicts as version 1 or 2 of the exported model does."""
        base = self.models / model
        base.mkdir(parents=True, exist_ok=True)
        staging = base / f".staging-{version}"
        shutil.copytree(self._affine / str(like or version), staging)
        return staging.rename(base / str(version))

    @contextlib.contextmanager
    def serving(self, *flags: str) -> Iterator[LabServer]:
        flags = flags or ("--model_config_file_poll_wait_seconds=1", "--max_num_load_retries=0")
        flags += (f"--model_config_file={self.path}", "--num_load_threads=2", "--num_unload_threads=2")
        with running(self.root, *flags, "--allow_version_labels_for_unavailable_models=true") as server:
            self.server = server
            yield server

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        """Stand for systemctl and journalctl."""
        server = self.server
        if command[0] == "journalctl":
            lines = server.log().splitlines() if server else []
            return 0, "\n".join(map(self._entry, lines)), ""
        if server is None or not server.process.is_alive():
            return 0, f"{UNIT}ActiveState=inactive\nMainPID=0\nNRestarts=0\n", ""
        pid = server.process.pid
        return 0, f"{UNIT}ActiveState=active\nMainPID={pid}\nNRestarts=0\nControlGroup={control_group(pid)}\n", ""

    @staticmethod
    def _entry(line: str) -> str:
        """Return a line of the log, which has the seconds since the epoch at its front, as journalctl has it."""
        stamp = re.match(r"[IWE]0000 00:00:([0-9.]+) ", line)
        if stamp is None:
            return ""
        return json.dumps({"MESSAGE": line, "__REALTIME_TIMESTAMP": str(int(float(stamp[1]) * 1e6))})

    def configure(self, *catalog: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Run the module."""
        instance = {
            "name": "",
            "unit": "serving",
            "config_path": str(self.root),
            "port": 1,
            "rest_api_port": 1,
            "files": [],
        }
        instance |= {"rest_api_port": self.server.rest_port, "port": self.server.grpc_port} if self.server else {}
        instance |= {"models": [entry["name"] for entry in catalog]}
        arguments = {"state": "configured", "unit": "serving", "config_path": str(self.root), "group": str(os.getgid())}
        arguments |= {"package_directory": str(self.root / "packages")}
        arguments |= {"base_path": str(self.models), "timeout_seconds": 8, "instances": [instance]}
        result = self._run_module(model_servers, **(arguments | {"catalog": list(catalog)} | settings))
        if "failed" not in result:
            result |= result["models_config"]["serving"]
            result["diff"] = result["diff"][0]
            result["restart_reason"] = result["reasons"].get("serving", "")
            result["restart_needed"] = bool(result["restart_reason"])
        return result


@pytest.fixture
def host(
    tmp_path: Path, affine: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Host:
    created = Host(tmp_path, affine, run_module)
    monkeypatch.setattr(
        model_servers.AnsibleModule, "run_command", lambda _self, command, **_: created.run_command(command)
    )
    # That of a fork is what was forked.
    monkeypatch.setattr(server_process, "command_line", lambda _pid: created.server.arguments if created.server else [])
    for name, seconds in (("POLL_SECONDS", 0.1), ("REACTION_SECONDS", 1.5), ("SETTLE_SECONDS", 1.0)):
        monkeypatch.setattr(live_config, name, seconds)
    return created


def model(name: str, policy: Any = None, labels: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": "saved", "model_version_policy": policy, "version_labels": labels, **more}


def specific(*versions: int) -> dict[str, Any]:
    return {"specific": {"versions": list(versions)}}


# Without a server


def test_without_a_server_the_file_is_written_once(host: Host) -> None:
    host.publish("half", 1)
    result = host.configure(model("half"))
    assert (result["changed"], result["live"], result["restart_needed"]) == (True, False, False)
    assert "latest {" in host.path.read_text()
    assert host.path.stat().st_mode & 0o777 == 0o640
    before = host.path.stat()
    assert host.configure(model("half"))["changed"] is False
    assert host.path.stat() == before


def test_check_mode_says_what_would_change_and_changes_nothing(host: Host) -> None:
    host.publish("half", 1)
    result = host.configure(model("half"), check=True)
    assert result["changed"] is True, result
    assert result["diff"]["before"] == ""
    assert 'name: "half"' in result["diff"]["after"]
    assert not host.path.exists()
    host.configure(model("half"))
    assert host.configure(model("half"), check=True)["changed"] is False
    host.path.chmod(0o600)
    assert host.configure(model("half"), check=True)["changed"] is True
    assert host.path.stat().st_mode & 0o777 == 0o600


def test_check_mode_does_not_mind_that_nothing_is_published_yet(host: Host) -> None:
    assert host.configure(model("half"), check=True)["changed"] is True


def test_check_mode_counts_with_the_versions_that_the_catalogue_speaks_of(host: Host) -> None:
    host.publish("half", 1)
    host.configure(model("half", labels={"stable": 1}))
    result = host.configure(model("half", labels={"stable": 2}), check=True)
    assert "versions: 2" in result["diff"]["after"]
    assert host.configure(model("half", labels={"stable": 2}))["failed"]


def test_file_that_cannot_be_written_is_told(host: Host) -> None:
    host.publish("half", 1)
    host.path.with_name(".models.config.new").mkdir()
    result = host.configure(model("half"))
    assert "models.config cannot be written: [Errno 21] Is a directory" in result["msg"]


@pytest.mark.parametrize("is_there", [True, False])
def test_model_without_a_version_never_reaches_the_file(host: Host, is_there: bool) -> None:
    host.publish("half", 1)
    host.configure(model("half"))
    text = host.path.read_text()
    if is_there:
        (host.models / "empty" / ".staging-1").mkdir(parents=True)
    result = host.configure(model("half"), model("empty"))
    assert result["failed"]
    assert f"{host.models}/empty {'has no version' if is_there else 'does not exist'}" in result["msg"]
    assert "tfserving_models_catalog" in result["msg"]
    assert host.path.read_text() == text


def test_every_problem_of_the_catalogue_is_named(host: Host) -> None:
    host.publish("half", 1)
    host.publish("b", 1)
    result = host.configure(
        model("half", labels={"stable": 2}), model("b", specific(7)), model("half"), model("c", {"all": {}, "x": 1})
    )
    assert "Unsupported parameters" in result["msg"]
    result = host.configure(model("half", labels={"stable": 2}), model("b", specific(7)), model("half"))
    for part in ("half is listed more than once", "label stable points to version 2", "asks for version 7"):
        assert part in result["msg"]
    assert not host.path.exists()


# With a server


def test_label_moves_without_a_failed_request(host: Host) -> None:
    host.publish("half", 1)
    host.configure(model("half", labels={"stable": 1}))
    with host.serving() as server:
        server.wait_until_ready()
        host.publish("half", 2)
        with Traffic(server, "half/labels/stable") as labelled, Traffic(server, "half") as plain:
            time.sleep(1.5)  # the server finds version 2, and must leave version 1 to the label
            result = host.configure(model("half", labels={"stable": 2}))
            time.sleep(0.3)
        assert (result["changed"], result["live"], result["steps"]) == (True, True, [LOAD, MOVE, DROP])
        assert labelled.values() == [1.5, 2.5]
        assert plain.values() == [1.5, 2.5]
        assert server.states("half") == {"2": "AVAILABLE", "1": "END"}
        result = host.configure(model("half", labels={"stable": 2}))
        assert (result["changed"], result["steps"]) == (False, [])


def test_plain_changes_are_one_file_each(host: Host) -> None:
    host.publish("half", 1)
    host.publish("half", 2)
    host.publish("other", 1)
    host.configure(model("half"))
    with host.serving() as server, Traffic(server.wait_until_ready(), "half") as traffic:
        for catalog, states in (
            ([model("half", {"all": {}}), model("other")], {"1": "AVAILABLE", "2": "AVAILABLE"}),
            ([model("half", specific(2))], {"1": "END", "2": "AVAILABLE"}),
            ([model("half", {"latest": {"num_versions": 5}})], {"1": "AVAILABLE", "2": "AVAILABLE"}),
            ([model("half", {"all": {}})], {"1": "AVAILABLE", "2": "AVAILABLE"}),
        ):
            result = host.configure(*catalog)
            assert result["steps"] == [TAKE], result
            assert server.states("half") == states
            assert server.states("other").get("1") == ("AVAILABLE" if len(catalog) == 2 else "END")
        assert traffic.values() == [2.5]


def test_new_model_with_labels_is_loaded_before_its_labels_are_set(host: Host) -> None:
    host.publish("half", 1)
    host.publish("other", 2)
    host.configure(model("half", labels={"stable": 1}))
    with host.serving() as server:
        server.wait_until_ready()
        result = host.configure(model("half", labels={"stable": 1}), model("other", labels={"stable": 2}))
        assert result["steps"] == [LOAD, DROP]
        assert server.predict("other/labels/stable", 1.0).status == 200


def test_version_that_cannot_be_loaded_puts_the_previous_file_back(host: Host) -> None:
    host.publish("half", 1)
    host.configure(model("half", labels={"stable": 1}))
    text = host.path.read_text()
    with host.serving() as server:
        server.wait_until_ready()
        (host.publish("half", 2) / "saved_model.pb").unlink()
        result = host.configure(model("half", labels={"stable": 2}))
        assert result["msg"].startswith("The server cannot load half version 2 is END: NOT_FOUND")
        assert "The previous file was restored, and the server follows it." in result["msg"]
        assert "Loading servable: {name: half version: 2} failed" in result["msg"]
        assert host.path.read_text() == text
        assert server.predict("half/labels/stable", 1.0).json == {"predictions": [1.5]}


def test_refused_file_is_put_back_with_the_words_of_the_server(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.publish("half", 1)
    host.configure(model("half"))
    text = host.path.read_text()
    # What the server refuses and the module does not cannot be had from outside.
    junk = "nonsense: 1\n"
    render, parse = models_config.render, models_config.parse_models_config
    monkeypatch.setattr(models_config, "render", lambda *arguments: render(*arguments) + junk)
    monkeypatch.setattr(models_config, "parse_models_config", lambda content: parse(_without(content, junk)))
    host.publish("other", 1)
    with host.serving() as server:
        server.wait_until_ready()
        result = host.configure(model("half"), model("other"))
        assert "The server refuses the file: Failed to read ModelServerConfig file: Invalid protobuf" in result["msg"]
        assert "The previous file was restored, and the server follows it." in result["msg"]
        assert host.path.read_text() == text
        assert server.states("other") == {}


def _without(content: str | bytes, junk: str) -> str:
    return (content.decode() if isinstance(content, bytes) else content).replace(junk, "")


def test_server_that_refuses_every_file_needs_a_restart(host: Host) -> None:
    """A model without a platform is refused, and all later files are compared with it."""
    host.publish("half", 1)
    host.publish("other", 1)
    host.configure(model("half"))
    text = host.path.read_text()
    with host.serving() as server:
        server.wait_until_ready()
        host.path.write_text('model_config_list { config { name: "x" base_path: "/x" } }')
        server.wait_for_log("Illegal setting neither")
        host.path.write_text(text)
        result = host.configure(model("half"), model("other"), heal="restart")
        assert result["restart_needed"], result
        assert "refuses the previous file too" in result["restart_reason"]
        assert 'name: "other"' in host.path.read_text()


def test_version_that_does_not_predict_is_not_served(host: Host) -> None:
    host.publish("half", 1)
    host.configure(model("half", labels={"stable": 1}))
    text = host.path.read_text()
    sample = {"signature_name": "call", "instances": [1.0]}
    with host.serving() as server:
        server.wait_until_ready()
        host.publish("half", 2)
        samples = [sample, {"signature_name": "missing", "instances": [1.0]}]
        result = host.configure(model("half", labels={"stable": 2}, sample_requests=samples))
        assert "half version 2 is AVAILABLE, but a sample request of it is answered 400" in result["msg"]
        assert host.path.read_text() == text
        result = host.configure(model("half", labels={"stable": 2}, sample_requests=[sample]))
        assert result["steps"] == [LOAD, MOVE, DROP]


def test_killed_run_is_finished_by_the_next_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.publish("half", 1)
    host.publish("half", 2)
    first, wanted = model("half", specific(1), {"stable": 1}), model("half", specific(2), {"stable": 2})
    host.configure(first)
    write = models_config.ManagedFile.write
    with host.serving() as server, Traffic(server.wait_until_ready(), "half/labels/stable") as traffic:
        for written in (1, 2):
            left = iter(range(written))

            def killed(file: Any, text: str, left: Iterator[int] = left) -> None:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                write(file, text)

            with monkeypatch.context() as patch:
                patch.setattr(models_config.ManagedFile, "write", killed)
                with pytest.raises(KeyboardInterrupt):
                    host.configure(wanted)
            assert "another configuration" in host.path.read_text()
            if written == 1:  # as if somebody had rolled back in the meantime
                host.configure(first)
        result = host.configure(wanted)
        assert result["changed"]
        assert result["steps"] == [TAKE]
        assert server.states("half") == {"2": "AVAILABLE", "1": "END"}
        assert "another configuration" not in host.path.read_text()
        time.sleep(0.2)
    assert traffic.values() == [1.5, 2.5]


def test_server_stuck_by_somebody_is_told_and_left_to_a_restart(host: Host) -> None:
    host.publish("half", 1)
    host.configure(model("half"))
    text = host.path.read_text()
    with host.serving() as server:
        server.wait_until_ready()
        ghost = 'config { name: "ghost" base_path: "/nowhere/ghost" model_platform: "tensorflow" } }'
        host.path.write_text(text.rstrip().removesuffix("}") + ghost)
        server.wait_for_log("Could not find base path /nowhere/ghost")
        result = host.configure(model("half"))
        for part in ("model ghost in /nowhere/ghost", "tfserving_service_heal: restart", "Could not find base path"):
            assert part in result["msg"]
        # The file is right now, and the server still stuck.
        assert host.path.read_text() == text
        result = host.configure(model("half"), heal="restart")
        assert (result["restart_needed"], result["changed"], result["live"]) == (True, False, False)
        assert "model ghost in /nowhere/ghost" in result["restart_reason"]
    with host.serving() as server:
        server.wait_until_ready()
        result = host.configure(model("half"), heal="restart")
        assert (result["restart_needed"], result["changed"], result["live"]) == (False, False, True)


def test_server_that_waits_for_a_model_of_its_start_needs_a_restart(host: Host) -> None:
    host.publish("half", 1)
    host.path.write_text(
        'model_config_list { config { name: "g" base_path: "/nowhere/g" model_platform: "tensorflow" } }'
    )
    with host.serving() as server:
        server.wait_for_log("Could not find base path /nowhere/g")
        result = host.configure(model("half"), heal="restart")
        assert not is_open(server.rest_port)
        assert result["restart_needed"]
        assert "half" in host.path.read_text()


def test_version_that_is_tried_again_needs_a_restart_only_where_the_server_could_not_load_it(host: Host) -> None:
    for version in (1, 2):
        host.publish("half", version)
    host.configure(model("half", specific(1, 2)))
    with host.serving() as server:
        server.wait_until_ready()
        assert host.configure(model("half", specific(1)))["live"]  # 2 was loaded, and withdrawn for its answers
        (host.models / "half/.unproven-2").write_text("again\n")
        result = host.configure(model("half", specific(1, 2)))
        assert (result["live"], result["restart_needed"]) == (True, False)
        (host.publish("half", 3, like=1) / "saved_model.pb").write_bytes(b"no model")
        assert "half version 3 is END" in host.configure(model("half", specific(1, 3)))["msg"]
        (host.models / "half/.unproven-3").write_text("again\n")
        result = host.configure(model("half", specific(1, 3)))
        assert (result["live"], result["restart_needed"]) == (False, True)
        assert "has refused half version 3 before" in result["restart_reason"]


def test_server_that_does_not_look_at_the_file_needs_a_restart(host: Host) -> None:
    host.publish("half", 1)
    host.publish("other", 1)
    host.configure(model("half"))
    with host.serving("--max_num_load_retries=0") as server:
        server.wait_until_ready()
        assert host.configure(model("half"))["restart_needed"] is False
        result = host.configure(model("half"), model("other"))
        assert (result["changed"], result["live"], result["restart_needed"]) == (True, False, True)


def test_server_that_dies_is_told(host: Host) -> None:
    host.publish("half", 1)
    host.publish("other", 1)
    host.configure(model("half"))
    with host.serving() as server:
        server.wait_until_ready()
        (host.publish("other", 2) / "saved_model.pb").unlink()

        def kill_once_it_is_told() -> None:
            wait_for(lambda: "other" in host.path.read_text(), "the new file")
            server.process.kill()

        threading.Thread(target=kill_once_it_is_told).start()
        result = host.configure(model("half"), model("other"))
        assert "serving.service is inactive" in result["msg"]
        wait_for(lambda: not server.process.is_alive(), "the end of the server")

"""What a bad models.config does at a reload: a line in the log, and the old state stays.

Messages that were not recorded are from model_servers/server_core.cc:176, 583 and 665 of tensorflow/serving @ 9d981c5c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Publisher
from lab_server import LabServer, model_entry, running, wait_for, write_config, write_text

RELOAD = "PollFilesystemAndReloadConfig failed to ReloadConfig: "


TRANSITION = (
    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another.\n"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reload") / "models.config"


@pytest.fixture(scope="module")
def good(publisher: Publisher) -> str:
    """The entry of a good model, `half`."""
    publisher.publish("half", "1")
    return model_entry("half", publisher.base_path("half"))


@pytest.fixture(scope="module")
def server(config: Path, good: str) -> Iterator[LabServer]:
    write_config(config, good)
    flags = [f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1", "--max_num_load_retries=0"]
    with running(config.parent, *flags) as started:
        yield started.wait_until_ready()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list {", "Failed to read ModelServerConfig file: Invalid protobuf file: 'CONFIG'"),
        ("", "Failed to read ModelServerConfig file: CONFIG; Invalid argument"),
        (
            "# nothing\n",
            f"{RELOAD}Cannot transition to requested config. It is only legal to transition from one ModelConfigList "
            "to another.",
        ),
        ("model_config_list { GOOD GOOD }", f"{RELOAD}Illegal to list model half multiple times in config list"),
        (
            'model_config_list { config { name: "half" base_path: "rel/half" model_platform: "tensorflow" } }',
            f"{RELOAD}Expected model half to have an absolute path or URI; got base_path()=rel/half",
        ),
        (
            'model_config_list { GOOD config { name: "x" base_path: "/x" model_platform: "torch" } }',
            f"{RELOAD}Model x requests unsupported platform torch",
        ),
        (
            'model_config_list { config { name: "half" base_path: "/x" model_platform: "torch" } }',
            f"{RELOAD}Illegal to change a model's platform. For model half platform was tensorflow and new platform "
            "requested is torch",
        ),
    ],
)
def test_bad_file_is_logged_and_the_old_state_stays(
    server: LabServer, config: Path, good: str, text: str, message: str
) -> None:
    expected = message.replace("CONFIG", str(config))
    start = server.mark()
    write_text(config, text.replace("GOOD", good))
    server.wait_for_log(expected, after=start)
    assert server.states("half") == {"1": "AVAILABLE"}
    assert server.predict("half", 1.0).json == {"predictions": [1.5]}
    write_config(config, good)


def test_refused_transition_shows_both_configurations(server: LabServer, config: Path, good: str) -> None:
    start = server.mark()
    write_text(config, 'custom_model_config { type_url: "x" }')
    wanted = rf"^E0000 .*\] {TRANSITION}E0000 .*\] Old config: .*half.*^E0000 .*\] New config: custom_model_config"
    wait_for(lambda: re.search(wanted, server.log()[start:], re.MULTILINE | re.DOTALL), "three lines")
    write_config(config, good)


def test_missing_file_is_logged_at_every_poll(server: LabServer, config: Path, good: str) -> None:
    config.unlink()
    expected = f"Failed to read ModelServerConfig file: {config}; No such file or directory\n"
    start = server.mark()
    wait_for(lambda: server.log()[start:].count(expected) == 2, "two lines")
    assert server.states("half") == {"1": "AVAILABLE"}
    write_config(config, good)


def test_new_model_whose_warmup_fails_does_not_become_available(
    server: LabServer, config: Path, good: str, exported: Path
) -> None:
    start = server.mark()
    write_config(config, good, model_entry("badly_warm", exported / "badly_warm"))
    server.wait_for_log(
        f"{RELOAD}1 model(s) did not become available: {{{{{{name: badly_warm version: 1}} due to error: "
        'FAILED_PRECONDITION: Serving signature key "missing" not found.}, }',
        after=start,
    )
    assert server.states("badly_warm") == {"1": "END"}
    write_config(config, good)


def with_logging(entry: str) -> str:
    """Return an entry of models.config with an empty logging_config."""
    return entry.replace("config {", "config { logging_config { }", 1)


def test_logging_config_fails_every_reload_after_the_rest_of_the_file_has_taken_effect(
    server: LabServer, config: Path, good: str, publisher: Publisher
) -> None:
    publisher.publish("logged", "1")
    start = server.mark()
    write_config(config, good, with_logging(model_entry("logged", publisher.base_path("logged"))))
    refusal = f"{RELOAD}No request-logger-creator provided.\n"
    wait_for(lambda: server.log()[start:].count(refusal) == 2, "two refusals")
    assert server.predict("logged", 1.0).json == {"predictions": [1.5]}
    write_config(config, good)
    server.wait_for_states("logged", {"1": "END"})
    start = server.mark()
    server.wait_for_log("Finished adding/updating models", after=start)
    assert refusal not in server.log()[start:]


def test_logging_config_is_fatal_at_start(tmp_path: Path, good: str) -> None:
    write_config(tmp_path / "models.config", with_logging(good))
    with running(tmp_path, f"--model_config_file={tmp_path / 'models.config'}") as refusing:
        assert refusing.wait_for_exit() == 255
        assert refusing.stdout() == (
            "Failed to start server. Error: INVALID_ARGUMENT: No request-logger-creator provided.\n"
        )


def test_model_that_is_left_out_is_unloaded(server: LabServer, config: Path, good: str, publisher: Publisher) -> None:
    publisher.publish("passing", "1")
    write_config(config, good, model_entry("passing", publisher.base_path("passing")))
    server.wait_for_states("passing", {"1": "AVAILABLE"})
    write_config(config, good)
    server.wait_for_states("passing", {"1": "END"})
    assert server.predict("passing", 1.0).json == {"error": "Servable not found for request: Latest(passing)"}


def test_unavailable_label_is_refused_at_reload_without_the_flag(server: LabServer, config: Path, good: str) -> None:
    labelled = good.replace("config {", 'config { version_labels { key: "canary" value: 7 }')
    start = server.mark()
    write_config(config, labelled)
    server.wait_for_log(f"{RELOAD}Request to assign label to version 7 of model half", after=start)
    write_config(config, labelled.replace("7", "1", 1))
    wait_for(lambda: server.predict("half/labels/canary", 1.0).status == 200, "the label of an available version")
    write_config(config, good)


def test_model_without_platform_spoils_every_later_reload(server: LabServer, config: Path, good: str) -> None:
    """The last test of this server: it remembers the refused file, and compares the next ones with it."""
    message = (
        f"{RELOAD}Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
        "ModelServerConfig::model_platform, model name is x\n"
    )
    start = server.mark()
    write_config(config, good, 'config { name: "x" base_path: "/x" }')
    server.wait_for_log(message, after=start)
    write_config(config, good)
    start = server.mark()
    wait_for(lambda: server.log()[start:].count(message) == 2, "two more refusals")
    assert server.predict("half", 1.0).json == {"predictions": [1.5]}

"""The command line: flags, usage, and the combinations that keep the server from starting.

Values of the wrong type and missing files: recorded from a real server, and xla/tsl/util/command_line_flags.cc. What
may not be combined: model_servers/server.cc:185, 200, 241 and 257 of tensorflow/serving @ 9d981c5c.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from lab_server import PACKAGE_PARENT
from model_server import __main__ as entry
from model_server import flags


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the server to its end, with TensorFlow out of its reach."""
    hide = "import sys; sys.modules['tensorflow'] = None"
    code = f"{hide}; from model_server.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=30, check=False, cwd=PACKAGE_PARENT
    )


def test_version_is_printed_in_two_lines_without_tensorflow_in_under_a_second() -> None:
    before = sum(os.times()[2:4])  # the CPU time of ended processes, as others may be at work besides
    outcome = run("--version")
    assert sum(os.times()[2:4]) - before < 1.0
    assert outcome.returncode == 0
    assert outcome.stdout.splitlines() == [
        f"TensorFlow ModelServer: {metadata.version('tensorflow-serving-api')}",
        f"TensorFlow Library: {metadata.version('tensorflow-cpu')}",
    ]


def test_version_file_overrides_the_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("9.8.7\n", encoding="utf-8")
    monkeypatch.setattr(entry, "__file__", str(tmp_path / "__main__.py"))
    assert entry.server_version() == "9.8.7"


def test_help_prints_the_usage_and_exits_with_255() -> None:
    outcome = run("--help")
    assert outcome.returncode == 255
    lines = outcome.stdout.splitlines()
    assert lines[:2] == ["usage: -c", "Flags:"], "the program is named as it was called"
    assert lines[2].startswith("\t--port=8500                      \tint32\tTCP port to listen on for gRPC")
    assert [line.split("=")[0] for line in lines[2:]] == [f"\t--{flag.name}" for flag in flags.FLAGS]


@pytest.mark.parametrize(
    ("setting", "type_name"),
    [
        ("--rest_api_port=0", "int32"),
        ("--load_retry_interval_micros=60000000", "int64"),
        ("--flush_filesystem_caches=true", "bool"),
        ("--enable_batching=false", "bool"),
        ('--model_name="default"', "string"),
        ('--saved_model_tags="serve"', "string"),
        ("--per_process_gpu_memory_fraction=0.000000", "float"),
    ],
)
def test_usage_shows_default_and_type(setting: str, type_name: str) -> None:
    assert f"\t{setting:<33}\t{type_name}\t" in flags.usage("tensorflow_model_server")


def test_values_are_parsed_by_type() -> None:
    parsed = flags.parse(
        ["--port=1", "--enable_batching", "--flush_filesystem_caches=false", "--model_name=a=b", "--port=2"]
    )
    assert parsed.ok
    assert not parsed.unknown
    assert parsed.values["port"] == 2
    assert parsed.values["enable_batching"] is True
    assert parsed.values["flush_filesystem_caches"] is False
    assert parsed.values["model_name"] == "a=b"
    assert parsed.values["max_num_load_retries"] == 5


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("0", False), ("False", False)])
def test_bool_may_be_a_digit_and_in_any_case(text: str, value: bool) -> None:
    assert flags.parse([f"--enable_batching={text}"]).values["enable_batching"] is value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", ""),
        ("port", "1x"),
        ("num_load_threads", "99999999999"),
        ("load_retry_interval_micros", str(2**63)),
        ("enable_batching", "maybe"),
        ("per_process_gpu_memory_fraction", "x"),
    ],
)
def test_value_of_the_wrong_type_is_refused(name: str, value: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert not flags.parse([f"--{name}={value}"]).ok
    assert capfd.readouterr().err.endswith(f"] Couldn't interpret value {value} for flag {name}.\n")


@pytest.mark.parametrize("argument", ["--port", "-port=1", "--Port=1", "extra", "--model_nam=x", "--enable_batchingX"])
def test_misspelt_argument_is_unknown_and_not_fatal(argument: str) -> None:
    parsed = flags.parse([argument])
    assert parsed.ok
    assert parsed.unknown == [argument]


BASE_PATH = "--model_base_path=/nowhere"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "INVALID_ARGUMENT: Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            [BASE_PATH, "--port=0"],
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
        ),
        (
            [BASE_PATH, "--batching_parameters_file=/nowhere"],
            "INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true.",
        ),
        (
            [
                BASE_PATH,
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "You cannot configure all.",
        ),
        (["--model_config_file=/nowhere"], "NOT_FOUND: /nowhere; No such file or directory"),
        (
            [BASE_PATH, "--enable_batching", "--batching_parameters_file=/nowhere"],
            "NOT_FOUND: /nowhere; No such file or directory",
        ),
        ([BASE_PATH, "--platform_config_file=/nowhere"], "NOT_FOUND: /nowhere; No such file or directory"),
    ],
)
def test_combination_that_the_real_server_refuses_is_fatal(
    arguments: list[str], problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(arguments) == 255
    printed = capfd.readouterr().out
    assert printed.startswith("Failed to start server. Error: ")
    assert problem in printed

"""The server's flags: what its usage text says, and which values and combinations are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.flags import (
    KNOWN_FLAGS,
    Setting,
    command_line,
    flag_text,
    installed_flags,
    parse_usage,
    rest_timeout_seconds,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

from model_server import flags as server  # noqa: E402 - the command line of the lab's server, which is upstream's

TYPES = {flag.name: flag.type_name for flag in server.FLAGS}


def problems(flags: dict[str, Any], **settings: Any) -> list[str]:
    """Return what is wrong with flags, beside settings whose variables are named after them."""
    role = {name: Setting(value, f"the_{name}") for name, value in settings.items()}
    return command_line(KNOWN_FLAGS, role, flags, lambda _: "the_flags")[1]


def test_usage_text_names_every_flag_and_its_type() -> None:
    assert parse_usage(server.usage("tensorflow_model_server")) == TYPES


def test_flags_for_a_host_without_the_server_are_upstreams() -> None:
    assert KNOWN_FLAGS == TYPES


def test_usage_text_after_other_lines_and_with_longer_names_is_understood() -> None:
    longer = "\t--a_name_that_is_longer_than_the_column=0.500000\tfloat\tNew --port=1\tstring\n"
    found = parse_usage(f"2026-11-24 12:00:00: I tensorflow/core --x\n{server.usage('./server')}{longer}")
    assert found == {**TYPES, "a_name_that_is_longer_than_the_column": "float"}


@pytest.mark.parametrize(
    "text",
    ["", "Failed to start server. Error: UNKNOWN", "usage: other\n\t--port=1\tint32\tPort\n", "Illegal instruction"],
)
def test_other_text_is_no_usage_text(text: str) -> None:
    assert parse_usage(text) == {}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "server"
    path.write_text("#!/bin/sh\nkill -ILL $$\n")
    path.chmod(0o755)
    return path


def test_server_that_cannot_run_or_is_missing_says_nothing(program: Path) -> None:
    assert installed_flags(str(program)) == {}
    assert installed_flags(str(program) + ".missing") == {}


def test_server_that_exits_with_an_error_after_its_usage_is_believed(program: Path) -> None:
    (program.parent / "usage").write_text(server.usage("server"))
    program.write_text(f"#!/bin/sh\ncat {program.parent}/usage\nexit 255\n")
    assert installed_flags(str(program)) == TYPES


@pytest.mark.parametrize(
    ("type_name", "value", "text"),
    [
        ("bool", True, "true"),
        ("bool", "no", "false"),
        ("bool", 1, "true"),
        ("int32", "12", "12"),
        ("int32", -1, "-1"),
        ("int64", 2**40, str(2**40)),
        ("float", 0.5, "0.5"),
        ("float", "1e-3", "1e-3"),
        ("string", "a=b c", "a=b c"),
        ("string", 5, "5"),
        ("string", "", ""),
    ],
)
def test_value_is_written_as_the_server_reads_it(type_name: str, value: Any, text: str) -> None:
    assert flag_text(type_name, value) == text


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("bool", "maybe"),
        ("bool", 2),
        ("int32", "1s"),
        ("int32", 1.5),
        ("int32", True),
        ("int32", 2**31),
        ("int32", ""),
        ("int64", 2**63),
        ("float", "half"),
        ("float", "nan"),
        ("string", True),
        ("string", ["a"]),
        ("int32", {}),
    ],
)
def test_value_that_the_server_cannot_read_is_refused(type_name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="true or false|number|integer|text"):
        flag_text(type_name, value)


def test_every_value_that_is_let_through_is_read_by_the_server() -> None:
    settings = {
        "port": Setting(8500, "p"),
        "num_load_threads": Setting("2", "n"),
        "enable_batching": Setting("no", "b"),
    }
    flags = {"per_process_gpu_memory_fraction": "0.25", "saved_model_tags": "serve", "grpc_max_threads": None}
    arguments, wrong = command_line(KNOWN_FLAGS, settings, flags, lambda _: "the_flags")
    assert wrong == []
    parsed = server.parse(arguments)
    assert (parsed.ok, parsed.unknown) == (True, [])
    assert parsed.values["num_load_threads"] == 2
    assert parsed.values["per_process_gpu_memory_fraction"] == 0.25
    assert not [argument for argument in arguments if argument.startswith("--grpc_max_threads")]


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("enable_profilr", "The nearest one is enable_profiler."),
        ("--grpc-max-threads", "The nearest one is grpc_max_threads."),
        ("rest_port", "The nearest one is rest_api_port."),
        ("zzz", "`tensorflow_model_server --help` lists them."),
    ],
)
def test_unknown_flag_is_refused_with_the_nearest(flag: str, nearest: str) -> None:
    (problem,) = problems({flag: 1})
    assert problem == f"the_flags: the server has no flag {flag}, and would ignore it. {nearest}"


def test_flag_of_a_variable_names_the_variable_even_where_it_is_unset() -> None:
    assert problems({"ssl_config_file": "/x"}, ssl_config_file=None) == [
        "the_flags: ssl_config_file is set by the_ssl_config_file; set that instead."
    ]


@pytest.mark.parametrize(
    ("flag", "way_out"), [("model_name", "catalog"), ("model_base_path", "base_path"), ("version", "exits")]
)
def test_flag_that_makes_no_sense_is_refused(flag: str, way_out: str) -> None:
    (problem,) = problems({flag: "x"})
    assert f"{flag} cannot be set" in problem
    assert way_out in problem


@pytest.mark.parametrize(
    ("flags", "settings", "words"),
    [
        ({}, {"port": 1, "rest_api_port": 1}, ["the_port", "the_rest_api_port", "two different ports"]),
        (
            {"enable_per_model_batching_parameters": True},
            {"enable_batching": False},
            ["enable_per_model_batching_parameters in the_flags", "set the_enable_batching, or"],
        ),
        (
            {"tensorflow_inter_op_parallelism": 1},
            {"tensorflow_session_parallelism": 1},
            ["the_tensorflow_session_parallelism", "tensorflow_inter_op_parallelism in the_flags"],
        ),
        ({"use_alts_credentials": True}, {"ssl_config_file": "/s"}, ["use_alts_credentials in", "the_ssl_config_file"]),
        (
            {"enable_batching": True},
            {"platform_config_file": "/p"},
            ["the_platform_config_file makes", "enable_batching"],
        ),
    ],
)
def test_combination_that_the_server_refuses_or_mangles_names_both(
    flags: dict[str, Any], settings: dict[str, Any], words: list[str]
) -> None:
    (problem,) = problems(flags, **settings)
    assert [word for word in words if word not in problem] == []


@pytest.mark.parametrize(
    "flags",
    [
        {"tensorflow_intra_op_parallelism": 1, "tensorflow_inter_op_parallelism": 2},
        {"tensorflow_session_parallelism": 2, "tensorflow_inter_op_parallelism": 0},
        {"enable_batching": "true", "enable_per_model_batching_parameters": True},
        {"use_alts_credentials": False},
    ],
)
def test_combination_that_the_server_takes_is_let_through(flags: dict[str, Any]) -> None:
    assert problems(flags, ssl_config_file="/s", tensorflow_session_config_file="/c") == []


def test_all_problems_are_told_at_once() -> None:
    assert len(problems({"nonsense_1": 1, "nonsense_2": 1, "grpc_max_threads": "x"}, port=1, rest_api_port=1)) == 4


def test_installed_server_without_a_flag_is_not_given_it_and_says_so_where_it_matters() -> None:
    without = {name: kind for name, kind in KNOWN_FLAGS.items() if name not in ("enable_profiler", "grpc_max_threads")}
    settings = {"enable_profiler": Setting(False, "the_profiler"), "grpc_max_threads": Setting(None, "the_threads")}
    assert command_line(without, settings, {}, lambda _: "the_flags") == ([], [])
    settings = {"enable_profiler": Setting(True, "the_profiler"), "grpc_max_threads": Setting(4, "the_threads")}
    _, wrong = command_line(without, settings, {}, lambda _: "the_flags")
    assert wrong == [
        "the_profiler is set, and the installed server has no flag enable_profiler; unset it.",
        "the_threads is set, and the installed server has no flag grpc_max_threads; unset it.",
    ]
    flags = {"enable_profiler": False, "grpc_max_threads": None}
    assert command_line(without, {}, flags, lambda _: "the_flags") == ([], [])


@pytest.mark.parametrize("flag", ["num_load_threads", "num_unload_threads"])
@pytest.mark.parametrize("value", [1, None])
def test_one_bad_version_never_blocks_all_others(flag: str, value: Any) -> None:
    (problem,) = problems({flag: value})
    assert f"{flag} {'is null' if value is None else 'in the_flags is 1'}; it has to be at least 2: with" in problem
    assert "the_flags" in problem


@pytest.mark.parametrize(("arguments", "seconds"), [([], 30), (["--rest_api_timeout_in_ms=11001", "--port=1"], 12)])
def test_rest_timeout_is_the_servers_in_whole_seconds(arguments: list[str], seconds: int) -> None:
    assert rest_timeout_seconds(arguments) == seconds

"""No value breaks out of its place in a file that root's programs read: it arrives as it is, or is refused.

nginx's is in test_gateway_site.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from google.protobuf import text_format
from rendered_templates import render
from written_values import values

from ansible_collections.modelops.tensorflow_serving.plugins.filter.apt_proxy import apt_proxy
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.input import repository_problems
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    render_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.flags import KNOWN_FLAGS
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    Host,
    Instance,
    InstancesError,
    instances,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.networks import allowed_networks

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from model_server import text_protos  # noqa: E402 - what tensorflow-serving-api does not ship
from tensorflow_serving.config import model_server_config_pb2  # noqa: E402

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


# Units


def made(**role: Any) -> Instance:
    given: dict[str, Any] = {
        "unit": "serving",
        "config_path": "/etc/serving",
        "models": [],
        "settings": {},
        "flags": {},
        "environment": {},
        "port": 8500,
        "rest_api_port": 8501,
    }
    (one,) = instances([{}], given | role, Host(KNOWN_FLAGS, set(range(8)), {0}))
    return one


def read_unit(instance: Instance) -> list[tuple[str, str, str]]:
    """Return section, key and value of each setting of a unit, as systemd.syntax(7) has them."""
    text = render(
        "tfserving_service",
        "tensorflow-model-server.service.j2",
        item=vars(instance),
        tfserving_service_name="serving",
        tfserving_user="tfserving",
        tfserving_group="tfserving",
        __tfserving_service_nftables_unit="networks.service",
        __tfserving_host={"servers": {"systemd_version": 252}, "networks": {"allowed": []}},
    )
    assert not CONTROL.search(text.replace("\n", ""))
    section, settings = "", []
    for line in re.sub(r"\\\n *", " ", text).split("\n"):
        if line.startswith("["):
            section = line
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            settings.append((section, key, value))
    return settings


def words_of(value: str, is_command: bool) -> list[str]:
    """Return the words of a value as systemd reads them: quotes, escapes, specifiers, and variables of a command."""
    words = []
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', value):
        assert plain or quoted or value == '""'
        word = plain or re.sub(r"\\(.)", r"\1", quoted)
        assert not plain or re.fullmatch(r"[^\"'\\%]*", plain)
        assert not re.search(r"%(?!%)", word.replace("%%", ""))
        word = word.replace("%%", "%")
        if is_command:
            assert "$" not in word.replace("$$", "")
            word = word.replace("$$", "$")
        words.append(word)
    return words


BASE = [setting[:2] for setting in read_unit(made(environment={"A": "b"}))]


def test_unit_holds_a_value_as_it_is_or_not_at_all() -> None:
    for value in values("unit"):
        given = {"environment": {"A": value}, "flags": {"saved_model_tags": value}}
        if CONTROL.search(value):
            with pytest.raises(InstancesError, match="take the control characters out") as refused:
                made(**given)
            assert not CONTROL.search(str(refused.value).replace("\n", ""))
            continue
        settings = read_unit(made(**given))
        assert [setting[:2] for setting in settings] == BASE
        found = {key: text for _, key, text in settings if key in ("Environment", "ExecStart")}
        assert words_of(found["Environment"], is_command=False) == [f"A={value}"]
        assert f"--saved_model_tags={value}" in words_of(found["ExecStart"], is_command=True)


@pytest.mark.parametrize("name", ["unit", "memory_high", "memory_max", "cpus"])
def test_unit_takes_no_setting_from_another(name: str) -> None:
    for value in values(name):
        try:
            settings = read_unit(made(environment={"A": "b"}, **{name: value}))
        except InstancesError:
            continue
        more = {"memory_high": "MemoryHigh", "memory_max": "MemoryMax", "cpus": "CPUAffinity"}
        assert {setting[:2] for setting in settings} - {*BASE} <= {("[Service]", more.get(name, ""))}


# The server's files


def test_files_of_the_server_hold_a_value_as_it_is() -> None:
    for value in values("protobuf"):
        text = render(
            "tfserving_service",
            "batching_parameters.config.j2",
            tfserving_service_batching_parameters={"thread_pool_name": value},
        )
        read = text_format.Parse(text, text_protos.new("BatchingParameters"))
        assert read.thread_pool_name.value == value
        model = {"name": "MLP", "base_path": f"/{value}", "model_platform": "tensorflow", "version_labels": {value: 1}}
        config = text_format.Parse(render_models_config([model]), model_server_config_pb2.ModelServerConfig())
        (entry,) = config.model_config_list.config
        assert (entry.base_path, dict(entry.version_labels)) == (f"/{value}", {value: 1})


# Networks


def test_rules_of_nftables_have_networks_alone() -> None:
    taken = 0
    for value in values("nft"):
        try:
            networks = allowed_networks([value], [])
        except ValueError:
            continue
        taken += 1
        assert all(re.fullmatch(r"[0-9a-f.:]+/\d+", network) for network in networks)
    assert taken


# apt


@pytest.mark.parametrize("field", ["uri", "suite", "components"])
def test_source_of_apt_holds_a_value_as_it_is_or_not_at_all(field: str) -> None:
    good = {"uri": "https://host/path", "suite": "stable", "components": ["main"], "key_fingerprint": "0" * 40}
    taken = 0
    for value in values(field):
        given = good | {field: {"uri": f"https://host/{value}", "suite": value, "components": [value]}[field]}
        if repository_problems(given, "tfserving_apt_"):
            continue
        taken += 1
        text = render(
            "tfserving_apt",
            "tensorflow-serving.sources.j2",
            **{f"tfserving_apt_{name}": one for name, one in given.items()},
            __tfserving_apt_keyring="/keyring",
        )
        lines = [line for line in text.split("\n") if line and line[0] != "#"]
        assert lines == [
            "Types: deb",
            f"URIs: {given['uri']}",
            f"Suites: {given['suite']}",
            f"Components: {given['components'][0]}",
            "Architectures: amd64",
            "Signed-By: /keyring",
        ]
        assert not re.search(r"\s|[^!-~]", "".join([str(given["uri"]), str(given["suite"]), given["components"][0]]))
    assert taken


@pytest.mark.parametrize(
    "proxy", ["http://user:{}@proxy:3128", "http://{}:password@proxy:3128", "http://{}:3128", "http://proxy:{}"]
)
def test_proxy_has_no_second_setting(proxy: str) -> None:
    quote: list[Callable[[str], str]] = [str, lambda text: "".join(f"%{byte:02X}" for byte in text.encode())]
    for value in values(proxy):
        for form in quote:
            try:
                found = apt_proxy("https://host/path", proxy.format(form(value)), [])
            except AnsibleFilterError:
                continue
            assert re.fullmatch(r"https?://[\w.:\[\]-]+", found["proxy"], re.ASCII)
            assert len(found["netrc"].split(" ")) in (1, 6)
            assert not CONTROL.search(found["netrc"])

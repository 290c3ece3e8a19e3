"""The gateway's site, as the role's template writes it, read as nginx reads it: no value leaves its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from rendered_templates import render
from written_values import values

from ansible_collections.modelops.tensorflow_serving.plugins.filter.nginx_word import nginx_word
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import control_characters
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import input as gateway_input
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.trial import trial_texts
from ansible_collections.modelops.tensorflow_serving.plugins.modules import gateway_info

RunModule = Callable[..., dict[str, Any]]
ROLE = Path(__file__).resolve().parents[3] / "roles/tfserving_gateway"
ESCAPED = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}


@dataclass
class Directive:
    """A directive of nginx: its words as nginx takes them, and what is in its block."""

    words: list[str]
    block: list[Directive] = field(default_factory=list)

    def all(self) -> Iterator[Directive]:
        yield self
        for one in self.block:
            yield from one.all()


def read(text: str) -> Directive:
    """Read a configuration by the rules of ngx_conf_read_token(). Raises ValueError where nginx would refuse it."""
    whole = Directive([""])
    open_blocks, words, at = [whole], [], 0

    def word() -> str:
        """Return the word that begins at this place, and go behind it."""
        nonlocal at
        begin, quote, end = at, "", len(text)
        if text[at] in "\"'":
            quote = text[at]
            begin = at = at + 1
        while at < end:
            if text[at] == "\\":
                at += 2
            elif quote and text[at] == quote:
                break
            elif not quote and text[at : at + 2] == "${":
                at += 2
            elif not quote and text[at] in " \t\r\n;{":
                break
            else:
                at += 1
        if at >= end:
            raise ValueError("the file ends within a word")
        found = re.sub(r"\\([\"'\\trn])", lambda match: ESCAPED[match[1]], text[begin:at], flags=re.DOTALL)
        if quote:
            at += 1
            if text[at] not in " \t\r\n;{)":
                raise ValueError(f"unexpected {text[at]!r} after a quote")
        return found

    while at < len(text):
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char == "#":
            at = text.find("\n", at)
        elif char in ";{":
            open_blocks[-1].block.append(Directive(words))
            if not words:
                raise ValueError(f"unexpected {char}")
            if char == "{":
                open_blocks.append(open_blocks[-1].block[-1])
            words, at = [], at + 1
        elif char == "}":
            if words or len(open_blocks) == 1:
                raise ValueError("unexpected }")
            open_blocks.pop()
            at += 1
        else:
            words.append(word())
    if words or len(open_blocks) > 1:
        raise ValueError("the file ends within a directive")
    return whole


def shape(directive: Directive) -> Any:
    """Return what there is, without what it says: names of directives, counts of words, and the same of blocks."""
    return directive.words[0].partition("~")[0], len(directive.words), [shape(one) for one in directive.block]


def words(directive: Directive) -> list[str]:
    return [word for one in directive.all() for word in one.words]


INPUT: dict[str, Any] = {
    "names": ["NAMES"],
    "port": 8443,
    "metrics_path": "/METRICS",
    "open": ["predict", "status", "metrics"],
    "users": {"clinic": "secret"},
    "files_on_host": True,
    "certificate": "/CERTIFICATE",
    "key": "/KEY",
    "client_ca": "pem",
    "traffic": {"other": {"split": {"LABEL": 10}, "sticky": "header X-User", "mirror": {"LABEL": 0.5}}},
    "limits": {
        "max_body_megabytes": 16,
        "client_requests_per_second": 1000,
        "client_burst": 1000,
        "client_concurrent_requests": 200,
        "timeout_seconds": 35,
        "drain_timeout_seconds": 30,
    },
}
SERVER = {"name": "NAME", "unit": "UNIT", "port": 8500, "rest_api_port": 8501, "models": ["MODEL", "other"]}
OTHER = {"name": "other", "unit": "other", "port": 8510, "rest_api_port": 8511, "models": ["other"]}


@pytest.fixture
def written(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return the site for changed input. Raises ValueError with what is wrong with the input, AnsibleFilterError."""
    for check in ("check_pair", "check_authority"):
        monkeypatch.setattr(gateway_input, check, lambda *_: None)
    own = yaml.safe_load((ROLE / "vars/main.yml").read_text())

    def run(server: dict[str, Any] | None = None, managed: str = "MANAGED", **changed: Any) -> str:
        instances = [{**SERVER, **(server or {})}, OTHER]
        given = {**INPUT, **changed}
        result = run_module(gateway_info, instances=instances, **given)
        if result.get("failed"):
            raise ValueError(result["msg"])
        variables = {
            **own,
            "ansible_managed": managed,
            "__tfserving_gateway_plan": result,
            "__tfserving_host": {"servers": {"instances": instances}},
            "__tfserving_gateway_certificate_path": given["certificate"],
            "__tfserving_gateway_key_path": given["key"],
            "tfserving_service_monitoring_path": given["metrics_path"],
            "tfserving_service_ssl": {},
            "__tfserving_gateway_has_http2_directive": False,
            **{f"tfserving_gateway_{name}": given[name] for name in ("port", "names", "users", "client_ca")},
        }
        return render("tfserving_gateway", "gateway.conf.j2", **variables)

    return run


def test_words_are_read_as_nginx_reads_them() -> None:
    text = "a 'b \\' #c' \"d;{\\\\\\n\" e\\;f ${g}# ; # h ;\ni { j k; }"
    assert [one.words for one in read(text).all()] == [
        [""],
        ["a", "b ' #c", "d;{\\\n", "e\\;f", "${g}#"],
        ["i"],
        ["j", "k"],
    ]
    for bad in ("a", "a {", "}", "a }", '"a"b;', "'a;", ";"):
        with pytest.raises(ValueError, match="unexpected|ends within"):
            read(bad)


def test_what_is_written_as_a_word_is_read_as_it() -> None:
    taken = [text for text in ("", *values("words")) if "$" not in text and not control_characters("", text)]
    for text in taken:
        assert read(f"a {nginx_word(text)} b;").block[0].words == ["a", text, "b"]
    assert len(taken) > 50


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "NAMES": lambda value: {"names": [value]},
    "/CERTIFICATE": lambda value: {"certificate": f"/{value}"},
    "/KEY": lambda value: {"key": f"/{value}"},
    "/METRICS": lambda value: {"metrics_path": f"/{value}"},
    "UNIT": lambda value: {"server": {"unit": value}},
    "NAME": lambda value: {"server": {"name": value}},
    "MODEL": lambda value: {"server": {"models": [value, "other"]}},
    "MANAGED": lambda value: {"managed": value},
    "LABEL": lambda value: {
        "traffic": {"other": {"split": {value: 10}, "sticky": "header X-User", "mirror": {value: 0.5}}}
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_no_value_leaves_its_place(place: str, written: Callable[..., str]) -> None:
    """It is refused, or it is where a plain word would be, whole, and nothing else is another."""
    plain = read(written())
    marker = place.lstrip("/")
    taken = []
    for value in values(place, 60):
        try:
            text = written(**PLACES[place](value))
        except (ValueError, AnsibleFilterError):
            continue
        taken.append(value)
        site = read(text)
        assert shape(site) == shape(plain), value
        expected = [
            word.replace(marker, re.escape(value) if word.startswith(("^", "~^")) else value)
            if re.search(rf"\b{marker}\b", word)
            else word
            for word in words(plain)
        ]
        assert words(site) == expected, value
    assert "a" in taken


@pytest.mark.parametrize("name", INPUT["limits"])
def test_numbers_are_numbers(name: str, written: Callable[..., str]) -> None:
    for value in values(name, 0):
        with pytest.raises(ValueError, match=f"{name.removeprefix('client_')} is "):
            written(limits={**INPUT["limits"], name: value})


def named(directives: Directive, *first: str) -> list[Directive]:
    """Return the directives that begin with these words."""
    return [one for one in directives.all() if tuple(one.words[: len(first)]) == first]


def test_shares_are_those_of_split_clients(written: Callable[..., str]) -> None:
    traffic = {
        "MODEL": {"split": {"b": 33.33, 7: "10", "a": 0}, "mirror": {"b": 100}},
        "other": {"split": {"b": 1}, "sticky": "address"},
        "absent": {"split": {"b": 1}},
    }
    site = read(written(traffic=traffic))
    found = [(one.words[1:], [share.words for share in one.block]) for one in named(site, "split_clients")]
    rest = ["*", ""]
    assert found == [
        (
            ["split $tfserving_model $request_id", "$tfserving_split_0"],
            [["10%", "/versions/7"], ["33.33%", "/labels/b"], rest],
        ),
        (["mirror $tfserving_model $request_id", "$tfserving_mirror_0"], [["100%", "/labels/b"], rest]),
        (["split $tfserving_model $tfserving_address", "$tfserving_split_1"], [["1%", "/labels/b"], rest]),
        (["mirror $tfserving_model $request_id", "$tfserving_mirror_1"], [rest]),
    ]


def test_client_without_the_header_is_split_by_request(written: Callable[..., str]) -> None:
    site = read(written(traffic={"other": {"split": {"b": 1}, "sticky": "header X-User-2"}}))
    (sticky,) = named(site, "map", "$http_x_user_2")
    assert [one.words for one in sticky.block] == [["default", "$http_x_user_2"], ["", "$request_id"]]
    assert named(site, "split_clients", f"split $tfserving_model {sticky.words[2]}")


def test_only_requests_for_models_with_a_mirror_are_copied(written: Callable[..., str]) -> None:
    site = read(written(traffic={"other": {"mirror": {"b": 1}}}))
    patterns = [one.words[2] for one in named(site, "location", "~") if named(one, "mirror")]
    paths = [f"/v1/models/{model}:predict" for model in ("other", "MODEL")]
    assert [[bool(re.search(pattern, path)) for path in paths] for pattern in patterns] == [[True, False]]
    assert not named(read(written(traffic={"other": {"split": {"b": 1}, "mirror": {"b": 0}}})), "mirror")
    assert not named(read(written(traffic={})), "location", "=", "/mirrored")


@pytest.mark.parametrize("kind", ["mirror", "split"])
def test_step_of_a_rollout_is_for_requests_that_name_no_version(kind: str, written: Callable[..., str]) -> None:
    """And for the models of its candidates, each to its own; the site knows all that it names."""
    candidates = [
        {"unit": "candidate", "port": 40001, "models": ["a.b", "c"]},
        {"unit": "candidate-of-d", "port": 40002, "models": ["d"]},
    ]
    http, in_server = map(read, trial_texts(kind, 2.5, candidates).values())
    (drawn,) = named(http, "map", "$uri")
    patterns = [one.words[0] for one in drawn.block if one.words[0] != "default"]
    assert [one.words for one in named(http, "split_clients")[0].block] == [["2.5%", "1"], ["*", ""]]
    assert [one.words[1] for one in named(http, "server")] == ["127.0.0.1:40001", "127.0.0.1:40002"]
    taken = ["/v1/models/a.b:predict", "/v1/models/c:predict", "/v1/models/d:classify"]
    left = ["/v1/models/c/versions/1:predict", "/v1/models/axb:predict", "/v1/models/dd:predict", "/v1/models/d"]
    for path in (*taken, *left):
        assert any(re.search(pattern[1:], path) for pattern in patterns) is (path in taken), path
    places = named(in_server, "location", "~")
    tried = "/v1/models/d/tried:predict"
    assert [bool(re.search(one.words[2], tried)) for one in places] == [False, True]
    assert all(named(one, "internal") for one in places)
    passed = [one.words[1] for one in named(in_server, "proxy_pass")]
    assert {"http://tfserving_trial_0", "http://tfserving_trial_1"} < set(passed)
    assert {one.words[1] for one in named(in_server, "if") if one.words[1] == "(!-d"} == {"(!-d"}
    assert bool(named(in_server, "mirror")) is (kind == "mirror")

    site = read(written())
    assert named(site, "log_format", "tfserving_gateway_tried")
    assert [one.words[1] for one in named(site, "include")] == ["/etc/nginx/tfserving-gateway/trial*.conf"]
    routes = [one for one in named(site, "location", "~") if "POST)" in words(one)]
    assert routes
    assert all(named(one, "if", "($tfserving_trial") for one in routes)


@pytest.mark.parametrize(
    ("percent", "text"), [(100.0, "100%"), (5, "5%"), (0.01, "0.01%"), (33.3, "33.3%"), (10.0, "10%")]
)
def test_share_of_a_step_is_written_as_nginx_reads_it(percent: float, text: str) -> None:
    http = trial_texts("split", percent, [{"unit": "u", "port": 1, "models": ["m"]}])
    assert f"    {text} 1;" in next(iter(http.values()))


@pytest.mark.parametrize("form", ["tfserving_gateway", "tfserving_gateway_mirrored"])
def test_line_of_the_log_is_json_that_nginx_escapes(form: str, written: Callable[..., str]) -> None:
    (log,) = named(read(written()), "log_format", form)
    assert log.words[2] == "escape=json"
    line = json.loads(re.sub(r"(?<!\")\$[a-z_]+", "0.5", "".join(log.words[3:])))
    assert line["mirrored"] is (form == "tfserving_gateway_mirrored")
    assert {"model", "version", "label", "status", "request_time", "upstream_response_time"} <= set(line)
    assert {"upstream_addr", "upstream_status"} <= set(line)

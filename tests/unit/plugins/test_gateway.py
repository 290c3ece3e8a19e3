"""The gateway: which requests pass to which servers, passwords and certificates, and nginx's files on the host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import (
    nginx,
    secrets,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.routes import (
    OPEN,
    RoutePlan,
    plan,
    read_servers,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.secrets import (
    SecretError,
    check_authority,
    check_pem_pair,
    is_hash,
    password_file,
    self_signed,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.traffic import traffic_problems
from ansible_collections.modelops.tensorflow_serving.plugins.modules import gateway_info

RunModule = Callable[..., dict[str, Any]]
METRICS = "/monitoring/prometheus/metrics"
ONE: dict[str, Any] = {
    "name": "",
    "unit": "serving",
    "port": 8500,
    "rest_api_port": 8501,
    "models": ["a.b", "c"],
    "cpus": "",
}
FIRST = {**ONE, "name": "first", "unit": "serving-first"}
SECOND = {**ONE, "name": "second", "unit": "serving-second", "port": 8510, "rest_api_port": 8511, "models": ["c"]}
needs_openssl = pytest.mark.skipif(not Path(secrets.OPENSSL).exists(), reason="openssl makes the keys")


def planned(*instances: dict[str, Any], opened: list[str] | None = None) -> RoutePlan:
    return plan(read_servers(list(instances)), opened or ["predict"], METRICS)


def ports(made: RoutePlan, name: str) -> list[int]:
    (found,) = [one["servers"] for one in made.sets if one["name"] == name]
    return [server["rest_api_port"] for server in found]


def rest_ports(made: RoutePlan, method: str, path: str) -> list[int]:
    """Return where a REST request goes, nothing where it does not pass."""
    for route in made.rest:
        if re.search(route["pattern"], path):
            return ports(made, route["set"]) if route["method"] == method else []
    return []


def taken_by(made: RoutePlan, name: str, drained: str) -> list[int]:
    chosen = [choice[2] for choice in made.choices if choice[:2] == [name, drained]]
    return ports(made, chosen[0]) if chosen else []


@pytest.mark.parametrize(
    "path",
    [
        "a.b:predict",
        "a.b/versions/12:predict",
        "c/labels/stable_1:predict",
        'c/labels/a "{$b}" \\ 100% é:predict',
        "c/labels/a%20b:predict",
        "c/versions/1:predict",
    ],
)
def test_predictions_of_served_models_pass(path: str) -> None:
    assert rest_ports(planned(ONE), "POST", f"/v1/models/{path}") == [8501]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/c:predict"),
        ("POST", "/v1/models/axb:predict"),
        ("POST", "/v1/models/cc:predict"),
        ("POST", "/v1/models/c:classify"),
        ("POST", "/v1/models/c/versions/x:predict"),
        ("POST", "/v1/models/c/versions/1/labels/x:predict"),
        ("POST", "/v1/models/c/labels/:predict"),
        ("POST", "/v1/models/c/labels/a/b:predict"),
        ("POST", "/v1/models/c/labels/a:b:predict"),
        ("POST", "/v1/models/c/labels/a\rb:predict"),
        ("POST", "/v1/models/c/labels/a\x7f:predict"),
        ("POST", "/v1/models/c:predict/x"),
        ("POST", "/x/v1/models/c:predict"),
        ("GET", "/v1/models/c"),
        ("GET", "/v1/models/c/metadata"),
        ("GET", METRICS),
    ],
)
def test_nothing_else_passes(method: str, path: str) -> None:
    assert rest_ports(planned(ONE), method, path) == []
    assert planned(ONE).grpc == ["/tensorflow.serving.PredictionService/Predict"]
    assert planned(ONE).metrics == []


@pytest.mark.parametrize(
    ("opened", "method", "path", "grpc"),
    [
        ("classify", "POST", "/v1/models/c:classify", "PredictionService/Classify"),
        ("regress", "POST", "/v1/models/c/versions/1:regress", "PredictionService/Regress"),
        ("status", "GET", "/v1/models/c/versions/1", "ModelService/GetModelStatus"),
        ("metadata", "GET", "/v1/models/c/metadata", "PredictionService/GetModelMetadata"),
    ],
)
def test_what_is_opened_passes_and_nothing_beside_it(opened: str, method: str, path: str, grpc: str) -> None:
    made = planned(ONE, opened=[opened])
    assert rest_ports(made, method, path) == [8501]
    assert rest_ports(made, "POST", "/v1/models/c:predict") == []
    assert made.grpc == [f"/tensorflow.serving.{grpc}"]


def test_configuration_is_never_reloaded_from_outside() -> None:
    assert not [method for method in planned(ONE, opened=OPEN).grpc if "Reload" in method]


def test_model_goes_to_all_servers_that_have_it() -> None:
    made = planned(FIRST, SECOND)
    assert rest_ports(made, "POST", "/v1/models/a.b:predict") == [8501]
    assert rest_ports(made, "POST", "/v1/models/c:predict") == [8501, 8511]
    by_model = {model: one for model in ("a.b", "c") for one in made.grpc_models if re.search(one["pattern"], model)}
    assert ports(made, by_model["a.b"]["set"]) == [8501]
    assert ports(made, by_model["c"]["set"]) == [8501, 8511]
    assert ports(made, made.grpc_default) == [8501]


def test_other_servers_take_the_requests_of_one_that_is_drained() -> None:
    made = planned(FIRST, SECOND)
    (both,) = [one["name"] for one in made.sets if len(one["servers"]) == 2]
    alone = made.grpc_default
    assert [taken_by(made, both, drained) for drained in "-01"] == [[8501, 8511], [8511], [8501]]
    assert [taken_by(made, alone, drained) for drained in "-01"] == [[8501], [], [8501]]


def test_what_a_path_names_becomes_variables_but_not_in_what_is_compared() -> None:
    (route,) = planned(ONE).rest
    found = re.search(route["pattern"], "/v1/models/a.b/labels/x y:predict")
    assert found is not None
    assert found.groupdict() == {
        "tfserving_model": "a.b",
        "tfserving_version": None,
        "tfserving_label": "x y",
        "tfserving_verb": "predict",
    }
    assert "P<" not in route["unnamed"]
    assert re.search(route["unnamed"], "/v1/models/a.b/versions/1:predict")


def test_each_named_server_has_its_own_health_and_metrics() -> None:
    made = planned(FIRST, SECOND, opened=["metrics"])
    assert [(one["path"], one["model"], ports(made, one["set"])) for one in made.health] == [
        ("/healthz", "a.b", [8501]),
        ("/healthz/first", "a.b", [8501]),
        ("/healthz/second", "c", [8511]),
    ]
    assert [(one["path"], ports(made, one["set"])) for one in made.metrics] == [
        (f"{METRICS}/first", [8501]),
        (f"{METRICS}/second", [8511]),
    ]
    assert [one["path"] for one in planned(ONE, opened=["metrics"]).metrics] == [METRICS]


def test_only_the_health_checks_themselves_are_not_counted() -> None:
    """nginx looks at no password there, and on every other path it does."""
    patterns = [one["pattern"] for one in planned(FIRST, SECOND).health]
    for path in ("/healthz", "/healthz/first", "/healthz/second"):
        assert [bool(re.search(pattern, path)) for pattern in patterns].count(True) == 1
    for path in ("/healthzx", "/healthz/", "/healthz/third", "/healthz/firstx", "/HEALTHZ", "/healthz\n", "/x/healthz"):
        assert not any(re.search(pattern, path) for pattern in patterns), path


LIMITS: dict[str, Any] = {
    "max_body_megabytes": 16,
    "client_requests_per_second": 1000,
    "client_burst": 1000,
    "client_concurrent_requests": 200,
    "timeout_seconds": 35,
    "drain_timeout_seconds": 30,
}
GOOD: dict[str, Any] = {
    "instances": [ONE],
    "port": 8443,
    "names": ["host"],
    "self_signed": True,
    "users": {"clinic": "the secret"},
    "limits": LIMITS,
}
GIVEN = {"self_signed": False, "files_on_host": True, "certificate": "/a.crt", "key": "/a.key"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"users": {}}, "No client may use the gateway yet"),
        ({"allow_anonymous": True}, "tfserving_gateway_users is set"),
        ({"users": {"a:b": "the secret"}}, "it may hold no colon"),
        ({"users": {"clinic": "the secret\nx"}}, "text on one line"),
        ({"users": {"clinic": "models"}}, "choose a long random one"),
        ({"users": {"clinic": "16"}}, "choose a long random one"),
        ({"users": {"clinic": ""}}, "text on one line"),
        ({"users": {"a\u2028b": "the secret"}}, "cannot be the name"),
        ({"limits": {**LIMITS, "client_requests_per_second": None}}, "passwords could be guessed without limit"),
        ({**GIVEN, "key": "a.key"}, "tfserving_gateway_tls_key has to be an absolute path"),
        ({**GIVEN, "certificate": "/$a.crt"}, "tfserving_gateway_tls_certificate has to be an absolute path"),
        ({**GIVEN, "certificate": "/a.crt\r"}, "on one line and without $"),
        ({"self_signed": False}, "no certificate"),
        ({"self_signed": False, "key": "the secret"}, "tfserving_gateway_tls_key is set alone"),
        ({"key": "the secret"}, "unset one"),
        ({"client_ca": "none"}, "tfserving_gateway_client_ca is no certificate"),
        ({"port": 8501}, "a port of serving"),
        ({"port": 0}, "from 1 to 65535"),
        ({"names": []}, "tfserving_gateway_names is empty"),
        ({"names": ["a b;"]}, "neither a host's name"),
        ({"instances": [{**ONE, "models": []}]}, "serves no model"),
        ({"server_client_verify": True}, "no certificate to show"),
        ({"open": ["reload"]}, "must be one or more of"),
        ({"traffic": {"c": {"split": {"canary": 101}}}}, "c: split: canary is '101'; it has to be a percentage"),
    ],
)
def test_bad_input_is_named_and_no_secret_is_shown(changed: dict[str, Any], words: str, run_module: RunModule) -> None:
    result = run_module(gateway_info, **{**GOOD, **changed})
    assert result["failed"] is True
    assert words in result["msg"]
    assert "the secret" not in json.dumps(result)


@pytest.mark.parametrize(
    ("name", "bounds", "bad"),
    [
        ("max_body_megabytes", "from 1 to 2047.", [0, -1, 2048, None, "", "1m", 1.5, True]),
        ("client_limits: requests_per_second", "from 1 to 1000000, or null for any number.", [0, -1, 10**30, "1r/s"]),
        ("client_limits: burst", "from 1 to 1000000.", [0, -5, None, "5 nodelay; }"]),
        ("client_limits: concurrent_requests", "from 1 to 65535, or null for any number.", [0, -1, 65536, "\u0663"]),
        ("timeout_seconds", "from 1 to 86400, or null for five seconds more than REST.", [0, -30, 86401, "5s"]),
        ("drain_timeout_seconds", "from 0 to 86400.", [-1, 86401]),
    ],
)
def test_numbers_out_of_bounds_are_named(name: str, bounds: str, bad: list[Any], run_module: RunModule) -> None:
    for value in bad:
        result = run_module(gateway_info, **{**GOOD, "limits": {**LIMITS, name.replace("limits: ", ""): value}})
        assert result["msg"] == f"tfserving_gateway_{name} is {value!r}; it has to be a whole number {bounds}"


def test_numbers_are_numbers_however_they_are_written(run_module: RunModule) -> None:
    given = {**LIMITS, "client_burst": "7", "client_concurrent_requests": ""}
    assert run_module(gateway_info, **{**GOOD, "limits": given})["limits"] == {
        **LIMITS,
        "client_burst": 7,
        "client_concurrent_requests": None,
    }


LABELS = {"c": ["canary", "stable"], "a.b": []}


@pytest.mark.parametrize(
    ("traffic", "problems"),
    [
        ({"d": {}}, ["tfserving_models_catalog has no model 'd'; use a.b, c."]),
        ({"c": 10}, ["'c' is '10'; write split: {LABEL: PERCENT} below it."]),
        ({"c": {"canary": 10}}, ["c: 'canary' is none of split, sticky and mirror; a share is written as split: {"]),
        ({"c": {"split": 10}}, ["c: split: it is '10'; write {LABEL: PERCENT}"]),
        ({"c": {"split": {"blue": 1}}}, ["c: split: 'blue' is neither a label of the model in tfserving_models_"]),
        ({"a.b": {"mirror": {"canary": 1}}}, ["a.b: mirror: 'canary' is neither a label of the model in tfserving_"]),
        ({"c": {"split": {-1: 1}}}, ["c: split: '-1' is neither a label of the model in tfserving_models_catalog ("]),
        ({"c": {"split": {1.5: 1}}}, ["c: split: '1.5' is neither a label"]),
        ({"c": {"split": {2**63: 1}}}, [f"c: split: '{2**63}' is neither a label"]),
        ({"c": {"split": {"$a": 1}}}, ["c: split: nginx cannot be told of label '$a'"]),
        ({"c": {"split": {"a\n": 1}}}, ["c: split: nginx cannot be told of label 'a\\n'"]),
        *(
            ({"c": {"mirror": {"canary": percent}}}, [f"c: mirror: canary is '{percent}'; it has to be a percentage"])
            for percent in (-1, 100.01, 101, "1%", 0.001, True, None, "\u0663")
        ),
        ({"c": {"split": {"canary": 50, "stable": 50.01}}}, ["c: split: the percentages are more than 100 together"]),
        *(
            ({"c": {"sticky": sticky}}, [f"c: sticky is '{sticky}'; it has to be address, or header NAME"])
            for sticky in ("X-User", "header", "header X_User", "header a b", "header $a", "cookie a", True)
        ),
        (
            {"c": {"split": {"blue": 1000}, "sticky": "x", "mirror": {"canary": 60, 2: 60}}, "d": {}},
            ["c: split: 'blue' is", "c: split: blue is '1000'", "c: mirror: the percent", "c: sticky", "has no model"],
        ),
        (
            {"c": {"split": {"canary": 0, 2: "99.5", "3": 0.5}, "sticky": "header X-User", "mirror": {"stable": 100}}},
            [],
        ),
        ({"c": {"split": None, "sticky": "address"}, "a.b": {}}, []),
    ],
)
def test_shares_that_cannot_be_are_named(traffic: dict[str, Any], problems: list[str]) -> None:
    found = traffic_problems(traffic, LABELS)
    assert len(found) == len(problems), found
    for text, words in zip(found, problems):
        assert text.startswith("tfserving_gateway_traffic: ")
        assert words in text


def test_labels_are_not_looked_for_where_the_catalogue_is_not_known() -> None:
    assert traffic_problems({"d": {"split": {"blue": 1}}}, None) == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "metrics",
        "/healthz",
        "/healthz/first",
        "/v1/x",
        "/error",
        "/a{b}",
        "/a;b",
        "/$a",
        "/a b",
        "/a\n",
        "/a//b",
    ]
    + ["/a/../b", "/a/.", "/a%41", "/tensorflow.serving.PredictionService/Predict"],
)
def test_metrics_have_a_path_that_is_no_other(path: str, run_module: RunModule) -> None:
    result = run_module(gateway_info, metrics_path=path, **GOOD)
    assert f"tfserving_service_monitoring_path is {path!r}; behind the gateway it has to be" in result["msg"]


@pytest.mark.parametrize("path", ["/metrics", "/monitoring/prometheus/metrics", "/.a/v1/b-c_d~e/", "/healthzz"])
def test_other_paths_of_metrics_are_taken(path: str, run_module: RunModule) -> None:
    result = run_module(gateway_info, metrics_path=path, open=["metrics"], **GOOD)
    assert [one["path"] for one in result["metrics"]] == [path]


def test_gateway_waits_a_little_longer_than_the_slowest_server(run_module: RunModule) -> None:
    servers = [{**ONE, "rest_api_timeout_seconds": 30}, {**SECOND, "rest_api_timeout_seconds": 90}]
    given = {**GOOD, "instances": servers, "limits": {**LIMITS, "timeout_seconds": None}}
    assert run_module(gateway_info, **given)["limits"]["timeout_seconds"] == 95


def test_all_problems_are_named_at_once(run_module: RunModule) -> None:
    bad = {"port": 0, "names": [], "metrics_path": "/", "users": {}, "limits": dict.fromkeys(LIMITS, -1)}
    problems = run_module(gateway_info, **{**GOOD, **bad})["msg"].splitlines()
    assert len(problems) == 4 + len(LIMITS)
    assert all("tfserving_" in one for one in problems)


def test_good_input_is_taken_and_no_secret_is_shown(run_module: RunModule) -> None:
    result = run_module(gateway_info, check=True, **GOOD)
    assert result["changed"] is False
    assert result["rest"]
    assert "the secret" not in json.dumps(result)


@needs_openssl
def test_password_keeps_its_hash_until_it_changes() -> None:
    first = password_file({"b": "one two", "a": "ü$'\""}, "")
    assert [line.partition(":")[0] for line in first.splitlines()] == ["a", "b"]
    assert password_file({"b": "one two", "a": "ü$'\""}, first) == first
    other = password_file({"b": "other", "a": "ü$'\""}, first)
    assert other.splitlines()[0] == first.splitlines()[0]
    assert other.splitlines()[1] != first.splitlines()[1]
    assert "one two" not in first


@needs_openssl
def test_equal_passwords_have_different_hashes() -> None:
    hashes = {line.partition(":")[2] for line in password_file({"a": "same", "b": "same"}, "").splitlines()}
    assert len(hashes) == 2


def test_hash_is_taken_as_it_is() -> None:
    for text in ("$6$salt$hash", "$5$rounds=1$salt$hash", "$apr1$salt$hash", "$2y$05$hash", "$y$j9T$salt$hash"):
        assert password_file({"a": text}, "a:$6$other") == f"a:{text}\n"
    assert not is_hash("$ecret")


def names_of(path: Path) -> str:
    command = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


@needs_openssl
def test_self_signed_certificate_is_kept_while_it_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tls.pem"
    path.write_text(self_signed(path, ["a.example", "192.0.2.1"]))
    secrets.check_pair(path, path)
    assert "DNS:a.example, IP Address:192.0.2.1" in names_of(path)
    assert self_signed(path, ["a.example", "192.0.2.1"]) == path.read_text()
    assert self_signed(path, ["a.example"]) != path.read_text()
    monkeypatch.setattr(secrets, "RENEW_SECONDS", 366 * 24 * 3600)
    assert self_signed(path, ["a.example", "192.0.2.1"]) != path.read_text()


def make_pair(folder: Path, *more: str) -> tuple[str, str]:
    key, certificate = folder / "key", folder / "crt"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", *curve, "-subj", "/CN=x", *(more or ("-nodes",))]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return certificate.read_text(), key.read_text()


@needs_openssl
def test_key_has_to_be_the_certificates_and_without_a_password(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path)
    check_pem_pair(certificate, key)
    check_authority(certificate)
    with pytest.raises(SecretError, match="is not the key of"):
        check_pem_pair(certificate, make_pair(tmp_path)[1])
    with pytest.raises(SecretError, match="has a password"):
        check_pem_pair(*make_pair(tmp_path, "-passout", "pass:word"))
    with pytest.raises(SecretError, match="are not PEM"):
        check_pem_pair("none", key)


@needs_openssl
def test_expired_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = make_pair(tmp_path)
    monkeypatch.setattr(secrets, "_ends_within", lambda path, seconds: seconds == 0)
    with pytest.raises(SecretError, match="has expired"):
        check_pem_pair(certificate, key)


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2135 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:2135 01 00000000:00000000 00:00000000 00000000    33        0 2 1 0 20 4 30 10 -1
   2: 0100007F:2135 0100007F:9C40 01 00000000:00000000 00:00000000 00000000   999        0 3 1 0 20 4 30 10 -1
   3: 0100007F:9C42 0100007F:2135 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0 20 4 30 10 -1
   4: 0100007F:9C44 0100007F:2135 06 00000000:00000000 03:00000000 00000000    33        0 0 3 0 20 4 30 10 -1
   5: 0100007F:9C46 0100007F:2134 02 00000000:00000000 00:00000000 00000000    33        0 5 1 0 20 4 30 10 -1
"""


def test_open_requests_are_the_connections_of_nginx_to_the_server() -> None:
    assert nginx.open_connections(TABLE, [8501], {33}) == 1
    assert nginx.open_connections(TABLE, [8500, 8501], {33}) == 2
    assert nginx.open_connections(TABLE, [8500, 8501], {0}) == 1
    assert nginx.open_connections(TABLE, [8510], {33}) == 0


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as /etc/nginx."""
    root = tmp_path / "nginx"
    (root / "conf.d").mkdir(parents=True)
    (root / "conf.d/other.conf").write_text("other")
    (root / "mime.types").write_text("types")
    (root / "nginx.conf").write_text(f"user  www-data;\nhttp {{\n    include {root}/conf.d/*.conf;\n}}\n")
    for name, path in {"ROOT": root, "RUN": tmp_path / "run", "PAGES": tmp_path / "html"}.items():
        monkeypatch.setattr(nginx, name, path)
    return root


def test_stage_is_the_hosts_configuration_with_ours(root: Path, tmp_path: Path) -> None:
    (root / "conf.d/ours.conf").write_text("old")
    (root / "secrets").mkdir()
    (root / "secrets/gone").write_text("old")
    files = [
        nginx.File("conf.d/ours.conf", f"key {root}/secrets/key; types {root}/mime.types;"),
        nginx.File("secrets/key", "new", 0o640),
    ]
    with nginx.staged(files, ["secrets/gone"]) as stage:
        assert stage.stat().st_mode & 0o7777 == 0o700
        assert (stage / "nginx.conf").read_text().splitlines()[2] == f"    include {stage}/conf.d/*.conf;"
        assert (stage / "conf.d/ours.conf").read_text() == f"key {stage}/secrets/key; types {root}/mime.types;"
        assert (stage / "conf.d/other.conf").read_text() == "other"
        assert (stage / "mime.types").read_text() == "types"
        assert os.listdir(stage / "secrets") == ["key"]  # noqa: PTH208
    assert list((tmp_path / "run").iterdir()) == []
    assert (root / "conf.d/ours.conf").read_text() == "old"


def test_nginx_conf_says_group_and_whether_it_includes_sites(root: Path) -> None:
    assert nginx.workers_group() == "www-data"
    assert nginx.includes_conf_d()
    (root / "nginx.conf").write_text("user a staff;\nhttp {\n    # include conf.d/*.conf;\n}\n")
    assert nginx.workers_group() == "staff"
    assert not nginx.includes_conf_d()
    (root / "nginx.conf").write_text("include conf.d/*.conf;")
    assert nginx.workers_group() == "root"
    assert nginx.includes_conf_d()


@pytest.mark.skipif(not shutil.which("dpkg"), reason="asks dpkg")
def test_example_site_is_unused_as_long_as_nobody_has_touched_it(root: Path, tmp_path: Path) -> None:
    pages = tmp_path / "html"
    pages.mkdir()
    (pages / "index.nginx-debian.html").write_text("welcome")
    (root / "sites-enabled").mkdir()
    (root / "sites-available").mkdir()
    (root / "sites-available/default").write_text("site")
    assert nginx.unused_default_site() == []
    (root / "sites-enabled/default").symlink_to(root / "sites-available/default")
    (pages / "index.html").write_text("mine")
    assert nginx.unused_default_site() == []

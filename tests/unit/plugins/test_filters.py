"""The filters, and the lines of the table that the playbooks print."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.modelops.tensorflow_serving.plugins.action.table import aligned
from ansible_collections.modelops.tensorflow_serving.plugins.filter.apt_proxy import apt_proxy
from ansible_collections.modelops.tensorflow_serving.plugins.filter.digit_rows import digit_rows
from ansible_collections.modelops.tensorflow_serving.plugins.filter.key_rows import key_rows
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.input import repository_problems


def prediction(name: str, version: int, *probabilities: list[float]) -> dict[str, Any]:
    return {"item": {"name": name}, "version": version, "predictions": list(probabilities)}


def test_digit_rows_put_predictions_beside_labels() -> None:
    rows = digit_rows(
        [prediction("MLP", 2, [0.01, 0.99], [0.75004, 0.24996]), prediction("CNN", 1, [0, 1], [0, 1])], [1, 1]
    )
    assert rows[:2] == [
        {"model": "MLP", "version": 2, "digit": 1, "label": 1, "predicted": 1, "probability": "0.9900", "right": True},
        {"model": "MLP", "version": 2, "digit": 2, "label": 1, "predicted": 0, "probability": "0.7500", "right": False},
    ]
    assert [(row["model"], row["digit"]) for row in rows] == [("MLP", 1), ("MLP", 2), ("CNN", 1), ("CNN", 2)]


@pytest.mark.parametrize("labels", [[], [1], [1, 0, 1]])
def test_digit_rows_refuse_another_number_of_labels(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=f"2 predictions for {len(labels)} labels"):
        digit_rows([prediction("MLP", 1, [0, 1], [0, 1])], labels)


def info(**key: Any) -> dict[str, Any]:
    facts = {
        "fingerprint": "916E",
        "expires": "2026-08-18T12:00:00Z",
        "days_left": 98,
        "expired": False,
        "revoked": False,
        "renewal_due": False,
        "expected": True,
    }
    return {"exists": True, "armoured": False, "keys": [facts | key]}


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (info(), "valid"),
        (info(renewal_due=True, days_left=5), "renewal due"),
        (info(renewal_due=True, expired=True, days_left=-98), "expired"),
        (info(renewal_due=True, expired=True, revoked=True), "revoked"),
        (info(revoked=True), "revoked"),
        (info(expected=False), "another key"),
        (info() | {"armoured": True}, "unreadable"),
        ({"exists": False, "keys": []}, "missing"),
        ({"skipped": True}, "no source"),
        ({}, "HOST UNREACHABLE"),
        (None, "HOST UNREACHABLE"),
        ({"failed": True, "msg": "holds no key"}, "unreadable"),
        ({"unreachable": True, "msg": "no route"}, "HOST UNREACHABLE"),
        ({"unreachable": True, "failed": True}, "HOST UNREACHABLE"),
    ],
)
def test_key_rows_tell_the_state_of_each_key(result: dict[str, Any] | None, state: str) -> None:
    (row,) = key_rows(["web1"], {"web1": {"key": result}}, "key")
    key = ((result or {}).get("keys") or [{}])[0]
    assert row == {
        "host": "web1",
        "fingerprint": key.get("fingerprint"),
        "expires": key.get("expires"),
        "days_left": key.get("days_left"),
        "state": state,
    }


def test_key_that_never_ends_says_so() -> None:
    (row,) = key_rows(["web1"], {"web1": {"key": info(expires=None, days_left=None)}}, "key")
    assert (row["expires"], row["days_left"], row["state"]) == ("never", None, "valid")


def test_key_rows_name_every_key_in_the_order_of_hosts() -> None:
    two = {"exists": True, "keys": [*info()["keys"], *info(fingerprint="ABCD")["keys"]]}
    hostvars = {"web1": {"key": two}, "web2": {"key": info()}, "web3": {}}
    rows = key_rows(["web3", "web2", "web1"], hostvars, "key")
    assert [(row["host"], row["fingerprint"]) for row in rows] == [
        ("web3", None),
        ("web2", "916E"),
        ("web1", "916E"),
        ("web1", "ABCD"),
    ]


URI = "https://Storage.googleapis.com/tensorflow-serving-apt"
HOST = "storage.googleapis.com"


@pytest.mark.parametrize(
    ("proxy", "address", "login"),
    [
        ("http://proxy.example.com:3128", "http://proxy.example.com:3128", None),
        ("http://proxy.example.com:3128/", "http://proxy.example.com:3128", None),
        ("https://proxy:443", "https://proxy:443", None),
        ("http://user:pass@proxy:3128", "http://proxy:3128", "login user password pass"),
        ("http://us%40er:p%40%2F%3A%25ss@proxy:3128", "http://proxy:3128", "login us@er password p@/:%ss"),
        ("http://user:a:b@proxy:3128", "http://proxy:3128", "login user password a:b"),
        ("http://user:pass@192.0.2.7:8080", "http://192.0.2.7:8080", "login user password pass"),
        ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128", None),
    ],
)
def test_proxy_is_split_into_what_all_and_what_root_may_read(proxy: str, address: str, login: str | None) -> None:
    netrc = f"machine {address} {login}" if login else ""
    assert apt_proxy(URI, proxy, ["example.com"]) == {"proxy": address, "netrc": netrc}


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ([], False),
        ([HOST], True),
        (["googleapis.com"], True),
        ([".googleapis.com"], True),
        (["*.googleapis.com"], True),
        (["GoogleAPIs.com"], True),
        (["other.org", "*"], True),
        (["apis.com", "www.googleapis.com", ""], False),
    ],
)
def test_repository_in_no_proxy_is_reached_directly(no_proxy: list[str], direct: bool) -> None:
    found = apt_proxy(URI, "http://user:pass@proxy:3128", no_proxy)
    assert (found["proxy"] == "DIRECT", found["netrc"] == "") == (direct, direct)


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "s3cret",
        "user:s3cret@proxy:3128",
        "http://",
        "http://user:s3cret",
        "http://user:s3cret@",
        "http://user:s3cret@proxy:port",
        "http://user:s3cret@proxy",
        "http://user:s3cret@proxy:0",
        "http://user:s3cret@proxy:65536",
        "http://user:s3cret%0D@proxy:3128",
        "http://user:s3cret%1b@proxy:3128",
        "http://user:s3cret@proxy:3128/path",
        "http://user:s3cret@[2001:db8::1",
        "http://user:s3cret@2001:db8::1",
        "http://user:s3/cret@proxy:3128",
        "http://user:s3@cret@proxy:3128",
        "http://user:s3 cret@proxy:3128",
        "http://user:s3%20cret@proxy:3128",
        "http://user:s3cret%0Amachine@proxy:3128",
        "http://us%09er:s3cret@proxy:3128",
        "http://:s3cret@proxy:3128",
        "http://user:s3cret@proxy:3128\n",
        'http://user:s3cret@proxy:3128"; Evil "',
        "socks5://user:s3cret@proxy:1080",
        "http://user:s3cret@[2001:db8::1]:3128",  # apt sends no password then
    ],
)
def test_malformed_proxy_is_refused_and_not_quoted(proxy: str) -> None:
    with pytest.raises(AnsibleFilterError, match="proxy") as error:
        apt_proxy(URI, proxy, [])
    assert "s3" not in str(error.value)
    assert "cret" not in str(error.value)


def test_table_is_aligned_and_numbers_are_to_the_right() -> None:
    rows = [
        {"model": "MLP", "version": 9, "probability": "0.9987", "other": "left out"},
        {"model": "half_plus_two", "version": 10, "probability": "1"},
    ]
    assert aligned(["model", "version", "probability"], rows) == [
        "model          version  probability",
        "-------------  -------  -----------",
        "MLP                  9       0.9987",
        "half_plus_two       10            1",
    ]


def test_missing_cells_are_empty_and_lines_have_no_trailing_blanks() -> None:
    rows = [{"model": "MLP", "version": None, "state": ""}, {"state": "END", "version": 0}, {"model": "CNN"}]
    assert aligned(["model", "version", "state"], rows) == [
        "model  version  state",
        "-----  -------  -----",
        "MLP",
        "             0  END",
        "CNN",
    ]


def test_table_without_rows_has_its_header() -> None:
    assert aligned(["model", "version"], []) == ["model  version", "-----  -------"]


REPOSITORY = {
    "uri": "https://packages.example.com/serving",
    "suite": "stable",
    "components": ["tensorflow-model-server"],
    "key_fingerprint": "916E 2B2F EBC2 7493 0BAC A9D9 544B 7F63 BF9E 4D5F",
}


@pytest.mark.parametrize(
    "good",
    [{}, {"uri": "http://[2001:db8::1]:8080"}, {"uri": "http://mirror:80/a%20b/"}, {"suite": "bookworm/updates"}],
)
def test_settings_of_a_repository_are_taken(good: dict[str, Any]) -> None:
    assert repository_problems(REPOSITORY | good, "tfserving_apt_") == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"uri": "ftp://packages.example.com"}, "tfserving_apt_uri has to be http://HOST/PATH"),
        ({"uri": "https://user:s3cret@packages.example.com/"}, "without user and password"),
        ({"uri": "https://packages.example.com/a b"}, "tfserving_apt_uri"),
        ({"uri": "https://packages.example.com/\nTrusted: yes"}, "tfserving_apt_uri"),
        ({"uri": 'https://pack"ages/'}, "tfserving_apt_uri"),
        ({"suite": "stable\nTrusted: yes"}, "tfserving_apt_suite is stable\\nTrusted: yes; it has to be one word"),
        ({"suite": ""}, "it has to be one word, such as stable"),
        ({"components": []}, "name at least one component"),
        ({"components": ["main", "a b"]}, "each of them one word"),
        ({"components": ["main\r"]}, "each of them one word"),
        ({"key_fingerprint": "BF9E4D5F"}, "tfserving_apt_key_fingerprint is BF9E4D5F: "),
    ],
)
def test_settings_that_apt_would_read_as_something_else_are_refused(bad: dict[str, Any], words: str) -> None:
    (problem,) = repository_problems(REPOSITORY | bad, "tfserving_apt_")
    assert words in problem
    assert "s3cret" not in problem
    assert "\n" not in problem


def test_all_problems_of_a_repository_are_told_at_once() -> None:
    assert len(repository_problems({}, "tfserving_apt_")) == 4


def test_cell_of_a_table_stays_on_its_line() -> None:
    assert aligned(["a"], [{"a": "x\ny\x1b[31m\tz\u2028"}])[2] == "x\\ny\\x1b[31m\\tz\\u2028"

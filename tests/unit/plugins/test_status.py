"""What status.yml makes of the answers of a fleet: rows, drift, the page and the colours of the table."""

from __future__ import annotations

import html.parser
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.utils import color
from saved_model_files import make_saved_model
from stub_http import StubServer

from ansible_collections.modelops.tensorflow_serving.plugins.action.table import aligned, coloured
from ansible_collections.modelops.tensorflow_serving.plugins.filter.status_page import status_page
from ansible_collections.modelops.tensorflow_serving.plugins.filter.status_rows import status_rows
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    add_digests,
    list_files,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.modules import model_status_info
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils import run_cache

Row = dict[str, Any]
A, B = "a" * 64, "b" * 64
COLUMNS = ["host", "model", "version", "state", "label", "digest", "drift"]


def version(number: int, state: str = "AVAILABLE", **more: Any) -> Row:
    """A row of model_status_info."""
    row = {"model": "MLP", "version": number, "state": state, "error_code": "OK", "error_message": "", "labels": []}
    return {**row, "digest": A, "source_digest": None, "stamp": B, "intact": True, **more}


def entry(**more: Any) -> Row:
    """An entry of the catalogue whose source cannot be seen."""
    return {"name": "MLP", "source": "/nowhere", **more}


def fleet(*hosts: list[Row], catalog: list[Row] | None = None) -> list[Row]:
    """Return the rows of hosts h1, h2, ... that answered with these versions."""
    names = [f"h{number}" for number in range(1, len(hosts) + 1)]
    answers = {
        name: {"status": {"versions": rows}, "tfserving_models_catalog": catalog or [entry()]}
        for name, rows in zip(names, hosts)
    }
    return status_rows(names, answers, "status")


def drift(rows: list[Row]) -> dict[str, str]:
    """Return what is said of each host."""
    found: dict[str, str] = {}
    for row in rows:
        found[row["host"]] = "; ".join(filter(None, [found.get(row["host"], ""), row["drift"]]))
    return found


def test_rows_are_in_the_order_of_hosts_with_short_digests_and_labels() -> None:
    answers = {"w1": {"status": {"versions": [version(2, labels=["canary", "stable"]), version(1, "END")]}}}
    answers["w2"] = answers["w1"]
    rows = status_rows(["w2", "w1"], answers, "status")
    assert [(row["host"], row["version"], row["verdict"]) for row in rows] == [
        ("w2", 2, "served"),
        ("w2", 1, "idle"),
        ("w1", 2, "served"),
        ("w1", 1, "idle"),
    ]
    assert (rows[0]["label"], rows[0]["digest"], rows[0]["full_digest"]) == ("canary, stable", "a" * 12, A)


@pytest.mark.parametrize(
    ("variables", "state", "said"),
    [
        ({"status": {"unreachable": True, "msg": "No\n  route\n"}}, "HOST UNREACHABLE", "No route"),
        ({"status": {"results": [{"unreachable": True, "msg": "No route"}]}}, "HOST UNREACHABLE", "No route"),
        ({"status": {"failed": True, "msg": "no python"}}, "NOT ASKED", "no python"),
        ({"status": None}, "NOT ASKED", "not asked"),
        ({}, "NOT ASKED", "not asked"),
    ],
)
def test_host_that_could_not_be_asked_is_drift(variables: Row, state: str, said: str) -> None:
    (row,) = status_rows(["w1"], {"w1": variables}, "status")
    assert (row["host"], row["state"], row["drift"], row["verdict"]) == ("w1", state, said, "drift")


def test_host_without_models_has_no_row() -> None:
    assert status_rows(["w1"], {"w1": {"status": {"versions": []}}}, "status") == []


def test_every_instance_has_rows() -> None:
    asked = [
        {"item": {"name": "first"}, "versions": [version(1)]},
        {"item": {"name": "second"}, "versions": [{**version(1), "version": None, "state": "UNREACHABLE"}]},
        {"item": {}, "versions": [version(1)]},
    ]
    rows = status_rows(["w1"], {"w1": {"status": {"results": asked}}}, "status")
    assert [(row["server"], row["verdict"]) for row in rows] == [
        ("first", "served"),
        ("second", "drift"),
        ("", "served"),
    ]


def test_model_that_is_held_after_a_rollback_is_drift_where_the_catalogue_says_otherwise() -> None:
    held = {"held": "rolled back at T by alice"}
    catalog = [entry(model_version_policy={"specific": {"versions": [2]}})]
    rows = [version(2, "END", **held), version(1, **held)]
    assert drift(fleet(rows, catalog=catalog))["h1"] == (
        "rolled back at T by alice, and the catalogue says to serve version 2; "
        "rolled back at T by alice, and the catalogue does not say to serve it"
    )
    catalog = [entry(model_version_policy={"specific": {"versions": [1]}})]
    assert drift(fleet(rows, catalog=catalog)) == {"h1": ""}


def test_equal_servers_have_no_drift() -> None:
    assert drift(fleet([version(1)], [version(1)], [version(1)])) == {"h1": "", "h2": "", "h3": ""}


def test_server_with_another_version_than_most_is_drift() -> None:
    rows = fleet([version(2), version(1, "END")], [version(2)], [version(1)])
    assert drift(rows) == {"h1": "", "h2": "", "h3": "most servers serve version 2"}


def test_servers_without_a_majority_are_all_drift() -> None:
    rows = fleet([version(2)], [version(1)])
    assert set(drift(rows).values()) == {"the servers serve different versions"}


def test_same_version_with_another_content_is_drift() -> None:
    said = drift(fleet([version(1)], [version(1, digest=B)], [version(1)], [version(1, digest=None)]))
    assert said == {"h1": "", "h2": f"most servers have digest {A[:12]}", "h3": "", "h4": said["h2"]}
    said = drift(fleet([version(1, digest=None)], [version(1, digest=B)], [version(1, digest=None)]))
    assert said["h2"] == "most servers have none that this collection published"
    said = drift(fleet([version(1)], [version(1, digest=B)]))
    assert set(said.values()) == {"the servers have different digests of it"}


def test_failed_version_is_drift_in_the_words_of_the_server() -> None:
    failed = version(2, "END", error_code="NOT_FOUND", error_message="no data")
    assert drift(fleet([failed, version(1)])) == {"h1": "no data"}


def test_version_that_the_catalogue_asks_for_is_missed_on_every_server(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "3").mkdir()
    catalog = [entry(source=str(tmp_path))]
    first, third = (version(number, stamp=tree_stamp({})) for number in (1, 3))
    said = drift(fleet([first], [first], [third, version(1, "END")], catalog=catalog))
    assert said["h1"] == said["h2"] == "the catalogue says to serve version 3"
    assert said["h3"] == ""


def test_version_that_a_specific_policy_does_not_name_is_drift() -> None:
    catalog = [entry(model_version_policy={"specific": {"versions": [1]}})]
    rows = fleet([version(2), version(1)], catalog=catalog)
    assert [(row["version"], row["drift"]) for row in rows] == [
        (2, "the catalogue does not say to serve it"),
        (1, ""),
    ]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({2: ["canary"], 1: ["stable"]}, ["", ""]),
        ({2: ["canary", "stable"]}, ["label stable is to lead to version 1", ""]),
        ({2: ["canary"]}, ["", "label stable leads nowhere"]),
        ({2: ["canary"], 1: ["old", "stable"]}, ["", "the catalogue has no label old"]),
        ({2: ["canary"], 1: ["a, stable", "stable"]}, ["", "the catalogue has no label a, stable"]),
    ],
)
def test_label_that_leads_elsewhere_than_the_catalogue_says_is_drift(
    labels: dict[int, list[str]], said: list[str]
) -> None:
    catalog = [entry(model_version_policy={"all": {}}, version_labels={"stable": 1, "canary": 2})]
    rows = fleet([version(number, labels=labels.get(number, [])) for number in (2, 1)], catalog=catalog)
    assert [row["drift"] for row in rows] == said


def test_digest_that_the_catalogue_does_not_have_is_drift() -> None:
    catalog = [entry(source="https://example.com/{version}.tar", versions=[1], digests={"1": A})]
    assert drift(fleet([version(1, source_digest=A)], catalog=catalog)) == {"h1": ""}
    assert drift(fleet([version(1, source_digest=B)], catalog=catalog)) == {"h1": "the catalogue has another digest"}


@pytest.mark.parametrize("source", ["s3://models/MLP", "rsync://models.example.com/m/MLP"])
def test_digest_of_a_fetched_tree_that_the_catalogue_does_not_have_is_drift(source: str) -> None:
    for digest, said in ((A.upper(), ""), (B, "the catalogue has another digest")):
        catalog = [entry(source=source, versions=[1], digests={1: digest})]
        assert drift(fleet([version(1)], catalog=catalog)) == {"h1": said}


def test_version_that_others_put_under_a_number_of_the_catalogue_is_drift(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    foreign = {"digest": None, "stamp": None, "intact": False}
    rows = fleet([version(1, **foreign), version(7, **foreign)], catalog=[entry(source=str(tmp_path))])
    assert [row["drift"] for row in rows] == ["put there by others, not published", ""]
    rows = fleet([version(1, **foreign)], catalog=[entry(source="s3://models/MLP", versions=[1])])
    assert drift(rows) == {"h1": "put there by others, not published"}
    rows = fleet([version(7, intact=False)], catalog=[entry(source=str(tmp_path))])
    assert "its files were changed by others" in drift(rows)["h1"]


@pytest.mark.parametrize("is_single", [False, True])
def test_version_that_was_published_from_other_files_than_the_source_has_is_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_single: bool
) -> None:
    monkeypatch.setattr(run_cache.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    source = make_saved_model(tmp_path / "MLP" / "1")
    files = list_files(source)
    published = version(1, digest=tree_digest(add_digests(source, files)), stamp=tree_stamp(files))
    catalog = [entry(source=str(source), versions=[1]) if is_single else entry(source=str(source.parent))]
    assert drift(fleet([published], catalog=catalog)) == {"h1": ""}
    os.utime(source / "saved_model.pb", (1, 1))
    assert drift(fleet([published], catalog=catalog)) == {"h1": ""}
    (source / "saved_model.pb").write_bytes(b"other")
    assert drift(fleet([published], catalog=catalog)) == {"h1": "the catalogue has another digest"}


def test_hosts_whose_catalogues_differ_are_not_compared() -> None:
    hosts = {}
    for name, number in (("canary", 2), ("p1", 1), ("p2", 1)):
        policy = {"specific": {"versions": [number]}}
        hosts[name] = {
            "status": {"versions": [version(number)]},
            "tfserving_models_catalog": [entry(model_version_policy=policy)],
        }
    assert set(drift(status_rows(list(hosts), hosts, "status")).values()) == {""}


def test_server_that_does_not_answer_has_no_say() -> None:
    silent = {"model": "MLP", "version": None, "state": "UNREACHABLE", "error_message": "refused"}
    assert drift(fleet([silent], [silent], [version(1)])) == {"h1": "refused", "h2": "refused", "h3": ""}


# The page


class Reader(html.parser.HTMLParser):
    """Reads a page: the text of its table's rows, the classes of these, and every URL that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.classes: list[str | None] = []
        self.tags: set[str] = set()
        self.urls: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
            self.classes.append(dict(attrs).get("class"))
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data.strip()


def test_page_has_every_row_and_marks_drift() -> None:
    page = Reader(status_page(fleet([version(2)], [version(2)], [version(1)]), COLUMNS, "now"))
    assert page.rows[0] == COLUMNS
    assert page.rows[3] == ["h3", "MLP", "1", "AVAILABLE", "", "a" * 12, "most servers serve version 2"]
    assert page.classes[1:] == ["served", "served", "drift"]


def test_page_says_how_many_hosts_drift() -> None:
    assert "2 hosts, 2 versions served as intended. No drift." in status_page(
        fleet([version(1)], [version(1)]), COLUMNS, "now"
    )
    text = status_page(fleet([version(1)], [version(1)], [version(2)]), COLUMNS, "now")
    assert '<strong class="drift">Drift on 1.</strong>' in text


def test_page_shows_the_last_changes() -> None:
    told = {"host": "h1", "time": "t", "by": "<b>alice</b>", "model": "MLP", "from": "1", "to": "2"}
    page = Reader(status_page(fleet([version(2)]), COLUMNS, "now", [told]))
    assert page.rows[-2:] == [[*told], [*told.values()]]


def test_page_shows_what_servers_say_as_text_and_takes_nothing_from_elsewhere() -> None:
    evil = '<script src="http://evil/">alert(1)</script>"\'&'
    failed = version(2, "END", error_code="UNKNOWN", error_message=evil)
    text = status_page(fleet([failed]), COLUMNS, evil)
    page = Reader(text)
    assert page.rows[1][-1] == evil
    assert page.tags.isdisjoint({"script", "link", "img", "iframe"})
    assert page.urls == []
    assert "default-src 'none'" in text
    assert "url(" not in text


# The table


def test_rows_are_coloured_where_ansible_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": "x", "verdict": "drift"}, {"a": "y", "verdict": "other"}, {"a": "z"}]
    lines = aligned(["a"], rows)
    monkeypatch.setattr(color, "ANSIBLE_COLOR", True)
    assert coloured(lines, rows, "verdict", {"drift": "red"}) == ["a", "-", color.stringc("x", "red"), "y", "z"]
    assert "\033[" in color.stringc("x", "red")
    monkeypatch.setattr(color, "ANSIBLE_COLOR", False)
    assert coloured(lines, rows, "verdict", {"drift": "red"}) == lines


# The module


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    """Two versions of MLP on the host, of which the second was put there manually."""
    for number in (1, 2):
        (tmp_path / "MLP" / str(number)).mkdir(parents=True)
    manifest = {"digest": A, "stamp": B, "source_digest": B, "files": {}}
    (tmp_path / "MLP" / ".manifest-1.json").write_text(json.dumps(manifest))
    return tmp_path


def test_module_returns_labels_and_digests(
    serving: StubServer, run_module: Callable[..., Row], base_path: Path
) -> None:
    serving.answer_status("MLP", (1, "AVAILABLE", "OK", ""), (2, "AVAILABLE", "OK", ""))
    for label, number in (("stable", "1"), ("old", "1"), ("canary", "2")):
        serving.answer(f"/v1/models/MLP/labels/{label}/metadata", {"model_spec": {"version": number}})
    result = run_module(
        model_status_info,
        rest_api_port=serving.port,
        models=["MLP"],
        labels=["stable", "old", "canary", "nobody"],
        base_path=str(base_path),
    )
    told = ("version", "labels", "digest", "source_digest", "stamp", "intact")
    assert [tuple(row[key] for key in told) for row in result["versions"]] == [
        (2, ["canary"], None, None, None, False),
        (1, ["stable", "old"], A, B, B, True),
    ]
    (base_path / "MLP/1/added").touch()
    (base_path / "MLP/2").rmdir()
    assert [
        row["intact"]
        for row in run_module(model_status_info, rest_api_port=serving.port, models=["MLP"], base_path=str(base_path))[
            "versions"
        ]
    ] == [None, False]


# What is not as it should be with the server itself


def refused(number: int) -> Row:
    return version(number, "WITHDRAWN", error_message="withdrawn at 2026: END", digest=None)


def test_withdrawn_version_is_drift_and_says_why() -> None:
    rows = fleet([version(1), refused(2)], catalog=[entry(versions=[1, 2], source="s3://models/MLP")])
    assert [(row["version"], row["drift"], row["verdict"]) for row in rows] == [
        (1, "", "served"),
        (2, "withdrawn at 2026: END", "drift"),
    ]


def test_model_of_which_all_was_withdrawn_is_not_taken_for_served() -> None:
    unknown = version(0, "UNKNOWN", error_message="Could not find any versions")
    rows = fleet([{**unknown, "version": None}, refused(1)], catalog=[entry(versions=[1], source="s3://models/MLP")])
    assert [row["verdict"] for row in rows] == ["drift", "drift"]


@pytest.mark.parametrize("state", ["UNIT FAILED", "UNIT INACTIVE", "FOREIGN"])
def test_unit_or_port_that_is_not_right_is_drift(state: str) -> None:
    (row,) = fleet([{**version(0, state, error_message="it is so"), "version": None}])
    assert (row["state"], row["drift"], row["verdict"]) == (state, "it is so", "drift")

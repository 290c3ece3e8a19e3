"""What the entries of a catalogue mean, and that everything wrong with them is said at once."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from saved_model_files import make_saved_model
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CatalogError,
    Model,
    Pull,
    check_served,
    numbers,
    read_catalog,
    read_policy,
    retained_versions,
    served_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import printable
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    render_models_config,
)

LATEST: dict[str, Any] = {"latest": {"num_versions": 1}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for version in ("1", "2", "003"):
        make_saved_model(tmp_path / "MLP" / version)
    return tmp_path / "MLP"


def problems(catalog: list[dict[str, Any]]) -> list[str]:
    """Return the problems that reading a catalogue raises, one a line."""
    with pytest.raises(CatalogError) as error:
        read_catalog(catalog)
    headline, *lines = str(error.value).split("\n")
    assert headline == "tfserving_models_catalog cannot be served:"
    assert all(line.startswith("- ") for line in lines)
    return [line[2:] for line in lines]


def test_entry_with_a_name_and_a_source_serves_the_latest_version(source: Path) -> None:
    (model,) = read_catalog([{"name": "MLP", "source": str(source)}])
    assert model == Model("MLP", LATEST, {}, {1: source / "1", 2: source / "2", 3: source / "003"}, model.files)
    assert model.versions == [1, 2, 3]
    assert all("saved_model.pb" in model.files[version] for version in model.versions)
    assert (model.keep, model.contract, model.pulls) == (None, None, {})


def test_source_in_the_home_directory_is_found(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(source.parent))
    (model,) = read_catalog([{"name": "MLP", "source": "~/MLP"}])
    assert model.sources[1] == source / "1"


def test_versions_choose_from_the_source(source: Path) -> None:
    (model,) = read_catalog([{"name": "MLP", "source": str(source), "versions": [3, 1]}])
    assert list(model.sources) == [1, 3]


def test_what_is_no_version_is_noted_unless_the_versions_are_named(source: Path) -> None:
    (source / "latest").symlink_to("2")
    (source / "temp-1604").mkdir()
    (model,) = read_catalog([{"name": "MLP", "source": str(source)}])
    assert model.versions == [1, 2, 3]
    assert model.notes == [
        f"{source} holds what is no version, and is passed over: latest, temp-1604. A version is a directory with a "
        "whole number for its name"
    ]
    (model,) = read_catalog([{"name": "MLP", "source": str(source), "versions": [3]}])
    assert (model.versions, model.notes) == ([3], [])


def test_source_may_be_one_saved_model_with_a_number(source: Path) -> None:
    (model,) = read_catalog([{"name": "MLP", "source": str(source / "2"), "versions": [7]}])
    assert model.sources == {7: source / "2"}


@pytest.mark.parametrize("versions", [None, [], [1, 2]])
def test_one_saved_model_without_its_number_is_refused(source: Path, versions: list[int] | None) -> None:
    (text,) = problems([{"name": "MLP", "source": str(source / "2"), "versions": versions}])
    assert text.endswith("is one SavedModel; say which version it is, such as versions: [1]")


def test_listed_version_that_the_source_lacks_is_refused(source: Path) -> None:
    (text,) = problems([{"name": "MLP", "source": str(source), "versions": [1, 7, 9]}])
    assert text.startswith(f"model MLP: versions lists versions 7, 9, but {source} has versions 1, 2, 3; ")


def test_listed_number_that_the_server_cannot_read_is_told_as_such(source: Path) -> None:
    (source / str(2**63)).mkdir()
    (text,) = problems([{"name": "MLP", "source": str(source), "versions": [2**63]}])
    assert text.endswith(f"lists {2**63}, which is no version number: these are from 0 to {2**63 - 1}")


def test_labels_are_numbers_of_versions(source: Path) -> None:
    (model,) = read_catalog([{"name": "MLP", "source": str(source), "version_labels": {"stable": "2", "canary": 3}}])
    assert model.labels == {"stable": 2, "canary": 3}


def test_empty_catalogue_is_refused() -> None:
    (text,) = problems([])
    assert text.startswith("it is empty, which would unload every model")


def test_empty_list_of_versions_is_refused(source: Path) -> None:
    (text,) = problems([{"name": "MLP", "source": str(source), "versions": []}])
    assert text == "model MLP: versions is empty; leave it out to publish all of them"


def test_source_with_a_link_is_refused(source: Path) -> None:
    (source / "2" / "link").symlink_to("saved_model.pb")
    (text,) = problems([{"name": "MLP", "source": str(source)}])
    assert "link is a symbolic link" in text


def test_all_problems_of_a_catalogue_are_reported_at_once(source: Path, tmp_path: Path) -> None:
    found = problems(
        [
            {"name": "MLP", "source": str(source)},
            {"name": "MLP", "source": str(source)},
            {"name": "gone", "source": str(tmp_path / "gone")},
            {"name": "../up", "source": str(source)},
            {"name": "label", "source": str(source), "version_labels": {"a/b": 1}},
            {"name": "policy", "source": str(source), "model_version_policy": {"latest": {}, "all": {}}, "keep": 0},
        ]
    )
    wanted = [
        "model MLP is listed 2 times",
        "gone is not a directory",
        "model name '../up'",
        "label 'a/b'",
        "model policy: model_version_policy takes exactly one of latest, all and specific",
        "model policy: keep is 0, and has to be at least 1",
    ]
    assert len(found) == len(wanted)
    assert all(part in text for part, text in zip(wanted, found, strict=True))


def test_source_and_policy_of_one_entry_are_both_reported(tmp_path: Path) -> None:
    entry = {"name": "MLP", "source": str(tmp_path / "gone"), "model_version_policy": {"specific": {}}}
    assert len(problems([entry])) == 2


DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("source", "url", "is_archive"),
    [
        ("https://models.example.com/mlp/{version}.tar.zst", "https://models.example.com/mlp/3.tar.zst", True),
        ("http://10.0.0.1:8080/{version}/mlp-{version}.tgz", "http://10.0.0.1:8080/3/mlp-3.tgz", True),
        ("s3://bucket/models/mlp", "s3://bucket/models/mlp/3", False),
        ("s3://bucket/mlp-{version}", "s3://bucket/mlp-3", False),
        ("s3://bucket", "s3://bucket/3", False),
        ("rsync://reader@models.example.com/models/mlp/", "rsync://reader@models.example.com/models/mlp/3", False),
    ],
)
def test_hosts_fetch_a_version_by_its_own_url(source: str, url: str, is_archive: bool) -> None:
    entry = {"name": "MLP", "source": source, "versions": [3, 3], "digests": {3: DIGEST.upper(), 2: "unused"}}
    (model,) = read_catalog([entry])
    assert model.pulls == {3: Pull(url, DIGEST)}
    assert model.pulls[3].is_archive == is_archive
    assert (model.versions, model.sources) == ([3], {})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"source": "ftp://host/{version}.tar"}, "source begins with ftp://; hosts fetch from https://"),
        ({"source": "https:///{version}.tar"}, "source https:// names no host"),
        ({"source": "s3:///prefix"}, "source s3:// names no bucket"),
        ({"source": "https://host/mlp.tar"}, "has to hold {version}, and to end with one of .tar.zst"),
        ({"source": "https://host/{version}.zip"}, "has to hold {version}, and to end with one of .tar.zst"),
        ({"source": "https://me:secret@host/{version}.tar"}, "source has a password, which would be shown"),
        ({"versions": None}, "versions is missing or empty"),
        ({"versions": []}, "versions is missing or empty"),
        ({"versions": [-1, 3]}, "versions lists -1, which is no version number"),
        ({"versions": [2**63]}, "which is no version number"),
        ({"digests": None}, "digests needs the sha256 (64 hex digits) of version 3"),
        ({"digests": {3: "abc"}}, "digests needs the sha256 (64 hex digits) of version 3"),
        ({"digests": {2: DIGEST}}, "digests needs the sha256 (64 hex digits) of version 3"),
    ],
)
def test_source_that_hosts_cannot_fetch_from_safely_is_refused(change: dict[str, Any], complaint: str) -> None:
    entry = {"name": "MLP", "source": "https://host/{version}.tar", "versions": [3], "digests": {3: DIGEST}}
    (text,) = problems([{**entry, **change}])
    assert complaint in text
    assert "secret" not in text


def test_digests_of_a_directory_on_the_controller_are_refused(source: Path) -> None:
    (text,) = problems([{"name": "MLP", "source": str(source), "digests": {1: DIGEST}}])
    assert "digests is for sources that the hosts fetch" in text


def test_keep_of_an_entry_wins_over_that_of_all(source: Path) -> None:
    entries = [{"name": "a", "source": str(source)}, {"name": "b", "source": str(source), "keep": 5}]
    assert [model.keep for model in read_catalog(entries, keep=2)] == [2, 5]


def test_all_that_no_model_could_keep_of_a_contract_is_refused(source: Path) -> None:
    signatures = {"call": {"inputs": {"x": {"dtype": "float", "shape": [True]}}}, "sum": ["x"]}
    assert problems([{"name": "MLP", "source": str(source), "signatures": signatures}]) == [
        "model MLP: signatures: call.inputs.x.dtype is 'float'; write float32",
        "model MLP: signatures: call.inputs.x.shape takes a list of sizes, -1 where any size will do, or unknown_rank; "
        "True is no size",
        "model MLP: signatures: sum takes inputs and outputs",
    ]


@pytest.mark.parametrize("signatures", [{"call": {}}, {"call": {"inputs": {"x": None, "y": {"shape": []}}}}, None])
def test_contract_may_leave_things_open(source: Path, signatures: Any) -> None:
    (model,) = read_catalog([{"name": "MLP", "source": str(source), "signatures": signatures}])
    assert model.contract == signatures


@pytest.mark.parametrize("source", ["", "  "])
def test_empty_source_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_saved_model(tmp_path / "1")
    monkeypatch.chdir(tmp_path)
    (text,) = problems([{"name": "MLP", "source": source}])
    assert text == "model MLP: source is empty; name a directory on the controller, or what the hosts fetch"


@pytest.mark.parametrize("name", ["MLP", "half_plus_two", "a", "0", "_a", "a.b-c", "a" * 255])
def test_name_that_fits_a_directory_and_a_url_is_accepted(source: Path, name: str) -> None:
    assert read_catalog([{"name": name, "source": str(source)}])[0].name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-a", "a/b", "a b", "a:predict", "a\n", "é", "%41", "a" * 256]
)
def test_name_that_fits_no_directory_or_url_is_refused(source: Path, name: str) -> None:
    (text,) = problems([{"name": name, "source": str(source)}])
    assert text.startswith(f"model name {name!r}: use at most")


HOSTILE_LABELS = [
    "a-b",
    "a b",
    "a.b",
    "..",
    "100%",
    "%41",
    'a"b',
    "a'b",
    "a\\b",
    "{$a}",
    "${uri}",
    "a;b",
    "é",
    "蓝绿",
    "\xa0",
]


@pytest.mark.parametrize("label", HOSTILE_LABELS)
def test_label_may_be_any_text(source: Path, label: str) -> None:
    (model,) = read_catalog([{"name": "MLP", "source": str(source), "version_labels": {label: 1}}])
    assert model.labels == {label: 1}
    config = render_models_config([{"name": "MLP", "version_labels": {label: 1}}])
    read = text_format.Parse(config, ModelServerConfig()).model_config_list.config[0].version_labels
    assert dict(read) == {label: 1}


@pytest.mark.parametrize("label", ["", "a/b", "a:b", "\ud800"])
def test_label_that_fits_no_url_is_refused(source: Path, label: str) -> None:
    (text,) = problems([{"name": "MLP", "source": str(source), "version_labels": {label: 1}}])
    assert text == f"model MLP: version_labels: label {label!r} has to be a text without / and :, and not empty"


@pytest.mark.parametrize("label", ["a\n", "a\tb", "\x7f", "\x85", "\u2028"])
def test_label_with_a_control_character_is_refused(source: Path, label: str) -> None:
    (text,) = problems([{"name": "MLP", "source": str(source), "version_labels": {label: 1}}])
    assert text == f"model MLP: version_labels is '{printable(label)}'; take the control characters out of it."


@pytest.mark.parametrize("version", [None, "two", [1], -1, 1.5, True, 2**63])
def test_label_that_points_to_no_number_is_refused(source: Path, version: Any) -> None:
    (text,) = problems([{"name": "MLP", "source": str(source), "version_labels": {"stable": version}}])
    assert text == f"model MLP: version_labels: label stable points to {version!r}, which is no version number"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (None, LATEST),
        ({}, LATEST),
        ({"latest": None}, None),
        ({"latest": {}}, LATEST),
        ({"latest": {"num_versions": 2}}, {"latest": {"num_versions": 2}}),
        ({"latest": {"num_versions": "2"}}, {"latest": {"num_versions": 2}}),
        ({"latest": {"num_versions": 0}}, None),
        ({"latest": {"num_versions": -1}}, None),
        ({"latest": {"num_versions": 5000000000}}, None),
        ({"specific": {"versions": [-1]}}, None),
        ({"specific": {"versions": [2**63]}}, None),
        ({"latest": {"num_versions": "many"}}, None),
        ({"all": {}}, {"all": {}}),
        ({"all": {}, "latest": None, "specific": None}, {"all": {}}),
        ({"specific": {"versions": [2, 1, 2]}}, {"specific": {"versions": [1, 2]}}),
        ({"specific": {"versions": ["10", "9"]}}, {"specific": {"versions": [9, 10]}}),
        ({"specific": {"versions": []}}, None),
        ({"specific": {}}, None),
        ({"latest": {}, "all": {}}, None),
        ({"newest": {}}, None),
    ],
)
def test_policy_is_read_or_refused(written: dict[str, Any] | None, read: dict[str, Any] | None) -> None:
    if read is None:
        with pytest.raises(ValueError, match=r"\w"):
            read_policy(written)
    else:
        assert read_policy(written) == read


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (LATEST, [10]),
        ({"latest": {"num_versions": 2}}, [9, 10]),
        ({"latest": {"num_versions": 5}}, [1, 9, 10]),
        ({"all": {}}, [1, 9, 10]),
        ({"specific": {"versions": [1, 10, 11]}}, [1, 10]),
    ],
)
def test_served_versions_follow_the_policy(policy: dict[str, Any], served: list[int]) -> None:
    assert served_versions(policy, [10, 1, 9, 9]) == served
    assert served_versions(policy, []) == []


@pytest.mark.parametrize(
    ("keep", "policy", "labels", "retained"),
    [
        (None, LATEST, {}, [1, 2, 3, 10]),
        (1, LATEST, {}, [10]),
        (2, LATEST, {}, [3, 10]),
        (9, LATEST, {}, [1, 2, 3, 10]),
        (1, {"latest": {"num_versions": 3}}, {}, [2, 3, 10]),
        (1, {"specific": {"versions": [2]}}, {}, [2, 10]),
        (1, {"all": {}}, {}, [1, 2, 3, 10]),
        (1, LATEST, {"stable": 1, "gone": 7}, [1, 10]),
    ],
)
def test_newest_served_and_labelled_versions_stay(
    keep: int | None, policy: dict[str, Any], labels: dict[str, int], retained: list[int]
) -> None:
    assert retained_versions(keep, policy, labels, [10, 1, 3, 2, 2]) == retained


@pytest.mark.parametrize(
    ("policy", "labels", "wanted"),
    [
        (LATEST, {"stable": 3}, []),
        (LATEST, {"stable": 2}, ["label stable points to version 2, which is not served (served: version 3)"]),
        ({"all": {}}, {"stable": 1, "canary": 3}, []),
        ({"all": {}}, {"stable": 4}, ["label stable points to version 4, which is not served"]),
        ({"specific": {"versions": [1, 2]}}, {"stable": 1}, []),
        (
            {"specific": {"versions": [1, 5, 6]}},
            {},
            ["versions 5, 6, but there will be versions 1, 2, 3 only"],
        ),
        ({"specific": {"versions": [1, 5]}}, {"a": 5, "b": 2}, ["asks for version 5", "label a", "label b"]),
    ],
)
def test_policy_and_labels_must_be_fulfilled(policy: dict[str, Any], labels: dict[str, int], wanted: list[str]) -> None:
    found = check_served(Model("MLP", policy, labels), [1, 2, 3])
    assert len(found) == len(wanted)
    assert all(part in text for part, text in zip(wanted, found, strict=True))


@pytest.mark.parametrize(
    ("versions", "text"), [([], "versions (none)"), ([1], "version 1"), ({10, 9}, "versions 9, 10")]
)
def test_versions_are_told_as_text(versions: Any, text: str) -> None:
    assert numbers(versions) == text


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (None, "warmup is true, and there are no sample_requests to make the warm-up requests from"),
        ([{"instances": [1]}] * 1001, "warmup: a server makes 1000 requests at most; give fewer sample_requests"),
    ],
)
def test_warmup_takes_one_to_a_thousand_samples(source: Path, samples: Any, complaint: str) -> None:
    entry = {"name": "MLP", "source": str(source), "sample_requests": samples}
    assert problems([{**entry, "warmup": True}]) == [f"model MLP: {complaint}"]
    assert read_catalog([entry])[0].warmup == []


def test_dates_in_warmup_samples_are_text_as_in_a_request(source: Path) -> None:
    samples = [{"instances": [datetime.date(2026, 1, 2)]}]
    (model,) = read_catalog([{"name": "MLP", "source": str(source), "sample_requests": samples, "warmup": True}])
    assert model.warmup == [{"signature_name": "serving_default", "instances": ["2026-01-02"]}]

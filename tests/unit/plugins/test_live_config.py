"""The way from one models.config to another: which files, in which order, and what is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    Models,
    Step,
    catalog_models,
    plan,
    unservable,
    wanted_versions,
)

LATEST = {"latest": {"num_versions": 1}}
ALL: dict[str, Any] = {"all": {}}


def specific(*versions: int) -> dict[str, Any]:
    return {"specific": {"versions": list(versions)}}


def entry(name: str, policy: dict[str, Any] | None = None, **labels: int) -> Models:
    return {
        name: {
            "name": name,
            "base_path": f"/m/{name}",
            "model_platform": "tensorflow",
            "model_version_policy": policy or LATEST,
            "version_labels": labels,
        }
    }


def way(steps: list[Step], name: str = "M") -> list[tuple[list[int], dict[str, Any]]]:
    """Return the versions and labels of a model at each step."""
    return [(step.available.get(name, []), step.labels.get(name, {})) for step in steps]


def test_plain_change_is_one_step() -> None:
    old, new = entry("M", specific(1)), entry("M", specific(2))
    (step,) = plan(old, new, {"M": [1, 2]}, {"M": [1]}, {})
    assert step.models == new
    assert (step.available, step.labels, step.gone) == ({"M": [2]}, {"M": {}}, {"M": [1]})


def test_moved_label_takes_three_steps_when_its_version_goes() -> None:
    old, new = entry("M", specific(1), stable=1), entry("M", specific(2), stable=2)
    steps = plan(old, new, {"M": [1, 2]}, {"M": [1]}, {"M": {"stable": 1}})
    assert way(steps) == [([1, 2], {"stable": 1}), ([1, 2], {"stable": 2}), ([2], {"stable": 2})]
    assert [step.gone for step in steps] == [{}, {}, {"M": [1]}]
    assert steps[0].models["M"]["model_version_policy"] == specific(1, 2)
    assert steps[0].models["M"]["version_labels"] == {"stable": 1}
    assert steps[2].models == new


def test_moved_label_takes_two_steps_when_its_version_stays() -> None:
    old, new = entry("M", specific(1), stable=1), entry("M", specific(1, 2), stable=2)
    steps = plan(old, new, {"M": [1, 2]}, {"M": [1]}, {"M": {"stable": 1}})
    assert way(steps) == [([1, 2], {"stable": 1}), ([1, 2], {"stable": 2})]


def test_moved_label_takes_two_steps_when_its_new_version_is_served_already() -> None:
    old, new = entry("M", ALL, stable=1), entry("M", specific(2), stable=2)
    steps = plan(old, new, {"M": [1, 2]}, {"M": [1, 2]}, {"M": {"stable": 1}})
    assert way(steps) == [([1, 2], {"stable": 2}), ([2], {"stable": 2})]


def test_label_that_moves_among_served_versions_takes_one_step() -> None:
    old, new = entry("M", ALL, stable=1, canary=2), entry("M", ALL, stable=2, canary=1)
    steps = plan(old, new, {"M": [1, 2]}, {"M": [1, 2]}, {"M": {"stable": 1, "canary": 2}})
    assert way(steps) == [([1, 2], {"stable": 2, "canary": 1})]


def test_new_label_of_a_version_that_is_not_served_is_set_after_it_is() -> None:
    old, new = entry("M", specific(1)), entry("M", specific(1, 2), canary=2)
    steps = plan(old, new, {"M": [1, 2]}, {"M": [1]}, {"M": {"canary": None}})
    assert way(steps) == [([1, 2], {}), ([1, 2], {"canary": 2})]


def test_label_that_leads_nowhere_is_not_kept_on_the_way() -> None:
    """The server would refuse a file in which it moves, or in which it is new and leads to no served version."""
    old, new = entry("M", specific(1), lost=9, stable=1), entry("M", specific(2), stable=2)
    steps = plan(old, new, {"M": [1, 2]}, {"M": [1]}, {"M": {"stable": 1, "lost": None}})
    assert way(steps)[0] == ([1, 2], {"stable": 1})
    assert way(steps)[-1] == ([2], {"stable": 2, "lost": None})


def test_label_that_is_dropped_is_waited_for() -> None:
    old, new = entry("M", ALL, stable=1, canary=2), entry("M", ALL, stable=1)
    steps = plan(old, new, {"M": [1, 2]}, {"M": [1, 2]}, {"M": {"stable": 1, "canary": 2}})
    assert way(steps) == [([1, 2], {"stable": 1, "canary": None})]


def test_what_the_server_does_counts_not_what_the_file_says() -> None:
    """The file of the last step lies there, from a run that was killed, and the server has not read it yet."""
    new = entry("M", specific(2), stable=2)
    steps = plan(new, new, {"M": [1, 2]}, {"M": [1]}, {"M": {"stable": 1}})
    assert way(steps) == [([1, 2], {"stable": 1}), ([1, 2], {"stable": 2}), ([2], {"stable": 2})]


def test_models_come_with_the_first_step_and_go_with_the_last() -> None:
    old = {**entry("M", specific(1), stable=1), **entry("old", ALL, stable=5)}
    new = {**entry("M", specific(2), stable=2), **entry("new", LATEST, stable=7)}
    published = {"M": [1, 2], "old": [4, 5], "new": [7]}
    steps = plan(old, new, published, {"M": [1], "old": [4, 5]}, {"M": {"stable": 1}, "old": {"stable": 5}})
    assert [list(step.models) for step in steps] == [["M", "new", "old"], ["M", "new", "old"], ["M", "new"]]
    assert way(steps, "new") == [([7], {}), ([7], {"stable": 7}), ([7], {"stable": 7})]
    assert way(steps, "old")[:2] == [([4, 5], {"stable": 5})] * 2
    assert steps[2].gone == {"M": [1], "old": [4, 5]}


def test_model_that_has_left_the_disk_is_in_no_file() -> None:
    old = {**entry("M", specific(1), stable=1), **entry("gone", ALL)}
    new = entry("M", specific(2), stable=2)
    steps = plan(old, new, {"M": [1, 2], "gone": []}, {"M": [1], "gone": [1]}, {"M": {"stable": 1}})
    assert [list(step.models) for step in steps] == [["M"]] * 3


def test_other_models_keep_their_versions_until_the_last_step() -> None:
    old = {**entry("M", specific(1), stable=1), **entry("N", ALL)}
    new = {**entry("M", specific(2), stable=2), **entry("N", specific(3))}
    steps = plan(old, new, {"M": [1, 2], "N": [1, 2, 3]}, {"M": [1], "N": [1, 2, 3]}, {"M": {"stable": 1}})
    assert [versions for versions, _ in way(steps, "N")] == [[1, 2, 3], [1, 2, 3], [3]]


def test_without_a_readable_file_the_way_is_as_safe() -> None:
    new = entry("M", specific(2), stable=2)
    assert len(plan({}, new, {"M": [1, 2]}, {"M": [1]}, {"M": {"stable": 1}})) == 3


# What the file says


@pytest.mark.parametrize(
    ("policy", "labels", "written"),
    [
        (None, {}, LATEST),
        ({"latest": {"num_versions": 2}}, {}, {"latest": {"num_versions": 2}}),
        # Else version 2 would go from under its label as soon as version 4 is published.
        ({"latest": {"num_versions": 2}}, {"stable": 2}, specific(2, 3)),
        ({"latest": None, "all": {}}, {"stable": "1"}, ALL),
        ({"specific": {"versions": [3, 1]}}, {"stable": 1}, specific(1, 3)),
    ],
)
def test_policy_of_the_catalogue_is_written(policy: Any, labels: dict[str, Any], written: dict[str, Any]) -> None:
    catalog = [{"name": "M", "model_version_policy": policy, "version_labels": labels}]
    ((model,), problems) = catalog_models(catalog, Path("/srv/models"), {"M": [1, 2, 3]})
    assert problems == []
    assert model["model_version_policy"] == written
    assert model["version_labels"] == {label: int(version) for label, version in labels.items()}
    assert (model["base_path"], model["model_platform"]) == ("/srv/models/M", "tensorflow")


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ({}, [3]),
        ({"latest": {}}, [3]),
        ({"latest": {"num_versions": 0}}, [3]),
        ({"latest": {"num_versions": 2}}, [2, 3]),
        ({"all": {}}, [1, 2, 3]),
        ({"specific": {"versions": [2, 9]}}, [2]),
        ({"specific": {}}, []),
    ],
)
def test_wanted_versions_are_those_of_the_server(policy: dict[str, Any], wanted: list[int]) -> None:
    assert wanted_versions({"model_version_policy": policy}, [1, 2, 3]) == wanted


def test_models_that_would_stop_the_server_are_named(tmp_path: Path) -> None:
    (tmp_path / "good" / "1").mkdir(parents=True)
    (tmp_path / "empty" / ".staging-1").mkdir(parents=True)
    models = {
        name: {"base_path": str(tmp_path / name), "model_version_policy": policy}
        for name, policy in (("good", LATEST), ("empty", LATEST), ("missing", LATEST))
    }
    models["other"] = {"base_path": str(tmp_path / "good"), "model_version_policy": specific(2)}
    empty, missing, other = unservable(models)
    assert empty.startswith(f"{tmp_path}/empty has no version")
    assert missing.startswith(f"{tmp_path}/missing does not exist")
    assert other.endswith("has no version that the policy of model other serves")


# Versions that were withdrawn


def catalogued(name: str = "M", **keys: Any) -> dict[str, Any]:
    return {"name": name, "source": "s", **keys}


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"model_version_policy": specific(2)}, id="policy"),
        pytest.param({"version_labels": {"stable": 2}}, id="label"),
    ],
)
def test_model_that_asks_for_a_withdrawn_version_stays_as_it_is(keys: dict[str, Any]) -> None:
    current = entry("M", specific(1), stable=1)
    models, problems = catalog_models([catalogued(**keys)], Path("/m"), {"M": [1]}, {"M": [2]}, current)
    assert (models, problems) == ([current["M"]], [])


def test_model_that_never_served_is_left_out() -> None:
    catalog = [catalogued(), catalogued("N", version_labels={"stable": 1})]
    assert catalog_models(catalog, Path("/m"), {}, {"M": [1], "N": [1]}, None) == ([], [])


def test_withdrawn_version_that_nobody_asks_for_changes_nothing() -> None:
    models, problems = catalog_models([catalogued()], Path("/m"), {"M": [1]}, {"M": [2]}, entry("M", ALL))
    assert (models[0]["model_version_policy"], problems) == (LATEST, [])


def test_version_that_was_published_again_counts() -> None:
    catalog = [catalogued(model_version_policy=specific(2))]
    models, problems = catalog_models(catalog, Path("/m"), {"M": [1, 2]}, {"M": [2]}, entry("M", specific(1)))
    assert (models[0]["model_version_policy"], problems) == (specific(2), [])

"""What a host lacks of a catalogue, planned without a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import Model, Pull
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    Files,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.plan import (
    HostState,
    HostVersion,
    PublishingPlan,
    Withdrawal,
    plan_publishing,
)

MIB = 1 << 20


class Sources:
    """Sources of which every file has the digest of its size, and every model can be served."""

    def digested(self, source: Path, files: Files) -> Files:
        return {name: {**facts, "sha256": str(facts["size"])} for name, facts in files.items()}

    def inspected(self, source: Path, files: Files, contract: dict[str, Any] | None) -> dict[str, Any]:
        return {"signatures": {}, "warnings": []}


def files(size: int) -> Files:
    return {"saved_model.pb": {"size": size, "mtime_ns": 1}}


def model(*versions: int, **more: Any) -> Model:
    sources = {version: Path(f"/models/{version}") for version in versions}
    return Model("MLP", sources=sources, files={version: files(MIB * version) for version in versions}, **more)


def on_host(size: int, **more: Any) -> HostVersion:
    facts = {"is_intact": True, "digest": "d", "source_digest": None, "bytes": size, "signatures": None, "asked": None}
    return HostVersion(**{**facts, "stamp": tree_stamp(files(size)), **more})


def plan(one: Model, withdrawn: dict[int, Withdrawal] | None = None, **versions: HostVersion) -> PublishingPlan:
    there = {int(name[1:]): version for name, version in versions.items()}
    host = HostState({"MLP": there}, {"MLP": {}}, {"MLP": withdrawn or {}}, 0, None, None)
    return plan_publishing([one], host, Sources(), retry_withdrawn=False, per_model_batching=True)


def numbers(made: PublishingPlan) -> list[int]:
    return [one.version for one in made.transfers]


def test_newest_version_comes_first_and_what_is_there_does_not_come() -> None:
    made = plan(model(1, 2, 3), v2=on_host(2 * MIB))
    assert (numbers(made), made.problems) == ([3, 1], [])


def test_old_versions_that_would_be_pruned_count_as_disk_space_that_pruning_frees() -> None:
    made = plan(model(3, keep=1), v1=on_host(5), v2=on_host(7), v3=on_host(3 * MIB))
    assert (numbers(made), made.prunable_bytes) == ([], 12)


def test_withdrawn_version_makes_the_one_before_the_served_one() -> None:
    refused = Withdrawal("d", tree_stamp(files(2 * MIB)), None, "NOT_FOUND", "2026-11-30T07:00:00Z")
    made = plan(model(1, 2, keep=1), {2: refused})
    assert (numbers(made), [one["version"] for one in made.withdrawn]) == ([1], [2])


def test_all_problems_are_told_at_once() -> None:
    made = plan(model(1, 2, labels={"stable": 7}), v1=on_host(5), v2=on_host(6))
    assert [text.partition(",")[0] for text in made.problems] == [
        "model MLP: label stable points to version 7",
        "model MLP: version 2 is published with sha256 d",
        "model MLP: version 1 is published with sha256 d",
    ]


def test_version_without_batching_parameters_is_told_when_it_is_new_too() -> None:
    (note,) = plan(model(1, 2)).notes
    assert note.startswith("MLP version 2 has no batching_params.pbtxt")


@pytest.mark.parametrize(
    ("free_bytes", "free_inodes", "is_close"),
    [(2 * MIB, None, True), (3 * MIB, None, False), (3 * MIB, 3, True), (3 * MIB, 4, False)],
)
def test_host_counts_its_disk_space_where_it_may_not_do(
    free_bytes: int, free_inodes: int | None, is_close: bool
) -> None:
    host = HostState({}, {}, {}, free_bytes, free_inodes, None)
    assert plan(model(1)).may_exceed(host) is is_close
    pulled = Model("MLP", pulls={1: Pull("https://host/1.tar", "a" * 64)})
    assert not plan(pulled).may_exceed(HostState({}, {}, {}, 0, 0, None))

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a whole fleet serves, a row for each version, and where a server differs from the others or the catalogue.

A row has host, server (the instance's name), model, version, state, label (those that lead to the version), digest (its
first 12 digits), full_digest, drift (what is not as it should be, empty where all is well), verdict and error_message.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    is_archive,
    is_pulled,
    numbers,
    read_policy,
    served_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    list_files,
    source_versions,
    tree_digest,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.model_sources import digested

SHORT_DIGEST = 12
# Of what model_status_info says; in no row that is shown.
PRIVATE = ("source_digest", "stamp", "intact", "labels", "held", "rollout")
DRIFT, SERVED, IDLE, BUSY = "drift", "served", "idle", "busy"

Row = Dict[str, Any]


class ServedModel:
    """One model of one server: its rows, and its entry in the host's catalogue, empty where it has none."""

    def __init__(self, rows: list[Row], entry: Mapping[str, Any]) -> None:
        self.rows = rows
        self.entry = entry
        self.policy = read_policy(entry.get("model_version_policy"))
        # A server that does not answer has said nothing that could be compared.
        self.answered = any(row["version"] is not None and row["state"] != "WITHDRAWN" for row in rows)
        self.available = {row["version"]: row for row in rows if row["state"] == "AVAILABLE"}

    def mark(self, version: int | None, problem: str) -> None:
        """Say it on the row of a version, or on the first where there is none of it."""
        row = next((row for row in self.rows if row["version"] == version), self.rows[0])
        row["drift"] = "; ".join(filter(None, [row["drift"], problem]))

    def group(self) -> str:
        """Servers of one group are to serve the same: their catalogues say so."""
        wanted = [self.rows[0]["model"], *(self.entry.get(key) for key in ("source", "versions", "version_labels"))]
        return json.dumps([*wanted, self.policy], default=str)


def fleet_rows(hosts: Iterable[str], hostvars: Mapping[str, Any], variable: str) -> list[Row]:
    """Return the rows of all hosts, in their order.

    variable has each host's result of model_status_info, once or in a loop over tfserving_service_instances.
    """
    rows: list[Row] = []
    models: list[ServedModel] = []
    for host in hosts:
        entries = {entry["name"]: entry for entry in _catalog(hostvars[host])}
        result = hostvars[host].get(variable) or {}
        for asked in result.get("results") or [result]:
            server = (asked.get("item") or {}).get("name") or ""
            by_model: dict[str, list[Row]] = {}
            for row in asked.get("versions", [_not_asked(asked)]):
                by_model.setdefault(row["model"] or "", []).append(_row(host, server, row))
            for name, of_model in by_model.items():
                models.append(ServedModel(of_model, entries.get(name, {})))
                rows += of_model
    _compare(models)
    for row in rows:
        row["verdict"] = _verdict(row)
        for key in PRIVATE:
            del row[key]
    return rows


def _catalog(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    return variables.get("tfserving_models_catalog") or []


def _not_asked(result: Mapping[str, Any]) -> Row:
    state = "HOST UNREACHABLE" if result.get("unreachable") else "NOT ASKED"
    message = " ".join(str(result.get("msg", "")).split())
    return {"model": None, "version": None, "state": state, "error_message": message}


def _row(host: str, server: str, row: Mapping[str, Any]) -> Row:
    """Return a row with all keys; drift has what is wrong with the version itself."""
    failed = row["version"] is None or row["state"] == "WITHDRAWN"
    failed = failed or (row["state"] == "END" and row.get("error_code") not in (None, "OK"))
    digest = row.get("digest")
    return {
        "host": host,
        "server": server,
        "model": row["model"],
        "version": row["version"],
        "state": row["state"],
        "labels": row.get("labels") or [],
        "label": ", ".join(row.get("labels") or []),
        "digest": digest and digest[:SHORT_DIGEST],
        "full_digest": digest,
        **{key: row.get(key) for key in PRIVATE},
        "drift": row["error_message"] or row["state"].lower() if failed else "",
        "error_message": row["error_message"],
    }


def _verdict(row: Row) -> str:
    if row["drift"]:
        return DRIFT
    return {"AVAILABLE": SERVED, "END": IDLE}.get(row["state"], BUSY)


def _compare(models: list[ServedModel]) -> None:
    """Mark what differs."""
    answered = [model for model in models if model.answered]
    groups: dict[str, list[ServedModel]] = {}
    for model in answered:
        groups.setdefault(model.group(), []).append(model)
    for group in groups.values():
        strangers = [model for model in group if _differs_from_catalog(model)]
        _compare_versions([model for model in group if model not in strangers])
        _compare_digests(group)


def _differs_from_catalog(model: ServedModel) -> bool:
    """Mark what the catalogue says otherwise, and say whether the versions are others."""
    if not model.entry:
        return False
    there = set(model.available)
    wanted = set(_wanted_versions(model))
    withdrawn = {row["version"] for row in model.rows if row["state"] == "WITHDRAWN"}
    held = "".join(f"{row['held']}, and " for row in model.rows[:1] if row["held"])
    for words in (row["rollout"] for row in model.rows[:1] if row.get("rollout")):
        model.mark(None, words)
    for version in sorted(wanted - there - withdrawn):  # a row of a withdrawn one says it already
        model.mark(version, f"{held}the catalogue says to serve version {version}")
    surplus = there - wanted if "specific" in model.policy else set()
    for version in sorted(surplus):
        model.mark(version, f"{held}the catalogue does not say to serve it")
    _compare_labels(model)
    _compare_files(model)
    return bool(wanted - there or surplus)


def _compare_files(model: ServedModel) -> None:
    """Mark versions whose files are not the catalogue's, or not what was published."""
    sources = _sources(model.entry)
    digests = {str(version): str(digest).lower() for version, digest in (model.entry.get("digests") or {}).items()}
    for version, row in model.available.items():
        digest = row["full_digest"]
        if row["intact"] is False and (digest or version in sources):
            model.mark(version, "its files were changed by others" if digest else "put there by others, not published")
        elif digest and is_pulled(model.entry["source"]):
            found = row["source_digest"] if is_archive(model.entry["source"]) else digest
            if found and found != digests.get(str(version), found):
                model.mark(version, "the catalogue has another digest")
        elif digest and version in sources and not _is_source_of(sources[version], row):
            model.mark(version, "the catalogue has another digest")


def _is_source_of(source: Path, row: Row) -> bool:
    """Say whether a version was published from what a source holds now, True where that cannot be seen."""
    try:
        files = list_files(source)
        return tree_stamp(files) == row["stamp"] or tree_digest(digested(source, files)) == row["full_digest"]
    except (SavedModelError, OSError):
        return True


def _sources(entry: Mapping[str, Any]) -> dict[int, Path]:
    """Return the versions of an entry, with directories on the controller where it has them there; none unseen."""
    source, versions = str(entry["source"]), [int(version) for version in entry.get("versions") or []]
    path = Path(source).expanduser()
    if is_pulled(source) or (path / "saved_model.pb").exists():
        return dict.fromkeys(versions, path)
    try:
        found, _ = source_versions(path, versions or None)
    except (SavedModelError, OSError):
        return {}
    return {version: found[version] for version in versions or found if version in found}


def _compare_labels(model: ServedModel) -> None:
    wanted = {str(label): int(version) for label, version in (model.entry.get("version_labels") or {}).items()}
    leads_to = {label: row["version"] for row in model.rows for label in row["labels"]}
    for label in sorted({*wanted, *leads_to}):
        there, should = leads_to.get(label), wanted.get(label)
        if should is None:
            model.mark(there, f"the catalogue has no label {label}")
        elif there is None:
            model.mark(should, f"label {label} leads nowhere")
        elif there != should:
            model.mark(there, f"label {label} is to lead to version {should}")


def _wanted_versions(model: ServedModel) -> list[int]:
    """Return what the catalogue's policy comes to with the versions of its source, none where that cannot be seen."""
    if "specific" in model.policy:
        return list(model.policy["specific"]["versions"])
    return served_versions(model.policy, map(int, model.entry.get("versions") or _sources(model.entry)))


def _compare_versions(group: list[ServedModel]) -> None:
    served = [tuple(sorted(model.available)) for model in group]
    usual = _most_frequent(served)
    for model, versions in zip(group, served):
        if len(usual) > 1:
            model.mark(next(iter(versions), None), "the servers serve different versions")
        elif versions != usual[0]:
            model.mark(next(iter(versions), None), f"most servers serve {numbers(usual[0])}")


def _compare_digests(group: list[ServedModel]) -> None:
    for version in sorted({version for model in group for version in model.available}):
        having = [model for model in group if version in model.available]
        digests = [model.available[version]["full_digest"] for model in having]
        usual = _most_frequent(digests)
        for model, digest in zip(having, digests):
            if len(usual) > 1:
                model.mark(version, "the servers have different digests of it")
            elif digest != usual[0]:
                what = f"digest {usual[0][:SHORT_DIGEST]}" if usual[0] else "none that this collection published"
                model.mark(version, f"most servers have {what}")


def _most_frequent(values: list[Any]) -> list[Any]:
    """Return the values that are the most frequent: several where there is no majority."""
    counts = Counter(values)
    return [value for value, count in counts.items() if count == max(counts.values())]

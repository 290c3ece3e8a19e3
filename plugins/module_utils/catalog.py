# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads tfserving_models_catalog: what each entry means, and what is wrong with it, all at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    Files,
    SavedModelError,
    check_saved_model,
    list_files,
    parse_version,
    source_versions,
)

# A name becomes a directory and a part of the URL /v1/models/NAME[/versions/N|/labels/L][:verb].
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LABEL = re.compile(r"[A-Za-z0-9_]+")  # model_servers/http_rest_api_util.cc

# One entry of the catalogue, as Ansible's argument specs put it. Modules that read a part of it take it whole.
CATALOG_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "source": {"type": "path", "required": True},
    "versions": {"type": "list", "elements": "int"},
    "model_version_policy": {
        "type": "dict",
        "options": {
            "latest": {"type": "dict", "options": {"num_versions": {"type": "int", "default": 1}}},
            "all": {"type": "dict"},
            "specific": {
                "type": "dict",
                "options": {"versions": {"type": "list", "elements": "int", "required": True}},
            },
        },
    },
    "version_labels": {"type": "dict"},
}


class CatalogError(Exception):
    """A catalogue that cannot be served. The text lists every problem found, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(["tfserving_models_catalog cannot be served:", *(f"- {text}" for text in problems)]))


@dataclass(frozen=True)
class Model:
    """One entry of the catalogue, with the versions of its source and their files.

    sources is {version: directory on the controller}, files is {version: what list_files says of that directory}.
    """

    name: str
    sources: dict[int, Path]
    policy: dict[str, Any]
    labels: dict[str, int]
    files: dict[int, Files] = field(default_factory=dict, compare=False)


def read_catalog(catalog: list[dict[str, Any]]) -> list[Model]:
    """Return the models of a catalogue, each version of each source checked to be a whole SavedModel.

    Raises CatalogError with all problems that can be seen on the controller.
    """
    if not catalog:
        raise CatalogError(["it is empty, and so would unload every model; playbooks/remove.yml takes a host down"])
    problems: list[str] = []
    models: list[Model] = []
    names = [str(entry["name"]) for entry in catalog]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"model {name} is listed {names.count(name)} times; a name may be listed once")
    for entry in catalog:
        name = str(entry["name"])
        if not _NAME.fullmatch(name):
            problems.append(f"model name {name!r}: use letters, digits, _ . and -, and begin with none of the last two")
        model, found = _read_entry(entry)
        models.append(model)
        problems += (f"model {name}: {text}" for text in found)
    if problems:
        raise CatalogError(problems)
    return models


def _read_entry(entry: dict[str, Any]) -> tuple[Model, list[str]]:
    """Return an entry as far as it can be read, and all that is wrong with it."""
    problems: list[str] = []
    policy: dict[str, Any] = {}
    labels: dict[str, int] = {}
    sources: dict[int, Path] = {}
    files: dict[int, Files] = {}
    try:
        policy = read_policy(entry.get("model_version_policy"))
    except ValueError as error:
        problems.append(str(error))
    try:
        labels = _read_labels(entry.get("version_labels") or {})
    except ValueError as error:
        problems.append(str(error))
    try:
        sources = _read_sources(entry)
    except (SavedModelError, ValueError) as error:
        problems.append(str(error))
    for version, path in sources.items():
        try:
            check_saved_model(path)
            files[version] = list_files(path)
        except SavedModelError as error:
            problems.append(str(error))
    return Model(str(entry["name"]), sources, policy, labels, files), problems


def _read_sources(entry: dict[str, Any]) -> dict[int, Path]:
    sources = source_versions(Path(entry["source"]).expanduser())
    wanted = entry.get("versions")
    if wanted is None:
        return sources
    if not wanted:
        raise ValueError("versions is empty; leave it out to publish all of them")
    missing = sorted(set(wanted) - set(sources))
    if missing:
        raise SavedModelError(
            f"versions lists {numbers(missing)}, but {entry['source']} has {numbers(sources)}; "
            "export it or take it from the list"
        )
    return {version: sources[version] for version in sorted(wanted)}


def _read_labels(labels: dict[str, Any]) -> dict[str, int]:
    """Return version_labels with versions as numbers. Raises ValueError for what models.config cannot say."""
    for label, version in labels.items():
        if not _LABEL.fullmatch(str(label)):
            raise ValueError(f"version_labels: label {label!r} may hold letters, digits and _ only")
        if parse_version(str(version)) is None:
            raise ValueError(f"version_labels: label {label} points to {version!r}, which is no version number")
    return {str(label): int(version) for label, version in labels.items()}


def read_policy(policy: dict[str, Any] | None) -> dict[str, Any]:
    """Return a model_version_policy with the server's default, the latest version, filled in.

    Raises ValueError for anything that models.config cannot say.
    """
    chosen = {key: value for key, value in (policy or {"latest": {}}).items() if value is not None}
    if len(chosen) != 1 or not set(chosen) <= {"latest", "all", "specific"}:
        raise ValueError("model_version_policy takes exactly one of latest, all and specific")
    if "latest" in chosen:
        count = int(chosen["latest"].get("num_versions", 1))
        if count < 1:
            raise ValueError("model_version_policy.latest.num_versions must be at least 1")
        return {"latest": {"num_versions": count}}
    if "specific" in chosen:
        versions = sorted({int(version) for version in chosen["specific"].get("versions") or []})
        if not versions:
            raise ValueError("model_version_policy.specific.versions must list at least one version")
        return {"specific": {"versions": versions}}
    return {"all": {}}


def served_versions(policy: dict[str, Any], available: Iterable[int]) -> list[int]:
    """Return which of the available versions the server serves under a policy of read_policy, in ascending order."""
    ordered = sorted(set(available))
    if "latest" in policy:
        return ordered[-policy["latest"]["num_versions"] :]
    if "specific" in policy:
        return [version for version in ordered if version in policy["specific"]["versions"]]
    return ordered


def check_served(model: Model, available: Iterable[int]) -> list[str]:
    """Return what in a model's policy and labels cannot be fulfilled once these versions are on the host."""
    available = sorted(set(available))
    served = served_versions(model.policy, available)
    problems = []
    absent = sorted(set(model.policy.get("specific", {}).get("versions", [])) - set(available))
    if absent:
        problems.append(
            f"model {model.name}: model_version_policy.specific asks for {numbers(absent)}, "
            f"but there will be {numbers(available)} only; add it to the source or take it from the policy"
        )
    problems += (
        f"model {model.name}: label {label} points to version {version}, which is not served "
        f"(served: {numbers(served)}); change version_labels or model_version_policy"
        for label, version in model.labels.items()
        if version not in served
    )
    return problems


def numbers(versions: Iterable[int]) -> str:
    """Return versions as text: 'version 1', 'versions 1, 2'."""
    ordered = sorted(versions)
    return ("version " if len(ordered) == 1 else "versions ") + (", ".join(map(str, ordered)) or "(none)")

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads tfserving_models_catalog: what each entry means, and what is wrong with it, all at once."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping
from urllib.parse import urlsplit

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import (
    control_characters,
    listed,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.signature_contract import (
    contract_errors,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    MAX_VERSION,
    MAX_WARMUP_REQUESTS,
    Files,
    SavedModelError,
    list_files,
    parse_version,
    source_versions,
)

# num_versions is a uint32 (sources/storage_path/file_system_storage_path_source.proto).
MAX_VERSIONS = 2**32 - 1

# A name becomes a directory and a part of the URL /v1/models/NAME[/versions/N|/labels/L][:verb].
MAX_NAME = 255  # bytes that a directory's name may have
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{,{MAX_NAME - 1}}}")
# model_servers/http_rest_api_util.cc; half a surrogate pair cannot be written to a file.
_LABEL = re.compile("[^/:\ud800-\udfff]+")

# One entry of the catalogue, as Ansible's argument specs put it. Modules that read a part of it take it whole.
CATALOG_OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
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
    "digests": {"type": "dict"},
    "signatures": {"type": "dict"},
    "keep": {"type": "int"},
    "warmup": {"type": "bool", "default": False},
    "sample_requests": {
        "type": "list",
        "elements": "dict",
        "options": {
            "signature_name": {"type": "str", "default": "serving_default"},
            "instances": {"type": "list", "elements": "raw", "required": True},
            "expected": {"type": "list", "elements": "raw"},
            "tolerance": {"type": "float", "default": 1e-3},
        },
    },
}

ARCHIVES = (".tar.zst", ".tar.gz", ".tgz", ".tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CatalogError(Exception):
    """A catalogue that cannot be served. The text lists every problem found, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(["tfserving_models_catalog cannot be served:", *(f"- {text}" for text in problems)]))
        self.problems = problems


@dataclass(frozen=True)
class Pull:
    """One version that each host fetches: from where, and the sha256 of the archive, or of the tree without one."""

    url: str
    digest: str

    @property
    def is_archive(self) -> bool:
        return is_archive(self.url)


@dataclass(frozen=True)
class Model:
    """One entry of the catalogue, with the versions of its source.

    A version is in sources, {version: directory on the controller}, with its files in files as list_files returns
    them, or in pulls. contract are the signatures that every version has to have; keep is how many versions stay, None
    for all; samples are requests, as read_samples returns them, that every served version has to answer.
    """

    name: str
    policy: dict[str, Any] = field(default_factory=lambda: {"latest": {"num_versions": 1}})
    labels: dict[str, int] = field(default_factory=dict)
    sources: dict[int, Path] = field(default_factory=dict)
    files: dict[int, Files] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)
    contract: dict[str, Any] | None = None
    keep: int | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    warmup: list[dict[str, Any]] = field(default_factory=list)  # the samples that a version brings in itself
    notes: list[str] = field(default_factory=list)  # what to tell the user of the source

    @property
    def versions(self) -> list[int]:
        """The versions of the source, in ascending order."""
        return sorted({*self.sources, *self.pulls})


def read_catalog(catalog: list[dict[str, Any]], keep: int | None = None) -> list[Model]:
    """Return the models of a catalogue, with the files of each version; keep is for entries without their own.

    Raises CatalogError with all problems that can be seen on the controller.
    """
    if not catalog:
        raise CatalogError(["it is empty, which would unload every model; to remove all, run playbooks/remove.yml"])
    problems: list[str] = []
    models: list[Model] = []
    names = [str(entry["name"]) for entry in catalog]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"model {name} is listed {names.count(name)} times; a name may be listed once")
    for entry in catalog:
        name = str(entry["name"])
        if not _NAME.fullmatch(name):
            problems.append(
                f"model name {name!r}: use at most {MAX_NAME} letters, digits, _ . and -, and do not begin with . or -"
            )
        model, found = _read_entry(entry, keep)
        models.append(model)
        problems += (f"model {name}: {text}" for text in found)
    if problems:
        raise CatalogError(problems)
    return models


def check_credentials(models: Iterable[Model], has_password: bool) -> None:
    """Raise CatalogError where the password of the server that hosts fetch from would be shown to others."""
    urls = sorted({pull.url for model in models for pull in model.pulls.values()} if has_password else [])
    plain = [url for url in urls if url.startswith("http://")]
    servers = {urlsplit(url).netloc.rpartition("@")[2] for url in urls if not url.startswith("s3://")}
    problems = []
    if plain:
        problems.append(f"tfserving_models_url_password would be sent in plain text to {plain[0]}; fetch from https://")
    if len(servers) > 1:
        problems.append(
            f"tfserving_models_url_password would be shown to {' and '.join(sorted(servers))}; fetch from one of them "
            "only, or from servers that ask for none"
        )
    if problems:
        raise CatalogError(problems)


def _read_entry(entry: dict[str, Any], keep: int | None) -> tuple[Model, list[str]]:
    """Return an entry as far as it can be read, and all that is wrong with it."""
    problems: list[str] = []
    notes: list[str] = []
    parts: dict[str, Any] = {}
    readers: dict[str, Callable[[], Any]] = {
        "policy": lambda: read_policy(entry.get("model_version_policy")),
        "labels": lambda: read_labels(entry.get("version_labels") or {}),
        "keep": lambda: read_keep(entry.get("keep"), keep),
        "contract": lambda: _read_contract(entry.get("signatures")),
        "samples": lambda: read_samples(entry.get("sample_requests")),
        "warmup": lambda: _read_warmup(entry),
    }
    if not entry["source"].strip():
        problems.append("source is empty; name a directory on the controller, or what the hosts fetch")
    elif is_pulled(entry["source"]):
        readers["pulls"] = lambda: _read_pulls(entry)
    else:
        readers["sources"] = lambda: _read_sources(entry, notes)
    for part, reader in readers.items():
        try:
            parts[part] = reader()
        except (SavedModelError, ValueError) as error:
            problems += str(error).splitlines()
    files: dict[int, Files] = {}
    for version, path in parts.get("sources", {}).items():
        try:
            files[version] = list_files(path)
        except SavedModelError as error:
            problems.append(str(error))
    return Model(str(entry["name"]), files=files, notes=notes, **parts), problems


def is_pulled(source: str) -> bool:
    """Say whether hosts fetch from a source by themselves; else it is a directory on the controller."""
    return "://" in source


def is_archive(source: str) -> bool:
    """Say whether what hosts fetch are archives; their digests are not those of the files in them."""
    return source.startswith(("http://", "https://"))


def _read_pulls(entry: dict[str, Any]) -> dict[int, Pull]:
    """Return what the hosts fetch. Raises ValueError for a source that they cannot fetch from, or not safely."""
    source = entry["source"]
    url = urlsplit(source)
    if url.scheme not in ("http", "https", "s3", "rsync"):
        raise ValueError(f"source begins with {url.scheme}://; hosts fetch from https://, http://, s3:// and rsync://")
    if not url.hostname:
        raise ValueError(f"source {url.scheme}:// names no {'bucket' if url.scheme == 's3' else 'host'}")
    if url.password is not None:
        raise ValueError("source has a password, which would be shown; set tfserving_models_url_password")
    if url.scheme in ("http", "https") and not ("{version}" in source and source.endswith(ARCHIVES)):
        raise ValueError(f"source {source} has to hold {{version}}, and to end with one of {' '.join(ARCHIVES)}")
    digests = {str(version): str(digest).lower() for version, digest in (entry.get("digests") or {}).items()}
    what = "archive" if url.scheme in ("http", "https") else "version, as the module saved_model_info prints it"
    versions = sorted({_version(number) for number in entry.get("versions") or []})
    if not versions:
        raise ValueError("versions is missing or empty: it says which versions the hosts fetch")
    for version in versions:
        if not _SHA256.fullmatch(digests.get(str(version), "")):
            raise ValueError(f"digests needs the sha256 (64 hex digits) of version {version}: that of the {what}")
    template = source if "{version}" in source else f"{source.rstrip('/')}/{{version}}"
    return {version: Pull(template.replace("{version}", str(version)), digests[str(version)]) for version in versions}


def _version(number: int) -> int:
    """Return a version that the server can read from a directory's name. Raises ValueError for another one."""
    if parse_version(str(number)) is None:
        raise ValueError(f"versions lists {number}, which is no version number: these are from 0 to {MAX_VERSION}")
    return number


def read_keep(keep: int | None, default: int | None) -> int | None:
    """Return how many newest versions stay, None for all of them. Raises ValueError for less than one."""
    keep = default if keep is None else keep
    if keep is not None and keep < 1:
        raise ValueError(f"keep is {keep}, and has to be at least 1; leave it out to keep every version")
    return keep


def _read_contract(signatures: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the signatures that a model has to have. Raises ValueError for what no model could have."""
    errors = contract_errors(signatures)
    if errors:
        raise ValueError("\n".join(f"signatures: {error}" for error in errors))
    return signatures


def _read_sources(entry: dict[str, Any], notes: list[str]) -> dict[int, Path]:
    """Return the versions of a source on the controller, and add to notes what else was found there."""
    if entry.get("digests"):
        raise ValueError("digests is for sources that the hosts fetch; leave it out for a directory on the controller")
    source = Path(entry["source"]).expanduser()
    wanted: list[int] | None = entry.get("versions")
    if (source / "saved_model.pb").exists():
        if not wanted or len(wanted) != 1:
            raise ValueError(f"{source} is one SavedModel; say which version it is, such as versions: [1]")
        return {_version(wanted[0]): source}
    if wanted is not None and not wanted:
        raise ValueError("versions is empty; leave it out to publish all of them")
    sources, others = source_versions(source, wanted and [_version(number) for number in wanted])
    if others:
        notes.append(
            f"{source} holds what is no version, and is passed over: {listed(others)}. A version is a "
            "directory with a whole number for its name"
        )
    missing = sorted(set(wanted or []) - set(sources))
    if missing:
        raise SavedModelError(
            f"versions lists {numbers(missing)}, but {entry['source']} has {numbers(sources)}; "
            "export it or remove it from the list"
        )
    return {version: sources[version] for version in sorted(wanted or sources)}


def read_labels(labels: dict[str, Any]) -> dict[str, int]:
    """Return version_labels with versions as numbers. Raises ValueError for what models.config cannot say."""
    for label, version in labels.items():
        for problem in control_characters("version_labels", str(label)):
            raise ValueError(problem)
        if not _LABEL.fullmatch(str(label)):
            raise ValueError(f"version_labels: label {label!r} has to be a text without / and :, and not empty")
        if parse_version(str(version)) is None:
            raise ValueError(f"version_labels: label {label} points to {version!r}, which is no version number")
    return {str(label): int(version) for label, version in labels.items()}


def read_samples(requests: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Return sample_requests with the defaults filled in. Raises ValueError for one without an instance.

    What is expected is there only where it is given, one prediction for each instance.
    """
    samples = []
    for number, request in enumerate(requests or [], start=1):
        if not request.get("instances"):
            raise ValueError(f"sample_requests: request {number} has no instances; give at least one")
        sample = {
            "signature_name": request.get("signature_name") or "serving_default",
            "instances": list(request["instances"]),
        }
        if request.get("expected") is not None:
            if len(request["expected"]) != len(sample["instances"]):
                raise ValueError(f"sample_requests: request {number} has not one expected prediction for each instance")
            sample.update(expected=request["expected"], tolerance=float(request.get("tolerance") or 0))
        samples.append(sample)
    return samples


def _read_warmup(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the samples that the server is to ask each version before it serves it. Raises ValueError for none."""
    if not entry.get("warmup"):
        return []
    if not entry.get("sample_requests"):
        raise ValueError("warmup is true, and there are no sample_requests to make the warm-up requests from")
    if len(entry["sample_requests"]) > MAX_WARMUP_REQUESTS:
        raise ValueError(f"warmup: a server makes {MAX_WARMUP_REQUESTS} requests at most; give fewer sample_requests")
    try:
        requests = [
            {name: sample[name] for name in ("signature_name", "instances")}
            for sample in read_samples(entry["sample_requests"])
        ]
        # YAML's dates are text, as they are in a request.
        samples: list[dict[str, Any]] = json.loads(json.dumps(requests, default=str))
    except ValueError:
        return []  # which is said of sample_requests
    return samples


def catalog_samples(catalog: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of each model of a catalogue. Raises ValueError, as read_samples does, with the model."""
    samples = {}
    for entry in catalog:
        try:
            samples[entry["name"]] = read_samples(entry.get("sample_requests"))
        except ValueError as error:
            raise ValueError(f"model {entry['name']}: {error}") from error
    return samples


def read_policy(policy: dict[str, Any] | None) -> dict[str, Any]:
    """Return a model_version_policy with the server's default, the latest version, filled in.

    Raises ValueError for anything that models.config cannot say.
    """
    chosen = {key: value for key, value in (policy or {"latest": {}}).items() if value is not None}
    if len(chosen) != 1 or not set(chosen) <= {"latest", "all", "specific"}:
        raise ValueError("model_version_policy takes exactly one of latest, all and specific")
    if "latest" in chosen:
        count = int(chosen["latest"].get("num_versions", 1))
        if not 1 <= count <= MAX_VERSIONS:
            raise ValueError(
                f"model_version_policy.latest.num_versions is {count}; it has to be from 1 to {MAX_VERSIONS}"
            )
        return {"latest": {"num_versions": count}}
    if "specific" in chosen:
        versions = sorted({int(version) for version in chosen["specific"].get("versions") or []})
        for version in versions:
            if parse_version(str(version)) is None:
                raise ValueError(f"model_version_policy.specific lists {version}, which is no version number")
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


def retained_versions(
    keep: int | None, policy: dict[str, Any], labels: dict[str, int], available: Iterable[int]
) -> list[int]:
    """Return which of the available versions stay: the newest, those that are served and those that have a label."""
    ordered = sorted(set(available))
    if keep is None:
        return ordered
    return sorted({*ordered[-keep:], *served_versions(policy, ordered), *(set(labels.values()) & set(ordered))})


def check_served(model: Model, available: Iterable[int]) -> list[str]:
    """Return what in a model's policy and labels cannot be fulfilled once these versions are on the host."""
    available = sorted(set(available))
    served = served_versions(model.policy, available)
    problems = []
    absent = sorted(set(model.policy.get("specific", {}).get("versions", [])) - set(available))
    if absent:
        problems.append(
            f"model {model.name}: model_version_policy.specific asks for {numbers(absent)}, "
            f"but there will be {numbers(available)} only; add it to the source or remove it from the policy"
        )
    problems += (
        f"model {model.name}: label {label} points to version {version}, which is not served "
        f"(served: {numbers(served)}); change version_labels or model_version_policy"
        for label, version in model.labels.items()
        if version not in served
    )
    return problems


def versions_by_model(rows: Iterable[Mapping[str, Any]]) -> dict[str, set[int]]:
    """Return the versions of rows with model and version, by model."""
    found: dict[str, set[int]] = {}
    for one in rows:
        found.setdefault(str(one["model"]), set()).add(int(one["version"]))
    return found


def numbers(versions: Iterable[int]) -> str:
    """Return versions as text: 'version 1', 'versions 1, 2'."""
    ordered = sorted(versions)
    return ("version " if len(ordered) == 1 else "versions ") + (", ".join(map(str, ordered)) or "(none)")

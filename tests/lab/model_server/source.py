"""Watches the base paths of the models for version directories.

Source: tensorflow/serving @ 9d981c5c, sources/storage_path/file_system_storage_path_source.cc.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import executors, log, status

_PLACE = "tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc"
_INT64 = range(-(2**63), 2**63)

AspiredVersionsCallback = Callable[[str, list[tuple[int, str]]], None]


@dataclass(frozen=True)
class MonitoredModel:
    """A model's name, its base path and its FileSystemStoragePathSourceConfig.ServableVersionPolicy."""

    name: str
    base_path: str
    policy: Any


def parse_version(name: str) -> int | None:
    """Return the version that a directory is named for, None when its whole name is no 64-bit integer."""
    if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", name):
        return None
    number = int(name)
    return number if number in _INT64 else None


def _index_children(children: list[str]) -> dict[int, str]:
    """Return the directory of each version; of two that name the same version the last in order counts."""
    by_version: dict[int, str] = {}
    for child in children:
        version = parse_version(child)
        if version is None:
            continue
        if version in by_version:
            log.warning(
                f"{_PLACE}:129",
                f"Duplicate version directories detected. Version {version} will be loaded from {child}, "
                f"{by_version[version]} will be ignored.",
            )
        by_version[version] = child
    return by_version


def _select(model: MonitoredModel, children: list[str]) -> list[tuple[int, str]]:
    """Return the versions, with the names of their directories, that the model's policy wants."""
    by_version = _index_children(children)
    choice = model.policy.WhichOneof("policy_choice")
    if choice == "all":
        numbered = [(parse_version(child), child) for child in children]
        return [(version, child) for version, child in numbered if version is not None]
    if choice == "specific":
        wanted = set(model.policy.specific.versions)
        for version in sorted(wanted - by_version.keys()):
            log.warning(
                f"{_PLACE}:238",
                f"Version {version} of servable {model.name}, which was requested to be served as a 'specific' version "
                "in the servable's version policy, was not found in the file system",
            )
        return [(version, child) for version, child in sorted(by_version.items()) if version in wanted]
    count = max(model.policy.latest.num_versions, 1)
    return sorted(by_version.items(), reverse=True)[:count]


def poll_model(model: MonitoredModel) -> list[tuple[int, str]]:
    """Return the versions of a model that its policy wants, with their directories.

    Raises INVALID_ARGUMENT when the base path does not exist, or the status of the failed directory listing.
    """
    if not os.access(model.base_path, os.F_OK):
        raise status.invalid_argument(
            f"Could not find base path {model.base_path} for servable {model.name} with error NOT_FOUND: "
            f"{model.base_path} not found"
        )
    if model.policy.HasField("specific") and not model.policy.specific.versions:
        log.warning(f"{_PLACE}:181", f"No specific versions requested for servable {model.name}.")
        return []
    try:
        children = sorted(child.name for child in Path(model.base_path).iterdir())
    except OSError as error:
        raise status.from_os_error(error, model.base_path) from error
    versions = _select(model, children)
    if not versions:
        log.warning(
            f"{_PLACE}:314",
            f"No versions of servable {model.name} found under base path {model.base_path}. Did you forget to name "
            "your leaf directory as a number (eg. '/1/')?",
        )
    return [(version, str(Path(model.base_path, child))) for version, child in versions]


class FileSystemSource:
    """Polls the base paths and tells which versions are wanted.

    poll_wait_seconds 0 polls once, a negative one never. A poll tells of all models or, when one of them cannot be
    read, of none.
    """

    def __init__(self, models: list[MonitoredModel], poll_wait_seconds: int, callback: AspiredVersionsCallback) -> None:
        self._lock = threading.Lock()
        self._models = models
        self._poll_wait_seconds = poll_wait_seconds
        self._callback = callback

    def start(self) -> None:
        """Begin to poll."""
        name = "FileSystemStoragePathSource_filesystem_polling_thread"
        if self._poll_wait_seconds > 0:
            executors.run_periodically(self._poll, self._poll_wait_seconds, name)
        elif self._poll_wait_seconds == 0:
            executors.run_once(self._poll, name)

    def model_names(self) -> set[str]:
        """Return the names of the watched models."""
        with self._lock:
            return {model.name for model in self._models}

    def update(self, models: list[MonitoredModel]) -> None:
        """Watch these models from the next poll on; those that are left out are unwanted at once."""
        with self._lock:
            kept = {model.name for model in models}
            for model in self._models:
                if model.name not in kept:
                    self._callback(model.name, [])
            self._models = models

    def _poll(self) -> None:
        with self._lock:
            try:
                found = {model.name: poll_model(model) for model in self._models}
            except status.StatusError as error:
                log.error(
                    f"{_PLACE}:416",
                    f"FileSystemStoragePathSource encountered a filesystem access error: {error.message}",
                )
                return
            for name, versions in found.items():
                self._callback(name, versions)

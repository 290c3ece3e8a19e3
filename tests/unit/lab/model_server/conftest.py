"""Fixtures: the exported models, and places to publish versions in."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[2] / "lab"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import export_models  # noqa: E402
from lab_server import LabServer, model_entry, running, write_config  # noqa: E402 - found by the path set above


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the models of export_models.py; they are not changed."""
    directory = tmp_path_factory.mktemp("exported")
    export_models.main(str(directory))
    return directory


class Publisher:
    """Puts versions of the affine model, y = 0.5 x + 1 or 2, into base paths of their own."""

    def __init__(self, root: Path, affine: Path) -> None:
        self.root = root
        self._affine = affine

    def base_path(self, model: str) -> Path:
        """Return a model's base path, made if need be."""
        path = self.root / model
        path.mkdir(exist_ok=True)
        return path

    def publish(self, model: str, directory: str, offset: int = 1) -> Path:
        """Publish a version, in a directory of this name, by one rename."""
        staging = self.base_path(model) / f".staging-{directory}"
        shutil.copytree(self._affine / str(offset), staging)
        return staging.rename(self.base_path(model) / directory)

    def publish_without(self, model: str, directory: str, missing: str) -> Path:
        """Publish a version that lacks a file or directory, such as `variables` or `saved_model.pb`."""

        def remove(version: Path) -> None:
            lacking = version / missing
            if lacking.is_dir():
                shutil.rmtree(lacking)
            else:
                lacking.unlink()

        return self.publish_spoilt(model, directory, remove)

    def publish_spoilt(self, model: str, directory: str, spoil: Callable[[Path], None]) -> Path:
        """Publish a version to whose directory something was done before."""
        staging = self.base_path(model) / f".staging-{directory}"
        shutil.copytree(self._affine / "2", staging)
        spoil(staging)
        return staging.rename(self.base_path(model) / directory)

    def remove(self, model: str, directory: str) -> None:
        """Take a version away, by a rename first."""
        away = (self.base_path(model) / directory).rename(self.base_path(model) / f".gone-{directory}")
        shutil.rmtree(away)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Publisher:
    """Base paths for the servers of one test module."""
    return Publisher(tmp_path_factory.mktemp("models"), exported / "golden" / "affine")


LABELS = ("a-b", "a b", "100%", "ä", 'a"b', "a\\b", "{$a}", "a:b")
KERAS_KINDS = ("sequential_saved", "sequential_exported", "subclass_saved", "subclass_archived")


@pytest.fixture(scope="session")
def models_server(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Iterator[LabServer]:
    """A server of a model of each kind, one with labels, the Prometheus page at a path of its own, and no CORS."""
    directory = tmp_path_factory.mktemp("models_server")
    paths = {kind: exported / "keras" / kind for kind in KERAS_KINDS}
    paths |= {name: exported / name for name in ("examples", "slow", "words", "warm")}
    paths |= {name: exported / "golden" / name for name in ("affine", "two", "text")}
    labels = {"two": dict.fromkeys(LABELS, 1)}
    entries = [model_entry(name, path, labels=labels.get(name)) for name, path in paths.items()]
    write_config(directory / "models.config", *entries)
    monitoring = directory / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }\n', encoding="utf-8")
    flags = [
        f"--model_config_file={directory / 'models.config'}",
        f"--monitoring_config_file={monitoring}",
        "--allow_version_labels_for_unavailable_models=true",
    ]
    with running(directory, *flags) as server:
        yield server.wait_until_ready()

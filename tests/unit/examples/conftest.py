"""Train the example models once for all tests."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

MNIST = Path(__file__).resolve().parents[3] / "examples" / "mnist"


@pytest.fixture(scope="session")
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of the example's scripts as its user does."""

    def run(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(MNIST / name), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})

    return run


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> Path:
    """A directory that `train.py --output` filled, here or for `make models`."""
    output = tmp_path_factory.mktemp("mnist")
    subprocess.run(["cp", "--archive", *MNIST.glob("saved*"), *MNIST.glob("*.json"), output], check=False)
    result = run_script("train.py", "--output", output)
    assert result.returncode == 0, result.stderr
    return output


@pytest.fixture
def load_example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of the example, whose modules import each other by their bare names."""
    monkeypatch.syspath_prepend(MNIST)
    return importlib.import_module

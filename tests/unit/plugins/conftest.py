"""Put the collection on Python's path, and run its modules and stub servers inside the tests."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible.module_utils import basic  # noqa: E402
from stub_http import StubServer  # noqa: E402 - beside this file


@pytest.fixture
def serving() -> Iterator[StubServer]:
    """A server that answers what the test puts into its answers."""
    with StubServer() as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[StubServer]:
    """The same as a proxy: the paths that it is asked for are whole URLs."""
    with StubServer() as server:
        yield server


@pytest.fixture
def no_environment_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may be behind a proxy."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """Run main() of a module as Ansible does, and return what it prints."""

    def run(module: ModuleType, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
        settings = {"_ansible_check_mode": check, "_ansible_tmpdir": str(tmp_path_factory.mktemp("ansible"))}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments | settings}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)  # since ansible-core 2.19
        capsys.readouterr()
        with pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run

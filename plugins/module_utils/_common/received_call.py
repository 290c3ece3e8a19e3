# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs on a host what its controller sends; plugin_utils/host_calls.py is the other side.

It is the first of what is sent, and imports nothing of the collection.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import suppress
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


class Sources(MetaPathFinder, InspectLoader):
    """Imports modules from their text: {full name: source}. What lies above them is a package without content."""

    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if any(f"{name}.".startswith(f"{fullname}.") for name in self._sources):
            return ModuleSpec(fullname, self, origin="sent by the controller", is_package=self.is_package(fullname))
        return None

    def is_package(self, fullname: str) -> bool:
        return fullname not in self._sources

    def get_source(self, fullname: str) -> str:
        return self._sources.get(fullname, "")


def renew(path: str, run: str) -> None:
    """Have the host's lock count for longer, where this run has it; see host_lock."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(Path(path).read_text())["run"] == run:
            os.utime(path)


def run(payload: dict[str, Any]) -> None:
    """Call the function that the payload names, and print its result or its error as one line of JSON."""
    renew(*payload["lock"])
    sys.meta_path.insert(0, Sources(payload["sources"]))
    module = importlib.import_module(payload["module"])
    errors = importlib.import_module(payload["errors"])
    try:
        answer = {"result": getattr(module, payload["function"])(**payload["arguments"])}
    except (OSError, errors.SavedModelError) as error:
        answer = {"error": str(error)}
    print(f"\n{json.dumps(answer)}", flush=True)

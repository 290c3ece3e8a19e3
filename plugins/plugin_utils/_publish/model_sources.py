# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is found out about a source on the controller, once in a run for all hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import write_json
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import (
    check_saved_model,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    Files,
    SavedModelError,
    add_digests,
    list_files,
    tree_stamp,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.run_cache import remembered


def digested(source: Path, files: Files) -> Files:
    """Return files, all or some of a source, with the sha256 of each.

    Raises SavedModelError where the source is written to meanwhile.
    """
    with remembered("digests", f"{source.absolute()} {tree_stamp(files)}") as memory:
        if not memory.exists():
            answer = add_digests(source, files)
            now = list_files(source)
            if any(now.get(name) != facts for name, facts in files.items()):
                raise SavedModelError(
                    f"{source} was written to while it was read; rerun the playbook when it is complete"
                )
            write_json(memory, answer)
        found: Files = json.loads(memory.read_text())
        return found


def inspected(source: Path, files: Files, contract: dict[str, Any] | None) -> dict[str, Any]:
    """Return signatures and warnings of a SavedModel. Raises SavedModelError for one that cannot be served."""
    what = f"{source.absolute()} {tree_stamp(files)} {json.dumps(contract, sort_keys=True)}"
    with remembered("signatures", what) as memory:
        if not memory.exists():
            answer: dict[str, Any] = {}
            try:
                inspection = check_saved_model(source, contract)
                answer = {"signatures": inspection.signatures, "warnings": inspection.warnings}
            except SavedModelError as error:
                answer["error"] = str(error)
            write_json(memory, answer)
        found: dict[str, Any] = json.loads(memory.read_text())
    if "error" in found:
        raise SavedModelError(found["error"])
    return found

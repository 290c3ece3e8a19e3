# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host knows of a rollout that is not over: where its models come from, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import read_json, write_json

RECORD = ".rollout.json"  # in the role's configuration directory

# time (UTC, ISO 8601) and by, of its start; phase and failure, the words of what has failed.
# to: {model: {"versions": [...], "labels": {...}}}, what the catalogue asked for.
# before: {unit: {model: its ModelConfig, None where the unit did not have it}}.
# served: {model: State}, what was served then; new: {model: versions that were not published then}. held: the models
# that change without one, which a return holds where they are.
Record = Dict[str, Any]

BEGUN = "begun"  # the versions are distributed, and nothing that is served has changed
CHANGED = "changed"  # the catalogue is in force, and the gates under traffic are open
PASSED = "passed"
PAUSED = "paused"  # passed, and somebody has to say that the rollout goes on
FAILED = "failed"
PHASES = (BEGUN, CHANGED, PASSED, PAUSED, FAILED)


def read_record(config_path: str) -> Record | None:
    """Return the record of a rollout that is not over, None where there is none."""
    content = read_json(Path(config_path, RECORD))
    return content if isinstance(content, dict) and content.get("phase") in PHASES else None


def write_record(config_path: str, record: Record) -> None:
    """Replace the record. Raises OSError."""
    write_json(Path(config_path, RECORD), record, mode=0o600)


def remove_record(config_path: str) -> None:
    """Raises OSError."""
    Path(config_path, RECORD).unlink(missing_ok=True)


def versions_to_return_to(record: Record | None, model: str) -> set[int]:
    """Return the versions of a model that were served before a rollout that is not over."""
    return set(map(int, record["served"].get(model, {"versions": {}})["versions"])) if record else set()


def unfinished_words(record: Record) -> str:
    """Return what to do about a rollout that is not over."""
    by = f" by {record['by']}" if record["by"] else ""
    return (
        f"A rollout of {', '.join(sorted(record['to']))}, begun at {record['time']}{by}, is not over here: "
        f"{record['phase']}. Go on with rollout.yml (-e tfserving_rollout_resume=true after a pause), or return with "
        "rollback.yml"
    )

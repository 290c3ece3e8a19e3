# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The last configuration with which the servers of a host have served: units and the files that these read.

It is one file, LAST_GOOD in the role's configuration directory, for root only, as it can hold a TLS key. It is written
when a run has succeeded, and is what a failed run rolls back to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Iterable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import (
    access_of,
    read_json,
    read_text,
    write_json,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import UNIT_PATH
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    START_FILES,
)

LAST_GOOD = ".last-good.json"


@dataclass
class LastGood:
    """What the units of a family had when they served.

    directories is {unit: its configuration directory}, files {path: {"text", "owner", "group", "mode"}} of units and
    configuration. invocations is {unit: systemd's id of the run of the server that was started from these very files}.
    """

    directories: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    invocations: dict[str, str] = field(default_factory=dict)

    def is_as_on_disk(self, path: str) -> bool:
        """Say whether a file of the record is as it was."""
        return path in self.files and self.files[path] == describe(Path(path))


def describe(path: Path) -> dict[str, str] | None:
    """Return text, owner, group and mode of a file, None where there is none."""
    text = read_text(path)
    return None if text is None else {"text": text, **access_of(path)._asdict()}


def files_of(directories: dict[str, str]) -> set[Path]:
    """Return the unit files and the configuration files that some units can have. A user's own files are none."""
    units = {UNIT_PATH / f"{unit}.service" for unit in directories}
    names = (MODELS_CONFIG, *START_FILES)
    return units | {Path(directory, name) for directory in directories.values() for name in names}


def read_last_good(config_path: str) -> LastGood | None:
    """Return what was written last, None where there is nothing that can be read."""
    content = read_json(Path(config_path, LAST_GOOD))
    try:
        return LastGood(**content) if content else None
    except TypeError:
        return None


def write_last_good(config_path: str, directories: dict[str, str], invocations: dict[str, str]) -> None:
    """Write what is on disk now. Raises OSError."""
    facts = {str(path): describe(path) for path in files_of(directories)}
    files = {path: one for path, one in facts.items() if one is not None}
    _write(config_path, LastGood(directories, files, invocations))


def write_last_good_models(config_path: str, paths: Iterable[Path]) -> None:
    """Write what these models.config are now, and leave the rest, which no start may have proved. Raises OSError."""
    record = read_last_good(config_path)
    if record:
        told = {str(path): facts for path in paths if (facts := describe(path)) is not None}
        _write(config_path, replace(record, files={**record.files, **told}))


def _write(config_path: str, record: LastGood) -> None:
    if record != read_last_good(config_path):
        write_json(Path(config_path, LAST_GOOD), asdict(record), mode=0o600)

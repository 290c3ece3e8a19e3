# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file models.config of a server: its text, and how it is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.files import sync
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.live_config import Models
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.server_config import (
    parse_models_config,
    render_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.text_format import TextFormatError

HEADER = """#
# Managed by Ansible: modelops.tensorflow_serving, from tfserving_models_catalog.
#
# ModelServerConfig in protobuf text format. The server reads it again when it changes.
"""


def render(models: Models, remark: str = "") -> str:
    """Return the text of a file."""
    return HEADER + (f"# {remark}\n" if remark else "") + render_models_config(list(models.values()))


def read(path: Path) -> tuple[str, Models | None]:
    """Return the text of the file and its models; None where there is no file, or none that the server could read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "", None
    try:
        return content.decode(), parse_models_config(content)
    except (UnicodeDecodeError, TextFormatError):
        return content.decode(errors="surrogateescape"), None


class ManagedFile:
    """A text file with owner, group and mode, which is replaced in one step."""

    def __init__(self, module: AnsibleModule, path: Path, owner: str, group: str, mode: str) -> None:
        self._module = module
        self._path = path
        self._new = path.with_name(f".{path.name}.new")
        self._owner, self._group, self._mode = owner, group, mode

    def write(self, text: str) -> None:
        """Replace the file in one step, whenever this process is killed. Raises OSError."""
        descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode(errors="surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        self.set_attributes(self._new)
        self._new.replace(self._path)
        sync(self._path.parent)

    def set_attributes(self, path: Path | None = None) -> bool:
        """Give a file its owner, group and mode; say whether that changes any."""
        name, module = str(path or self._path), self._module
        changed = module.set_owner_if_different(name, self._owner, False)
        changed = module.set_group_if_different(name, self._group, changed)
        return bool(module.set_mode_if_different(name, self._mode, changed))

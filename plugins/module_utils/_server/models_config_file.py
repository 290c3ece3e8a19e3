# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of a server's models.config."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    parse_models_config,
    render_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import Models
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.text_format import TextFormatError

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

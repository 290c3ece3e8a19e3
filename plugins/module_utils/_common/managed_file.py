# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes a file that root executes or trusts, once what checks it has let it pass."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import ManagedFile, read_text
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import (
    UNIT_PATH,
    unit_complaints,
)


def write_managed(
    module: AnsibleModule, path: Path, content: str, owner: str, group: str, mode: str, validate: str | None = None
) -> tuple[bool, dict[str, str]]:
    """Replace a file by one rename where it differs; say whether that changed anything, and return the diff.

    validate is a command in which %s is the new file. A unit is verified by systemd-analyze. In check mode nothing is
    written, and validate is not run. Raises OSError, and ValueError with the words of what has not let the file pass.
    """
    file = ManagedFile(module, path, owner, group, mode)

    def check(new: Path) -> None:
        code, output, errors = module.run_command([word.replace("%s", str(new)) for word in (validate or "").split()])
        if code:
            raise ValueError(f"{validate} says: {(errors or output).strip()}; {path} was left unchanged")

    before = read_text(path)
    changed = before != content
    if changed and path.parent == UNIT_PATH:
        complaints = unit_complaints(module, path.name, content)
        if complaints:
            raise ValueError(f"systemd rejects {path}, which was left unchanged: {'; '.join(complaints)}")
    if changed and not module.check_mode:
        file.write(content, check if validate else None)
    shown = {"before": before or "", "after": content} if changed else {}
    if path.exists():
        changed = file.set_attributes() or changed
    return changed, {**shown, "before_header": str(path), "after_header": str(path)}

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_models_verify_info
short_description: Compare the SavedModel versions on a host with what was published
version_added: 0.1.0
description:
  - Reads every file of every version that M(modelops.tensorflow_serving.saved_models) published, at the lowest
    priority, and compares names, sizes, sha256 digests, owners, groups and modes with the version's manifest.
  - Fails with a list of all that differs.
  - A version without a manifest cannot be compared, and is named in a warning.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  base_path:
    description: Directory on the host with one directory per model.
    type: path
    required: true
  models:
    description: Names of the models.
    type: list
    elements: str
    required: true
  group:
    description: Group of the server, which may read the models and not change them.
    type: str
    required: true
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_models
"""

EXAMPLES = r"""
- name: Check that MLP is what was published
  modelops.tensorflow_serving.saved_models_verify_info:
    base_path: /var/lib/tensorflow-serving/models
    models: [MLP]
    group: tfserving
"""

RETURN = r"""
verified:
  description: The versions that are as they were published, and their sizes in bytes.
  returned: always
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 1, "bytes": 423511}]
problems:
  description: What differs, one text each.
  returned: failure
  type: list
  elements: str
  sample: ["MLP/1: file saved_model.pb is missing"]
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import BASE_MODE
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import (
    DIRECTORY_MODE,
    ModelStore,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import FILE_MODE
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.verify import Verifier

# Processor time goes to the server first, and so does the disk: its priority follows from this one.
NICENESS = 19


@dataclass(frozen=True)
class Findings:
    """What the versions on the host are like, and the commands that lead out of what is wrong."""

    verified: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    to_publish_again: list[str] = field(default_factory=list)
    to_repair: list[str] = field(default_factory=list)

    def message(self) -> str:
        """Return all problems, one a line, and the way out."""
        lines = ["Models on this host are not what was published:", *(f"- {text}" for text in self.problems)]
        if self.to_repair:
            lines += ["To repair owners, groups and modes:", *(f"  {command}" for command in self.to_repair)]
        if self.to_publish_again:
            lines += [
                "To publish versions again, hide them from the server with these commands and rerun serving.yml. Until "
                "then the server serves the newest version that is left. The sources must still exist:",
                *(f"  {command}" for command in self.to_publish_again),
            ]
        return "\n".join(lines)


def verify(module: AnsibleModule) -> Findings:
    """Compare all versions with their manifests. Raises OSError."""
    group = module.params["group"]
    verifier, findings = Verifier(group), Findings()
    for model in module.params["models"]:
        store = ModelStore(Path(module.params["base_path"], model))
        problems = verifier.check_directory(store.path)
        if problems:
            path = shlex.quote(str(store.path))
            findings.to_repair.append(f"chown root:{group} {path} && chmod {BASE_MODE:04o} {path}")
            findings.problems.extend(problems)
        for version, name in sorted(store.published().items()):
            if not store.manifest(version).exists():
                module.warn(f"{model} version {version} was not published by this collection, and cannot be verified")
                continue
            drift, path = verifier.check_version(store, version), str(store.path / name)
            findings.problems.extend(drift.contents + drift.access)
            if drift.contents:
                findings.to_publish_again.append(shlex.join(["mv", "-T", path, str(store.removed(version))]))
            elif drift.access:
                paths = shlex.join([path, str(store.manifest(version))])
                findings.to_repair.append(
                    f"chown -R root:{group} {paths} && find {paths} "
                    f"-type d -exec chmod {DIRECTORY_MODE:04o} {{}} + -o -exec chmod {FILE_MODE:04o} {{}} +"
                )
            else:
                size = (store.read_manifest(version) or {})["bytes"]
                findings.verified.append({"model": model, "version": version, "bytes": size})
    return findings


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_path": {"type": "path", "required": True},
            "models": {"type": "list", "elements": "str", "required": True},
            "group": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    os.nice(NICENESS)
    try:
        findings = verify(module)
    except OSError as error:
        module.fail_json(msg=str(error))
    if findings.problems:
        module.fail_json(msg=findings.message(), problems=findings.problems, verified=findings.verified)
    module.exit_json(changed=False, verified=findings.verified)


if __name__ == "__main__":
    main()

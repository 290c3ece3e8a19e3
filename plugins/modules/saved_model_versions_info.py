#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_model_versions_info
short_description: List the SavedModel versions that lie under a base path
version_added: 0.1.0
description:
  - Lists, for each model, the version directories that TensorFlow Serving sees under the model's base path, and what
    M(modelops.tensorflow_serving.saved_models) recorded when it published them.
  - A model without a base path or without a version is listed with no versions.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  base_path:
    description: Directory with one directory per model.
    type: path
    required: true
  models:
    description: Names of the models.
    type: list
    elements: str
    required: true
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_models
"""

EXAMPLES = r"""
- name: List the versions of MLP
  modelops.tensorflow_serving.saved_model_versions_info:
    base_path: /var/lib/tensorflow-serving/models
    models: [MLP]
  register: published
"""

RETURN = r"""
models:
  description: For each model its versions, and for each version its directory's name and the digest and stamp of
    its manifest, or V(null) where it was not published by M(modelops.tensorflow_serving.saved_models).
  returned: success
  type: dict
  sample: {"MLP": {"1": {"directory": "1", "digest": "5f0c...", "stamp": "9b1d..."}}}
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    MANIFEST_NAME,
    published_versions,
)


def read_manifest(model_path: Path, version: int) -> dict[str, Any]:
    """Return digest and stamp of a published version, both None where it has no readable manifest."""
    try:
        manifest = json.loads((model_path / MANIFEST_NAME.format(version=version)).read_text())
        return {"digest": manifest["digest"], "stamp": manifest["stamp"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"digest": None, "stamp": None}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_path": {"type": "path", "required": True},
            "models": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    models: dict[str, dict[str, Any]] = {}
    for name in module.params["models"]:
        path = Path(module.params["base_path"], name)
        models[name] = {
            str(version): dict(read_manifest(path, version), directory=directory)
            for version, directory in published_versions(path).items()
        }
    module.exit_json(changed=False, models=models)


if __name__ == "__main__":
    main()

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
  description: For each model its versions, and for each version its directory's name and what its manifest says of it,
    or V(null) where it was not published by M(modelops.tensorflow_serving.saved_models). C(digest) is over names and
    contents of the files, C(stamp) over their names, sizes and times, C(source_digest) is that of the catalogue for a
    version that the host has fetched, C(bytes) is the size and C(signatures) are those of the model. C(intact) says
    whether the files are those that were published, by their names, sizes and times.
  returned: success
  type: dict
  sample: {"MLP": {"1": {"directory": "1", "intact": true, "digest": "5f0c...", "stamp": "9b1d...",
    "source_digest": null, "bytes": 423511, "signatures": {}}}}
withdrawn:
  description: For each model the versions that a server has refused, and that were withdrawn therefore, with
    C(reason), C(time) and the digests that they had.
  returned: success
  type: dict
  sample: {"MLP": {"3": {"reason": "MLP version 3 is END: NOT_FOUND", "time": "2026-11-29T21:24:27Z",
    "digest": "5f0c...", "stamp": "9b1d...", "source_digest": null}}}
base_path:
  description: Owner, group and mode of O(base_path), empty where it is missing.
  returned: success
  type: dict
  sample: {"owner": "root", "group": "tfserving", "mode": "0751"}
free:
  description: What the file system of O(base_path) has left, in bytes and inodes; V(null) inodes are not counted by it.
  returned: success
  type: dict
  sample: {"bytes": 52428800, "inodes": 1200}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.versions import look


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_path": {"type": "path", "required": True},
            "models": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **look(module.params["base_path"], module.params["models"]))


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_model_info
short_description: Report what a SavedModel serves and whether it can be served
version_added: 0.1.0
description:
  - Reads a SavedModel without TensorFlow, on the controller or on a host, and returns its tags, signatures, size and
    digest.
  - Finds what the server would load and then fail at, such as variables that a signature reads and that the model does
    not restore, and shards of variables that are missing or cut short.
  - A model that cannot be served is a result, not a failure. RV(problems) says what to do about it. What may be a fault
    is a warning.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  path:
    description: The directory that holds C(saved_model.pb).
    type: path
    required: true
  signatures:
    description:
      - The contract, which says of signatures what their C(inputs) and C(outputs) are called, and of each of these its
        C(dtype) and its C(shape). V(-1) is an unknown dimension, and the shape V(unknown_rank) has an unknown number of
        them.
      - The names of inputs and of outputs have to be exactly those of the model where they are given, C(dtype) and
        C(shape) equal where they are given. The model may have further signatures.
    type: dict
    default: {}
seealso:
  - module: modelops.tensorflow_serving.saved_models
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Look at an export before it is given a version number
  modelops.tensorflow_serving.saved_model_info:
    path: /srv/exports/fraud
    signatures:
      serving_default:
        inputs: {features: {dtype: float32, shape: [-1, 32]}}
        outputs: {score: {dtype: float32}}
  delegate_to: localhost
  register: export

- name: Refuse one that cannot be served
  modelops.tensorflow_serving.saved_model_info:
    path: /srv/exports/fraud
  register: export
  failed_when: not export.servable
"""

RETURN = r"""
servable:
  description: Whether a server that loads it can predict with it, and the contract is kept.
  returned: success
  type: bool
problems:
  description: What is against it, each with the way out. Empty where RV(servable) is true.
  returned: success
  type: list
  elements: str
tags:
  description: The tags of each of its graphs. The server loads the one that has V(serve) and no other.
  returned: success
  type: list
  elements: list
  sample: [[serve]]
tensorflow_version:
  description: The TensorFlow that wrote it. Empty where it does not say.
  returned: success
  type: str
  sample: 2.21.0
signatures:
  description: What clients can call. A dimension of V(-1) is unknown; a shape of null has an unknown number of them.
  returned: success
  type: dict
  sample:
    serving_default:
      method_name: tensorflow/serving/predict
      inputs: {images: {dtype: float32, shape: [-1, 28, 28]}}
      outputs: {probabilities: {dtype: float32, shape: [-1, 10]}}
unrestored:
  description: By signature, the variables, lookup tables and iterators that it reads and that nothing sets when the
    model is loaded.
  returned: success
  type: dict
  sample: {serving_default: [sequential/dense/bias, sequential/dense/kernel]}
shards:
  description: The files of its variables, how many are C(expected), which are C(missing) or C(truncated), and C(extra)
    ones that belong to another set.
  returned: success
  type: dict
  sample: {expected: 1, missing: [], extra: [], truncated: {variables.data-00000-of-00001: {bytes: 100, needed: 628}}}
bytes:
  description: Size of all its files, in bytes. None where it holds anything but files, which RV(problems) then names.
  returned: success
  type: int
files:
  description: How many files it has. None like RV(bytes).
  returned: success
  type: int
digest:
  description: SHA256 over the names and contents of its files, whatever their times. None like RV(bytes).
  returned: success
  type: str
  sample: 3b0a1f1c2e9a0d6a4c1f0c3ad3b0c8ddc4a0e9a2e8f6f2d5fbb0cda4c3d7c1aa
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import (
    examine_saved_model,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    add_digests,
    list_files,
    total_bytes,
    tree_digest,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "signatures": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    size = count = digest = None
    try:
        inspection, problems = examine_saved_model(path, module.params["signatures"])
        for text in inspection.warnings:
            module.warn(text)
        try:
            files = list_files(path)
            size, count, digest = total_bytes(files), len(files), tree_digest(add_digests(path, files))
        except SavedModelError as error:
            problems.append(str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot read {error.filename or path}: {error.strerror}")
    module.exit_json(
        changed=False,
        servable=not problems,
        problems=problems,
        tags=inspection.tags,
        tensorflow_version=inspection.tensorflow_version,
        signatures=inspection.signatures,
        unrestored=inspection.unrestored,
        shards=inspection.shards,
        bytes=size,
        files=count,
        digest=digest,
    )


if __name__ == "__main__":
    main()

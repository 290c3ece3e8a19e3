#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

# The work is done by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_models
short_description: Publish SavedModel versions from the controller on a host
version_added: 0.1.0
description:
  - Copies the versions of a model catalogue that the host lacks to C(base_path/name/version).
  - A version directory appears by one rename, after everything in it has arrived and its digests have been checked.
    A running TensorFlow Serving therefore never sees half a model. An interrupted transfer is resumed by the next run.
  - A published version is never changed. Where the source of one differs from what was published under its number,
    the task fails and names both digests.
  - The whole catalogue is checked before anything is changed.
  - Files travel by rsync over the connection's own ssh settings, as the user who logs in; key authentication is needed.
    Connections of type C(ssh) and C(local) are supported.
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
options:
  base_path:
    description: Directory on the host with one directory per model.
    type: path
    required: true
  group:
    description: Group of the server, which may read the models and not change them.
    type: str
    required: true
attributes:
  check_mode:
    description: Checks everything, asks the host what it has, and says what would be published.
    support: full
  diff_mode:
    description: Shows the versions of each model before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_model_versions_info
"""

EXAMPLES = r"""
- name: Publish the models
  modelops.tensorflow_serving.saved_models:
    base_path: /var/lib/tensorflow-serving/models
    group: tfserving
    catalog:
      - name: MLP
        source: examples/mnist/saved
        model_version_policy:
          specific:
            versions: [1, 2]
        version_labels:
          stable: 1
          canary: 2
"""

RETURN = r"""
published:
  description: The versions that were published, or would be in check mode.
  returned: success
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 2, "bytes": 423511}]
"""

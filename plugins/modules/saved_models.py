#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

# The work is done by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_models
short_description: Publish SavedModel versions on a host
version_added: 0.1.0
description:
  - Brings the versions of a model catalogue that the host lacks to C(base_path/name/version), from a directory on the
    controller, or by letting the host fetch them.
  - A version directory appears by one rename, after everything in it has arrived, has been checked and is on the disk.
    A running TensorFlow Serving therefore never sees half a model. An interrupted transfer is resumed by the next run.
  - What the host has already does not travel again. A file that a published version has too becomes a hard link to it,
    and of a file that has changed only the differences are sent.
  - A model that loads and cannot predict, or that breaks the contract of its catalogue entry, is refused.
  - A published version is never changed. Where the source of one differs from what was published under its number,
    the task fails and names both digests.
  - A version that a server has refused, and that was withdrawn from the host therefore, is not published again as long
    as its files are the same. It is no failure; the play recap says it.
  - The whole catalogue and the disk space on the host are checked before anything is changed.
  - Files travel from the controller by rsync over the connection's own ssh settings; key authentication is needed.
    Connections of type C(ssh) and C(local) are supported for that.
  - On the host rsync runs as root where the user who logs in may become root by C(sudo) without a password. Elsewhere
    it runs as that user, and root publishes a copy of what arrived, which takes twice the disk space meanwhile.
  - A O(base_path) is refused that is the system's, that another user than root can replace, or that holds files and
    was not made by this collection.
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
options:
  base_path:
    description: Directory on the host with one directory per model. It becomes root's and O(group)'s, with mode 0751.
    type: str
    required: true
  group:
    description: Group of the server, which may read the models and not change them.
    type: str
    required: true
  adopt:
    description: Whether to take a O(base_path) that is there already, holds files and was not made by this collection.
    type: bool
    default: false
  keep:
    description: The O(catalog[].keep) of entries that have none.
    type: int
  state:
    description:
      - V(published) has the versions in their places.
      - V(distributed) has what is missing on the host, complete and checked, under names that no server parses, and
        publishes nothing. A later V(published) then only renames it.
    type: str
    choices: [published, distributed]
    default: published
  retry_withdrawn:
    description: Whether to publish versions again that were withdrawn.
    type: bool
    default: false
  per_model_batching:
    description: Whether the server is started with C(enable_per_model_batching_parameters). Served versions without a
      C(batching_params.pbtxt), whose requests it does not batch, are then named in a warning.
    type: bool
    default: false
  host:
    description: What M(modelops.tensorflow_serving.serving_host_info) has returned as RV(ignore:models) for these
      models. With it the host is not asked where nothing is to be published, and in check mode.
    type: dict
  proxy:
    description: Proxy through which the host fetches. By default that of the host's environment.
    type: str
  no_proxy:
    description: Hosts and domains that are reached without O(proxy).
    type: list
    elements: str
  url_username:
    description: User that C(https) and C(rsync) sources ask for.
    type: str
  url_password:
    description: Password that C(https) and C(rsync) sources ask for.
    type: str
  s3_endpoint_url:
    description: URL of an S3-compatible store. Amazon's by default.
    type: str
  s3_region:
    description: Region of the store.
    type: str
  s3_access_key_id:
    description: Access key of the store. Without one, the host's own credentials are used, in the order of boto3.
    type: str
  s3_secret_access_key:
    description: Secret key of the store.
    type: str
  s3_session_token:
    description: Session token of temporary credentials.
    type: str
attributes:
  check_mode:
    description: Checks everything, asks the host what it has, and says what would be published.
    support: full
  diff_mode:
    description: Shows the versions of each model with their sizes before and after, where the signatures of the
      newest version are new, and owner, group and mode of O(base_path) where they change.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_model_info
  - module: modelops.tensorflow_serving.serving_host_info
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
  description: The versions that were published or distributed, or would be in check mode, with their sizes in bytes.
    The size of what a host would fetch is V(null).
  returned: success
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 2, "bytes": 423511}]
withdrawn:
  description: The versions of the catalogue that were withdrawn from the host and are not published again, with the
    server's words.
  returned: success
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 3, "time": "2026-11-29T21:24:27Z", "reason": "MLP version 3 is END: NOT_FOUND"}]
"""

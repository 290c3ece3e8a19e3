# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """The model catalogue; the arguments are CATALOG_OPTIONS in module_utils/_catalog/catalog.py."""

    DOCUMENTATION = r"""
options:
  catalog:
    description: The models, as in C(tfserving_models_catalog).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the model, as clients spell it.
        type: str
        required: true
      source:
        description:
          - A directory on the controller that holds one SavedModel per version, each named by its number; or one
            SavedModel, with its number as the only one of O(catalog[].versions).
          - Or what each host fetches by itself, an archive C(https://HOST/PATH/{version}.tar.zst), C(.tar.gz), C(.tgz)
            or C(.tar), C(s3://BUCKET/PREFIX), or C(rsync://HOST/MODULE/PATH) with a directory for each version. These
            need O(catalog[].versions) and O(catalog[].digests).
        type: str
        required: true
      versions:
        description: The versions of O(catalog[].source) to publish. All of them by default.
        type: list
        elements: int
      model_version_policy:
        description: Which versions the server serves, as C(models.config) spells it. The latest by default.
        type: dict
        suboptions:
          latest:
            description: The highest versions.
            type: dict
            suboptions:
              num_versions:
                description: How many.
                type: int
                default: 1
          all:
            description: Every version.
            type: dict
          specific:
            description: The versions that are listed.
            type: dict
            suboptions:
              versions:
                description: The versions.
                type: list
                elements: int
                required: true
      version_labels:
        description: Names for served versions, such as V({"stable":1}). A name is any text without / and :.
        type: dict
      digests:
        description: For each version that hosts fetch, the sha256 of its archive; without an archive the digest of the
          whole version, as M(modelops.tensorflow_serving.saved_model_info) prints it.
        type: dict
      signatures:
        description: The signatures that every version has to have, by name C(inputs) and C(outputs), and by their names
          C(dtype) and C(shape), such as V({"call":{"inputs":{"x":{"dtype":"float32","shape":[-1,28,28]}}}}). Names of
          inputs and of outputs have to be these, where they are given, and dtype and shape equal. The shape
          V(unknown_rank) demands one without a number of dimensions.
        type: dict
      keep:
        description: How many of the newest versions stay on the host. What O(catalog[].model_version_policy) serves,
          what has a label and what the running server uses stays in any case. By default every version does.
        type: int
      warmup:
        description: Whether a version gets the requests of O(catalog[].sample_requests) as its warm-up requests, which
          the server makes before the version is C(AVAILABLE). They are written when a version is published, next to its
          files, into C(assets.extra/tf_serving_warmup_requests); a version that brings that file keeps its own. Samples
          that do not fit the version's signatures are refused, as the server would not serve the version.
        type: bool
        default: false
      sample_requests:
        description: Requests that every served version has to answer before it counts as served, as C(AVAILABLE) alone
          is no proof that a version can predict.
        type: list
        elements: dict
        suboptions:
          signature_name:
            description: The signature.
            type: str
            default: serving_default
          instances:
            description: The instances, in the row form of the REST interface.
            type: list
            elements: raw
            required: true
          expected:
            description: One prediction for each instance, which a rollout demands of a new version. Without it, a
              rollout compares with the version that runs.
            type: list
            elements: raw
          tolerance:
            description: How far a number may be from what is expected.
            type: float
            default: 0.001
"""

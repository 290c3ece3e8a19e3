# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """The model catalogue; the arguments are CATALOG_OPTIONS in module_utils/catalog.py."""

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
        description: Directory on the controller that holds one SavedModel per version, each named by its number.
        type: path
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
        description: Names for served versions, such as V({"stable":1}).
        type: dict
"""

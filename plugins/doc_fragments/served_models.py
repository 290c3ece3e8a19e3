# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """The files that servers read; the arguments are SERVED_MODELS_ARGUMENTS in module_utils/_server/instances.py."""

    DOCUMENTATION = r"""
options:
  base_path:
    description: Directory on the host with one directory per model.
    type: path
    required: true
  group:
    description: The group of the servers, which may read C(models.config).
    type: str
    required: true
"""

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """The servers of a host; the arguments are SERVERS_ARGUMENTS in module_utils/_server/instances.py."""

    DOCUMENTATION = r"""
options:
  unit:
    description: The systemd unit of the instance that has no name, without C(.service). The others' begin with it.
    type: str
    required: true
  config_path:
    description: Directory of the configuration, where history and record lie, too.
    type: path
    required: true
"""

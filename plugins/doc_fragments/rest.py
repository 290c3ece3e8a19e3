# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """How modules reach the REST interface; the arguments are REST_ARGUMENTS of module_utils/_server/rest.py."""

    DOCUMENTATION = r"""
options:
  host:
    description: Where the server listens, as seen from the host that runs the module.
    type: str
    default: 127.0.0.1
  rest_api_port:
    description: Its REST port.
    type: int
    required: true
  request_timeout_seconds:
    description: How long one request may take.
    type: int
    default: 10
"""

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: server_config
short_description: Write a configuration file of the server in protobuf text format
version_added: 0.1.0
description:
  - Returns the text of one of the files that C(tensorflow_model_server) reads at its start, and fails where the server
    would refuse it.
options:
  _input:
    description: What the file says.
    type: dict
    required: true
  file:
    description: Which file.
    type: str
    required: true
    choices: [batching_parameters.config, monitoring.config, ssl.config, session.config, platform.config]
  variable:
    description: The variable that the error names.
    type: str
    required: true
positional: file, variable
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
text: >-
  {{ {'max_batch_size': 8}
  | modelops.tensorflow_serving.server_config('batching_parameters.config', 'tfserving_service_batching_parameters') }}
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    ServerConfigError,
    render_file,
)


def server_config(value: Any, file: str, variable: str) -> str:
    """Return the text of a file."""
    try:
        return render_file(file, value)
    except ServerConfigError as error:
        raise AnsibleFilterError(f"{variable}: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., str]]:
        return {"server_config": server_config}

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_status_info
short_description: Ask a TensorFlow Serving server for the states of its model versions
version_added: 0.1.0
description:
  - Asks C(GET /v1/models/NAME) for every model. A server that does not answer is a result, not a failure.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
  - modelops.tensorflow_serving.rest
options:
  models:
    description: Names of the models.
    type: list
    elements: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Ask for the states of MLP
  modelops.tensorflow_serving.model_status_info:
    rest_api_port: 8501
    models: [MLP]
  register: status
"""

RETURN = r"""
versions:
  description:
    - One row for each version of each model that the server knows, by model and descending version.
    - A model that the server does not know, or a server that does not answer, gives one row with a V(null) version,
      a state of V(UNKNOWN) or V(UNREACHABLE), and the reason in C(error_message).
  returned: success
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 1, "state": "AVAILABLE", "error_code": "OK", "error_message": ""}]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.rest import (
    REST_ARGUMENTS,
    ServingClient,
    ServingError,
    reason,
)


def rows(client: ServingClient, model: str) -> list[dict[str, Any]]:
    """Return the rows that RETURN describes for one model."""
    try:
        status = client.status(model)
    except ServingError as error:
        return [_no_version(model, "UNKNOWN", str(error))]
    except OSError as error:
        return [_no_version(model, "UNREACHABLE", reason(error))]
    return [dict(status[version], model=model, version=version) for version in sorted(status, reverse=True)]


def _no_version(model: str, state: str, message: str) -> dict[str, Any]:
    return {"model": model, "version": None, "state": state, "error_code": None, "error_message": message}


def main() -> None:
    module = AnsibleModule(
        argument_spec={**REST_ARGUMENTS, "models": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    client = ServingClient.of(module.params)
    module.exit_json(changed=False, versions=[row for model in module.params["models"] for row in rows(client, model)])


if __name__ == "__main__":
    main()

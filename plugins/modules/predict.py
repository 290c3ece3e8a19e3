#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: predict
short_description: Ask a TensorFlow Serving server for predictions
version_added: 0.1.0
description:
  - Sends C(POST /v1/models/NAME/versions/N:predict) with the instances in row form.
  - The answer does not say which version gave it, so a version is always asked for by number.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
  - modelops.tensorflow_serving.rest
options:
  model:
    description: Name of the model.
    type: str
    required: true
  version:
    description: Version to ask. By default the highest that is AVAILABLE, which is the one that answers a request
      without a version.
    type: int
  signature_name:
    description: Signature to call.
    type: str
    default: serving_default
  instances:
    description: The inputs, one element for each instance.
    type: list
    elements: raw
    required: true
  instance_shape:
    description: Shape of one instance, such as V([28, 28, 1]), where they have as many values in another shape.
    type: list
    elements: int
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Ask half_plus_two
  modelops.tensorflow_serving.predict:
    rest_api_port: 8501
    model: half_plus_two
    instances: [1.0, 2.0, 5.0]
"""

RETURN = r"""
version:
  description: The version that answered.
  returned: success
  type: int
predictions:
  description: One prediction for each instance.
  returned: success
  type: list
"""

import math
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    REST_ARGUMENTS,
    ServingClient,
    ServingError,
    reason,
)


def reshape(instance: Any, shape: list[int]) -> Any:
    """Return the values of an instance in another shape. Raises ValueError when their number does not fit."""
    values = list(_flat(instance))
    if len(values) != math.prod(shape):
        raise ValueError(f"an instance has {len(values)} values, shape {shape} takes {math.prod(shape)}")
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for element in value:
            yield from _flat(element)
    else:
        yield value


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REST_ARGUMENTS,
            "model": {"type": "str", "required": True},
            "version": {"type": "int"},
            "signature_name": {"type": "str", "default": "serving_default"},
            "instances": {"type": "list", "elements": "raw", "required": True},
            "instance_shape": {"type": "list", "elements": "int"},
        },
        supports_check_mode=True,
    )
    client = ServingClient.of(module.params)
    model, version, instances = module.params["model"], module.params["version"], module.params["instances"]
    try:
        if module.params["instance_shape"]:
            instances = [reshape(instance, module.params["instance_shape"]) for instance in instances]
        if version is None:
            available = [number for number, one in client.status(model).items() if one["state"] == "AVAILABLE"]
            if not available:
                module.fail_json(msg=f"no version of model {model} is AVAILABLE")
            version = max(available)
        predictions = client.predict(model, version, module.params["signature_name"], instances)
    except ValueError as error:
        module.fail_json(msg=f"instance_shape: {error}")
    except ServingError as error:
        module.fail_json(msg=f"model {model}: the server answers {error.status}: {error}")
    except OSError as error:
        module.fail_json(msg=f"{client.url} does not answer: {reason(error)}")
    module.exit_json(changed=False, version=version, predictions=predictions)


if __name__ == "__main__":
    main()

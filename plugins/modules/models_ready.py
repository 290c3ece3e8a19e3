#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: models_ready
short_description: Wait until a TensorFlow Serving server serves every model version it should
version_added: 0.1.0
description:
  - Works out from the version directories and each model's policy which versions the server should serve, and waits
    until it says AVAILABLE for all of them and each answers the sample requests of its model, where there are any.
  - The server opens no port until every model has loaded, and waits for ever for one that cannot, hence a deadline.
  - Fails before the deadline when a version is END with an error, or the unit has failed or keeps exiting.
    The failure shows the server's own words.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
  - modelops.tensorflow_serving.catalog
  - modelops.tensorflow_serving.rest
options:
  base_path:
    description: Directory on the host with one directory per model.
    type: path
    required: true
  unit:
    description: The systemd unit of the server.
    type: str
    required: true
  timeout_seconds:
    description: How long to wait.
    type: int
    default: 300
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Wait until MLP is served
  modelops.tensorflow_serving.models_ready:
    rest_api_port: 8501
    base_path: /var/lib/tensorflow-serving/models
    unit: tensorflow-model-server.service
    catalog: "{{ tfserving_models_catalog }}"
"""

RETURN = r"""
models:
  description: The versions of each model that are AVAILABLE.
  returned: success
  type: dict
  sample: {"MLP": [1]}
"""

import time
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.catalog import (
    CATALOG_OPTIONS,
    catalog_samples,
    read_policy,
    served_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.rest import REST_ARGUMENTS, ServingClient
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import published_versions
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.serving_wait import (
    CHATTER,
    MAX_RESTARTS,
    SETTLE_SECONDS,
    SHOWN_LINES,
    SystemdUnit,
    missing_versions,
    unanswered_samples,
)

POLL_SECONDS = 0.5
JOURNAL_LINES = 500


def fail(module: AnsibleModule, message: str) -> NoReturn:
    """Fail with the last lines of the server's log."""
    unit = module.params["unit"]
    command = ["journalctl", f"--unit={unit}", f"--lines={JOURNAL_LINES}", "--output=cat", "--no-pager"]
    _, journal, _ = module.run_command(command)
    lines = [line for line in journal.splitlines() if CHATTER not in line][-SHOWN_LINES:]
    module.fail_json(msg="\n".join([message, f"The last lines of journalctl --unit={unit}, without chatter:", *lines]))
    raise AssertionError("fail_json exits")


def wait(module: AnsibleModule, expected: dict[str, list[int]], samples: dict[str, list[dict[str, Any]]]) -> None:
    """Return when every expected version is AVAILABLE and answers its model's samples, fail otherwise."""
    client = ServingClient.of(module.params)
    timeout = module.params["timeout_seconds"]
    start = time.monotonic()
    ended_since = None
    unit = SystemdUnit(module, module.params["unit"])
    _, restarts_before = unit.state()
    while True:
        waiting, ended = missing_versions(client, expected)
        if not waiting:
            waiting, refused = unanswered_samples(client, expected, samples)
            if refused:
                fail(module, "; ".join(refused))
        if not waiting:
            return
        now = time.monotonic()
        ended_since = (ended_since or now) if ended else None
        if ended_since and now - ended_since > SETTLE_SECONDS:
            fail(module, "The server cannot load " + "; ".join(ended))
        state, restarts = unit.state()
        if state in ("failed", "inactive"):
            fail(module, f"{unit.name} is {state}, so nothing is served.")
        if restarts - restarts_before >= MAX_RESTARTS:
            fail(module, f"{unit.name} keeps exiting; systemd has restarted it {restarts} times.")
        if now - start > timeout:
            fail(module, f"After {timeout} s still waiting (timeout_seconds): " + "; ".join(waiting))
        time.sleep(POLL_SECONDS)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REST_ARGUMENTS,
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "base_path": {"type": "path", "required": True},
            "unit": {"type": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    expected: dict[str, list[int]] = {}
    try:
        samples = catalog_samples(module.params["catalog"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    for entry in module.params["catalog"]:
        path = Path(module.params["base_path"], entry["name"])
        versions: dict[int, Any] = published_versions(path)
        expected[entry["name"]] = served_versions(read_policy(entry.get("model_version_policy")), versions)
        if not expected[entry["name"]]:
            module.fail_json(msg=f"{path} has no version that model {entry['name']} serves; publish one first")
    wait(module, expected, samples)
    module.exit_json(changed=False, models=expected)


if __name__ == "__main__":
    main()

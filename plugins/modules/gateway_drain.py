#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_drain
short_description: Drain a model server behind the gateway, or undrain it
version_added: 0.1.0
description:
  - nginx looks for a file at each request, so that nothing is reloaded. New requests go to another server of the host
    that has the model, and where there is none are answered with 503 and C(Retry-After).
  - Then waits for those that the server is working on. Each has a connection of its own from nginx to the server, and
    the kernel lists those.
  - The file lies in C(/run), so that no host comes up drained.
attributes:
  check_mode:
    description: Says whether the file would be made or removed, and waits for nobody.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  unit:
    description: The systemd unit of the model server, without C(.service).
    type: str
    required: true
  ports:
    description: The ports of the model server.
    type: list
    elements: int
    default: []
  drained:
    description: Whether it is to get no requests.
    type: bool
    required: true
  timeout_seconds:
    description: How long to wait for the requests that it is working on.
    type: int
    default: 30
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Let the server finish its requests
  modelops.tensorflow_serving.gateway_drain:
    unit: tensorflow-model-server
    ports: [8500, 8501]
    drained: true
"""

RETURN = r"""
open_requests:
  description: How many requests the server was still working on when the time was over.
  returned: success
  type: int
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import (
    RUN,
    SITE_PATH,
    is_active,
    make_directory,
    master_pid,
    open_connections,
    workers,
)

POLL_SECONDS = 0.1
# A worker that has looked for the file may take this long to connect.
SETTLE_SECONDS = 0.5


def worker_users() -> set[int]:
    """Return the users that nginx's workers run as."""
    users = set()
    for pid in workers(master_pid()):
        try:
            users.add(os.stat(f"/proc/{pid}").st_uid)  # noqa: PTH116
        except FileNotFoundError:
            continue
    return users


def wait(ports: list[int], timeout_seconds: int) -> int:
    """Return how many requests are open when there are none, or the time is over."""
    deadline = time.monotonic() + timeout_seconds
    time.sleep(SETTLE_SECONDS)
    users = worker_users()
    while True:
        count = open_connections(Path("/proc/net/tcp").read_text(), ports, users)
        if not count or time.monotonic() > deadline:
            return count
        time.sleep(POLL_SECONDS)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "drained": {"type": "bool", "required": True},
            "timeout_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    flag = RUN / params["unit"]
    # Where there is no gateway yet there is nobody to keep out.
    drained = params["drained"] and SITE_PATH.exists() and is_active()
    changed = flag.exists() is not drained
    open_requests = 0
    if not module.check_mode:
        if drained:
            make_directory(RUN)
            flag.touch()
            open_requests = wait(params["ports"], params["timeout_seconds"])
        elif flag.exists():
            flag.unlink()
    if open_requests:
        module.warn(
            f"{params['unit']} is still working on {open_requests} requests after {params['timeout_seconds']} s "
            "(tfserving_gateway_drain_timeout_seconds); a restart cuts them."
        )
    module.exit_json(changed=changed, open_requests=open_requests)


if __name__ == "__main__":
    main()

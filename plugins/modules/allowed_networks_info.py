#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: allowed_networks_info
short_description: Work out who may talk to the model servers of a host, and whether systemd can see to it
version_added: 0.1.0
description:
  - Works out the networks that are meant, and tries whether the kernel enforces C(IPAddressDeny=).
  - systemd takes that setting on any kernel and says in its log only where it has no effect. So this module starts a
    transient unit that may talk to nobody, and has it send a datagram to the host itself.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  networks:
    description:
      - Networks and addresses. V(private) stands for the private and link-local networks that the host's interfaces
        are in, without the bridges of container engines and hypervisors, V(any) for everybody.
      - Loopback is always allowed.
    type: list
    elements: str
    default: []
  gateway_enabled:
    description:
      - Whether the inventory says that nginx stands in front of the servers. A host that has the gateway's site, and of
        which nothing is said, is a mistake, as the default networks would open the servers behind the gateway's back.
    type: bool
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Find out who may talk to the server
  modelops.tensorflow_serving.allowed_networks_info:
    networks: [private, 192.0.2.0/24]
  register: allowed
"""

RETURN = r"""
networks:
  description: The networks, overlapping ones joined. Empty where everybody is allowed.
  returned: success
  type: list
  elements: str
  sample: [10.1.0.0/16, 127.0.0.0/8, 192.0.2.0/24, "::1/128"]
enforced_by:
  description:
    - V(systemd) where the kernel enforces C(IPAddressDeny=), V(nftables) where it does not and another has to.
    - V(nobody) where everybody is allowed.
  returned: success
  type: str
  sample: systemd
"""

import sys

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import SITE_PATH
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.networks import (
    allowed_networks,
    private_networks,
)

# Sends one datagram, that nobody has to receive. The kernel's filter refuses it with EPERM.
PROBE = """
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9))
except PermissionError:
    print("refused")
else:
    print("sent")
"""


def systemd_enforces(module: AnsibleModule) -> bool:
    """Return whether a unit that may talk to nobody is kept from it. False where no unit can be started."""
    unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--property=IPAddressDeny=any"]
    status, output, _ = module.run_command([*unit, sys.executable, "-I", "-c", PROBE])
    return status == 0 and output.split() == ["refused"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "networks": {"type": "list", "elements": "str", "default": []},
            "gateway_enabled": {"type": "bool"},
        },
        supports_check_mode=True,
    )
    if module.params["gateway_enabled"] is None and SITE_PATH.exists():
        module.fail_json(
            msg="This host has a gateway, and tfserving_gateway_enabled is not set. Set it to true to keep it. "
            "false takes it off; then those reach the servers whom tfserving_service_allowed_networks names."
        )
    try:
        networks = allowed_networks(module.params["networks"], private_networks())
    except ValueError as error:
        module.fail_json(msg=f"tfserving_service_allowed_networks: {error}.")
    enforced_by = "nobody"
    if networks:
        enforced_by = "systemd" if systemd_enforces(module) else "nftables"
    module.exit_json(changed=False, networks=networks, enforced_by=enforced_by)


if __name__ == "__main__":
    main()

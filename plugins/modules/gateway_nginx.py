#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_nginx
short_description: Configure the gateway in nginx, all or nothing
version_added: 0.1.0
description:
  - Writes the site, its certificate and its users, all of them or none. nginx checks them beside the old ones first,
    within the host's whole configuration.
  - Reloads nginx and waits until it has taken the new configuration. Where it does not, the previous files are put
    back; the old workers have gone on all the time. nginx is started where it does not run.
  - nginx is hardened by a drop-in of its unit where it serves nothing but the gateway. A change of that restarts it, as
    systemd hardens a process when it starts it, and is tried in a transient unit first.
  - A run that is cut is finished by the next one.
attributes:
  check_mode:
    description: Says what would change, after nginx has checked it where it is installed.
    support: full
  diff_mode:
    description: Shows the site, the drop-in and the log's rotation, and of certificate, key and users nothing.
    support: partial
options:
  site:
    description: The site, as a file for C(/etc/nginx/conf.d). Empty to remove all that belongs to it.
    type: str
    required: true
  certificate:
    description: PEM for C(/etc/nginx/tfserving-gateway/tls.pem), together with O(key).
    type: str
    default: ''
  key:
    description: The private key, as PEM.
    type: str
    default: ''
  self_signed_names:
    description: Names for a certificate that is made here instead, and renewed 30 days before it ends.
    type: list
    elements: str
    default: []
  client_ca:
    description: PEM for C(/etc/nginx/tfserving-gateway/client_ca.pem).
    type: str
    default: ''
  users:
    description: Passwords, or their hashes, by the user, for C(/etc/nginx/tfserving-gateway/users).
    type: dict
    default: {}
  rotation:
    description: How logrotate takes care of the gateway's log, a file for C(/etc/logrotate.d).
    type: str
    default: ''
  hardening:
    description: What nginx is hardened with, a drop-in of its unit. Empty for none.
    type: str
    default: ''
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Configure the site in nginx
  modelops.tensorflow_serving.gateway_nginx:
    site: "{{ lookup('ansible.builtin.template', 'gateway.conf.j2') }}"
    self_signed_names: [models.example.com]
    users: "{{ vault_users }}"
"""

RETURN = r"""
files:
  description: The files that were written or removed.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/conf.d/tfserving-gateway.conf]
other_sites:
  description: Files that make nginx serve something else, for which it is not hardened.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/sites-enabled/intranet]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import NginxError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.secrets import SecretError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.site import ensure, failure


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "site": {"type": "str", "required": True},
            "certificate": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "self_signed_names": {"type": "list", "elements": "str", "default": []},
            "client_ca": {"type": "str", "default": ""},
            "users": {"type": "dict", "default": {}, "no_log": True},
            "rotation": {"type": "str", "default": ""},
            "hardening": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        result = ensure(module.params, module.check_mode)
    except (NginxError, SecretError, OSError) as error:
        module.fail_json(msg=failure(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

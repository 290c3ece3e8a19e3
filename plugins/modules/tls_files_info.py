#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_files_info
short_description: Check a private key, its certificate and the authority of the clients
version_added: 0.1.0
description:
  - Loads them as a TLS server does, and fails where the key has a password or is not the certificate's, or where one
    cannot be read. The key is shown nowhere.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
options:
  server_key:
    description: The private key, as PEM.
    type: str
    required: true
  server_cert:
    description: The certificate and those between it and the authority, as PEM.
    type: str
    required: true
  custom_ca:
    description: The authority of the clients' certificates, as PEM.
    type: str
    default: ''
  client_verify:
    description: Whether clients need a certificate. That takes O(custom_ca).
    type: bool
    default: false
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Check the certificate
  modelops.tensorflow_serving.tls_files_info:
    server_key: "{{ lookup('ansible.builtin.file', 'tls/server.key') }}"
    server_cert: "{{ lookup('ansible.builtin.file', 'tls/server.crt') }}"
"""

RETURN = r""" # """

import ssl
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


class PasswordError(Exception):
    """A key that cannot be read without a password, which the server cannot be told."""


def no_password() -> str:
    """Say that there is none, where OpenSSL would ask at the terminal."""
    raise PasswordError


def problem(server_key: str, server_cert: str, custom_ca: str, directory: Path) -> str:
    """Return what is wrong, empty where nothing is. The directory is for files that ssl can read, and private."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, text in (("key", server_key), ("cert", server_cert)):
        (directory / name).write_text(text)
    try:
        context.load_cert_chain(directory / "cert", directory / "key", no_password)
    except PasswordError:
        return "server_key has a password; the server has nobody to ask for it, so take it off"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "server_key is not the key of server_cert"
        return f"server_key or server_cert is not PEM that TLS can use ({error.reason or error})"
    if custom_ca:
        try:
            context.load_verify_locations(cadata=custom_ca)
        except (ssl.SSLError, ValueError) as error:
            return f"custom_ca is no certificate in PEM ({getattr(error, 'reason', None) or error})"
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "server_key": {"type": "str", "required": True, "no_log": True},
            "server_cert": {"type": "str", "required": True},
            "custom_ca": {"type": "str", "default": ""},
            "client_verify": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    for name in ("server_key", "server_cert"):
        if not params[name]:
            module.fail_json(msg=f"tfserving_service_ssl: {name} is empty; give PEM text or a path on the controller.")
    if params["client_verify"] and not params["custom_ca"]:
        module.fail_json(
            msg="tfserving_service_ssl: client_verify is true without custom_ca, so that no client's certificate would "
            "be accepted; give the authority of the clients' certificates as custom_ca."
        )
    with tempfile.TemporaryDirectory() as directory:
        wrong = problem(params["server_key"], params["server_cert"], params["custom_ca"], Path(directory))
    if wrong:
        module.fail_json(msg=f"tfserving_service_ssl: {wrong}.")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_nginx
short_description: Have nginx take the gateway's configuration, or leave it as it is
version_added: 0.1.0
description:
  - Writes the site, its certificate and its users, all of them or none. nginx checks them beside the old ones first,
    within the host's whole configuration.
  - Reloads nginx and waits until it has taken the new configuration. Where it does not, the previous files are put
    back; the old workers have gone on all the time. nginx is started where it does not run.
  - A run that is cut is finished by the next one.
attributes:
  check_mode:
    description: Says what would change, after nginx has checked it where it is installed.
    support: full
  diff_mode:
    description: Shows the site, and of certificate, key and users nothing.
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
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Have nginx take the site
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
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.gateway_nginx import (
    NGINX,
    PENDING,
    ROOT,
    RUN,
    SITE,
    File,
    NginxError,
    check,
    includes_conf_d,
    keep,
    put_back,
    reload_or_start,
    staged,
    unused_default_site,
    workers_group,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.gateway_secrets import (
    SecretError,
    password_file,
    self_signed,
)

CONF = f"conf.d/{SITE}.conf"
SECRETS = TLS, CLIENT_CA, USERS = tuple(f"{SITE}/{name}" for name in ("tls.pem", "client_ca.pem", "users"))


def read(name: str) -> str:
    """Return a file of ours, empty where there is none."""
    try:
        return (ROOT / name).read_text()
    except OSError:
        return ""


def wanted(params: dict[str, Any]) -> list[File]:
    """Return the files that there have to be. What the site refers to comes first. Raises SecretError."""
    if not params["site"]:
        return []
    files = []
    pem = "".join(f"{text.strip()}\n" for text in (params["certificate"], params["key"]) if text)
    if params["self_signed_names"]:
        pem = self_signed(ROOT / TLS, params["self_signed_names"])
    if pem:
        files.append(File(TLS, pem, 0o640))
    if params["client_ca"]:
        files.append(File(CLIENT_CA, params["client_ca"].strip() + "\n"))
    if params["users"]:
        files.append(File(USERS, password_file(params["users"], read(USERS)), 0o640, workers_group()))
    return [*files, File(CONF, params["site"])]


def apply(files: list[File], stale: list[str]) -> None:
    """Write and remove, and have nginx take it; what was is put back where it does not. Raises NginxError."""
    RUN.mkdir(mode=0o755, exist_ok=True)
    PENDING.touch()
    sites = [name for name in stale if name not in SECRETS]
    kept = keep(ROOT, [*(file.path for file in files), *sites])
    try:
        for file in files:
            file.write(ROOT)
        for name in sites:
            (ROOT / name).unlink()
        reload_or_start()
    except (NginxError, OSError):
        put_back(kept)
        PENDING.unlink()
        raise
    # No site refers to these any more.
    for name in SECRETS:
        if name in stale:
            (ROOT / name).unlink()
    if CONF in stale:
        (ROOT / SITE).rmdir()
    PENDING.unlink()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "site": {"type": "str", "required": True},
            "certificate": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "self_signed_names": {"type": "list", "elements": "str", "default": []},
            "client_ca": {"type": "str", "default": ""},
            "users": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    site = module.params["site"]
    before = read(CONF)
    diff = {"before": before, "after": site, "before_header": str(ROOT / CONF), "after_header": str(ROOT / CONF)}
    if not Path(NGINX).exists():
        # In check mode on a fresh host; otherwise the role has installed it.
        module.exit_json(changed=bool(site), files=[str(ROOT / CONF)] if site else [], diff=diff)
    try:
        if site and not includes_conf_d():
            raise NginxError(
                "/etc/nginx/nginx.conf does not include /etc/nginx/conf.d/*.conf, where the gateway's site goes; add "
                "that line to its section http."
            )
        every = wanted(module.params)
        changed = [file for file in every if file.differs()]
        stale = [
            name for name in (CONF, *SECRETS) if name not in [file.path for file in every] and (ROOT / name).exists()
        ]
        if changed or stale:
            with staged(every, stale) as stage:
                check(stage)
        unused = unused_default_site() if site else []
        names = [*(file.path for file in changed), *stale, *unused]
        is_due = bool(names) or PENDING.exists()
        if is_due and not module.check_mode:
            apply(changed, [*stale, *unused])
    except (NginxError, SecretError, OSError) as error:
        module.fail_json(msg=f"nginx serves as before, as it cannot take the gateway's new configuration.\n{error}")
    module.exit_json(changed=is_due, files=[str(ROOT / name) for name in names], diff=diff)


if __name__ == "__main__":
    main()

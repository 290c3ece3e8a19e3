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
other_sites:
  description: Files that make nginx serve something else, for which it is not hardened.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/sites-enabled/intranet]
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import (
    HEALTH,
    LOG,
    NGINX,
    PENDING,
    ROOT,
    RUN,
    SITE,
    File,
    NginxError,
    check,
    has_log,
    includes_conf_d,
    is_active,
    keep,
    make_directory,
    make_log,
    put_back,
    reload_units,
    sites,
    staged,
    start,
    take,
    unused_default_site,
    workers_group,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.secrets import (
    SecretError,
    password_file,
    self_signed,
)

CONF = f"conf.d/{SITE}.conf"
DROP_IN = f"/etc/systemd/system/nginx.service.d/{SITE}.conf"
ROTATION = f"/etc/logrotate.d/{SITE}"
SECRETS = TLS, CLIENT_CA, USERS = tuple(f"{SITE}/{name}" for name in ("tls.pem", "client_ca.pem", "users"))
SHOWN = CONF, DROP_IN, ROTATION
RESTART = "restart"


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
    return [*files, File(ROTATION, params["rotation"]), File(CONF, params["site"])]


def apply(files: list[File], stale: list[str], serves: bool) -> None:
    """Write and remove, and have nginx take it; what was is put back where it does not. Raises NginxError.

    nginx restarts where what it is hardened with has changed, but not to go on with nothing of ours.
    """
    is_hardened_anew = DROP_IN in [*(file.path for file in files), *stale]
    restart = serves and (is_hardened_anew or (PENDING.exists() and PENDING.read_text() == RESTART))
    make_directory(RUN)
    PENDING.write_text(RESTART if restart else "")
    replaced = [name for name in stale if name not in SECRETS]
    kept = keep(ROOT, [*(file.path for file in files), *replaced])
    try:
        if serves:
            make_log()
        for file in files:
            file.write(ROOT)
        for name in replaced:
            (ROOT / name).unlink()
        if is_hardened_anew or restart:
            reload_units()
        if serves or is_active():
            take(restart)
    except (NginxError, OSError):
        put_back(kept)
        PENDING.unlink()
        if restart:
            reload_units()
            with suppress(NginxError):  # what is said is what happened first
                start()
        raise
    # No site refers to these any more.
    for name in SECRETS:
        if name in stale:
            (ROOT / name).unlink()
    if serves:
        PENDING.unlink()
        return
    for directory in (ROOT / SITE, RUN, HEALTH):
        shutil.rmtree(directory, ignore_errors=True)


def shown(files: list[File], stale: list[str]) -> list[dict[str, str]]:
    """Return how the files that have no secret change, for Ansible's diff."""
    after = {**{file.path: file.content for file in files}, **dict.fromkeys(stale, "")}
    return [
        {"before": read(name), "after": after[name], "before_header": path, "after_header": path}
        for name, path in ((name, str(ROOT / name)) for name in SHOWN)
        if name in after
    ]


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
    site, hardening = module.params["site"], module.params["hardening"]
    hardened = [File(DROP_IN, hardening)] if site and hardening else []
    there = [name for name in (*SHOWN, *SECRETS) if (ROOT / name).exists()]
    others: list[str] = []
    if site and not Path(NGINX).exists():
        # In check mode on a fresh host; otherwise the role has installed it.
        files = [File(ROTATION, module.params["rotation"]), File(CONF, site), *hardened]
        names = [str(ROOT / file.path) for file in files]
        module.exit_json(changed=True, files=names, other_sites=[], diff=shown(files, []))
    if not (site or there or PENDING.exists()):
        module.exit_json(changed=False, files=[], other_sites=[], diff=[])
    try:
        if site and not includes_conf_d():
            raise NginxError(
                "/etc/nginx/nginx.conf does not include /etc/nginx/conf.d/*.conf, where the gateway's site goes; add "
                "that line to its section http."
            )
        every = wanted(module.params)
        unused = unused_default_site() if site else []
        if Path(NGINX).exists():  # else somebody has taken it off the host, and what we wrote is to go
            with staged(every, [name for name in there if name not in [file.path for file in every]]) as stage:
                own = [str(ROOT / name) for name in (CONF, *unused)]
                others = [name for name in sites(check(stage)) if name not in own]
                if hardened and not others:
                    every += hardened
                    if any(file.differs() for file in every):
                        check(stage, hardening)
        changed = [file for file in every if file.differs()]
        stale = [name for name in there if name not in [file.path for file in every]]
        names = [*(file.path for file in changed), *stale, *unused]
        if site and not has_log():
            names.append(str(LOG))
        is_due = bool(names) or PENDING.exists()
        diff = shown(changed, stale)
        if is_due and not module.check_mode:
            apply(changed, [*stale, *unused], bool(site))
    except (NginxError, SecretError, OSError) as error:
        state = "serves as before" if is_active() else "does not run"
        module.fail_json(msg=f"nginx {state}, as it cannot take the gateway's new configuration.\n{error}")
    module.exit_json(changed=is_due, files=[str(ROOT / name) for name in names], other_sites=others, diff=diff)


if __name__ == "__main__":
    main()

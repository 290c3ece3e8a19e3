# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway's files: the site and what it refers to, all of them as nginx takes them, or none."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import KeptFile
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import nginx
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import SITE, File, NginxError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.secrets import (
    password_file,
    self_signed,
)

CONF = f"conf.d/{SITE}.conf"
DROP_IN = f"/etc/systemd/system/nginx.service.d/{SITE}.conf"
ROTATION = f"/etc/logrotate.d/{SITE}"
SECRETS = TLS, CLIENT_CA, USERS = tuple(f"{SITE}/{name}" for name in ("tls.pem", "client_ca.pem", "users"))
# What a rollout's step adds for nginx's http and for the site's server: the module trial. Not ours beyond that step.
TRIAL = f"conf.d/{SITE}-trial.conf", f"{SITE}/trial.conf"
SHOWN = CONF, DROP_IN, ROTATION, *TRIAL
RESTART = "restart"


def read(name: str) -> str:
    """Return a file of ours, empty where there is none."""
    try:
        return (nginx.ROOT / name).read_text()
    except OSError:
        return ""


def wanted(params: dict[str, Any]) -> list[File]:
    """Return the files that there have to be. What the site refers to comes first. Raises SecretError."""
    if not params["site"]:
        return []
    files = []
    pem = "".join(f"{text.strip()}\n" for text in (params["certificate"], params["key"]) if text)
    if params["self_signed_names"]:
        pem = self_signed(nginx.ROOT / TLS, params["self_signed_names"])
    if pem:
        files.append(File(TLS, pem, 0o640))
    if params["client_ca"]:
        files.append(File(CLIENT_CA, params["client_ca"].strip() + "\n"))
    if params["users"]:
        files.append(File(USERS, password_file(params["users"], read(USERS)), 0o640, nginx.workers_group()))
    return [*files, File(ROTATION, params["rotation"]), File(CONF, params["site"])]


def take_or_put_back(files: list[File], stale: list[str], serves: bool) -> None:
    """Write and remove, and have nginx take it; what was is put back where it does not. Raises NginxError.

    nginx restarts where what it is hardened with has changed, but not to go on with nothing of ours.
    """
    is_hardened_anew = DROP_IN in [*(file.path for file in files), *stale]
    restart = serves and (is_hardened_anew or (nginx.PENDING.exists() and nginx.PENDING.read_text() == RESTART))
    nginx.make_directory(nginx.RUN)
    nginx.PENDING.write_text(RESTART if restart else "")
    replaced = [name for name in stale if name not in SECRETS]
    kept = [KeptFile(nginx.ROOT / name) for name in (*(file.path for file in files), *replaced)]
    try:
        if serves:
            nginx.make_log()
        for file in files:
            file.write()
        for name in replaced:
            (nginx.ROOT / name).unlink()
        if is_hardened_anew or restart:
            nginx.reload_units()
        if serves or nginx.is_active():
            nginx.take(restart)
    except (NginxError, OSError):
        for one in kept:
            one.put_back()
        nginx.PENDING.unlink()
        if restart:
            nginx.reload_units()
            with suppress(NginxError):  # what is said is what happened first
                nginx.start()
        raise
    # No site refers to these any more.
    for name in SECRETS:
        if name in stale:
            (nginx.ROOT / name).unlink()
    if serves:
        nginx.PENDING.unlink()
        return
    for directory in (nginx.ROOT / SITE, nginx.RUN, nginx.HEALTH):
        shutil.rmtree(directory, ignore_errors=True)


def shown(files: list[File], stale: list[str]) -> list[dict[str, str]]:
    """Return how the files that have no secret change, for Ansible's diff."""
    after = {**{file.path: file.content for file in files}, **dict.fromkeys(stale, "")}
    return [
        {"before": read(name), "after": after[name], "before_header": path, "after_header": path}
        for name, path in ((name, str(nginx.ROOT / name)) for name in SHOWN)
        if name in after
    ]


def names_of(files: list[File]) -> list[str]:
    return [file.path for file in files]


def checked(
    files: list[File], there: list[str], hardened: list[File], unused: list[str]
) -> tuple[list[File], list[str]]:
    """Have nginx check files in the place of those that are there. Raises NginxError.

    Returns the files, with the drop-in in hardened where nginx serves nothing else, and the other sites that it serves.
    """
    with nginx.staged(files, [name for name in there if name not in names_of(files)]) as stage:
        own = [str(nginx.ROOT / name) for name in (CONF, *unused)]
        others = [name for name in nginx.sites(nginx.check(stage)) if name not in own]
        if hardened and not others:
            files = [*files, *hardened]
            if any(file.differs() for file in files):
                nginx.check(stage, hardened[0].content)
    return files, others


def result(changed: bool, names: list[str], others: list[str], diff: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "changed": changed,
        "files": [str(nginx.ROOT / name) for name in names],
        "other_sites": others,
        "diff": diff,
    }


def ensure(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Let nginx serve the gateway as the parameters of gateway_nginx say. Returns that module's results.

    Raises NginxError, SecretError and OSError, after everything is as it was before.
    """
    site = params["site"]
    hardened = [File(DROP_IN, params["hardening"])] if site and params["hardening"] else []
    there = [name for name in (*SHOWN, *SECRETS) if (nginx.ROOT / name).exists()]
    has_nginx = Path(nginx.NGINX).exists()
    if site and not has_nginx:  # in check mode on a fresh host; otherwise the role has installed it
        files = [File(ROTATION, params["rotation"]), File(CONF, site), *hardened]
        return result(True, names_of(files), [], shown(files, []))
    if not (site or there or nginx.PENDING.exists()):
        return result(False, [], [], [])
    if site and not nginx.includes_conf_d():
        raise NginxError(
            "/etc/nginx/nginx.conf does not include /etc/nginx/conf.d/*.conf, where the gateway's site goes; add "
            "that line to its section http."
        )
    files = wanted(params)
    others: list[str] = []
    unused = nginx.unused_default_site() if site else []
    if has_nginx:  # else somebody has taken it off the host, and what we wrote is to go
        files, others = checked(files, there, hardened, unused)
    changed = [file for file in files if file.differs()]
    stale = [name for name in there if name not in names_of(files)]
    names = [*names_of(changed), *stale, *unused]
    if site and not nginx.has_log():
        names.append(str(nginx.LOG))
    is_due = bool(names) or nginx.PENDING.exists()
    diff = shown(changed, stale)
    if is_due and not check_mode:
        take_or_put_back(changed, [*stale, *unused], bool(site))
    return result(is_due, names, others, diff)


def failure(error: Exception) -> str:
    """Return the module's message for what ensure raises."""
    state = "serves as before" if nginx.is_active() else "does not run"
    return f"nginx {state}, as it cannot take the gateway's new configuration.\n{error}"

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the gateway does in a step of a rollout: it has a second server answer a share of the requests, or copies of it.

The site includes what is written here, and stays as it is. nginx asks at each request for the directory that systemd
keeps below /run while the second server runs: a process that has its port after it gets nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import nginx
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import File
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.site import (
    CONF,
    TRIAL,
    read,
    shown,
    take_or_put_back,
)

# What a step does: the second server gets copies, or it answers.
MIRROR, SPLIT = "mirror", "split"
KINDS = (MIRROR, SPLIT)
# How the site names what it includes, by which one that does is known.
HOOK = "trial*.conf"
# So many requests a second server may work on for each of nginx's workers. What comes beyond is the server's own.
MOST_REQUESTS = 64

# The name that the path had, without which the second server answers from its only version, or the highest.
_PATH = "rewrite ^ /v1/models/$tfserving_model:$tfserving_verb? break;"
_HTTP = """\
# A step of a rollout, which takes this file away.
{upstreams}
split_clients "trial $request_id" $tfserving_trial_share {{
    {percent}% 1;
    * "";
}}
map $uri $tfserving_trial_drawn {{
    default "";
{models}
}}
"""
_UPSTREAM = "upstream {name} {{\n    server {address} max_conns={most};\n}}"
_MIRROR = """\
location ~ "{pattern}/tried:" {{
    internal;
    mirror /{name};
    # Over this connection, the client's next request would wait until the copy has ended: it takes another.
    keepalive_timeout 0;
    {path}
    proxy_pass http://tfserving_rest_$tfserving_servers;
}}
location = /{name} {{
    internal;
    log_subrequest on;
    access_log {log} tfserving_gateway_tried;
    error_page 599 /error;
    if (!-d {running}) {{
        return 204;
    }}
    {path}
    proxy_pass http://{name};
    proxy_ignore_client_abort on;
}}
"""
_SPLIT = """\
location ~ "{pattern}/tried:" {{
    internal;
    error_page 401 403 413 /error;
    # Also 400 and 429: the server answers so what its model cannot compute, or has no memory for.
    error_page 400 404 409 500 501 502 503 504 = @tfserving_untried;
    error_page 429 = @tfserving_limited;
    recursive_error_pages on;
    proxy_intercept_errors on;
    if (!-d {running}) {{
        return 502;
    }}
    {path}
    proxy_pass http://{name};
}}
"""
_UNTRIED = f"""\
location @tfserving_untried {{
    auth_basic off;
    {_PATH}
    proxy_pass http://tfserving_rest_$tfserving_servers;
}}
location @tfserving_limited {{
    auth_basic off;
    # The gateway's own limit, before any server was asked.
    if ($upstream_status = "") {{
        return 429;
    }}
    {_PATH}
    proxy_pass http://tfserving_rest_$tfserving_servers;
}}
"""


def running_path(unit: str) -> Path:
    """Return the directory that is there while a second server runs, and no longer. unit is without .service."""
    return Path("/run", unit)


def upstream_names(number: int, port: int) -> list[str]:
    """Return how the log names the second server of this place in the list: by its address, or where it is full."""
    return [f"127.0.0.1:{port}", _upstream(number)]


def _upstream(number: int) -> str:
    return f"tfserving_trial_{number}"


def trial_texts(kind: str, percent: float, candidates: list[dict[str, Any]]) -> dict[str, str]:
    """Return what nginx includes, by the names of TRIAL.

    kind is MIRROR or SPLIT. percent is the share of the requests for the models of the candidates that name no version,
    more than 0 and at most 100. A candidate has unit (without .service), port (REST) and models (names).
    """
    places = [
        {
            "name": _upstream(number),
            "address": f"127.0.0.1:{one['port']}",
            "most": MOST_REQUESTS,
            "pattern": f"^/v1/models/(?:{'|'.join(map(re.escape, one['models']))})",
            "running": running_path(one["unit"]),
            "path": _PATH,
            "log": nginx.LOG,
        }
        for number, one in enumerate(candidates)
    ]
    http, site = TRIAL
    locations = [(_MIRROR if kind == MIRROR else _SPLIT).format(**one) for one in places]
    return {
        http: _HTTP.format(
            upstreams="\n".join(_UPSTREAM.format(**one) for one in places),
            percent=f"{percent:g}",
            models="\n".join(f'    "~{one["pattern"]}:" $tfserving_trial_share;' for one in places),
        ),
        site: "".join(
            [
                "# A step of a rollout, which takes this file away.\nset $tfserving_trial $tfserving_trial_drawn;\n",
                *locations,
                *([] if kind == MIRROR else [_UNTRIED]),
            ]
        ),
    }


def can_try() -> bool:
    """Return whether the gateway's site, as it is on the host, includes what is written here."""
    return HOOK in read(CONF)


def begin(kind: str, percent: float, candidates: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Have nginx take a step, for what trial_texts says of the arguments, and return Ansible's diff of the files.

    Raises NginxError and OSError, after everything is as it was before.
    """
    files = [File(name, text) for name, text in trial_texts(kind, percent, candidates).items()]
    # With the site, as what it includes is looked for in the stage then.
    with nginx.staged([*files, File(CONF, read(CONF))], []) as stage:
        nginx.check(stage)
    diff = shown(files, [])
    take_or_put_back([file for file in files if file.differs()], [], True)
    return diff


def end() -> bool:
    """Have nginx forget the step, and return whether there was one. Raises NginxError and OSError."""
    there = [name for name in TRIAL if (nginx.ROOT / name).exists()]
    if there:
        take_or_put_back([], there, True)
    return bool(there)

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role tfserving_gateway is told: what is wrong with it, naming the variable and the fix, without a secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import control_characters
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.routes import Server
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.secrets import (
    SecretError,
    check_authority,
    check_pair,
    check_pem_pair,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.traffic import traffic_problems

# What the role's numbers may be, and what null stands for where it may be given. Sources: nginx's modules limit_req
# (rate and burst begin at 1), limit_conn (1 to 65535), core (client_max_body_size 0 is no limit at all). The most are
# generous; a message of gRPC and protobuf is below 2 GiB.
_DAY_SECONDS = 86400
LIMITS: dict[str, tuple[int, int, str]] = {
    "max_body_megabytes": (1, 2047, ""),
    "client_requests_per_second": (1, 1000000, "any number"),
    "client_burst": (1, 1000000, ""),
    "client_concurrent_requests": (1, 65535, "any number"),
    "timeout_seconds": (1, _DAY_SECONDS, "five seconds more than REST"),
    "drain_timeout_seconds": (0, _DAY_SECONDS, ""),
}

# Paths of the gateway's own, and where the models are.
_OWN_PATHS = ("closed", "drained", "error", "health-of-server", "healthz", "mirrored", "v1")
_METRICS_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+/?")


def read_input(params: dict[str, Any], servers: list[Server]) -> tuple[dict[str, int | None], list[str]]:
    """Return the numbers of LIMITS, None where any will do, and all that can be seen to be wrong on the controller.

    params are the arguments of the module gateway_info, and labels, those of each model of the catalogue, where they
    are known. Certificates that are on the host are not looked at.
    """
    limits, problems = read_limits(params["limits"])
    problems += [*access_problems(params, limits), *tls_problems(params), *route_problems(params, servers)]
    problems += traffic_problems(params["traffic"], params.get("labels"))
    if not params["files_on_host"]:
        problems += certificate_problems(params)
    try:
        if params["client_ca"]:
            check_authority(params["client_ca"])
    except SecretError as error:
        problems.append(f"{error}.")
    return limits, problems


def certificate_problems(params: dict[str, Any]) -> list[str]:
    """Return what is wrong with the gateway's certificate and key, as texts or files of this machine."""
    certificate, key = params["certificate"], params["key"]
    if not (certificate and key):
        return []
    try:
        if params["files_on_host"]:
            check_pair(Path(certificate), Path(key))
        else:
            check_pem_pair(certificate, key)
    except SecretError as error:
        return [f"{error}."]
    return []


def read_limits(given: dict[str, Any]) -> tuple[dict[str, int | None], list[str]]:
    """Return the numbers of LIMITS, None where any will do, and what is wrong with them."""
    limits: dict[str, int | None] = {}
    problems = []
    for name, (least, most, of_null) in LIMITS.items():
        value: Any = given.get(name)
        if of_null and value in (None, ""):  # "" is what ansible-core before 2.19 makes of null
            limits[name] = None
        elif re.fullmatch(r"[0-9]{1,15}", str(value), re.ASCII) and least <= int(value) <= most:
            limits[name] = int(value)
        else:
            hint = f", or null for {of_null}" if of_null else ""
            problems.append(
                f"{_variable(name)} is {value!r}; it has to be a whole number from {least} to {most}{hint}."
            )
    return limits, problems


def _variable(limit: str) -> str:
    """Return where the operator sets one of LIMITS."""
    group, _, key = limit.partition("client_")
    return f"tfserving_gateway_{limit}" if group else f"tfserving_gateway_client_limits: {key}"


def timeout_seconds(instances: list[dict[str, Any]]) -> int:
    """Return how long nginx waits for the servers that serving_host_info has worked out, in seconds.

    A little longer than any of them takes for a REST request, so that the server says that it took too long.
    """
    return max(int(one["rest_api_timeout_seconds"]) for one in instances) + 5


def access_problems(params: dict[str, Any], limits: dict[str, int | None]) -> list[str]:
    """Return what is wrong with who may ask and how often, without any secret."""
    users, anonymous = params["users"], params["allow_anonymous"]
    ways = [name for name, there in (("users", users), ("client_ca", params["client_ca"])) if there]
    problems = []
    if not ways and not anonymous:
        problems.append(
            "No client may use the gateway yet. Set tfserving_gateway_users (passwords), tfserving_gateway_client_ca "
            "(certificates) or both, which requires both; or allow every client with "
            "tfserving_gateway_allow_anonymous: true."
        )
    if ways and anonymous:
        problems.append(
            f"tfserving_gateway_allow_anonymous is true and tfserving_gateway_{ways[0]} is set; unset one of them."
        )
    if users and limits.get("client_requests_per_second", 0) is None:
        problems.append(
            f"{_variable('client_requests_per_second')} is null, so passwords could be guessed without limit; set a "
            "number, such as 100000, or use tfserving_gateway_client_ca without tfserving_gateway_users."
        )
    for user, password in users.items():
        if not re.fullmatch(r"[^:\s#][^:]*", str(user)) or control_characters("", str(user)):
            problems.append(f"tfserving_gateway_users: {user!r} cannot be the name of a user; it may hold no colon.")
        if not isinstance(password, str) or not password or not password.isprintable():
            problems.append(f"tfserving_gateway_users: the password of {user!r} has to be text on one line, not empty.")
    return problems


def tls_problems(params: dict[str, Any]) -> list[str]:
    """Return what is wrong with where the certificate comes from."""
    given = [name for name in ("certificate", "key") if params[name]]
    if params["self_signed"] and given:
        return [f"tfserving_gateway_tls_self_signed is true and tfserving_gateway_tls_{given[0]} is set; unset one."]
    if params["self_signed"]:
        return []
    if params["files_on_host"]:
        # Not shown: a path that is none may be the key itself.
        unfit = [
            name for name in given if not re.fullmatch(r"/[^$]*", params[name]) or control_characters("", params[name])
        ]
        if unfit:
            return [
                f"tfserving_gateway_tls_{name} has to be an absolute path on the host with "
                "tfserving_gateway_tls_files_on_host: true, on one line and without $, a variable of nginx."
                for name in unfit
            ]
    if len(given) == 1:
        return [f"tfserving_gateway_tls_{given[0]} is set alone; set certificate and key, or neither of them."]
    if not given:
        return [
            "The gateway has no certificate. Set tfserving_gateway_tls_certificate and tfserving_gateway_tls_key, or, "
            "for a lab, tfserving_gateway_tls_self_signed: true."
        ]
    return []


def route_problems(params: dict[str, Any], servers: list[Server]) -> list[str]:
    """Return what is wrong with ports, names and servers."""
    port = params["port"]
    problems = []
    if not 1 <= port <= 65535:
        problems.append(f"tfserving_gateway_port is {port}; it has to be from 1 to 65535.")
    problems += [
        f"tfserving_gateway_port is {port}, a port of {one.unit}; give the gateway another."
        for one in servers
        if port in (one.port, one.rest_api_port)
    ]
    problems += [
        f"{one.unit} serves no model, so the gateway has nothing to send there; remove it from "
        "tfserving_service_instances or give it models."
        for one in servers
        if not one.models
    ]
    if not params["names"]:
        problems.append("tfserving_gateway_names is empty; list the names that clients call the gateway by.")
    problems += [
        f"tfserving_gateway_names: {name!r} is neither a host's name nor an address."
        for name in params["names"]
        if not re.fullmatch(r"[A-Za-z0-9.:-]+", name)
    ]
    path = params["metrics_path"]
    if not _METRICS_PATH.fullmatch(path) or path.split("/")[1] in _OWN_PATHS or path.startswith("/tensorflow.serving."):
        problems.append(
            f"tfserving_service_monitoring_path is {path!r}; behind the gateway it has to be a path such as "
            "/monitoring/prometheus/metrics, of letters, digits, hyphens, dots, _ and ~, and begin with none of "
            f"{', '.join(f'/{name}' for name in _OWN_PATHS)} and /tensorflow.serving."
        )
    if params["server_client_verify"]:
        problems.append(
            "tfserving_service_ssl.client_verify is true, and the gateway has no certificate to show to the server. "
            "Remove it; tfserving_gateway_client_ca checks the clients' certificates."
        )
    return problems

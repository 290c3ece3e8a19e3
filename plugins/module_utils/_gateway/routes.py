# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which requests the gateway lets through, and to which servers of the host they go."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.traffic import read_traffic

# What can be opened: how its REST path ends after the model and its version, the REST method and the gRPC method.
# grpc is without HandleReloadConfigRequest on purpose: anyone who may call it can unload every model.
_VERBS = {"predict": "Predict", "classify": "Classify", "regress": "Regress"}
_READS = {
    "status": ("", "ModelService/GetModelStatus"),
    "metadata": ("/metadata", "PredictionService/GetModelMetadata"),
}
OPEN = [*_VERBS, *_READS, "metrics"]

# model_servers/http_rest_api_util.cc; the catalogue takes no label with a control character. What is named becomes a
# variable of nginx, for the log and for copies of a request.
_PATH = (
    r"^/v1/models/(?P<tfserving_model>MODELS)"
    r"(?:/versions/(?P<tfserving_version>[0-9]+)|/labels/(?P<tfserving_label>[^/:\x00-\x1f\x7f]+))?"
)
_NAMED = re.compile(r"\(\?P<\w+>")

# $ alone is also there before a last line feed, which a path can hold as %0a.
_END = r"$(?!\n)"

# The value of $tfserving_draining while no server is drained.
NONE = "-"


@dataclass(frozen=True)
class Server:
    """One instance of the model server. number is its place among those of the host."""

    number: int
    name: str
    unit: str
    port: int
    rest_api_port: int
    models: list[str]


@dataclass
class RoutePlan:
    """What nginx is told. A set is some servers that requests are spread over; s0 is the name of the first one.

    choices are [set, number of the server that is drained or NONE, set that takes its requests or nothing].
    """

    sets: list[dict[str, Any]] = field(default_factory=list)
    choices: list[list[str]] = field(default_factory=list)
    rest: list[dict[str, Any]] = field(default_factory=list)
    grpc: list[str] = field(default_factory=list)
    grpc_models: list[dict[str, str]] = field(default_factory=list)
    grpc_default: str = ""
    metrics: list[dict[str, str]] = field(default_factory=list)
    health: list[dict[str, str]] = field(default_factory=list)
    traffic: list[dict[str, Any]] = field(default_factory=list)

    def set_of(self, servers: Iterable[Server]) -> str:
        """Return the name of the set of these servers, which is new where there is none."""
        wanted = [{"unit": one.unit, "port": one.port, "rest_api_port": one.rest_api_port} for one in servers]
        for known in self.sets:
            if known["servers"] == wanted:
                return str(known["name"])
        self.sets.append({"name": f"s{len(self.sets)}", "servers": wanted})
        return str(self.sets[-1]["name"])


def read_servers(instances: list[dict[str, Any]]) -> list[Server]:
    """Return the servers that the module serving_host_info has worked out."""
    keys = ("name", "unit", "port", "rest_api_port", "models")
    return [Server(number, **{key: one[key] for key in keys}) for number, one in enumerate(instances)]


def plan(
    servers: list[Server], opened: Iterable[str], metrics_path: str, traffic: dict[str, Any] | None = None
) -> RoutePlan:
    """Return the routes to servers that serve at least one model, with what is opened of OPEN."""
    opened = set(opened)
    models = list(dict.fromkeys(model for one in servers for model in one.models))
    made = RoutePlan(traffic=read_traffic(traffic or {}, models))
    mirrored = [one["model"] for one in made.traffic if one["mirror"]]
    by_servers: dict[tuple[tuple[int, ...], bool], list[str]] = {}
    for model in models:
        numbers = tuple(one.number for one in servers if model in one.models)
        by_servers.setdefault((numbers, model in mirrored), []).append(model)

    used: list[list[Server]] = []

    def use(some: list[Server]) -> str:
        if some not in used:
            used.append(some)
        return made.set_of(some)

    for (numbers, is_mirrored), names in by_servers.items():
        name = use([servers[number] for number in numbers])
        made.rest += [{**route, "set": name, "mirrored": is_mirrored} for route in _rest_routes(names, opened)]
        made.grpc_models.append({"pattern": f"^{_any(names)}$", "set": name})
    made.grpc = _grpc_methods(opened)
    made.grpc_default = use(_for_any_model(servers))
    first = servers[0].models[0]
    asked = [one for one in servers if first in one.models]
    made.health.append(_health("", first, use(asked)))
    for one in servers:
        if one.name:
            made.health.append(_health(f"/{one.name}", one.models[0], use([one])))
        if "metrics" in opened:
            path = f"{metrics_path.rstrip('/')}/{one.name}" if one.name else metrics_path
            made.metrics.append({"path": path, "set": use([one])})
    for some in used:
        made.choices.append([made.set_of(some), NONE, made.set_of(some)])
        for drained in servers:
            left = [one for one in some if one is not drained]
            if left:
                made.choices.append([made.set_of(some), str(drained.number), made.set_of(left)])
    return made


def _health(ending: str, model: str, servers: str) -> dict[str, str]:
    path = f"/healthz{ending}"
    return {"path": path, "pattern": f"^{re.escape(path)}{_END}", "model": model, "set": servers}


def _any(models: list[str]) -> str:
    """Return a pattern of nginx for these names."""
    return "(?:" + "|".join(map(re.escape, models)) + ")"


def _rest_routes(models: list[str], opened: set[str]) -> list[dict[str, str]]:
    verbs = "|".join(verb for verb in _VERBS if verb in opened)
    endings = "|".join(_READS[kind][0] for kind in _READS if kind in opened)
    routes = []
    if verbs:
        routes.append({**_patterns(models, f":(?P<tfserving_verb>{verbs})"), "method": "POST"})
    if opened & set(_READS):
        routes.append({**_patterns(models, f"(?:{endings})"), "method": "GET"})
    return routes


def _patterns(models: list[str], ending: str) -> dict[str, str]:
    """Return the pattern of paths, and the same without names: what it is compared with sets no variable."""
    named = f"{_PATH}{ending}{_END}"
    patterns = {"pattern": named, "unnamed": _NAMED.sub("(?:", named)}
    return {key: pattern.replace("MODELS", _any(models)) for key, pattern in patterns.items()}


def _grpc_methods(opened: set[str]) -> list[str]:
    methods = [f"PredictionService/{method}" for verb, method in _VERBS.items() if verb in opened]
    methods += [method for kind, (_, method) in _READS.items() if kind in opened]
    return [f"/tensorflow.serving.{method}" for method in methods]


def _for_any_model(servers: list[Server]) -> list[Server]:
    """Return the servers for a gRPC request that does not say which model it is for, as nginx cannot see.

    All those that serve every model; where no server does, the first one, which says itself that it lacks a model.
    """
    every = {model for one in servers for model in one.models}
    return [one for one in servers if set(one.models) == every] or servers[:1]

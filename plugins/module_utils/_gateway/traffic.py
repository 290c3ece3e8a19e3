# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which share of the requests that name no version goes to one, or is copied to one: tfserving_gateway_traffic."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import (
    control_characters,
    listed,
    printable,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    parse_version,
)

_VARIABLE = "tfserving_gateway_traffic"
_SHARES = ("split", "mirror")
# What ngx_atofp() in nginx's module split_clients reads: at most two decimals.
_PERCENT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,2})?", re.ASCII)
# A header whose name has an underscore is dropped by nginx.
_STICKY = re.compile(r"address|header ([A-Za-z0-9-]+)")


def traffic_problems(traffic: dict[Any, Any], labels: dict[str, list[str]] | None) -> list[str]:
    """Return what is wrong with tfserving_gateway_traffic.

    labels are those of each model of the catalogue; None where it is not known, or is wrong itself.
    """
    problems = []
    for model, given in traffic.items():
        if labels is not None and model not in labels:
            problems.append(
                f"{_VARIABLE}: tfserving_models_catalog has no model {_shown(model)}; use {listed(labels)}."
            )
        elif not isinstance(given, dict):
            problems.append(
                f"{_VARIABLE}: {_shown(model)} is {_shown(given)}; write split: {{LABEL: PERCENT}} below it."
            )
        else:
            problems += (
                f"{_VARIABLE}: {printable(str(model))}: {text}"
                for text in _problems_of_model(given, None if labels is None else labels[model])
            )
    return problems


def _problems_of_model(given: dict[Any, Any], labels: list[str] | None) -> list[str]:
    problems = [
        f"{_shown(key)} is none of split, sticky and mirror; a share is written as split: {{LABEL: PERCENT}}."
        for key in given
        if key not in (*_SHARES, "sticky")
    ]
    for kind in _SHARES:
        problems += (f"{kind}: {text}" for text in _share_problems(given.get(kind) or {}, labels))
    if given.get("sticky") and not _STICKY.fullmatch(str(given["sticky"])):
        problems.append(f"sticky is {_shown(given['sticky'])}; it has to be address, or header NAME for that header.")
    return problems


def _share_problems(shares: Any, labels: list[str] | None) -> list[str]:
    if not isinstance(shares, dict):
        return [f"it is {_shown(shares)}; write {{LABEL: PERCENT}}, or a version's number in place of the label."]
    problems = []
    for target, percent in shares.items():
        name = str(target)
        if control_characters("", name) or "$" in name:
            problems.append(
                f"nginx cannot be told of label {_shown(name)}, for its control character or $; use another label, or "
                "the version's number."
            )
        elif parse_version(name) is None and (not name or labels is not None and name not in labels):
            problems.append(
                f"{_shown(name)} is neither a label of the model in tfserving_models_catalog ({listed(labels or [])}) "
                "nor the number of a version."
            )
        if _hundredths(percent) is None:
            problems.append(
                f"{printable(name)} is {_shown(percent)}; it has to be a percentage from 0 to 100, of two decimals "
                "at most."
            )
    if sum(_hundredths(percent) or 0 for percent in shares.values()) > 10000:
        problems.append("the percentages are more than 100 together; lower one of them.")
    return problems


def _shown(value: Any) -> str:
    return f"'{printable(str(value))}'"


def is_share(percent: Any) -> bool:
    """Return whether a percentage is one that nginx can draw: more than 0, at most 100, and two decimals at most."""
    return bool(_hundredths(f"{percent:g}" if isinstance(percent, float) else percent))


def _hundredths(percent: Any) -> int | None:
    """Return a percentage in hundredths, None for what is none."""
    if not _PERCENT.fullmatch(str(percent)):
        return None
    hundredths = round(float(percent) * 100)
    return hundredths if hundredths <= 10000 else None


def read_traffic(traffic: dict[Any, Any], models: list[str]) -> list[dict[str, Any]]:
    """Return what nginx is told for each of these models, of a traffic that has no problems.

    pattern is that of its paths which name no version. split and mirror are shares, each with percent and path, which
    follows the model in a path. sticky is address, header or nothing; header is how a variable of nginx ends for it.
    """
    found = []
    for model, given in sorted(traffic.items()):
        sticky, _, header = str(given.get("sticky") or "").partition(" ")
        if model in models:
            found.append(
                {
                    "model": model,
                    "pattern": f"^/v1/models/{re.escape(model)}:",
                    "sticky": sticky,
                    "header": header.lower().replace("-", "_"),
                    **{kind: _shares(given.get(kind) or {}) for kind in _SHARES},
                }
            )
    return found


def _shares(given: dict[Any, Any]) -> list[dict[str, str]]:
    """Return shares in an order of their own. One of nothing is none: nginx takes no 0 %."""
    shares = []
    for target, percent in sorted(given.items(), key=lambda one: str(one[0])):
        version = parse_version(str(target))
        path = f"/labels/{target}" if version is None else f"/versions/{version}"
        if hundredths := _hundredths(percent):
            shares.append({"percent": f"{hundredths / 100:g}", "path": path})
    return shares

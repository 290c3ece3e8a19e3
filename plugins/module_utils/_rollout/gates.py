# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gates of a rollout: what is measured of a new version, and what is allowed."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Mapping

# gate, model, measured, allowed (both as text) and passed. A gate that has nothing to compare with is passed.
Result = Dict[str, Any]
# What a server has counted of a model since it started: requests, errors among them, and seconds in all.
Counts = Mapping[str, float]

PERCENTILE = 0.99
NOTHING: Counts = {"requests": 0, "errors": 0, "seconds": 0.0}
# nginx logs milliseconds.
LOGGED_SECONDS = 0.001


@dataclass
class Answers:
    """What was answered: errors is how many requests ended with one, seconds what each of the others took."""

    errors: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        return {"requests": self.errors + len(self.seconds), "errors": self.errors, "seconds": sum(self.seconds)}


def difference(one: Any, other: Any) -> float:
    """Return the largest difference between numbers of two predictions; infinite where anything else differs."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(difference, one, other), default=0.0)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((difference(value, other[name]) for name, value in one.items()), default=0.0)
    if _is_number(one) and _is_number(other):
        found = abs(one - other)
        return 0.0 if one == other or (math.isnan(one) and math.isnan(other)) else (found if found >= 0 else math.inf)
    return 0.0 if type(one) is type(other) and one == other else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def smoke(model: str, found: float, allowed: float | None, compared_with: str) -> Result:
    """Judge how far predictions are from others; without a limit that is only reported."""
    return {
        "gate": "smoke",
        "model": model,
        "measured": f"differs by {found:.3g} from {compared_with}",
        "allowed": "any" if allowed is None else f"{allowed:g}",
        "passed": allowed is None or found <= allowed,
    }


def skipped(model: str, why: str) -> Result:
    """Say that there is nothing to compare a model with before traffic."""
    return {"gate": "smoke, latency", "model": model, "measured": why, "allowed": "", "passed": True}


def latency(
    model: str,
    old: list[float],
    new: list[float],
    max_ratio: float,
    max_p99_ratio: float,
    gate: str = "latency",
    resolution: float = 0.0,
) -> list[Result]:
    """Judge the seconds that requests have taken, of the running and of the new version.

    What resolution cannot tell apart, in seconds, is no failure.
    """
    found = [
        ("median", statistics.median(old), statistics.median(new), max_ratio),
        ("p99", percentile(old), percentile(new), max_p99_ratio),
    ]
    return [
        {
            "gate": f"{gate} {name}",
            "model": model,
            "measured": f"{after / (before or resolution):.2f} ({before * 1000:.1f} ms to {after * 1000:.1f} ms)",
            "allowed": f"{allowed:g}",
            "passed": after <= before * allowed + resolution,
        }
        for name, before, after, allowed in found
    ]


def percentile(values: Iterable[float]) -> float:
    """Return the smallest value that PERCENTILE of them do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * PERCENTILE) - 1]


def soak(model: str, own: Counts, other: Counts, limits: Mapping[str, Any]) -> list[Result]:
    """Judge a model under traffic against the same model elsewhere, or before.

    limits has max_error_share, which may be added to the other's; max_latency_ratio; min_requests, with fewer of which
    on either side nothing is judged; and require_requests, whether that is a failure.
    """
    results = _requests("soak", "soak errors", model, own, other, limits)
    # The servers measure the requests that they carry out.
    answered = [one["requests"] - one["errors"] for one in (own, other)]
    if _is_enough(own, other, limits) and min(answered) > 0:
        seconds = [one["seconds"] / count for one, count in zip((own, other), answered)]
        results.append(
            {
                "gate": "soak latency",
                "model": model,
                "measured": f"{seconds[0] * 1000:.1f} ms on average, {seconds[1] * 1000:.1f} ms to compare with",
                "allowed": f"{seconds[1] * limits['max_latency_ratio'] * 1000:.1f} ms",
                "passed": seconds[0] <= seconds[1] * limits["max_latency_ratio"],
            }
        )
    return results


def trial(step: str, model: str, own: Answers, other: Answers, limits: Mapping[str, Any]) -> list[Result]:
    """Judge what a new version has answered in a step, such as 5 %, against the running one at the same time.

    limits are those of soak, of which max_latency_ratio is that of the medians, max_p99_ratio, and warmup_requests: the
    time of so many answers of the new version, the first ones, does not count.
    """
    results = _requests(step, f"{step}: errors", model, own.counts, other.counts, limits)
    warm = own.seconds[limits["warmup_requests"] :]
    if _is_enough(own.counts, other.counts, limits) and warm and other.seconds:
        ratios = limits["max_latency_ratio"], limits["max_p99_ratio"]
        results += latency(model, other.seconds, warm, *ratios, f"{step}: latency", LOGGED_SECONDS)
    return results


def _is_enough(own: Counts, other: Counts, limits: Mapping[str, Any]) -> bool:
    return min(own["requests"], other["requests"]) >= max(1, limits["min_requests"])


def _requests(
    gate: str, errors: str, model: str, own: Counts, other: Counts, limits: Mapping[str, Any]
) -> list[Result]:
    """Judge the share of errors, as the gate errors, or say as gate that there are too few requests for that."""
    if not _is_enough(own, other, limits):
        return [
            {
                "gate": gate,
                "model": model,
                "measured": f"{own['requests']:g} requests, {other['requests']:g} to compare with: too few to judge",
                "allowed": f"from {limits['min_requests']:g}",
                "passed": not limits["require_requests"],
            }
        ]
    shares = [one["errors"] / one["requests"] for one in (own, other)]
    allowed = shares[1] + limits["max_error_share"]
    return [
        {
            "gate": errors,
            "model": model,
            "measured": f"{shares[0]:.2%} of {own['requests']:g}, {shares[1]:.2%} to compare with",
            "allowed": f"{allowed:.2%}",
            "passed": shares[0] <= allowed,
        }
    ]


def since(before: Counts, after: Counts) -> Counts:
    """Return what was counted between two looks; a server that was restarted has begun to count again."""
    is_same_process = all(after[name] >= before[name] for name in before)
    return {name: after[name] - before[name] for name in after} if is_same_process else after


def words(result: Result) -> str:
    """Return a result as a sentence says it."""
    allowed = f" (allowed: {result['allowed']})" if result["allowed"] else ""
    return f"{result['gate']} of {result['model']}: {result['measured']}{allowed}"

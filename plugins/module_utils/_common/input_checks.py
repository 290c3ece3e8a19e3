# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What no value may hold that is written to a file, and how a text of somebody else's is shown."""

from __future__ import annotations

import re
from typing import Any, Iterable

# Line breaks and all others of C0 and C1, and Unicode's own line breaks: a value with one would end its line in a unit,
# an nginx or apt file, or steer the terminal that shows it. systemd-analyze says nothing of a carriage return.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


def control_characters(variable: str, value: Any) -> list[str]:
    """Return the problem of a text that holds a control character; of a list or a dictionary, those of its texts."""
    if isinstance(value, dict):
        return [
            problem
            for key, one in value.items()
            for problem in (*control_characters(variable, key), *control_characters(f"{variable}: {key}", one))
        ]
    if isinstance(value, (list, tuple)):
        return [problem for one in value for problem in control_characters(variable, one)]
    if isinstance(value, str) and _CONTROL.search(value):
        return [f"{printable(variable)} is '{printable(value)}'; take the control characters out of it."]
    return []


def printable(text: str) -> str:
    r"""Return a text on one line, what is not printable as \n, \t or \x1b, so that it cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def listed(names: Iterable[str], between: str = ", ") -> str:
    """Return names as one printable text in order, the first five where they are more."""
    ordered = sorted(map(printable, names))
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return (between.join(ordered[:5]) or "(none)") + more

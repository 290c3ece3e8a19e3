"""Values that try to break out of their place in a file: made of what means something in one of the files."""

from __future__ import annotations

import random

# Parts of values: plain ones, and what ends, continues, quotes or expands something in one of the files.
PARTS = [
    *("a", "B7", "é", "/", ".", "-", ":", "=", ",", "@", "~", "10.0.0.0/8", "http://h:80", "v1"),
    *(" ", "\t", "\n", "\r", "\x0b", "\x00", "\x1b[2J", "\x85", "\u2028", "\\", "\\n", '"', "'", "`"),
    *("#", ";", "{", "}", "(", ")", "[", "]", "$", "${A}", "$$", "%", "%i", "%%", "*", "|", "&", "<", ">", "!"),
    *("\n[Service]\nUser=root", "\nTrusted: yes", '";\nEvil "', "} accept; {", "\\\n", "\rUser=root"),
]


def values(seed: str, count: int = 400) -> list[str]:
    """Return all parts, and values that are put together from them, the same for a seed."""
    source = random.Random(seed)  # noqa: S311 - not for secrets
    return [*PARTS, *("".join(source.choices(PARTS, k=source.randint(1, 5))) for _ in range(count))]

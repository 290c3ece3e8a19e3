#!/usr/bin/env python3
"""Say whether Google's repository of TensorFlow Serving can be reached from this machine; exit 1 where it cannot."""

from __future__ import annotations

import re
import sys
import urllib.request
from pathlib import Path

VARIABLES = Path(__file__).with_name("upstream.yml")
TIMEOUT_SECONDS = 10


def main() -> int:
    uri = re.search(r"^tfserving_apt_uri: (\S+)$", VARIABLES.read_text(encoding="utf-8"), re.MULTILINE)
    assert uri, VARIABLES
    release = f"{uri[1]}/dists/stable/InRelease"
    try:
        # Straight, as the lab's hosts will: a proxy of this machine's environment is unknown to them.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(release, timeout=TIMEOUT_SECONDS):
            return 0
    except OSError as error:
        print(
            f"TFSERVING_UPSTREAM is set, but {release} cannot be reached from here: {getattr(error, 'reason', error)}\n"
            "Unset TFSERVING_UPSTREAM to use the lab's own repository.",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())

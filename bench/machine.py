"""What the figures were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from bench import memory
from bench.contenders import COLLECTIONS
from bench.hosts import ONE_HOST, on_host, output_of
from bench.models import GIB


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def describe() -> str:
    """Return a table of hardware and versions, in Markdown."""
    manifest = COLLECTIONS / "ansible_collections/ansible/posix/MANIFEST.json"
    posix = json.loads(manifest.read_text())["collection_info"]["version"]
    rsync = "rsync --version | head -n 1"
    rows = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "machine": f"{processor()}, {os.cpu_count()} cores, {memory.total_bytes() / GIB:.0f} GiB",
        "kernel": platform.release(),
        "controller": f"Python {platform.python_version()}, ansible-core {version('ansible-core')}, "
        f"ansible.posix {posix}, {rsync_version(output_of(['bash', '-c', rsync]))}, "
        f"{output_of(['bash', '-c', 'ssh -V 2>&1']).split(',')[0]}",
        "hosts": f"8, of Debian 12 and 13, {rsync_version(on_host(ONE_HOST[0], rsync))}",
    }
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def rsync_version(text: str) -> str:
    """Return program and version of the first line of `rsync --version`."""
    return " ".join(text.split()[:3:2])

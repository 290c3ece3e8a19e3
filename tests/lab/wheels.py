"""Locked packages from the Python package index, for other Pythons than this one."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path

from command import LabError, run

# The wheels are manylinux_2_28 or older; both Debian releases have a newer glibc.
PLATFORM = "x86_64-manylinux_2_28"


def find_uv(checkout: Path) -> Path:
    local = checkout / ".venv" / "bin" / "uv"
    found = local if local.is_file() else shutil.which("uv")
    if not found:
        raise LabError(f"no uv in {local.parent} nor on PATH\nnext: python3 -m pip install uv, then run up again")
    return Path(found)


def install(uv: Path, requirements: Path, python: str, target: Path, *, what: str) -> None:
    """Install the locked packages into the directory target, for a version of Python such as 3.13."""
    run(
        [
            uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
            "--target", target, "--python-version", python, "--python-platform", PLATFORM,
            "-r", requirements,
        ],
        what=what,
        advice=f"check the network and {requirements}, then run up again",
        env={"SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().openssl_cafile},
    )  # fmt: skip

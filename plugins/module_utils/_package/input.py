# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role tfserving_package is told: what is wrong with it, naming the variable and the fix."""

from __future__ import annotations

import re
from typing import Callable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import (
    SHA256,
    printable,
)

_VERSION = re.compile(r"([0-9][0-9A-Za-z.+~:*-]*)?")
_DOWNLOAD = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?/\S+")


def version_problems(version: str) -> list[str]:
    """Return what is wrong with the form of a version, which may be a pattern or empty."""
    if _VERSION.fullmatch(version):
        return []
    return [
        f'tfserving_package_version is {printable(version)}; it has to be a version, such as "2.19.1", a pattern, such '
        'as "2.19.*", or empty for what is installed, else the newest.'
    ]


def deb_problems(deb: str, url: str, sha256: str, digest_of: Callable[[str], str]) -> list[str]:
    """Return what is wrong with a .deb, a path on the controller or a URL, and its digest.

    url is the URL without user and password, which belong in no message; empty for a path. digest_of returns the SHA256
    of a file on the controller, empty where there is none.
    """
    problems = []
    if not SHA256.fullmatch(sha256):
        problems.append(
            f"tfserving_package_deb_sha256 is {printable(sha256) or 'empty'}; with tfserving_package_deb it has to be "
            "the SHA256 of the .deb, 64 hex digits, as `sha256sum` prints it."
        )
    if url:
        if not _DOWNLOAD.fullmatch(url):
            problems.append(
                "tfserving_package_deb has to be a path, or http(s)://HOST/PATH, with special characters of a user and "
                "a password as %XX."
            )
        return problems
    found = digest_of(deb)
    if not found:
        problems.append(f"tfserving_package_deb is {printable(deb)}, which is no file on the controller.")
    elif not problems and found != sha256.lower():
        problems.append(
            f"tfserving_package_deb is {printable(deb)}, which has the SHA256 {found}; tfserving_package_deb_sha256 is "
            f"{sha256}."
        )
    return problems

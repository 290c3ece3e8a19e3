# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles tfserving_apt and tfserving_mirror are told: what is wrong with it, with the variable and the fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    normalise_fingerprint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import is_bypassed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import (
    SHA256,
    control_characters,
    printable,
)

# Printable ASCII: a URI has nothing else (RFC 3986), and apt's fields end at white space (sources.list(5)).
_URI = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*)?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/-]*")


def repository_problems(settings: dict[str, Any], prefix: str) -> list[str]:
    """Return what is wrong with uri, suite, components and key_fingerprint of a repository."""
    values = {name: settings.get(name) or "" for name in ("uri", "suite", "components", "key_fingerprint")}
    shown = {name: printable(str(value)) for name, value in values.items()}
    problems = []
    if not _URI.fullmatch(str(values["uri"])):
        problems.append(
            f"{prefix}uri has to be http://HOST/PATH or https://HOST/PATH, without user and password; put those "
            "into /etc/apt/auth.conf.d on the hosts."
        )
    if not _WORD.fullmatch(str(values["suite"])):
        problems.append(f"{prefix}suite is {shown['suite']}; it has to be one word, such as stable.")
    components = values["components"]
    if not components or not all(_WORD.fullmatch(str(one)) for one in components):
        problems.append(
            f"{prefix}components is {shown['components']}; name at least one component, each of them one word."
        )
    try:
        normalise_fingerprint(str(values["key_fingerprint"]))
    except OpenPGPError as error:
        problems.append(f"{prefix}key_fingerprint is {shown['key_fingerprint']}: {error}.")
    return problems


def key_file_problems(file: str) -> list[str]:
    """Return what is wrong with a key that is a file on the controller."""
    if Path(file).expanduser().is_file():
        return []
    return [f"tfserving_apt_key is {printable(file)}, and no such file is on the controller."]


class ProxyError(ValueError):
    """A proxy that apt could not use. The text has nothing of it."""


_PROXY = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^\s:@/]+)(?::(?P<password>[^\s@/]*))?@)?"
    r"(?P<address>(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5}))/?",
    re.ASCII,
)


def proxy_settings(uri: str, proxy: str, no_proxy: list[str]) -> dict[str, str]:
    """Return proxy and netrc for a repository's URI. Raises ProxyError for what apt could not read.

    Source of the forms: apt.conf(5), Acquire::http::Proxy::<host>, and apt_auth.conf(5).
    """
    if is_bypassed(uri, no_proxy):
        return {"proxy": "DIRECT", "netrc": ""}
    # Never quoted in an error: it may hold a password.
    match = _PROXY.fullmatch(proxy)
    if not match or not 0 < int(match["port"]) < 65536:
        raise ProxyError(
            "tfserving_apt_proxy has to be http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host "
            "where it asks for them and special characters of these written as %XX"
        )
    address = f"{match['scheme']}://{match['address']}"
    user, password = unquote(match["user"] or ""), unquote(match["password"] or "")
    if re.search(r"\s", user + password) or control_characters("", user + password):
        raise ProxyError(
            "user and password in tfserving_apt_proxy must not hold white space or control characters, which apt "
            "cannot read there"
        )
    if user and match["address"].startswith("["):
        raise ProxyError(
            "tfserving_apt_proxy has a user and an IPv6 address, with which apt sends no password: use the proxy's name"
        )
    return {
        "proxy": address,
        "netrc": f"machine {address} login {user} password {password}" if user else "",
    }


def mirror_problems(
    fingerprint: str, host: str, has_upstream: bool, debs: list[dict[str, str]], digest_of: Callable[[str], str]
) -> list[str]:
    """Return what is wrong with the key of a mirror on host and with the .deb files that it takes in.

    digest_of returns the SHA256 of a file on the controller, empty where there is none.
    """
    problems = []
    if not re.fullmatch(r"[0-9A-Fa-f]{40}", fingerprint.replace(" ", "")):
        problems.append(
            f'tfserving_mirror_signing_key_fingerprint is "{printable(fingerprint)}"; it has to be all 40 hex digits '
            f"of the fingerprint of your own secret key on {host}, as `gpg --list-secret-keys` prints it. This makes "
            "a key there: gpg --quick-generate-key 'TensorFlow Serving mirror <you@example.com>' rsa4096 sign 5y"
        )
    if not has_upstream and not debs:
        problems.append(
            "tfserving_mirror_upstream is null and tfserving_mirror_debs is empty, so there is nothing to mirror; set "
            "one of the two."
        )
    for deb in debs:
        src, sha256 = deb["src"], deb["sha256"]
        if not re.match(r"/|https?://", src) or not SHA256.fullmatch(sha256):
            problems.append(
                f"tfserving_mirror_debs: {printable(src)} with sha256 {printable(sha256)}: src has to be an absolute "
                "path on the controller or a URL, and sha256 the 64 hex digits that `sha256sum` prints."
            )
        elif src.startswith("/") and digest_of(src) != sha256.lower():
            found = digest_of(src)
            wrong = f"has sha256 {found}, and not {sha256}" if found else "is not on the controller"
            problems.append(f"tfserving_mirror_debs: {src} {wrong}; get file and digest from their publisher again.")
    return problems

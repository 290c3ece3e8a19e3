# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The private key, the certificate and the authority of the clients: loaded as a TLS server does."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path


class _PasswordError(Exception):
    """A key that cannot be read without a password, which the server cannot be told."""


def _no_password() -> str:
    """Say that there is none, where OpenSSL would ask at the terminal."""
    raise _PasswordError


def _problem(server_key: str, server_cert: str, custom_ca: str, directory: Path) -> str:
    """Return what is wrong, empty where nothing is. The directory is for files that ssl can read, and private."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, text in (("key", server_key), ("cert", server_cert)):
        (directory / name).write_text(text)
    try:
        context.load_cert_chain(directory / "cert", directory / "key", _no_password)
    except _PasswordError:
        return "server_key has a password, which the server cannot ask for; remove it with openssl pkey"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "server_key is not the key of server_cert"
        return f"server_key or server_cert is not PEM that TLS can use ({error.reason or error})"
    if custom_ca:
        try:
            context.load_verify_locations(cadata=custom_ca)
        except (ssl.SSLError, ValueError) as error:
            return f"custom_ca is no certificate in PEM ({getattr(error, 'reason', None) or error})"
    return ""


def tls_problems(server_key: str, server_cert: str, custom_ca: str, client_verify: bool) -> list[str]:
    """Return what is wrong with the texts, each PEM, without any of the key. custom_ca may be empty."""
    problems = [
        f"tfserving_service_ssl: {name} is empty; give PEM text or a path on the controller."
        for name, text in (("server_key", server_key), ("server_cert", server_cert))
        if not text
    ]
    if client_verify and not custom_ca:
        problems.append(
            "tfserving_service_ssl: client_verify is true without custom_ca, so that no client's certificate would be "
            "accepted; give the authority of the clients' certificates as custom_ca."
        )
    if problems:
        return problems
    with tempfile.TemporaryDirectory() as directory:  # 0700, as mkdtemp makes it
        wrong = _problem(server_key, server_cert, custom_ca, Path(directory))
    return [f"tfserving_service_ssl: {wrong}."] if wrong else []

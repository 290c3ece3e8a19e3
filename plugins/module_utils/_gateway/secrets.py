# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway's passwords and certificates: checked, or made. No secret is ever an argument of a program."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import ssl
import string
import subprocess
import tempfile
from pathlib import Path
from typing import Iterable

OPENSSL = "/usr/bin/openssl"
# The fewest rounds that crypt knows, as nginx computes the hash anew for each request: about 0.5 ms, and with the usual
# 5000 five times that. That makes a short password easy to guess for who has the file, and takes nothing from a long
# random one.
ROUNDS = "rounds=1000$"
SELF_SIGNED_DAYS = 365
RENEW_SECONDS = 30 * 24 * 3600
_SALT = string.ascii_letters + string.digits


class SecretError(Exception):
    """A key, a certificate or a password that cannot be used. The text has nothing of it."""


def openssl(*arguments: str, stdin: str = "") -> str:
    """Return what openssl prints. Raises SecretError with its words."""
    done = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
        [OPENSSL, *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SecretError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


# Passwords

_HASH = re.compile(r"\$(?:apr1|5|6|y|2[aby])\$.+")


def is_hash(password: str) -> bool:
    """Return whether it is a hash that nginx can check, not a password."""
    return bool(_HASH.fullmatch(password))


def password_file(users: dict[str, str], old: str) -> str:
    """Return a file of users and hashes for nginx. A user whose password is still that of the old file keeps the line.

    Raises SecretError.
    """
    lines = dict(line.split(":", 1) for line in old.splitlines() if ":" in line)
    return "".join(f"{user}:{_hash(password, lines.get(user, ''))}\n" for user, password in sorted(users.items()))


def _hash(password: str, old: str) -> str:
    """Return a hash of the password, the old one where it is one of it."""
    if is_hash(password):
        return password
    known = re.fullmatch(r"\$6\$rounds=1000\$([A-Za-z0-9]+)\$.+", old)
    if known and _sha512_crypt(password, known[1]) == old:
        return old
    return _sha512_crypt(password, "".join(secrets.choice(_SALT) for _ in range(16)))


def _sha512_crypt(password: str, salt: str) -> str:
    return openssl("passwd", "-6", "-stdin", "-salt", ROUNDS + salt, stdin=password + "\n").strip()


# Certificates


class _PasswordError(Exception):
    """A key that has a password."""


def _no_password() -> str:
    raise _PasswordError


def check_pair(certificate: Path, key: Path) -> None:
    """Raise SecretError where TLS cannot use the files, or the certificate has expired."""
    names = "tfserving_gateway_tls_certificate and tfserving_gateway_tls_key"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, _no_password)
    except _PasswordError:
        raise SecretError(
            "tfserving_gateway_tls_key has a password, which nginx cannot ask for; remove it with openssl pkey"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SecretError("tfserving_gateway_tls_key is not the key of tfserving_gateway_tls_certificate") from None
        raise SecretError(f"{names} are not PEM that TLS can use ({error.reason or error})") from None
    except OSError as error:
        raise SecretError(f"{names}: {error.strerror or error}") from None
    # The role installs openssl, after this was checked for the first time.
    if Path(OPENSSL).exists() and _ends_within(certificate, 0):
        raise SecretError("tfserving_gateway_tls_certificate has expired")


def check_pem_pair(certificate: str, key: str) -> None:
    """The same for texts."""
    with tempfile.TemporaryDirectory() as directory:  # 0700, as mkdtemp makes it
        paths = Path(directory, "certificate"), Path(directory, "key")
        for path, text in zip(paths, (certificate, key)):
            path.write_text(text)
        check_pair(*paths)


def check_authority(pem: str) -> None:
    """Raise SecretError where the text holds no certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SecretError(f"tfserving_gateway_client_ca is no certificate in PEM ({reason})") from None


def _ends_within(certificate: Path, seconds: int) -> bool:
    """Return whether the first certificate of a file ends within this time."""
    try:
        openssl("x509", "-noout", "-in", str(certificate), "-checkend", str(seconds))
    except SecretError:
        return True
    return False


def _alternative_names(names: Iterable[str]) -> str:
    """Return the names as OpenSSL takes them for subjectAltName."""
    kinds = []
    for name in names:
        try:
            kinds.append(f"IP:{ipaddress.ip_address(name)}")
        except ValueError:
            kinds.append(f"DNS:{name}")
    return ",".join(kinds)


def self_signed(path: Path, names: list[str]) -> str:
    """Return a certificate and its key, signed by itself: those in the file as long as they will do.

    They will for other names no more, and not for the last RENEW_SECONDS. Raises SecretError.
    """
    try:
        old = path.read_text()
    except OSError:
        old = ""
    wanted = _alternative_names(names)
    # The subject says for which names it was made, so that nobody has to parse the extension; it takes 64 characters.
    mark = hashlib.sha256(wanted.encode()).hexdigest()[:32]
    if old and not _ends_within(path, RENEW_SECONDS):
        text = openssl("x509", "-noout", "-subject", "-issuer", "-nameopt", "multiline", "-in", str(path))
        if re.findall(r"^ +organizationalUnitName += (.*)$", text, re.MULTILINE) == [mark, mark]:
            return old
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "-"]
    subject = ["-subj", f"/O=TensorFlow Serving gateway/OU={mark}", "-addext", f"subjectAltName={wanted}"]
    return openssl("req", "-x509", *curve, "-days", str(SELF_SIGNED_DAYS), *subject)

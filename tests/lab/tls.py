"""The web server's certificate, by a certificate authority (CA) of the instance's own, both made once.

The CA's private key is thrown away: a client that trusts ca.crt trusts this one certificate and no other to come.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from command import run

NAMES = ("packages.lab", "inside.lab")
DAYS = "3650"


@dataclass(frozen=True)
class Certificate:
    """Where the files lie; the directory appears when it is whole."""

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def server(self) -> Path:
        return self.directory / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "server.key"


def ensure_certificate(certificate: Certificate) -> None:
    if certificate.directory.is_dir():
        return
    made = certificate.directory.parent
    with tempfile.TemporaryDirectory(dir=made, prefix="tls-") as scratch:
        fresh = Certificate(Path(scratch) / "fresh")
        fresh.directory.mkdir()
        authority_key = Path(scratch) / "ca.key"
        self_signed = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", DAYS]
        run(
            [
                *self_signed, "-subj", "/CN=TensorFlow Serving lab CA", "-keyout", authority_key,
                "-out", fresh.authority, "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            ],
            what="making the lab's certificate authority",
        )  # fmt: skip
        run(
            [
                *self_signed, "-subj", f"/CN={NAMES[0]}", "-keyout", fresh.server_key, "-out", fresh.server,
                "-CA", fresh.authority, "-CAkey", authority_key,
                "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in NAMES),
                "-addext", "basicConstraints=critical,CA:FALSE",
                "-addext", "extendedKeyUsage=serverAuth",
            ],
            what="making the web server's certificate",
        )  # fmt: skip
        fresh.server_key.chmod(0o600)
        fresh.directory.rename(certificate.directory)

"""Signing keys, by gpg: the instance's own, and keys for tests in every state that a repository's key can be in."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from command import run

OWNER = "TensorFlow Serving lab <root@packages.lab>"


def gpg(home: Path, *arguments: str | Path, what: str) -> str:
    unattended = ["--batch", "--yes", "--pinentry-mode=loopback", "--passphrase="]
    strong = ["--digest-algo=SHA512", "--cert-digest-algo=SHA512"]
    return run(["gpg", "--homedir", home, *unattended, *strong, *arguments], what=what)


def stop_agent(home: Path) -> None:
    run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], what="stopping gpg-agent")


@dataclass(frozen=True)
class SigningKey:
    """A key pair in a gpg home directory of its own."""

    home: Path
    fingerprint: str

    def public(self) -> str:
        """The public key as it is now, ASCII-armored."""
        return gpg(self.home, "--armor", "--export", self.fingerprint, what="exporting the public key")


def make_key(home: Path, *options: str, algorithm: str = "rsa4096", expires: str = "never") -> SigningKey:
    """Make the home directory anew with one key in it."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)
    gpg(home, *options, "--quick-generate-key", OWNER, algorithm, "sign", expires, what="making a signing key")
    listing = gpg(home, "--list-keys", "--with-colons", what="reading the signing key")
    fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    stop_agent(home)
    return SigningKey(home, fingerprint)


@dataclass(frozen=True)
class AgedKey:
    """One key through its life: what its owner published, each a public key with another expiry, ASCII-armored.

    All have the same fingerprint, and `key` signs for each of them. `impostor` is another key in the owner's name.
    """

    key: SigningKey
    expired: str  # 30 days ago
    expiring: str  # in 5 days
    valid: str  # in 365 days
    renewed: str  # in 730 days
    impostor: SigningKey

    @property
    def fingerprint(self) -> str:
        return self.key.fingerprint


# (copy, the day on which its owner sets the expiry, the day on which it expires), days from today, in this order:
# later self-signatures replace earlier ones.
LIFE = (("expired", -400, -30), ("expiring", -20, 5), ("valid", -10, 365), ("renewed", -1, 730))


def make_aged_key(directory: Path) -> AgedKey:
    """Make the keys in directories of this one. gpg's agent wants its length below some 80 characters."""
    now = datetime.now(timezone.utc)

    def day(days: int) -> str:
        return (now + timedelta(days=days)).strftime("%Y%m%dT%H%M%S")

    algorithm = "rsa3072"  # a second quicker to make than rsa4096, and accepted all the same
    key = None
    copies: dict[str, str] = {}
    for copy, made, expires in LIFE:
        then = f"--faked-system-time={day(made)}"
        if key is None:
            key = make_key(directory / "owner", then, algorithm=algorithm, expires=day(expires))
        else:
            gpg(key.home, then, "--quick-set-expire", key.fingerprint, day(expires), what=f"making the key {copy}")
        copies[copy] = key.public()
    assert key
    stop_agent(key.home)
    return AgedKey(key=key, impostor=make_key(directory / "impostor", algorithm=algorithm), **copies)

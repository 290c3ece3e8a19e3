# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads an apt repository by apt itself, so that it is believed exactly as far as every host would believe it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, NamedTuple, Sequence
from urllib.parse import urlsplit

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import is_bypassed

ARCHITECTURE = "amd64"
APT_HELPER = "/usr/lib/apt/apt-helper"  # part of the package apt

Run = Callable[..., str]
"""Runs a program, given its arguments and maybe cwd, and returns its output. Raises RepositoryError with its words."""


class RepositoryError(Exception):
    """A repository or a package is not what it has to be."""


class Package(NamedTuple):
    """One .deb, as an index describes it; size in bytes."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int

    @property
    def identity(self) -> tuple[str, str, str]:
        """What apt tells packages apart by: behind one identity there may only ever be one file."""
        return self.name, self.version, self.architecture

    @property
    def basename(self) -> str:
        """The file's usual name; an epoch is left out of it, as everywhere in Debian."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.architecture}.deb"

    @property
    def filename(self) -> str:
        """Where it lies below the root of the mirror; aptly puts it there."""
        return f"pool/{self.name}/{self.name[0]}/{self.name}/{self.basename}"


def parse_packages(text: str) -> list[Package]:
    """Read the packages of an index, or of what `apt-cache show` prints. Raises RepositoryError."""
    packages = []
    for paragraph in re.split(r"\n{2,}", text.strip()) if text.strip() else []:
        fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", paragraph, flags=re.MULTILINE))
        try:
            name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
            packages.append(Package(name, version, architecture, fields["SHA256"], int(fields["Size"])))
        except (KeyError, ValueError) as error:
            raise RepositoryError(f"package {fields.get('Package', '?')} in an index: no usable {error}") from error
    return packages


def write_settings(
    root: Path, urls: Sequence[str], proxy: str | None, no_proxy: Sequence[str], timeout_seconds: int
) -> Path:
    """Write settings, to be named in APT_CONFIG, by which apt lives below root: what the machine has of sources, pins,
    keys and settings does not count. Only the owner can read them, as the proxy may hold a password.

    The proxy is used for those of urls that are not among no_proxy. Raises RepositoryError where apt cannot read it.
    """
    if proxy and not re.fullmatch(r'https?://[^\s"]+', proxy):  # never quoted: it may hold a password
        raise RepositoryError(
            "the proxy has to be http://HOST:PORT or https://HOST:PORT, with special characters as %XX"
        )
    for directory in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d",
                      "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):  # fmt: skip
        (root / directory).mkdir(parents=True)
    settings = {
        "Dir": f"{root}/",
        "Dir::State::status": "/dev/null",
        "APT::Architecture": ARCHITECTURE,
        "APT::Architectures::": ARCHITECTURE,
        "APT::Sandbox::User": "root",  # the sandbox's own user cannot read this directory
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
    }
    for scheme in ("http", "https"):
        settings[f"Acquire::{scheme}::Timeout"] = str(timeout_seconds)
        if proxy:
            settings[f"Acquire::{scheme}::Proxy"] = proxy
            bypassed = [urlsplit(url).hostname for url in urls if is_bypassed(url, no_proxy)]
            settings.update({f"Acquire::{scheme}::Proxy::{host}": "DIRECT" for host in bypassed})
    file = root / "apt.conf"
    file.touch(mode=0o600)
    file.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    return file


def download(url: str, sha256: str, target: Path, run: Run) -> None:
    """Let apt download a file. Raises RepositoryError where it has another digest."""
    run([APT_HELPER, "download-file", url, str(target), f"SHA256:{sha256}"])


class Upstream(NamedTuple):
    """The repository that is mirrored, as far as the key in keyring vouches for it; run knows the settings of root."""

    uri: str
    suite: str
    keyring: Path
    root: Path
    run: Run

    def packages(self, names: Sequence[str]) -> list[Package]:
        """Return all versions of these packages. Raises RepositoryError, also where there is none of one of them."""
        (self.root / "etc/apt/sources.list.d/upstream.sources").write_text(
            f"Types: deb\nURIs: {self.uri}\nSuites: {self.suite}\nComponents: {' '.join(names)}\n"
            f"Architectures: {ARCHITECTURE}\nSigned-By: {self.keyring}\n"
        )
        try:
            self.run(["apt-get", "update"])
            shown = [self.run(["apt-cache", "show", name, "--all-versions"]) for name in names]
        except RepositoryError as error:
            raise RepositoryError(f"{self.uri}, suite {self.suite}: {error}. Nothing was changed") from error
        return [package for text in shown for package in parse_packages(text)]

    def download(self, package: Package, into: Path) -> Path:
        """Download one of its packages into an empty directory."""
        self.run(["apt-get", "download", f"{package.name}={package.version}"], cwd=into)
        return next(into.glob("*.deb"))

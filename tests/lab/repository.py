"""The package repository: two Debian packages in two versions, laid out and signed like TensorFlow Serving's own.

Google's repository has suite `stable`, one component per package, an index for amd64 only, and packages that own the
same /usr/bin/tensorflow_model_server. The lab's packages carry the lab's model server (tests/lab/model_server).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from command import LabError, Progress, digest, run, write_if_changed
from runtime import MOUNT_POINT

NAME = "tensorflow-serving-apt"
SUITE = "stable"
PUBLIC_KEY = "tensorflow-serving.release.pub.gpg"
COMPONENTS = ("tensorflow-model-server", "tensorflow-model-server-universal")
VERSIONS = ("2.18.0", "2.19.1")
LIBRARY = "/usr/lib/tensorflow-model-server"
# Packages of the same sources are the same bytes: every file bears this time.
SOURCE_DATE_EPOCH = 1_735_689_600

LAUNCHER = f"""\
#!/usr/bin/python3 -I
import sys

sys.path[:0] = ["{LIBRARY}", "{MOUNT_POINT}"]

from model_server.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
POSTINST = f"""\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    py3compile {LIBRARY}
fi
"""
PRERM = f"""\
#!/bin/sh
set -e
find {LIBRARY} -depth -type d -name __pycache__ -exec rm -rf {{}} +
"""


@dataclass(frozen=True)
class Repository:
    """One instance's repository: `web` is what infra's web server shows, `keys` the signing key's home."""

    sources: Path
    web: Path
    keys: Path

    @property
    def root(self) -> Path:
        return self.web / NAME

    @property
    def recipe_file(self) -> Path:
        return self.keys.parent / "repository.recipe"

    @property
    def fingerprint_file(self) -> Path:
        return self.keys.parent / "apt-key.fingerprint"


def source_files(sources: Path) -> Iterator[Path]:
    for path in sorted(sources.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def publish(repository: Repository, progress: Progress) -> None:
    """Make the signing key once; build, index and sign the packages whenever their sources have changed."""
    if not (repository.sources / "__main__.py").is_file():
        raise LabError(f"no model server in {repository.sources}\nnext: git checkout -- {repository.sources}")
    fingerprint = signing_key(repository)
    files = list(source_files(repository.sources))
    names = [str(path.relative_to(repository.sources)) for path in files]
    contents = [path.read_bytes() for path in files]
    recipe = digest(Path(__file__).read_bytes(), fingerprint, *names, *contents)
    written = repository.recipe_file
    if repository.root.is_dir() and written.is_file() and written.read_text() == recipe:
        return
    repository.web.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repository.keys.parent, prefix="repository-") as scratch:
        fresh = Path(scratch) / NAME
        for component in COMPONENTS:
            for version in VERSIONS:
                build_package(repository.sources, component, version, fresh / pool(component), Path(scratch))
        index(fresh)
        sign(repository, fingerprint, fresh)
        fresh.chmod(0o755)
        if repository.root.exists():
            repository.root.rename(Path(scratch) / "old")
        fresh.rename(repository.root)
    write_if_changed(written, recipe)
    progress.say(f"repository: published {' and '.join(VERSIONS)}")


def pool(component: str) -> str:
    return f"pool/{component}/t/{component}"


def build_package(sources: Path, package: str, version: str, into: Path, scratch: Path) -> None:
    """One .deb, architecture `all` as Google's are; the same sources give the same bytes."""
    tree = scratch / f"{package}_{version}"
    (other,) = set(COMPONENTS) - {package}
    modules = tree / LIBRARY.lstrip("/") / "model_server"
    shutil.copytree(sources, modules, ignore=shutil.ignore_patterns("__pycache__"))
    (modules / "VERSION").write_text(f"{version}\n")
    programs = {"usr/bin/tensorflow_model_server": LAUNCHER, "DEBIAN/postinst": POSTINST, "DEBIAN/prerm": PRERM}
    for name, text in programs.items():
        write_if_changed(tree / name, text)
    control = {
        "Package": package,
        "Version": version,
        "Architecture": "all",
        "Maintainer": "The TensorFlow Serving lab <root@packages.lab>",
        "Depends": "python3",
        "Conflicts": other,
        "Replaces": other,
        "Section": "misc",
        "Priority": "optional",
        "Description": "model server of the test lab, which stands in for TensorFlow Serving's",
    }
    write_if_changed(tree / "DEBIAN" / "control", "".join(f"{field}: {value}\n" for field, value in control.items()))
    for path in [tree, *sorted(tree.rglob("*"), reverse=True)]:
        executable = path.is_dir() or str(path.relative_to(tree)) in programs
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))
    into.mkdir(parents=True, exist_ok=True)
    run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, into / f"{package}_{version}_all.deb"],
        what=f"building the package {package} {version}",
        env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)},
    )


def index(root: Path) -> None:
    """The indices and the Release file, by apt's own tool."""
    suite = root / "dists" / SUITE
    for component in COMPONENTS:
        packages = run(["apt-ftparchive", "packages", f"pool/{component}"], what=f"indexing {component}", cwd=root)
        write_if_changed(suite / component / "binary-amd64" / "Packages", packages)
    fields = {
        "Origin": "TensorFlow Serving lab",
        "Suite": SUITE,
        "Codename": SUITE,
        "Components": " ".join(COMPONENTS),
        "Architectures": "amd64",
    }
    options = [f"-oAPT::FTPArchive::Release::{field}={value}" for field, value in fields.items()]
    release = run(["apt-ftparchive", *options, "release", f"dists/{SUITE}"], what="making Release", cwd=root)
    write_if_changed(suite / "Release", release)


def gpg(keys: Path, *arguments: str | Path, what: str) -> str:
    unattended = ["--batch", "--yes", "--pinentry-mode=loopback", "--passphrase="]
    strong = ["--digest-algo=SHA512", "--cert-digest-algo=SHA512"]
    return run(["gpg", "--homedir", keys, *unattended, *strong, *arguments], what=what)


def signing_key(repository: Repository) -> str:
    """The fingerprint of the instance's rsa4096 key, which is made at the first call."""
    keys = repository.keys
    if repository.fingerprint_file.is_file():
        return repository.fingerprint_file.read_text().strip()
    shutil.rmtree(keys, ignore_errors=True)
    keys.mkdir(parents=True, mode=0o700)
    owner = "TensorFlow Serving lab <root@packages.lab>"
    gpg(keys, "--quick-generate-key", owner, "rsa4096", "sign", "never", what="making the repository's key")
    listing = gpg(keys, "--list-keys", "--with-colons", what="reading the repository's key")
    fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    write_if_changed(repository.fingerprint_file, f"{fingerprint}\n")
    return fingerprint


def sign(repository: Repository, fingerprint: str, root: Path) -> None:
    """InRelease, Release.gpg and the public key, as apt of both Debian releases accepts them."""
    suite = root / "dists" / SUITE
    by = ("--local-user", fingerprint)
    release = suite / "Release"
    gpg(repository.keys, *by, "--output", suite / "InRelease", "--clearsign", release, what="signing InRelease")
    gpg(repository.keys, *by, "--armor", "--output", suite / "Release.gpg", "--detach-sign", release,
        what="signing Release")  # fmt: skip
    public = gpg(repository.keys, "--armor", "--export", fingerprint, what="exporting the public key")
    write_if_changed(root / PUBLIC_KEY, public)
    run(["gpgconf", "--homedir", repository.keys, "--kill", "gpg-agent"], what="stopping gpg-agent")

"""Package repositories, laid out and signed like TensorFlow Serving's own.

Google's repository has suite `stable`, one component per package and an index for amd64 only. Every instance has one
of that kind with a key of its own; tests publish more beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keys
import packages
from command import LabError, Progress, digest, run, write_if_changed
from keys import SigningKey
from packages import COMPONENTS, Package

NAME = "tensorflow-serving-apt"
SUITE = "stable"
PUBLIC_KEY = "tensorflow-serving.release.pub.gpg"
VERSIONS = ("2.18.0", "2.19.1")


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
    key = signing_key(repository)
    files = list(source_files(repository.sources))
    names = [str(path.relative_to(repository.sources)) for path in files]
    code = [Path(__file__).with_name(name).read_bytes() for name in ("repository.py", "packages.py", "keys.py")]
    recipe = digest(*code, key.fingerprint, *names, *(path.read_bytes() for path in files))
    written = repository.recipe_file
    if repository.root.is_dir() and written.is_file() and written.read_text() == recipe:
        return
    publish_packages(repository.root, [*packages.servers(*VERSIONS), packages.intruder()], key, repository.sources)
    write_if_changed(written, recipe)
    progress.say(f"repository: published {' and '.join(VERSIONS)}")


def publish_packages(
    root: Path,
    offered: Sequence[Package],
    key: SigningKey,
    sources: Path = packages.SOURCES,
    public_key: str | None = None,
) -> None:
    """Build, index and sign these packages, and show the repository at `root` at once, in place of an older one.

    `public_key` is what the repository publishes as its key; by default the signing key as it is now.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    # Beside the web server's directory, and so on the same file system but out of sight.
    with tempfile.TemporaryDirectory(dir=root.parent.parent, prefix="repository-") as scratch:
        fresh = Path(scratch) / "fresh"
        for package in offered:
            packages.build_package(package, fresh / pool(package), Path(scratch), sources)
        index(fresh)
        sign(key, fresh)
        publish_key(fresh, public_key or key.public())
        keys.stop_agent(key.home)
        fresh.chmod(0o755)
        if root.exists():
            root.rename(Path(scratch) / "old")
        fresh.rename(root)


def publish_key(root: Path, public_key: str) -> None:
    """Publish this as the repository's key; what is signed stays as it is."""
    write_if_changed(root / PUBLIC_KEY, public_key)


def pool(package: Package) -> str:
    return f"pool/{package.component}/{package.name[0]}/{package.name}"


def index(root: Path) -> None:
    """The indices and the Release file, by apt's own tool; a component without packages has an empty index."""
    suite = root / "dists" / SUITE
    for component in COMPONENTS:
        (root / "pool" / component).mkdir(parents=True, exist_ok=True)
        listing = run(["apt-ftparchive", "packages", f"pool/{component}"], what=f"indexing {component}", cwd=root)
        write_if_changed(suite / component / "binary-amd64" / "Packages", listing)
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


def signing_key(repository: Repository) -> SigningKey:
    """The instance's key, which is made at the first call and never expires."""
    written = repository.fingerprint_file
    if written.is_file():
        return SigningKey(repository.keys, written.read_text().strip())
    key = keys.make_key(repository.keys)
    write_if_changed(written, f"{key.fingerprint}\n")
    return key


def sign(key: SigningKey, root: Path) -> None:
    """InRelease and Release.gpg, as apt of both Debian releases accepts them."""
    suite = root / "dists" / SUITE
    by = ("--local-user", key.fingerprint)
    release = suite / "Release"
    keys.gpg(key.home, *by, "--output", suite / "InRelease", "--clearsign", release, what="signing InRelease")
    keys.gpg(key.home, *by, "--armor", "--output", suite / "Release.gpg", "--detach-sign", release,
             what="signing Release")  # fmt: skip

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Decides what an apt mirror holds, and publishes it so that no client ever sees an index without its files.

The published tree is the whole state: what it holds is read from its own index. aptly writes a new tree beside it, in a
database that lives for one build, so nothing that a cut run leaves behind can be wrong. The tree is not aptly's own,
because aptly renames InRelease and the indices in any order, and its by-hash links are absolute, which breaks wherever
the tree is carried to.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.repository import (
    ARCHITECTURE,
    Package,
    RepositoryError,
    Run,
    parse_packages,
)

# The packages that may be mirrored. Each is in the component of its own name, as in Google's repository.
PACKAGES = ("tensorflow-model-server", "tensorflow-model-server-universal")
SUITE = "stable"
ORIGIN = "TensorFlow Serving mirror"
KEY_NAME = "tensorflow-serving.release.pub.gpg"
NEW = ".new"  # ends the names of files that are not in their place yet

Newer = Callable[[str, str], bool]
"""Says whether the first Debian version is newer than the second."""


class Layout:
    """The directories below the mirror's path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.public = path / "public"  # the published tree, and nothing else
        self.downloads = path / "downloads"  # the .deb files by their digest; the published ones are hard links to them
        self.build = path / "build"  # where a run works; only there while it does
        self.suite = self.public / "dists" / SUITE
        self.in_release = self.suite / "InRelease"

    def deb(self, sha256: str) -> Path:
        return self.downloads / f"{sha256}.deb"


def newest_first(packages: Iterable[Package], newer: Newer) -> list[Package]:
    def compare(one: Package, other: Package) -> int:
        return 0 if one.version == other.version else -1 if newer(one.version, other.version) else 1

    return sorted(packages, key=functools.cmp_to_key(compare))


def select(available: Sequence[Package], versions: Sequence[str], newer: Newer) -> list[Package]:
    """Return the packages whose version matches one of `versions`; without any, the newest of each name."""
    chosen: list[Package] = []
    for name in PACKAGES:
        mine = newest_first((package for package in available if package.name == name), newer)
        wanted = versions or [package.version for package in mine[:1]]
        chosen += [package for package in mine if any(fnmatchcase(package.version, version) for version in wanted)]
    return chosen


class MirrorPlan(NamedTuple):
    """What the mirror will hold; the name of each list is the state that the user is shown."""

    kept: list[Package]
    added: list[Package]
    dropped: list[Package]

    @property
    def packages(self) -> list[Package]:
        return self.kept + self.added


def make_plan(
    published: Sequence[Package],
    upstream: Sequence[Package],
    debs: Sequence[Package],
    versions: Sequence[str],
    names: Sequence[str],
    prune: bool,
    newer: Newer,
) -> MirrorPlan:
    """Decide what becomes of the packages that are published, that upstream has and that are given as files.

    With `prune`, a published package stays only where it would be taken in today. Raises RepositoryError, above all
    where one version would stand for two different files: a published version never changes.
    """
    known = {package.identity: package for package in published}
    wanted: dict[tuple[str, str, str], Package] = {}
    for package in (*select([one for one in upstream if one.name in names], versions, newer), *debs):
        there = wanted.get(package.identity) or known.get(package.identity) or package
        if there.sha256 != package.sha256:
            raise RepositoryError(
                f"{package.name} {package.version} is in the mirror with sha256 {there.sha256} and now comes with "
                f"{package.sha256}. A published version never changes: find out which of the two is right, and give "
                "the other another version or leave it out. Nothing was changed"
            )
        wanted[package.identity] = there
    # A version that upstream no longer has is still there for those who ask for it by its number.
    there_today = [package for package in (*published, *debs, *upstream) if package.name in names]
    today = [*select(there_today, versions, newer), *wanted.values()]
    for version in versions:
        if not any(fnmatchcase(package.version, version) for package in today):
            there_is = ", ".join(sorted({package.version for package in upstream})) or "none"
            raise RepositoryError(
                f"tfserving_mirror_versions: no version {version}; upstream has {there_is}. Nothing was changed"
            )
    identities = {package.identity for package in today}
    kept = [package for package in published if not prune or package.identity in identities]
    plan = MirrorPlan(
        kept=kept,
        added=[package for identity, package in wanted.items() if identity not in known],
        dropped=[package for package in published if package not in kept],
    )
    if not plan.packages:
        raise RepositoryError("the mirror would be empty; nothing was changed")
    return plan


def rows(plan: MirrorPlan, newer: Newer) -> list[dict[str, Any]]:
    """Return the plan as the rows of a table: by name, the newest version first."""
    states = {package: state for state in plan._fields for package in getattr(plan, state)}
    listed = []
    for package in sorted(newest_first(states, newer), key=lambda one: one.name):
        name, version, architecture, sha256, size = package
        listed.append({"package": name, "version": version, "architecture": architecture, "sha256": sha256,
                       "megabytes": round(size / 1e6, 2), "state": states[package]})  # fmt: skip
    return listed


def describe_deb(path: Path, run: Run) -> Package:
    """Return what a .deb, named after its digest, says of itself. Raises RepositoryError where it may not go in."""
    output = run(["dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", str(path)])
    name, version, architecture = output.split(" ")
    if name not in PACKAGES or architecture not in (ARCHITECTURE, "all"):
        raise RepositoryError(
            f"{path.stem} is {name} for {architecture}; only {' and '.join(PACKAGES)} for {ARCHITECTURE} are taken in. "
            "Nothing was changed"
        )
    return Package(name, version, architecture, path.stem, path.stat().st_size)


def read_published(layout: Layout) -> list[Package]:
    """Return what the mirror holds, as its own index says. Raises RepositoryError where that is damaged."""
    if not layout.in_release.exists():
        return []
    try:
        listed = re.findall(
            r"^ ([0-9a-f]{64}) +\d+ (\S+)/Packages$", layout.in_release.read_text("utf-8"), re.MULTILINE
        )
        indices = [(layout.suite / folder / "by-hash" / "SHA256" / digest).read_bytes() for digest, folder in listed]
        if not listed or [hashlib.sha256(index).hexdigest() for index in indices] != [one[0] for one in listed]:
            raise RepositoryError("InRelease does not name its indices")
        return [package for index in indices for package in parse_packages(index.decode("utf-8"))]
    except (OSError, RepositoryError, UnicodeDecodeError) as error:
        raise RepositoryError(
            f"the mirror in {layout.public} is damaged: {error}. Remove that directory and rerun the playbook; "
            f"the .deb files in {layout.downloads} are reused"
        ) from error


def is_there(file: Path, package: Package) -> bool:
    """Say whether file, which appeared by a rename, holds the package."""
    return file.is_file() and file.stat().st_size == package.size


def is_complete(layout: Layout, packages: Iterable[Package], key: str) -> bool:
    """Say whether every published package and index is there, and this public key."""
    files = [layout.public / KEY_NAME, *(layout.suite / name for name in ("Release", "Release.gpg", "InRelease"))]
    if not all(file.is_file() for file in files) or files[0].read_text() != key:
        return False
    return all(is_there(layout.public / package.filename, package) for package in packages)


def build(layout: Layout, packages: Sequence[Package], signing: Sequence[str], run: Run) -> Path:
    """Let aptly index and sign the packages, and return the root of the tree it made.

    signing holds aptly's options for the key. The .deb of every package must be in the downloads.
    """
    made = Layout(layout.build / "aptly")
    config = layout.build / "aptly.conf"
    config.write_text(json.dumps({"rootDir": str(made.path), "architectures": [ARCHITECTURE], "gpgProvider": "gpg"}))
    aptly = ["aptly", f"-config={config}"]
    for name in PACKAGES:
        stage = layout.build / "stage" / name
        stage.mkdir(parents=True)
        run([*aptly, "repo", "create", f"-component={name}", name])
        mine = [package for package in packages if package.name == name]
        for package in mine:
            os.link(layout.deb(package.sha256), stage / package.basename)  # noqa: PTH200 - Path.hardlink_to is 3.10's
        if mine:
            run([*aptly, "repo", "add", "-remove-files", name, str(stage)])  # moves the links instead of copying
    run(
        [*aptly, "publish", "repo", "-batch", f"-architectures={ARCHITECTURE}", f"-component={','.join(PACKAGES)}",
         f"-distribution={SUITE}", f"-origin={ORIGIN}", f"-label={ORIGIN}", "-acquire-by-hash", "-skip-contents",
         "-skip-bz2", *signing, *PACKAGES]
    )  # fmt: skip
    if set(read_published(made)) != set(packages):
        raise RepositoryError(
            f"the files do not match their names. Remove {layout.downloads} and rerun the playbook; the mirror was not "
            "changed"
        )
    return made.public


def publish(layout: Layout, made: Path, key: str) -> None:
    """Let the tree that aptly made appear: first what no index names yet, InRelease last.

    A client that holds the old InRelease still finds its indices, by their digests, until the next publication.
    """

    def turn(file: Path) -> int:
        if file.name == "InRelease":
            return 3
        return 0 if file.suffix == ".deb" else 1 if "by-hash" in file.parts else 2

    used = _digests(layout.in_release)
    (made / KEY_NAME).write_text(key)
    files = [file for file in sorted(made.rglob("*")) if file.is_file() and not file.is_symlink()]
    for file in sorted(files, key=turn):
        target = layout.public / file.relative_to(made)
        if target == layout.in_release:
            for folder in (layout.public, *(one for one in layout.public.rglob("*") if one.is_dir())):
                folder.chmod(0o755)
            os.sync()  # after a power cut InRelease may not be there without what it names
        _place(file, target)
    used |= _digests(layout.in_release)
    for file in layout.suite.rglob("by-hash/*/*"):
        if file.name not in used:
            file.unlink()


def _digests(in_release: Path) -> set[str]:
    """Return all digests, but weak ones, that an InRelease names its indices by."""
    if not in_release.exists():
        return set()
    return set(re.findall(r"^ ([0-9a-f]{64,128}) ", in_release.read_text("utf-8"), flags=re.MULTILINE))


def _place(source: Path, target: Path) -> None:
    """Let target be source, by one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    source.chmod(0o644)
    new = target.with_name(f".{target.name}{NEW}")
    if new.exists():
        new.unlink()
    os.link(source, new)  # noqa: PTH200
    new.replace(target)


def surplus(layout: Layout, packages: Sequence[Package], digests: Sequence[str]) -> list[Path]:
    """Return the files that no index names any more: dropped packages, their downloads, and what cut runs left.

    digests are those of the .deb files that stay among the downloads beside the packages'.
    """
    named = {layout.public / package.filename for package in packages}
    named |= {layout.deb(sha256) for sha256 in (*digests, *(package.sha256 for package in packages))}
    found = [*layout.public.rglob(f".*{NEW}"), *(layout.public / "pool").rglob("*.deb"), *layout.downloads.glob("*")]
    return [file for file in found if file not in named]


def parse_secret_key(listing: str, fingerprint: str, home: str) -> int | None:
    """Return when a key of `gpg --with-colons --list-secret-keys` expires, in seconds since the epoch; None for never.

    Raises RepositoryError where the listing does not hold the primary key `fingerprint`, or it cannot sign.
    """
    records = [line.split(":") for line in listing.splitlines()]
    primary = next((record[9] for record in records if record[0] == "fpr"), None)
    validity, expires, capabilities = next(((one[1], one[6], one[11]) for one in records if one[0] == "sec"), ("",) * 3)
    if primary == fingerprint and validity == "e":
        raise RepositoryError(
            f"the key {fingerprint} in {home} has expired. This extends it: gpg --quick-set-expire {fingerprint} 5y"
        )
    if primary != fingerprint or validity == "r" or "S" not in capabilities or "D" in capabilities:
        raise RepositoryError(
            f"there is no primary secret key {fingerprint} in {home} that can sign. `gpg --list-secret-keys` lists "
            "those that are there; this creates one: gpg --quick-generate-key "
            "'TensorFlow Serving mirror <you@example.com>' rsa4096 sign 5y"
        )
    return int(expires) if expires else None

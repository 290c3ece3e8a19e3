# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of the two packages a host should have, in which version, and what it means when its program does not run.

Google builds the server twice. Both packages own the same program, so a host has one of them, and they say nothing to
dpkg of each other. What the optimized build needs of the CPU stands in tensorflow/serving, docs: setup.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from typing import Any, Iterable, Sequence

OPTIMIZED = "tensorflow-model-server"
UNIVERSAL = "tensorflow-model-server-universal"
NAMES = {"optimized": OPTIMIZED, "universal": UNIVERSAL}
VARIANTS = {name: variant for variant, name in NAMES.items()}
PROGRAM = "/usr/bin/tensorflow_model_server"
# As /proc/cpuinfo calls SSE4.1, SSE4.2, AVX, AVX2 and FMA.
CPU_FLAGS = ("sse4_1", "sse4_2", "avx", "avx2", "fma")
# dpkg --build of a package for all architectures and of one for amd64.
ARCHITECTURES = ("all", "amd64")
# What timeout(1) exits with when it had to end the program.
TIMED_OUT = 124

MISSING_SYMBOL = re.compile(r"version [`'\"]((?:GLIBC|GLIBCXX|CXXABI)_[\w.]+)' not found")
MISSING_LIBRARY = re.compile(r"error while loading shared libraries: ([^:\s]+): ")


class PackageError(Exception):
    """Something about the package cannot be done; the words say what and what to do."""


@dataclass(frozen=True)
class Package:
    """One package in one version. sha256 is that of its .deb where this was given, and empty otherwise."""

    name: str
    version: str
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def is_same_version(self, other: Package | None) -> bool:
        return other is not None and (self.name, self.version) == (other.name, other.version)

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


@dataclass(frozen=True)
class PackageChange:
    """A change of package that is not over: previous is kept for a rollback until new is known to serve.

    is_installed says that the change itself came to its end: new is installed and has answered --version. is_failed
    says that new was tried, and that the rollback has begun. is_held is whether the package was held before.
    """

    new: Package
    previous: Package | None
    is_installed: bool = False
    is_failed: bool = False
    is_held: bool = False

    def as_dict(self) -> dict[str, Any]:
        states = {"is_installed": self.is_installed, "is_failed": self.is_failed, "is_held": self.is_held}
        return {"new": self.new.as_dict(), "previous": self.previous.as_dict() if self.previous else None, **states}

    @classmethod
    def of(cls, data: dict[str, Any]) -> PackageChange:
        """Raises KeyError and TypeError for what as_dict has not made."""
        previous = Package(**data["previous"]) if data["previous"] else None
        states = {name: bool(data[name]) for name in ("is_installed", "is_failed", "is_held")}
        return cls(Package(**data["new"]), previous, **states)


@dataclass(frozen=True)
class Host:
    """What a host has and knows."""

    missing_cpu_flags: Sequence[str] = ()
    # Wholly installed, by dpkg's word.
    installed: Sequence[Package] = ()
    # Names of those that own files, also when dpkg was interrupted.
    present: Sequence[str] = ()
    # Whether dpkg has left one of them half done.
    is_unfinished: bool = False
    held: Sequence[str] = ()
    # Versions in the apt cache, newest first.
    known: dict[str, list[str]] = field(default_factory=dict)
    change: PackageChange | None = None
    # What a change that has not come to its end can be undone to, as its .deb is there.
    rollback_target: Package | None = None


def missing_cpu_flags(cpuinfo: str) -> list[str]:
    """Return what the optimized build needs and the CPU lacks, from the text of /proc/cpuinfo.

    A flag counts when every processor has it. A text without flags has none: the universal build runs anywhere.
    """
    processors = [set(line.partition(":")[2].split()) for line in cpuinfo.splitlines() if re.match(r"flags\s*:", line)]
    common = set.intersection(*processors) if processors else set()
    return [flag for flag in CPU_FLAGS if flag not in common]


def parse_madison(output: str) -> dict[str, list[str]]:
    """Return the versions by package from `apt-cache madison`, which prints the newest first."""
    known: dict[str, list[str]] = {OPTIMIZED: [], UNIVERSAL: []}
    for line in output.splitlines():
        name, *rest = (cell.strip() for cell in line.split("|"))
        if name in known and rest and rest[0] not in known[name]:
            known[name].append(rest[0])
    return known


def matches(version: str, pattern: str) -> bool:
    """Say whether a version is what tfserving_package_version asks for: any, this one, or one with * for any text."""
    return not pattern or bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), version))


def wanted_name(host: Host, variant: str) -> str:
    """Return the package of a variant; auto takes the optimized one where the CPU can run it."""
    if variant == "auto":
        return UNIVERSAL if host.missing_cpu_flags else OPTIMIZED
    return NAMES[variant]


def wanted_package(host: Host, variant: str, version: str, sha256: str = "") -> Package | None:
    """Return what should be installed, or None where the host cannot tell yet.

    It cannot where the apt cache does not have the version, and where the .deb with that sha256 is still to come.
    Without a version, or with a pattern that it fits, what is installed stays; the other variant comes in the same
    version then, where there is one. A change that was killed goes on, and after one that failed any other version
    comes first. Raises PackageError where the .deb is not what variant and version ask for.
    """
    there = [*([host.rollback_target] if host.rollback_target else []), *host.installed]
    if sha256:
        given = next((one for one in there if one.sha256 == sha256), None)
        if given:
            check_given(host, given, variant, version)
        return given
    name = wanted_name(host, variant)
    own = [one.version for one in there if one.name == name]
    others = [one.version for one in there if one.name != name]
    known = host.known.get(name, [])
    change = host.change if host.change and not host.change.is_installed else None
    begun = [change.new.version] if change else []
    fitting = [one for one in begun + own + others if one in own + known and matches(one, version)]
    fitting += [one for one in known if matches(one, version)]
    if change and change.is_failed:
        fitting.sort(key=lambda one: change.new.is_same_version(Package(name, one)))
    return Package(name, fitting[0]) if fitting else None


def is_change_needed(host: Host, wanted: Package | None) -> bool:
    """Say whether a host has anything but exactly the wanted package, whole."""
    is_interrupted = host.change is not None and not host.change.is_installed
    return (
        wanted is None
        or host.is_unfinished
        or is_interrupted
        or list(host.present) != [wanted.name]
        or not any(one.is_same_version(wanted) for one in host.installed)
    )


def check_given(host: Host, given: Package, variant: str, version: str) -> None:
    """Raise PackageError where a given .deb is not what the other variables ask for, or cannot run on this CPU."""
    if given.name not in VARIANTS:
        raise PackageError(f"tfserving_package_deb holds {given}; it has to be {OPTIMIZED} or {UNIVERSAL}")
    if variant != "auto" and given.name != NAMES[variant]:
        raise PackageError(
            f"tfserving_package_deb holds {given}, and tfserving_package_variant is {variant}. "
            "Leave the variant at auto, or give the .deb of that variant."
        )
    if given.name == OPTIMIZED and host.missing_cpu_flags:
        raise PackageError(
            f"tfserving_package_deb holds {given}, and this CPU lacks {', '.join(host.missing_cpu_flags)}, which it "
            f"needs. Give the .deb of {UNIVERSAL}."
        )
    if not matches(given.version, version):
        raise PackageError(
            f"tfserving_package_deb holds {given}, and tfserving_package_version is {version}. "
            "Leave the version empty, or give the .deb of that version."
        )


def is_undone_by(host: Host, wanted: Package | None) -> bool:
    """Say whether the rollback of a change that was killed or has failed leads to the wanted package."""
    return wanted is not None and wanted.is_same_version(host.rollback_target)


def parse_removals(output: str) -> list[str]:
    """Return the packages that `apt-get --simulate` would remove."""
    return [name.partition(":")[0] for name in re.findall(r"^(?:Remv|Purg) (\S+)", output, flags=re.MULTILINE)]


def describe_known(known: dict[str, list[str]]) -> str:
    """Return apt's versions of both packages as one sentence."""
    listed = [f"{name} {', '.join(versions)}" for name, versions in known.items() if versions]
    return f"It knows {' and '.join(listed)}." if listed else "It knows no version of either package."


def describe_unknown(host: Host, variant: str, version: str, is_key_expired: bool) -> str:
    """Return the error for a package that apt cannot install."""
    wanted = f"{wanted_name(host, variant)} {version}".strip()
    text = f"apt does not know {wanted}. {describe_known(host.known)}"
    if is_key_expired:
        return (
            f"{text} The apt cache cannot be updated, as the key that signs the repository has expired and "
            "tfserving_apt_expired_key is keep. What you can do: set tfserving_package_deb and "
            "tfserving_package_deb_sha256; set tfserving_apt_uri to a mirror that is signed by a key of its own; or "
            "wait for the renewed key and rerun the playbook."
        )
    if variant == "auto" and not host.known.get(wanted_name(host, variant)) and any(host.known.values()):
        text += " The repository may have one variant only: set tfserving_package_variant to it."
    return f"{text} Set tfserving_package_version to one of these, or check the repository in tfserving_apt_uri."


def diagnose(code: int, output: str, lacking: Iterable[str]) -> str:
    """Return why the program did not answer --version: code is its exit status, negative for a signal."""
    lacking = list(lacking)
    if code in (-signal.SIGILL, 128 + signal.SIGILL):
        why = f"this CPU lacks {', '.join(lacking)}" if lacking else "this CPU lacks an instruction that the build uses"
        return f"{why} (SIGILL): set tfserving_package_variant to universal"
    symbol = MISSING_SYMBOL.search(output)
    library = MISSING_LIBRARY.search(output)
    if symbol or library:
        lack = f"{symbol[1]} is missing" if symbol else f"the library {library[1]} is missing" if library else ""
        return (
            f"it was built for a newer distribution than this host's ({lack}): choose an older "
            "tfserving_package_version or upgrade the host"
        )
    words = " ".join(output.split())[-500:] or "it printed nothing"
    if code == TIMED_OUT:
        return f"it timed out: {words}"
    end = f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"{words} ({end})"


def parse_dpkg_query(output: str) -> tuple[list[Package], list[str], bool, list[str]]:
    """Return what is wholly installed, the names that own files, whether one is half done, and which are held.

    The lines have name, version, want, error and status, separated by tabs.
    """
    installed, present, unfinished, held = [], [], False, []
    for line in output.splitlines():
        name, version, want, error, status = line.split("\t")
        if status in ("not-installed", "config-files"):
            continue
        present.append(name)
        if want == "hold":
            held.append(name)
        if (error, status) == ("ok", "installed"):
            installed.append(Package(name, version))
        else:
            unfinished = True
    return installed, present, unfinished, held


def parse_fields(output: str) -> dict[str, str]:
    """Return the fields that `dpkg-deb --field` prints."""
    return dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)

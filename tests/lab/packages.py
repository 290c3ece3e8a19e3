"""The Debian packages of the lab: model servers, good and faulty, that stand in for TensorFlow Serving's.

Google's packages have the architecture `all`, and no Conflicts and no Replaces, though both own the same
/usr/bin/tensorflow_model_server: dpkg refuses to unpack the one over the other.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from command import run, write_if_changed
from runtime import MOUNT_POINT

SOURCES = Path(__file__).parent / "model_server"
PLAIN = "tensorflow-model-server"
UNIVERSAL = "tensorflow-model-server-universal"
COMPONENTS = (PLAIN, UNIVERSAL)
PROGRAM = "usr/bin/tensorflow_model_server"
LIBRARY = "/usr/lib/tensorflow-model-server"
# Packages of the same sources are the same bytes: every file bears this time.
SOURCE_DATE_EPOCH = 1_735_689_600

SERVES = f"""\
#!/usr/bin/python3 -I
import sys

sys.path[:0] = ["{LIBRARY}", "{MOUNT_POINT}"]

from model_server.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
CANNOT_SERVE = f"""\
#!/usr/bin/python3 -I
import sys

sys.path[:0] = ["{LIBRARY}", "{MOUNT_POINT}"]

from model_server.__main__ import FAILURE, main

if "--version" in sys.argv[1:]:
    sys.exit(main(["--version"]))
print("Failed to start server. Error: UNKNOWN: this build cannot serve")
sys.exit(FAILURE)
"""
# What a processor without the instructions of the build, and a system with too old a C library, make of it.
ILLEGAL_INSTRUCTION = """\
#!/bin/sh
kill -ILL $$
"""
C_LIBRARY_TOO_OLD = """\
#!/bin/sh
echo "tensorflow_model_server: /lib/x86_64-linux-gnu/libc.so.6: version \\`GLIBC_2.99' not found" \\
    "(required by tensorflow_model_server)" >&2
exit 1
"""
# Which builds are faulty; every other version serves.
FAULTY = {"2.20.0": CANNOT_SERVE, "2.21.0": ILLEGAL_INSTRUCTION, "2.22.0": C_LIBRARY_TOO_OLD}

SERVER_POSTINST = f"""\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    py3compile {LIBRARY}
fi
"""
SERVER_PRERM = f"""\
#!/bin/sh
set -e
find {LIBRARY} -depth -type d -name __pycache__ -exec rm -rf {{}} +
"""
REFUSE_TO_BE_INSTALLED = """\
#!/bin/sh
echo "this package of the lab's repository must never be installed: apt's pin has let it in" >&2
exit 1
"""


@dataclass(frozen=True)
class Package:
    """One package in one component of a repository; `programs` are its executable files, by path below the root."""

    name: str
    version: str
    component: str
    programs: tuple[tuple[str, str], ...]
    has_model_server: bool = False

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version}_all.deb"


def server(version: str, name: str = PLAIN) -> Package:
    """A model server, which serves or has the fault of its version."""
    programs = (
        (PROGRAM, FAULTY.get(version, SERVES)),
        ("DEBIAN/postinst", SERVER_POSTINST),
        ("DEBIAN/prerm", SERVER_PRERM),
    )
    return Package(name, version, component=name, programs=programs, has_model_server=True)


def servers(*versions: str) -> list[Package]:
    """Both packages, plain and universal, in these versions."""
    return [server(version, name) for name in COMPONENTS for version in versions]


def intruder() -> Package:
    """A newer build of one of Debian's packages, as a careless or hostile third-party repository offers it."""
    return Package("coreutils", "99.0", component=PLAIN, programs=(("DEBIAN/preinst", REFUSE_TO_BE_INSTALLED),))


def build_package(package: Package, into: Path, scratch: Path, sources: Path = SOURCES) -> None:
    """One .deb; the same sources give the same bytes."""
    tree = scratch / f"{package.name}_{package.version}"
    if package.has_model_server:
        modules = tree / LIBRARY.lstrip("/") / "model_server"
        shutil.copytree(sources, modules, ignore=shutil.ignore_patterns("__pycache__"))
        (modules / "VERSION").write_text(f"{package.version}\n")
    programs = dict(package.programs)
    for name, text in programs.items():
        write_if_changed(tree / name, text)
    control = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "all",
        "Maintainer": "The TensorFlow Serving lab <root@packages.lab>",
        **({"Depends": "python3"} if package.has_model_server else {}),
        "Section": "misc",
        "Priority": "optional",
        "Description": "package of the test lab, which stands in for TensorFlow Serving's",
    }
    write_if_changed(tree / "DEBIAN" / "control", "".join(f"{field}: {value}\n" for field, value in control.items()))
    for path in [tree, *sorted(tree.rglob("*"), reverse=True)]:
        executable = path.is_dir() or str(path.relative_to(tree)) in programs
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))
    into.mkdir(parents=True, exist_ok=True)
    run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, into / package.file_name],
        what=f"building the package {package.name} {package.version}",
        env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)},
    )
    shutil.rmtree(tree)

"""The images: two Debian releases made from Debian's own packages, and the infrastructure host on top of the newer."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import wheels
from command import Progress, digest, run
from engine import LABEL, Engine

RECIPE = Path(__file__).parent / "recipe"
CHECKOUT = Path(__file__).resolve().parents[2]
INFRA_REQUIREMENTS = CHECKOUT / "requirements" / "lab-infra.txt"


@dataclass(frozen=True)
class Release:
    """A Debian release, and the Python it carries."""

    codename: str
    python: str


BOOKWORM = Release("bookworm", "3.11")
TRIXIE = Release("trixie", "3.13")
RELEASES = (BOOKWORM, TRIXIE)

# What a minimal server has. Not gnupg or curl: the roles must install what they need. They would install rsync too,
# which takes a download of Debian's package lists: the scenario default removes it from one host first.
PACKAGES = (
    "adduser", "ca-certificates", "dbus", "iproute2", "netbase", "openssh-server", "procps", "python3", "python3-apt",
    "rsync", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
# Without a mirror argument mmdebstrap takes the release with its updates and security updates.
OPTIONS = (
    "--quiet",
    "--variant=minbase",
    "--architectures=amd64",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    '--aptopt=Acquire::Languages "none"',
)
SETUP_HOST = RECIPE / "setup-host"
CHANGES = (f"LABEL {LABEL}=image", 'CMD ["/lib/systemd/systemd"]', "STOPSIGNAL SIGRTMIN+3")


def host_tag(release: Release) -> str:
    recipe = digest(release.codename, *PACKAGES, *OPTIONS, *CHANGES, SETUP_HOST.read_bytes())
    return f"localhost/tfserving-lab/{release.codename}:{recipe}"


def infra_tag() -> str:
    files = [*sorted((RECIPE / "infra").iterdir()), INFRA_REQUIREMENTS]
    return f"localhost/tfserving-lab/infra:{digest(host_tag(TRIXIE), *(path.read_bytes() for path in files))}"


def build_host_image(engine: Engine, release: Release, scratch: Path, progress: Progress) -> str:
    tag = host_tag(release)
    if engine.has_image(tag):
        return tag
    progress.say(f"image {release.codename}: building")
    with tempfile.TemporaryDirectory(dir=scratch, prefix="image-") as directory:
        archive = Path(directory) / "root.tar"
        include = f"--include={','.join(PACKAGES)}"
        run(
            ["eatmydata", "mmdebstrap", *OPTIONS, include, f"--customize-hook={SETUP_HOST}", release.codename, archive],
            what=f"building the {release.codename} root file system",
            advice="check that Debian's package mirror is reachable, then run up again",
        )
        options = [f"--change={change}" for change in CHANGES]
        engine.podman("import", "--quiet", *options, archive, tag, what=f"importing the {release.codename} image")
    progress.say(f"image {release.codename}: built")
    return tag


def build_infra_image(engine: Engine, scratch: Path, progress: Progress) -> str:
    """The newer Debian's image must be there already."""
    tag = infra_tag()
    if engine.has_image(tag):
        return tag
    progress.say("image infra: building")
    with tempfile.TemporaryDirectory(dir=scratch, prefix="infra-") as packages:
        wheels.install(
            wheels.find_uv(CHECKOUT), INFRA_REQUIREMENTS, TRIXIE.python, Path(packages),
            what="fetching the S3-compatible store",
        )  # fmt: skip
        engine.podman(
            "build", "--quiet", "--layers=false", f"--build-arg=BASE={host_tag(TRIXIE)}", f"--label={LABEL}=image",
            f"--volume={packages}:/packages:ro", f"--tag={tag}", RECIPE / "infra",
            what="building the infra image",
            advice="check that Debian's package mirror is reachable from containers, then run up again",
        )  # fmt: skip
    progress.say("image infra: built")
    return tag

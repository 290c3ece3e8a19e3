"""TensorFlow for the hosts' Pythons: installed once per version, shared read-only by every host.

The directory appears under its name only when it is whole, so an interrupted installation is simply repeated.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import wheels
from command import Progress, digest
from engine import Engine
from images import Release

MOUNT_POINT = "/opt/tensorflow-runtime"
RECIPE_FILE = ".recipe"


def directory(state: Path, release: Release) -> Path:
    return state / "runtime" / f"python{release.python}"


def recipe(requirements: Path, release: Release) -> str:
    return digest(requirements.read_bytes(), release.python, wheels.PLATFORM)


def is_current(state: Path, requirements: Path, release: Release) -> bool:
    written = directory(state, release) / RECIPE_FILE
    return written.is_file() and written.read_text() == recipe(requirements, release)


def download(uv: Path, requirements: Path, release: Release, scratch: Path, progress: Progress) -> Path:
    """Install the locked packages into a scratch directory."""
    progress.say(f"runtime python{release.python}: installing")
    target = Path(tempfile.mkdtemp(dir=scratch, prefix=f"python{release.python}-"))
    target.chmod(0o755)
    wheels.install(uv, requirements, release.python, target, what=f"installing TensorFlow for Python {release.python}")
    return target


def publish(
    engine: Engine, image: str, fresh: Path, state: Path, requirements: Path, release: Release, progress: Progress
) -> None:
    """Byte-compile with the host's own Python (TensorFlow's first import is slow otherwise), then show the result."""
    engine.podman(
        "run", "--rm", "--network=none", f"--volume={fresh}:{MOUNT_POINT}", image,
        "python3", "-m", "compileall", "-q", "-j", "2", MOUNT_POINT,
        what=f"byte-compiling TensorFlow for Python {release.python}",
    )  # fmt: skip
    (fresh / RECIPE_FILE).write_text(recipe(requirements, release))
    final = directory(state, release)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        final.rename(Path(tempfile.mkdtemp(dir=fresh.parent, prefix="old-")) / final.name)
    fresh.rename(final)
    progress.say(f"runtime python{release.python}: ready")

"""The SavedModels of the benchmark: a real small export, blown up with bytes that cannot be compressed."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

EXPORT = Path("examples/mnist/saved/1")  # as `make models` makes it
SHARD = Path("variables/variables.data-00000-of-00001")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

WEEK_SECONDS = 7 * 24 * 3600
BIG_BYTES, HUGE_BYTES = GIB, 4 * GIB
CHANGED_SHARE = 0.05
CHANGED_AT = (0.1, 0.4, 0.75)  # where in the shard the changed ranges begin
SHARED_FILES, SHARED_FILE_BYTES, SHARED_SHARD_BYTES = 4, 128 * MIB, 8 * MIB
MANY_VERSIONS, MANY_BYTES = 20, 200 * MIB
SMALL_FILES, SMALL_FILE_BYTES, SMALL_SAMPLE = 5000, 64 * KIB, 100
FLEET_BYTES = 256 * MIB


def append_noise(path: Path, size: int) -> None:
    """Bring a file to `size` bytes. A shard may be longer than its index asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        while missing := size - file.tell():
            file.write(os.urandom(min(missing, MIB)))


def overwrite(path: Path, share: float) -> None:
    """Change this share of a file's bytes, in a few contiguous ranges."""
    size = int(path.stat().st_size * share / len(CHANGED_AT))
    with path.open("r+b") as file:
        for begin in CHANGED_AT:
            file.seek(int(path.stat().st_size * begin))
            file.write(os.urandom(size))


def model_of(version: Path, shard_bytes: int) -> None:
    shutil.copytree(EXPORT, version)
    append_noise(version / SHARD, shard_bytes)


def make_old(version: Path) -> None:
    """Set the times of an export of last week. Of the same second, rsync would take equally long files for the same."""
    for path in version.rglob("*"):
        os.utime(path, (time.time() - WEEK_SECONDS,) * 2)


def big(root: Path) -> None:
    """One version, nearly all of it one shard."""
    model_of(root / "1", BIG_BYTES)


def huge(root: Path) -> None:
    """Version 1 is nearly all one shard, version 2 the same with 5 % of the bytes changed."""
    model_of(root / "1", HUGE_BYTES)
    make_old(root / "1")
    shutil.copytree(root / "1", root / "2", copy_function=shutil.copy)
    overwrite(root / "2" / SHARD, CHANGED_SHARE)


def shared(root: Path) -> None:
    """Version 2 has another small shard and the same large files beside it, with new times as in a new export."""
    for version in "12":
        model_of(root / version, SHARED_SHARD_BYTES)
    for number in range(SHARED_FILES):
        append_noise(root / "1" / "assets" / f"embedding-{number}.bin", SHARED_FILE_BYTES)
    make_old(root / "1")
    shutil.copytree(root / "1" / "assets", root / "2" / "assets", copy_function=shutil.copy, dirs_exist_ok=True)


def many(root: Path) -> None:
    """Twenty versions. Nothing shall read them, so their files may be the same ones."""
    model_of(root / "1", MANY_BYTES)
    for version in range(2, MANY_VERSIONS + 1):
        shutil.copytree(root / "1", root / str(version), copy_function=os.link)


def small(root: Path) -> None:
    small_files(root, SMALL_FILES)


def small_sample(root: Path) -> None:
    small_files(root, SMALL_SAMPLE)


def small_files(root: Path, count: int) -> None:
    shutil.copytree(EXPORT, root / "1")
    for number in range(count):
        append_noise(root / "1" / "assets" / f"{number // 100:02}" / f"{number:04}.bin", SMALL_FILE_BYTES)


def fleet(root: Path) -> None:
    model_of(root / "1", FLEET_BYTES)


MAKERS: dict[str, Callable[[Path], None]] = {
    "big": big, "huge": huge, "shared": shared, "many": many,
    "small": small, "small-sample": small_sample, "fleet": fleet,
}  # fmt: skip


def make(directory: Path, name: str) -> Path:
    """Return the model's directory of versions; made anew unless it is whole."""
    root = directory / name
    if not root.is_dir():
        fresh = directory / f"{name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        MAKERS[name](fresh)
        fresh.rename(root)
    return root


def archive(version: Path) -> Path:
    """Return a tar archive of a version; plain, as its bytes cannot be compressed."""
    made = version.parent.with_name(f"{version.parent.name}-{version.name}.tar")
    if not made.is_file():
        fresh = made.with_suffix(".new")
        with tarfile.open(fresh, "w") as tar:
            tar.add(version, arcname=".")
        fresh.rename(made)
    return made


def file_sha256(path: Path) -> str:
    total = sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            total.update(block)
    return total.hexdigest()


def read_once(root: Path) -> int:
    """Bring the files into the page cache; returns their size in bytes."""
    size = 0
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(MIB):
                    size += len(block)
    return size

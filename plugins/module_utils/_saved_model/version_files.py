# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The versions of a SavedModel as directories of files, and how to tell two of them apart."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Collection, Dict, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import file_sha256
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import listed, printable

# One file of a SavedModel: {"size": bytes, "mtime_ns": nanoseconds since the epoch, "sha256": hex digest}, the digest
# only where it was asked for.
Files = Dict[str, Dict[str, Any]]

# Python's sha256 and fsync leave the processor to others.
SMALL_BYTES = 1 << 20
WORKERS = min(4, os.cpu_count() or 1)

# What no SavedModel comes near to; a tree without end shall be refused, not walked.
MAX_DEPTH = 64  # directories in one another
MAX_PATH = 1000  # characters of a file's path in a version
MAX_ENTRIES = 100_000  # files and directories of one version

_VERSION = re.compile(r"[0-9]+")
MAX_WARMUP_REQUESTS = 1000  # the server fails at more
MAX_VERSION = 2**63 - 1  # the server parses a directory's name as a 64-bit integer


class SavedModelError(Exception):
    """A directory that cannot be served. The text says which and why."""


def parse_version(name: str) -> int | None:
    """Return the version that the server reads from a directory's name, or None where it reads none.

    Leading zeros are accepted, as the server does (sources/storage_path/file_system_storage_path_source.cc).
    """
    if _VERSION.fullmatch(name) and int(name) <= MAX_VERSION:
        return int(name)
    return None


def published_versions(model_path: Path) -> dict[int, str]:
    """Return the versions under a model's base path as the server sees them: {version: directory name}."""
    try:
        names = sorted(entry.name for entry in os.scandir(model_path) if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    versions: dict[int, str] = {}
    for name in names:
        version = parse_version(name)
        if version is not None:
            versions.setdefault(version, name)
    return versions


def source_versions(source: Path, wanted: Collection[int] | None = None) -> tuple[dict[int, Path], list[str]]:
    """Return {version: directory} of a source directory of numbered SavedModels, and what was passed over there.

    What is no version is passed over, as in the server; hidden entries are not even named. Where some versions are
    wanted, nothing is said of the rest. Raises SavedModelError when the source is missing, has no version, or has two
    names of the same version (1 and 001).
    """
    if not source.is_dir():
        raise SavedModelError(f"{source.absolute()} is not a directory on the controller")
    versions: dict[int, Path] = {}
    others: list[str] = []
    for entry in sorted(source.iterdir()):
        version = parse_version(entry.name)
        if version is None or not entry.is_dir():
            if not entry.name.startswith("."):
                others.append(_no_version(entry.name, version))
        elif version in versions and (wanted is None or version in wanted):
            raise SavedModelError(f"{entry} and {versions[version]} are both version {version}")
        else:
            versions[version] = entry
    if not versions:
        there = f"; it holds {listed(others)}" if others else ""
        raise SavedModelError(f"{source} has no version directory, such as {source}/1{there}")
    return versions, others if wanted is None else []


def _no_version(name: str, version: int | None) -> str:
    """Return the name of an entry that is no version, with the reason where the name does not say it."""
    if version is not None:
        return f"{name} (not a directory)"
    if _VERSION.fullmatch(name):
        return f"{name} (above {MAX_VERSION}, more than the server's 64 bits hold)"
    return printable(name)


def list_files(path: Path) -> Files:
    """Return size and modification time of every file below path, by its relative POSIX path.

    Raises SavedModelError for anything that is neither a directory nor a regular file: a link would point somewhere
    else on the host, and devices and sockets are no part of a model. Also for directories without end.
    """
    files: Files = {}
    start = len(str(path)) + 1
    left = [str(path)]
    while left:
        folder = left.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                check_name(entry.path, entry.path[start:])
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    left.append(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    files[entry.path[start:]] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
                else:
                    raise SavedModelError(
                        f"{entry.path} is {kind_of(status.st_mode)}; a version holds regular files only; copy in what "
                        "it needs"
                    )
    return files


def check_name(path: str, name: str) -> None:
    """Raise SavedModelError for a path that is in no version: name is its part in there, path the whole."""
    if not name.isprintable():
        raise SavedModelError(f"{path!r}: file names must be printable UTF-8")
    if name.count("/") > MAX_DEPTH:
        raise SavedModelError(f"{path[:200]}...: directories are nested more than {MAX_DEPTH} deep")
    if len(name) > MAX_PATH:
        raise SavedModelError(f"{path[:200]}...: its path has more than {MAX_PATH} characters")


def kind_of(mode: int) -> str:
    """Return what something is that is no regular file, by its mode: "a symbolic link"."""
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def add_digests(path: Path, files: Files) -> Files:
    """Return files with the sha256 of each one's content added."""
    small = [name for name, facts in files.items() if facts["size"] < SMALL_BYTES]
    large = [name for name, facts in files.items() if facts["size"] >= SMALL_BYTES]
    # A thread takes many small files at once, or it would spend its time waiting for the others.
    batches = [[name] for name in large] + [small[worker::WORKERS] for worker in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        digests = pool.map(lambda names: [file_sha256(path / name) for name in names], batches)
        by_name = {name: sha256 for names, some in zip(batches, digests) for name, sha256 in zip(names, some)}
    return {name: dict(facts, sha256=by_name[name]) for name, facts in files.items()}


def tree_stamp(files: Files) -> str:
    """Return one sha256 over names, sizes and modification times: equal stamps spare reading the files."""
    return _hash_lines(files, "size", "mtime_ns")


def tree_digest(files: Files) -> str:
    """Return one sha256 over names and contents (files as add_digests returns them), whatever their times."""
    return _hash_lines(files, "sha256")


def differing(expected: Files, found: Mapping[str, str]) -> list[str]:
    """Return the names of files that are in one of the two only, or with other content; found is {name: sha256}."""
    digests = {name: facts["sha256"] for name, facts in expected.items()}
    return sorted({name for name, _ in digests.items() ^ found.items()})


def total_bytes(files: Files) -> int:
    """Return the size of all files together, in bytes."""
    return sum(facts["size"] for facts in files.values())


def _hash_lines(files: Files, *keys: str) -> str:
    lines = sorted("  ".join([*(str(facts[key]) for key in keys), name]) for name, facts in files.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

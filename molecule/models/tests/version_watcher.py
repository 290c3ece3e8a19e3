"""Runs on a model host as the server's user, and writes down what the server could see the moment it could see it.

version_watcher.py BASE_PATH watches every model below the base path with inotify and prints JSON lines:

  watching     the watches are set
  appeared     a directory named by a number is there. Its manifest was read and every file of it looked for and opened
               at that very moment; problems are what a server would have met
  read         the files that were opened when it appeared have been read to their end; problems are wrong sha256s
  beside       something else came: a staging directory, a manifest
  disappeared  a version is gone; it is a problem unless it was renamed away
  touched      something in a version changed while it was visible, which is always a problem
  overflow     the kernel lost events: the record proves nothing

On SIGTERM it reads all versions that are there once more and ends.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path

IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x4000, 0x8000, 0x01000000
IN_EXCL_UNLINK = 0x04000000  # not of files that have no name there any more, which somebody has still open
NAMES = {
    IN_MODIFY: "modified",
    IN_CLOSE_WRITE: "written to",
    IN_MOVED_FROM: "moved from",
    IN_MOVED_TO: "moved to",
    IN_CREATE: "created",
    IN_DELETE: "deleted",
}
COMES = IN_CREATE | IN_MOVED_TO
GOES = IN_MOVED_FROM | IN_DELETE
CHANGES = COMES | GOES | IN_MODIFY | IN_CLOSE_WRITE
EVENT = struct.Struct("iIII")


class Record:
    """The JSON lines, which several threads write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, event: str, **facts: object) -> None:
        with self._lock:
            print(json.dumps({"time": time.time(), "event": event, **facts}), flush=True)


class Watcher:
    def __init__(self, base: Path, record: Record) -> None:
        self.base = base
        self.record = record
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = self.call("inotify_init1", os.O_CLOEXEC)
        self.models: dict[int, Path] = {}  # by watch
        self.inside: dict[int, tuple[Path, Path]] = {}  # by watch: a version and a directory of it
        self.readers: list[threading.Thread] = []

    def run(self) -> None:
        base = self.watch(self.base, COMES)
        for model in sorted(self.base.iterdir()):
            self.follow(model)
        self.record.write("watching", base=str(self.base))
        while True:
            data = os.read(self.inotify, 1 << 20)
            position = 0
            while position < len(data):
                watch, mask, _, length = EVENT.unpack_from(data, position)
                position += EVENT.size + length
                name = data[position - length : position].rstrip(b"\0").decode()
                if mask & IN_Q_OVERFLOW:
                    self.record.write("overflow", problems=["events were lost"])
                elif watch == base:
                    self.follow(self.base / name)
                else:
                    self.happened(watch, mask, name)

    def watch(self, path: Path, mask: int) -> int:
        return self.call("inotify_add_watch", self.inotify, os.fsencode(path), mask | IN_ONLYDIR | IN_EXCL_UNLINK)

    def call(self, name: str, *arguments: object) -> int:
        answer: int = getattr(self.libc, name)(*arguments)
        if answer < 0:
            raise OSError(ctypes.get_errno(), f"{name}{arguments}: {os.strerror(ctypes.get_errno())}")
        return answer

    def follow(self, model: Path) -> None:
        """Watch a model's directory from now on; versions that it has already appear now."""
        if model.is_dir():
            self.models[self.watch(model, COMES | GOES)] = model
            for version in sorted(model.iterdir()):
                if version.name.isdigit():
                    self.appeared(version, "was there")

    def happened(self, watch: int, mask: int, name: str) -> None:
        what = next(word for bit, word in NAMES.items() if mask & (bit | IN_IGNORED))
        if watch in self.models:
            path = self.models[watch] / name
            if not name.isdigit():
                if mask & COMES:
                    self.record.write("beside", model=path.parent.name, name=name)
            elif mask & COMES:
                self.appeared(path, what)
            else:
                self.disappeared(path, what)
        elif watch in self.inside and not mask & IN_IGNORED:
            version, directory = self.inside[watch]
            self.report("touched", version, problems=[f"{directory / name} was {what}"])

    def appeared(self, version: Path, how: str) -> None:
        problems: list[str] = []
        opened: list[tuple[str, int, str]] = []
        try:
            # The watches first: what changes after this look is seen by them.
            for folder in [version, *(path for path in version.rglob("*") if path.is_dir())]:
                self.inside[self.watch(folder, CHANGES)] = (version, folder)
            manifest = json.loads((version.parent / f".manifest-{version.name}.json").read_text())
            there = {str(path.relative_to(version)) for path in version.rglob("*") if not path.is_dir()}
            problems += [f"{name} is not in the manifest" for name in there - manifest["files"].keys()]
            problems += [f"{path} is not root's" for path in [version, *version.rglob("*")] if path.stat().st_uid]
            for name, facts in manifest["files"].items():
                try:
                    file = os.open(version / name, os.O_RDONLY)
                except OSError as error:
                    problems.append(f"{name}: {error.strerror}")
                    continue
                opened.append((name, file, facts["sha256"]))
                size = os.fstat(file).st_size
                if size != facts["size"]:
                    problems.append(f"{name} has {size} bytes of {facts['size']}")
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{type(error).__name__}: {error}")
        self.report("appeared", version, how=how, problems=problems)
        reader = threading.Thread(target=self.read, args=(version, opened))
        reader.start()
        self.readers.append(reader)

    def read(self, version: Path, opened: list[tuple[str, int, str]]) -> None:
        """Compare the contents of what was opened when the version appeared, wherever it is by now."""
        problems = []
        for name, file, sha256 in opened:
            digest = hashlib.sha256()
            with os.fdopen(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            if digest.hexdigest() != sha256:
                problems.append(f"{name} has another sha256")
        self.report("read", version, problems=problems)

    def disappeared(self, version: Path, how: str) -> None:
        """What happens inside it from now on is of no interest: the queue holds what came before in its order."""
        for watch in [watch for watch, (inside, _) in self.inside.items() if inside == version]:
            del self.inside[watch]
            self.libc.inotify_rm_watch(self.inotify, watch)
        self.report("disappeared", version, how=how, problems=[] if how == "moved from" else [f"it was {how}"])

    def report(self, event: str, version: Path, **facts: object) -> None:
        self.record.write(event, model=version.parent.name, version=int(version.name), **facts)

    def finish(self) -> None:
        for model in self.models.values():
            for version in sorted(model.iterdir()):
                if version.name.isdigit():
                    self.appeared(version, "is there at the end")
        for reader in self.readers:
            reader.join()
        self.record.write("finished")


def stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    watcher = Watcher(Path(sys.argv[1]), Record())
    try:
        watcher.run()
    finally:
        watcher.finish()

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An apt source with its pin and its proxy: apt tries it first, then it takes its place, or nothing changes."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import apt_get
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.legacy import (
    LegacyChange,
    Repository,
    conflicting_sources,
    host_of,
    legacy_changes,
    same_repository,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    normalise_fingerprint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import KeptFile, replace_file

READABLE = 0o644
SECRET = 0o600
HEADER = "# Managed by Ansible (modelops.tensorflow_serving.apt_source)\n"


class File(NamedTuple):
    """A file as it has to be; without content, absent."""

    path: Path
    content: bytes | None
    mode: int

    def is_right(self) -> bool:
        try:
            stat = self.path.stat()
            return (self.path.read_bytes(), stat.st_mode & 0o7777, stat.st_uid) == (self.content, self.mode, 0)
        except FileNotFoundError:
            return self.content is None

    def diff(self) -> dict[str, str]:
        before = self.path.read_bytes() if self.path.exists() else b""
        texts = [data.decode("utf-8", "replace") if data else "" for data in (before, self.content or b"")]
        if self.mode == SECRET:
            texts = [text and "(user and password)\n" for text in texts]
        return {"before_header": str(self.path), "after_header": str(self.path), "before": texts[0], "after": texts[1]}


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


class SourceError(Exception):
    """The source cannot be used; reason is apt, conflict or empty, as the module returns it."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Source:
    """One apt source with its pin and its proxy; given are the parameters of apt_source."""

    def __init__(self, module: AnsibleModule, given: dict[str, Any]) -> None:
        self.module = module
        self.given = given
        self.root = Path(self.given["root"])
        self.etc_apt = self.root / "etc/apt"
        name = self.given["name"]
        self.path = self.etc_apt / f"sources.list.d/{name}.sources"
        self.netrc_path = self.etc_apt / f"auth.conf.d/90{name}-proxy.conf"
        self.pin_path = self.etc_apt / f"preferences.d/{name}.pref"
        self.proxy_path = self.etc_apt / f"apt.conf.d/90{name}-proxy"

    def read(self) -> None:
        """Take from the source what the rest needs to know. Raises SourceError where something is missing."""
        fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*?)[ \t]*$", self.given["source"], flags=re.MULTILINE))
        try:
            self.repository = Repository(
                same_repository(fields["URIs"]), fields["Suites"], frozenset(fields.get("Components", "").split())
            )
            self.keyring = fields["Signed-By"]
            fingerprints = [normalise_fingerprint(self.given["fingerprint"])]
            self.replaced = [self.repository]
            if self.given["replaces"]:
                other = self.given["replaces"]
                fingerprints.append(normalise_fingerprint(other["fingerprint"]))
                self.replaced.append(Repository(same_repository(other["uri"]), other["suite"]))
            self.fingerprints = fingerprints
        except KeyError as error:
            raise SourceError(f"source: there is no {error}") from error
        except OpenPGPError as error:
            raise SourceError(f"fingerprint: {error}") from error
        self.host = host_of(self.repository.uri)

    # What is to be

    def files(self) -> list[File]:
        """Return the files, in the order in which they are written: the source last."""
        if self.given["state"] == "absent":
            readable = [File(path, None, READABLE) for path in (self.path, self.pin_path, self.proxy_path)]
            return [*readable, File(self.netrc_path, None, SECRET)]
        netrc = self.given["netrc"].strip()
        settings = "".join(f'{key} "{value}";\n' for key, value in self.proxy_settings().items())
        return [
            File(self.pin_path, self.given["pin"].encode(), READABLE),
            File(
                self.netrc_path,
                f"{HEADER}{netrc}\n".encode() if netrc else None,
                SECRET,
            ),
            File(self.proxy_path, f"{HEADER}{settings}".encode() if settings else None, READABLE),
            File(self.path, self.given["source"].encode(), READABLE),
        ]

    def proxy_settings(self) -> dict[str, str]:
        if not self.given["proxy"]:
            return {}
        host = re.sub(r":\d+$", "", self.host)
        return {f"Acquire::{scheme}::Proxy::{host}": self.given["proxy"] for scheme in ("http", "https")}

    def pending(self, warn: Callable[[str], None]) -> tuple[list[File], list[LegacyChange]]:
        """Return the files that are not as they have to be, and what older installations have left.

        Raises SourceError where somebody else's source stands in the way.
        """
        self.read()
        conflicts = conflicting_sources(self.etc_apt, self.repository, self.path, self.keyring)
        if conflicts:
            raise SourceError(
                f"{', '.join(map(str, conflicts))} names the same repository with another key or with none, and with "
                "two such sources apt refuses to run. Nothing was changed. Remove that entry and rerun the playbook",
                reason="conflict",
            )
        legacy = legacy_changes(self.etc_apt, self.replaced, self.fingerprints, warn)
        return [file for file in self.files() if not file.is_right()], legacy

    def is_up_to_date(self) -> bool:
        """Say whether there is nothing for apt_source to change, and nothing to warn of."""
        warnings: list[str] = []
        try:
            files, legacy = self.pending(warnings.append)
        except (SourceError, OSError):
            return False
        return not (files or legacy or warnings) and self.lists_are_there()

    # What apt says

    def only(self, source: Path) -> list[str]:
        """apt's options for one source alone, which leave apt's caches of all others as they are."""
        options = [
            f"Dir::Etc::SourceList={source}",
            "Dir::Etc::SourceParts=-",
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
            "APT::Get::List-Cleanup=false",
            "APT::Update::Error-Mode=any",
        ]
        return [*self.everywhere(), *(f"--option={option}" for option in options)]

    def everywhere(self) -> list[str]:
        return [] if self.root == Path("/") else [f"--option=Dir={self.root}"]

    def lists_are_there(self) -> bool:
        targets = ["indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]
        code, output = apt_get.apt_get(self.module, *self.only(self.path), *targets)
        names = [line for line in output.splitlines() if line.startswith("/")]
        return code == 0 and bool(names) and all(Path(name).exists() for name in names)

    def try_out(self, files: list[File]) -> str:
        """Let apt update a cache by the new files, in a directory of its own. Returns what apt complains of."""
        directory = Path(tempfile.mkdtemp(prefix="apt-source-"))
        try:
            directory.chmod(0o711)  # for the user that apt downloads as
            config, lists = directory / "apt.conf", directory / "lists"
            (lists / "partial").mkdir(parents=True)
            settings = {
                "Dir::State::Lists": lists,
                "Dir::Etc::parts": shadow(self.proxy_path, files, directory),
                "Dir::Etc::netrcparts": shadow(self.netrc_path, files, directory),
            }
            config.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
            source = shadow(self.path, files, directory) / self.path.name
            code, output = apt_get.update(self.module, *self.only(source), config=config)
            return (apt_get.complaints(output) or output.strip()) if code else ""
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def update_apt_cache(self) -> str:
        """Update the apt cache for the source. Returns what apt complains of, of this source or of all together."""
        code, output = apt_get.update(self.module, *self.only(self.path))
        if not code:
            # All sources read together: two that name the same repository may contradict each other.
            code, output = apt_get.apt_get(self.module, *self.everywhere(), "indextargets", "--format", "$(FILENAME)")
        return (apt_get.complaints(output) or output.strip()) if code else ""

    # Files

    def write(self, path: Path, content: bytes | None, mode: int) -> None:
        """Let a file have this content by one rename, or be absent."""
        if content is None:
            path.unlink(missing_ok=True)
            return
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o755)
        status = path.stat() if path.exists() else None
        replace_file(path, content, mode, *((status.st_uid, status.st_gid) if status else ()))

    def apply(self, files: list[File], legacy: list[LegacyChange]) -> None:
        """Write and remove what is not as it should be, update the apt cache, and roll all of it back where that fails.

        Raises SourceError and OSError.
        """
        kept: list[KeptFile] = []
        try:
            for file in [*files, *(File(one.path, one.content, mode_of(one.path)) for one in legacy)]:
                kept.append(KeptFile(file.path))
                self.write(*file)
                if file in files and file.content is not None:
                    os.chown(file.path, 0, 0)
            trouble = self.update_apt_cache()
        except OSError:
            for one in reversed(kept):
                with suppress(OSError):  # on a file system that is full nothing can be written, and what is new can go
                    one.put_back()
            raise
        if trouble:
            for one in reversed(kept):
                one.put_back()
            raise self.unusable(trouble)

    def unusable(self, trouble: str) -> SourceError:
        return SourceError(
            f"apt cannot use {self.given['name']}.sources, so nothing was changed: {trouble}", reason="apt"
        )


def shadow(path: Path, files: list[File], directory: Path) -> Path:
    """Make a copy of the directory of path, by links, with path as it will be. Returns the copy."""
    copy = directory / path.parent.name
    copy.mkdir(mode=0o700)
    for other in path.parent.glob("*"):
        if other != path:
            (copy / other.name).symlink_to(other)
    (file,) = [one for one in files if one.path == path]
    if file.content is not None:
        (copy / path.name).touch(mode=file.mode)
        (copy / path.name).write_bytes(file.content)
    return copy


def present(source: Source) -> dict[str, Any]:
    """Have the source, and nothing that stands in its way. Returns the module's results. Raises SourceError."""
    files, legacy = source.pending(source.module.warn)
    diff = [*(file.diff() for file in files), *map(legacy_diff, legacy)]
    stale = bool(files or legacy or source.given["key_changed"]) or not source.lists_are_there()
    if stale and not source.module.check_mode:
        trouble = source.try_out(source.files()) if files else ""
        if trouble:
            raise source.unusable(trouble)
        source.apply(files, legacy)
    return {"changed": stale, "diff": diff}


def absent(source: Source) -> dict[str, Any]:
    """Have none of the source's files. Returns the module's results."""
    there = [file for file in source.files() if not file.is_right()]
    diff = [file.diff() for file in there]
    if not source.module.check_mode:
        for file in there:
            file.path.unlink()
    return {"changed": bool(there), "diff": diff}


def legacy_diff(change: LegacyChange) -> dict[str, str]:
    after_header = str(change.path) if change.content is not None else f"{change.path} (deleted)"
    return {
        "before_header": str(change.path),
        "after_header": after_header,
        "before": change.before,
        "after": change.after,
    }


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Let the source be as the module's parameters say. Returns the module's results. Raises SourceError."""
    source = Source(module, module.params)
    try:
        return present(source) if module.params["state"] == "present" else absent(source)
    except OSError as error:
        raise SourceError(f"cannot change {source.etc_apt}: {error}") from error

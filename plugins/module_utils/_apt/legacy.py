# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands in the way of a deb822 source with a key of its own: what the apt-key way left, and others' sources.

Instructions from before Signed-By put a repository into a one-line source, and its key among those that apt trusts for
every repository. apt refuses to do anything at all when one repository stands in two sources that name different keys,
and a key that is trusted for everything is trusted too far. Keyrings that others use too are reported, not edited.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.openpgp import (
    OpenPGPError,
    describe_keyring,
)

# As in sources.list(5), "deb [option=value ...] uri suite [component ...]".
_ENTRY = re.compile(
    r"[ \t]*deb(?:-src)?[ \t]+(?:\[(?P<options>[^\]]*)\][ \t]*)?"
    r"(?P<uri>\S+)(?:[ \t]+(?P<suite>\S+))?(?P<components>[^#\r\n]*)"
)
_URI = re.compile(r"(?P<scheme>[a-z0-9+.-]+)://(?:[^/]*@)?(?P<host>[^/]*)(?P<path>.*)", re.IGNORECASE | re.DOTALL)


class Repository(NamedTuple):
    """A suite of a repository, with uri in the form of same_repository; without components all of them."""

    uri: str
    suite: str
    components: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LegacyChange:
    """What becomes of one file. Texts are for people, with passwords taken out."""

    path: Path
    content: bytes | None  # None: the file is deleted
    before: str
    after: str


def same_repository(uri: str) -> str:
    """Return a form of a URI that is the same for all ways to write that repository."""
    match = _URI.fullmatch(uri.strip())
    if not match:
        return uri.strip().rstrip("/")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    if scheme in ("http", "https"):
        host = re.sub(r":80$" if scheme == "http" else r":443$", "", host)
        scheme = "http(s)"
    return f"{scheme}://{host}{match['path'].rstrip('/')}"


def host_of(repository: str) -> str:
    """Return the host of a URI in the form of same_repository."""
    return repository.partition("://")[2].partition("/")[0]


def legacy_changes(
    etc_apt: Path, repositories: list[Repository], fingerprints: list[str], warn: Callable[[str], None]
) -> list[LegacyChange]:
    """Return what becomes of the files that the apt-key way left of repositories and of their keys.

    A keyring that is shared with others stays, with a warning that has the command which removes the keys. The first
    repository's key stays trusted while other sources of the same host live by such trust.
    """
    changes: list[LegacyChange | None] = []
    if (etc_apt / "sources.list").is_file():
        changes.append(_source_change(etc_apt / "sources.list", repositories, may_be_deleted=False))
    for path in _files(etc_apt / "sources.list.d", ".list"):
        changes.append(_source_change(path, repositories, may_be_deleted=True))
    others = sources_without_key(etc_apt, repositories)
    if others and fingerprints[0] not in fingerprints[1:]:
        where = ", ".join(sorted({str(path) for path in others}))
        warn(f"the key {fingerprints[0]} stays trusted for all repositories, if it is there: {where} may need it")
        fingerprints = fingerprints[1:]
    keyrings = [etc_apt / "trusted.gpg"] if (etc_apt / "trusted.gpg").is_file() else []
    for path in [*keyrings, *_files(etc_apt / "trusted.gpg.d", ".gpg", ".asc")]:
        try:
            keys = describe_keyring(path.read_bytes())
        except OpenPGPError as error:
            wanted = " or ".join(fingerprints)
            warn(f"{path} cannot be read and was left unchanged: {error}. Check whether it holds {wanted}")
            continue
        found = [one for one in dict.fromkeys(fingerprints) if any(key.startswith(one) for key in keys)]
        is_alone = all(key.split()[0] in found for key in keys)
        if found and is_alone and path not in keyrings:
            changes.append(LegacyChange(path, content=None, before="".join(f"{key}\n" for key in keys), after=""))
        elif found:
            warn(
                f"{path} lets {' and '.join(found)} sign for every repository. It is a keyring that others use too, so "
                f"it was left unchanged. Remove the key from it: {f'rm {path}' if is_alone else _removal(path, found)}"
            )
    return [change for change in changes if change]


def sources_without_key(etc_apt: Path, repositories: list[Repository]) -> list[Path]:
    """Return the files with sources of the first repository's host that name no key and are none of repositories."""
    host = host_of(repositories[0].uri)
    found = []
    for path in [etc_apt / "sources.list", *_files(etc_apt / "sources.list.d", ".list")]:
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            entry = _ENTRY.match(os.fsdecode(line))
            if not entry or _is_ours(entry, repositories) or "signed-by" in (entry["options"] or "").lower():
                continue
            if host_of(same_repository(entry["uri"])) == host:
                found.append(path)
    for path, stanza in _stanzas(etc_apt):
        ours = any(one.uri in stanza["uris"] and one.suite in stanza["suites"] for one in repositories)
        if not ours and not stanza["signed-by"] and host in map(host_of, stanza["uris"]):
            found.append(path)
    return found


def conflicting_sources(etc_apt: Path, repository: Repository, own: Path, keyring: str) -> list[Path]:
    """Return the deb822 files of others that name the repository with another key, by which apt stops altogether.

    One that names no key is such a contradiction too, but only where apt reads it after own.
    """
    return [
        path
        for path, stanza in _stanzas(etc_apt)
        if path != own and repository.uri in stanza["uris"] and repository.suite in stanza["suites"]
        and stanza["signed-by"] != [keyring] and (stanza["signed-by"] or path > own)
    ]  # fmt: skip


def _stanzas(etc_apt: Path) -> Iterator[tuple[Path, dict[str, list[str]]]]:
    """Yield the enabled stanzas of all deb822 files: uris as same_repository writes them, suites and signed-by."""
    for path in _files(etc_apt / "sources.list.d", ".sources"):
        text = re.sub(r"^#.*\n?", "", path.read_text("utf-8", "replace"), flags=re.MULTILINE)
        for stanza in re.split(r"\n\s*\n", text):
            fields = {
                name.lower(): value.split()
                for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, flags=re.MULTILINE)
            }
            if fields.get("uris") and fields.get("enabled", ["yes"])[0].lower() not in ("no", "false", "0"):
                uris = [same_repository(uri) for uri in fields["uris"]]
                yield path, {"uris": uris, "suites": fields.get("suites", []), "signed-by": fields.get("signed-by", [])}


def _is_ours(entry: re.Match[str], repositories: list[Repository]) -> bool:
    components = set(entry["components"].split())
    return any(
        same_repository(entry["uri"]) == one.uri and entry["suite"] == one.suite
        and (not one.components or components <= one.components)
        for one in repositories
    )  # fmt: skip


def _source_change(path: Path, repositories: list[Repository], may_be_deleted: bool) -> LegacyChange | None:
    """Return what becomes of a one-line source; None when it has no active entry of the repositories."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept: list[bytes] = []
    for line in lines:
        entry = _ENTRY.match(os.fsdecode(line))
        if not entry or not _is_ours(entry, repositories):
            kept.append(line)
    if len(kept) == len(lines):
        return None
    deleted = may_be_deleted and not any(_is_of_use(os.fsdecode(line), repositories) for line in kept)
    return LegacyChange(
        path=path,
        content=None if deleted else b"".join(kept),
        before=_shown(lines),
        after="" if deleted else _shown(kept),
    )


def _is_of_use(line: str, repositories: list[Repository]) -> bool:
    """Say whether the rest of a file is worth keeping for this line, which may be an entry that is switched off."""
    text = line.strip()
    entry = _ENTRY.match(text.lstrip("# \t"))
    if text.startswith("#"):
        return entry is not None and not _is_ours(entry, repositories)
    return bool(text)


def _shown(lines: list[bytes]) -> str:
    text = b"".join(lines).decode("utf-8", errors="replace")
    return re.sub(r"://[^/\s]*@", "://***@", text)


def _removal(path: Path, fingerprints: list[str]) -> str:
    """Return the command that takes keys out of a keyring with others. gpg writes the binary form only."""
    binary = path.with_suffix(".gpg")
    unpack = f"gpg --output {binary} --dearmor {path} && rm {path} && " if path != binary else ""
    keys = " ".join(fingerprints)
    return f"{unpack}gpg --no-default-keyring --keyring {binary} --batch --yes --delete-keys {keys}"


def _files(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Yield the files that apt may read in a folder; it passes over hidden ones."""
    for path in sorted(folder.glob("*")):
        if path.suffix in suffixes and not path.name.startswith(".") and path.is_file():
            yield path

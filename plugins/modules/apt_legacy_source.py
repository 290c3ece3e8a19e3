#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_legacy_source
short_description: Remove what the apt-key way left of a repository
version_added: 0.1.0
description:
  - Instructions from before C(Signed-By) put a repository into a one-line source and its key among those that apt
    trusts for every repository. Both are in the way of a deb822 source with a key of its own. apt refuses to do
    anything at all when one repository stands in two sources that name different keys, and a key that is trusted for
    everything is trusted too far.
  - Removes the active C(deb) and C(deb-src) entries of the repository from C(sources.list) and
    C(sources.list.d/*.list), whatever the files are called. All other lines stay byte for byte.
  - Removes the key from C(trusted.gpg), C(trusted.gpg.d/*.gpg) and C(trusted.gpg.d/*.asc). All other keys stay.
  - A file that holds nothing else is deleted, except C(sources.list). The others keep owner and mode.
  - Files in deb822 format (C(*.sources)) and keyrings named by C(Signed-By) are not touched.
  - A keyring that cannot be read, such as one in the keybox format, is left alone with a warning.
options:
  uris:
    description: URI of the repository, and of others that it replaces, such as the one that it is a mirror of. C(http)
      and C(https), a trailing slash, a user and a password make no difference.
    type: list
    elements: str
    required: true
  fingerprints:
    description: The 40 hex digits of the fingerprints of their keys; spaces are allowed.
    type: list
    elements: str
    required: true
  etc_apt:
    description: Directory of apt's configuration.
    type: path
    default: /etc/apt
attributes:
  check_mode:
    description: Says what it would remove, and removes nothing.
    support: full
  diff_mode:
    description: Shows the lines of each source, and for keyrings the keys, before and after. Passwords are not shown.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.apt_signing_key
"""

EXAMPLES = r"""
- name: Remove TensorFlow Serving's source and key of earlier instructions
  modelops.tensorflow_serving.apt_legacy_source:
    uris: [https://storage.googleapis.com/tensorflow-serving-apt]
    fingerprints: [916E 2B2F EBC2 7493 0BAC A9D9 544B 7F63 BF9E 4D5F]
"""

RETURN = r"""
removed:
  description: What was removed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
      sample: /etc/apt/sources.list.d/tensorflow-serving.list
    what:
      description: The entry or the key. Passwords in it are not shown.
      type: str
      sample: deb [arch=amd64] http://storage.googleapis.com/tensorflow-serving-apt stable tensorflow-model-server
    deleted:
      description: Whether the file was deleted, as it held nothing else.
      type: bool
"""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.openpgp import (
    OpenPGPError,
    armour,
    dearmor,
    describe_keyring,
    normalise_fingerprint,
    without_key,
)

# As in sources.list(5), "deb [option=value ...] uri suite [component ...]".
_ENTRY = re.compile(rb"[ \t]*deb(?:-src)?[ \t]+(?:\[[^\]]*\][ \t]*)?(?P<uri>\S+)")
_URI = re.compile(r"(?P<scheme>[a-z0-9+.-]+)://(?:[^/]*@)?(?P<host>[^/]*)(?P<path>.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Change:
    """What becomes of one file. Texts are for people, with passwords taken out."""

    path: Path
    content: bytes | None  # None: the file is deleted
    removed: list[str]
    before: str
    after: str

    def diff(self) -> dict[str, str]:
        header = str(self.path)
        return {
            "before_header": header,
            "after_header": header if self.content is not None else f"{header} (deleted)",
            "before": self.before,
            "after": self.after,
        }


def same_repository(uri: str) -> str:
    """Return a form of a URI that is the same for all ways to write that repository."""
    match = _URI.fullmatch(uri)
    if not match:
        return uri.rstrip("/")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    if scheme in ("http", "https"):
        host = re.sub(r":80$" if scheme == "http" else r":443$", "", host)
        scheme = "http(s)"
    return f"{scheme}://{host}{match['path'].rstrip('/')}"


def source_change(path: Path, repositories: set[str], may_be_deleted: bool) -> Change | None:
    """Return what becomes of a one-line source; None when it has no active entry of the repositories.

    They are URIs in the form of same_repository.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    kept: list[bytes] = []
    removed: list[bytes] = []
    for line in lines:
        entry = _ENTRY.match(line)
        ours = entry and same_repository(os.fsdecode(entry["uri"])) in repositories
        (removed if ours else kept).append(line)
    if not removed:
        return None
    empty = all(not line.strip() or line.lstrip().startswith(b"#") for line in kept)
    deleted = empty and may_be_deleted
    return Change(
        path=path,
        content=None if deleted else b"".join(kept),
        removed=[_shown([line]).strip() for line in removed],
        before=_shown(lines),
        after="" if deleted else _shown(kept),
    )


def _shown(lines: list[bytes]) -> str:
    text = b"".join(lines).decode("utf-8", errors="replace")
    return re.sub(r"://[^/\s]*@", "://***@", text)


def keyring_change(path: Path, fingerprints: list[str]) -> Change | None:
    """Return what becomes of a keyring; None when it holds none of the keys. Raises OpenPGPError if unreadable."""
    data = path.read_bytes()
    before = describe_keyring(data)
    removed = [line for line in before if line.startswith(tuple(fingerprints))]
    if not removed:
        return None
    rest = data
    for fingerprint in {line.split()[0] for line in removed}:
        rest = without_key(rest, fingerprint)
    after = describe_keyring(rest)
    # apt wants armour in files called .asc and the binary form in all others, so each stays what it is.
    content = rest if dearmor(data) == data else armour(rest)
    return Change(
        path=path,
        content=content if after else None,
        removed=[f"key {line}" for line in removed],
        before="".join(f"{line}\n" for line in before),
        after="".join(f"{line}\n" for line in after),
    )


def files(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Yield the files that apt may read in a folder; it passes over hidden ones."""
    for path in sorted(folder.glob("*")):
        if path.suffix in suffixes and not path.name.startswith(".") and path.is_file():
            yield path


def write(module: AnsibleModule, change: Change) -> None:
    """Put the new content in the file's place by one rename, or delete it."""
    if change.content is None:
        change.path.unlink()
        return
    descriptor, new = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "wb") as file:
        file.write(change.content)
    module.atomic_move(new, str(change.path))  # gives it the owner and the mode of the old one


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "uris": {"type": "list", "elements": "str", "required": True},
            "fingerprints": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "etc_apt": {"type": "path", "default": "/etc/apt"},
        },
        supports_check_mode=True,
    )
    etc_apt = Path(module.params["etc_apt"])
    repositories = {same_repository(uri.strip()) for uri in module.params["uris"]}
    try:
        fingerprints = [normalise_fingerprint(fingerprint) for fingerprint in module.params["fingerprints"]]
    except OpenPGPError as error:
        module.fail_json(msg=f"fingerprints: {error}")

    changes: list[Change | None] = []
    try:
        # The sources first: a run that is cut between leaves a key too many, not a source without its key.
        if (etc_apt / "sources.list").is_file():
            changes.append(source_change(etc_apt / "sources.list", repositories, may_be_deleted=False))
        for path in files(etc_apt / "sources.list.d", ".list"):
            changes.append(source_change(path, repositories, may_be_deleted=True))
        keyrings = [etc_apt / "trusted.gpg"] if (etc_apt / "trusted.gpg").is_file() else []
        for path in [*keyrings, *files(etc_apt / "trusted.gpg.d", ".gpg", ".asc")]:
            try:
                changes.append(keyring_change(path, fingerprints))
            except OpenPGPError as error:
                keys = " or ".join(fingerprints)
                module.warn(f"{path} is left alone, as it cannot be read: {error}. Look whether it holds {keys}")
        wanted = [change for change in changes if change]
        if not module.check_mode:
            for change in wanted:
                write(module, change)
    except OSError as error:
        module.fail_json(msg=f"cannot clean {etc_apt}: {error}")
    module.exit_json(
        changed=bool(wanted),
        removed=[
            {"path": str(change.path), "what": what, "deleted": change.content is None}
            for change in wanted
            for what in change.removed
        ],
        diff=[change.diff() for change in wanted],
    )


if __name__ == "__main__":
    main()

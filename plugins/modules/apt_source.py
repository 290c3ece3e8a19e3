#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Add an apt source with its pin and its proxy, once apt has shown that it can use it
version_added: 0.1.0
description:
  - Writes a deb822 source, a pin, and a proxy for the source's host with its password, as files called after O(name).
  - Before any of them is changed, apt fetches the lists by them in a directory of its own. What apt cannot use or
    verify fails in apt's words, and the host stays as it was. Signature checks are on, whatever the host's
    configuration says.
  - Then the files are written, what earlier instructions left of the repository is removed, and the lists of this
    source, and of no other, are fetched. Lists that are missing are fetched as well, so that a run that was cut is made
    up for.
  - From the apt-key way go the active one-line entries of the repositories in C(sources.list) and
    C(sources.list.d/*.list), whatever the files are called, and the files in C(trusted.gpg.d) that hold nothing but
    their keys. All other entries stay byte for byte. A key in C(trusted.gpg), or in a file with others' keys, is a
    warning with the command that takes it out.
  - A deb822 source of somebody else that names the same repository with another key, or with none where apt reads it
    after this one, is an error, as apt refuses to do anything at all then.
options:
  name:
    description: Base name of the files.
    type: str
    required: true
  state:
    description: Whether the files are to be there. V(absent) removes them and nothing else.
    type: str
    choices: [present, absent]
    default: present
  source:
    description: The source, in deb822 format with one stanza. Needed for V(present).
    type: str
  pin:
    description: The pin, as C(preferences.d) takes it. Needed for V(present).
    type: str
  proxy:
    description: Address of a proxy for the host of the source, without user and password, or V(DIRECT). Empty for none.
    type: str
    default: ""
  netrc:
    description: User and password of the proxy, as C(auth.conf.d) takes them. Empty for none.
    type: str
    default: ""
  replaces:
    description: A repository that this one is a mirror of, and what of it has to go as well.
    type: dict
    suboptions:
      uri:
        description: Its URI. C(http) and C(https) are the same.
        type: str
        required: true
      suite:
        description: Its suite.
        type: str
        required: true
      fingerprint:
        description: Fingerprint of its key.
        type: str
        required: true
  fingerprint:
    description: Fingerprint of the key that the source names by C(Signed-By). Needed for V(present).
    type: str
  key_changed:
    description: Whether that key was just replaced, so that the lists have to be fetched.
    type: bool
    default: false
  root:
    description: Directory that apt's files lie below.
    type: path
    default: /
attributes:
  check_mode:
    description: Says what it would change. It does not ask apt whether it can use the source.
    support: full
  diff_mode:
    description: Shows each file before and after, without passwords; of a keyring, its keys.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.apt_signing_key
"""

EXAMPLES = r"""
- name: Add TensorFlow Serving's repository
  modelops.tensorflow_serving.apt_source:
    name: tensorflow-serving
    fingerprint: 916E 2B2F EBC2 7493 0BAC A9D9 544B 7F63 BF9E 4D5F
    source: |
      Types: deb
      URIs: https://storage.googleapis.com/tensorflow-serving-apt
      Suites: stable
      Components: tensorflow-model-server
      Architectures: amd64
      Signed-By: /etc/apt/keyrings/tensorflow-serving.gpg
    pin: |
      Package: *
      Pin: release c=tensorflow-model-server
      Pin-Priority: -1

      Package: tensorflow-model-server*
      Pin: release c=tensorflow-model-server
      Pin-Priority: 500
"""

RETURN = r""" # """

import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import apt_get
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.legacy import (
    Change,
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
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import replace_file

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


class Before(NamedTuple):
    """A file as it was; target is where it pointed as a link, owners are user and group."""

    file: File
    target: str | None
    owners: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> Before:
        if not path.exists():
            return cls(File(path, None, READABLE), None, (0, 0))
        stat = path.stat()
        target = os.readlink(path) if path.is_symlink() else None
        return cls(File(path, path.read_bytes(), mode_of(path)), target, (stat.st_uid, stat.st_gid))


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


class Source:
    """The source of one run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        given = module.params
        self.root = Path(given["root"])
        self.etc_apt = self.root / "etc/apt"
        self.given = given
        name = given["name"]
        self.path = self.etc_apt / f"sources.list.d/{name}.sources"
        self.netrc_path = self.etc_apt / f"auth.conf.d/90{name}-proxy.conf"
        self.pin_path = self.etc_apt / f"preferences.d/{name}.pref"
        self.proxy_path = self.etc_apt / f"apt.conf.d/90{name}-proxy"

    def read(self) -> None:
        """Take from the source what the rest needs to know."""
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
            self.module.fail_json(msg=f"source: there is no {error}")
        except OpenPGPError as error:
            self.module.fail_json(msg=f"fingerprint: {error}")
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
        """Let apt fetch the lists by the new files, in a directory of its own. Returns what apt complains of."""
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

    def fetch_lists(self) -> str:
        """Fetch the lists of the source. Returns what apt complains of, be it of this source or of all together."""
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

    def apply(self, files: list[File], legacy: list[Change]) -> None:
        """Write and remove what is not as it should be, fetch the lists, and take all of it back where that fails."""
        before: list[Before] = []
        try:
            for file in [*files, *(File(one.path, one.content, mode_of(one.path)) for one in legacy)]:
                before.append(Before.of(file.path))
                self.write(*file)
                if file in files and file.content is not None:
                    os.chown(file.path, 0, 0)
            trouble = self.fetch_lists()
        except OSError:
            for old in reversed(before):
                with suppress(OSError):  # on a file system that is full nothing can be written, and what is new can go
                    self.put_back(old)
            raise
        if trouble:
            for old in reversed(before):
                self.put_back(old)
            self.fail(trouble)

    def put_back(self, old: Before) -> None:
        """Let a file be what it was, a link and the owners included."""
        if old.target is not None:
            old.file.path.unlink(missing_ok=True)
            old.file.path.symlink_to(old.target)
            return
        self.write(*old.file)
        if old.file.content is not None:
            os.chown(old.file.path, *old.owners)
            old.file.path.chmod(old.file.mode)

    def fail(self, trouble: str) -> None:
        self.module.fail_json(
            msg=f"apt cannot use {self.given['name']}.sources, so nothing was changed: {trouble}", reason="apt"
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


def present(module: AnsibleModule, source: Source) -> dict[str, Any]:
    source.read()
    conflicts = conflicting_sources(source.etc_apt, source.repository, source.path, source.keyring)
    if conflicts:
        names = ", ".join(map(str, conflicts))
        module.fail_json(
            msg=f"{names} names the same repository with another key or with none, and with two such sources apt "
            "refuses to do anything at all. Nothing was changed. Remove the entry there",
            reason="conflict",
        )
    legacy = legacy_changes(source.etc_apt, source.replaced, source.fingerprints, module.warn)
    wanted = source.files()
    files = [file for file in wanted if not file.is_right()]
    diff = [*(file.diff() for file in files), *map(legacy_diff, legacy)]
    stale = bool(files or legacy or module.params["key_changed"]) or not source.lists_are_there()
    if stale and not module.check_mode:
        if files:
            trouble = source.try_out(wanted)
            if trouble:
                source.fail(trouble)
        source.apply(files, legacy)
    return {"changed": stale, "diff": diff}


def legacy_diff(change: Change) -> dict[str, str]:
    after_header = str(change.path) if change.content is not None else f"{change.path} (deleted)"
    return {
        "before_header": str(change.path),
        "after_header": after_header,
        "before": change.before,
        "after": change.after,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source": {"type": "str"},
            "pin": {"type": "str"},
            "proxy": {"type": "str", "default": ""},
            "netrc": {"type": "str", "default": "", "no_log": True},
            "replaces": {
                "type": "dict",
                "options": {
                    "uri": {"type": "str", "required": True},
                    "suite": {"type": "str", "required": True},
                    "fingerprint": {"type": "str", "required": True, "no_log": False},
                },
            },
            "fingerprint": {"type": "str", "no_log": False},
            "key_changed": {"type": "bool", "default": False, "no_log": False},
            "root": {"type": "path", "default": "/"},
        },
        required_if=[("state", "present", ["source", "pin", "fingerprint"])],
        supports_check_mode=True,
    )
    source = Source(module)
    try:
        if module.params["state"] == "present":
            module.exit_json(**present(module, source))
        there = [file for file in source.files() if not file.is_right()]
        diff = [file.diff() for file in there]
        if not module.check_mode:
            for file in there:
                file.path.unlink()
        module.exit_json(changed=bool(there), diff=diff)
    except OSError as error:
        module.fail_json(msg=f"cannot change {source.etc_apt}: {error}")


if __name__ == "__main__":
    main()

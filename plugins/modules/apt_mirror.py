#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_mirror
short_description: Keep a signed apt repository of TensorFlow Serving's packages, as a tree of static files
version_added: 0.1.0
description:
  - Takes packages from an upstream repository and from single C(.deb) files, and publishes them below C(public) in
    O(path) as a repository of its own, signed with a key of the user's.
  - apt itself reads the upstream, in a directory of its own, and so takes what every host would take. The machine's own
    sources, pins, keys and settings do not count.
  - What the mirror holds is read from its own index. Where that is what it has to be, nothing is built or signed.
  - InRelease is exchanged last, and a published version never changes, so a client never sees an index without its
    files. A run that is cut leaves the old repository in place, and the next one finishes the job.
  - Needs C(aptly) and C(gpg) on a Debian or Ubuntu host, and no root.
options:
  path:
    description: Directory of the mirror, which belongs to the user that the module runs as.
    type: path
    required: true
  signing_key:
    description: Fingerprint of the user's own secret key, 40 hex digits. It is never made by this module.
    type: str
    required: true
  gnupg_home:
    description: GnuPG's directory that holds the secret key. By default that of the user.
    type: path
  passphrase:
    description: Passphrase of the key, where it has one and gpg-agent does not know it.
    type: str
  upstream:
    description: The repository to take packages from. Without it, only O(debs) are taken.
    type: dict
    suboptions:
      uri:
        description: URI of the repository.
        type: str
        required: true
      suite:
        description: Its suite.
        type: str
        required: true
      keyring:
        description: A keyring, in binary form, that holds the pinned key and no other.
        type: path
        required: true
  packages:
    description: The packages to take from upstream, which has to have them. Each is in the component of its own name,
      there and here.
    type: list
    elements: str
    choices: [tensorflow-model-server, tensorflow-model-server-universal]
    default: [tensorflow-model-server, tensorflow-model-server-universal]
  versions:
    description: The versions to take from upstream, exact or as patterns such as V(2.19.*). Empty takes the newest.
    type: list
    elements: str
    default: []
  debs:
    description: Single C(.deb) files to take in.
    type: list
    elements: dict
    default: []
    suboptions:
      sha256:
        description: The file's digest, 64 hex digits.
        type: str
        required: true
      src:
        description: The URL to download it from where C(downloads/SHA256.deb) in O(path) is not there. A file of the
          controller is copied to that place before.
        type: str
        required: true
  prune:
    description: Drop what is neither among O(debs) nor among O(versions), or the newest where O(versions) is empty. By
      default all stays.
    type: bool
    default: false
  proxy:
    description: URL of a proxy for all downloads, with user and password where it asks for them. Without it, the
      environment's proxy variables are used.
    type: str
  no_proxy:
    description: Hosts and domains that are reached without O(proxy).
    type: list
    elements: str
    default: []
  timeout_seconds:
    description: How long a download may stand still.
    type: int
    default: 60
attributes:
  check_mode:
    description: Reads and checks the upstream index and the key, and downloads, builds and publishes nothing.
    support: full
  diff_mode:
    description: Shows the packages in the mirror before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.apt_signing_key
"""

EXAMPLES = r"""
- name: Publish the newest release, and the last one to go back to
  modelops.tensorflow_serving.apt_mirror:
    path: /srv/mirror
    signing_key: 0123456789ABCDEF0123456789ABCDEF01234567
    upstream:
      uri: https://storage.googleapis.com/tensorflow-serving-apt
      suite: stable
      keyring: /etc/apt/keyrings/tensorflow-serving-upstream.gpg
    versions: [2.19.*, 2.18.0]
"""

RETURN = r"""
packages:
  description: What the mirror holds, or would hold, and what was dropped from it.
  returned: success
  type: list
  elements: dict
  sample:
    - package: tensorflow-model-server
      version: 2.19.1
      architecture: amd64
      megabytes: 312.4
      sha256: b52faa95bdf77093f0f7ec26c3a42c5e6fff25e851a9082f3c2d1b80f1f5b7fa
      state: added  # or kept or dropped
incomplete:
  description: Whether check mode could not tell the packages, because a C(.deb) file is yet to arrive.
  returned: success
  type: bool
"""

import atexit
import fcntl
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import mirror
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import repository as apt
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.repository import (
    Package,
    RepositoryError,
)

EXPIRY_WARNING_SECONDS = 30 * 24 * 3600


class Builder:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.layout = mirror.Layout(Path(module.params["path"]))
        # Not in the module's own, which may be in a directory of the account that logs in.
        self.scratch = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, self.scratch, ignore_errors=True)
        self.fingerprint = self.params["signing_key"].replace(" ", "").upper()
        self.passphrase: list[str] = []  # the option for the file that holds it
        if self.params["passphrase"]:
            (self.scratch / "passphrase").write_text(self.params["passphrase"])
            self.passphrase = [f"-passphrase-file={self.scratch / 'passphrase'}"]
        self.was_cut = self.layout.build.exists()
        given, root = self.params["upstream"], self.scratch / "apt"
        self.upstream = apt.Upstream(given["uri"], given["suite"], given["keyring"], root, self.run) if given else None
        urls = [*([given["uri"]] if given else []), *(one["src"] for one in self.params["debs"])]
        way = [self.params[name] for name in ("proxy", "no_proxy", "timeout_seconds")]
        home = {"GNUPGHOME": self.params["gnupg_home"]} if self.params["gnupg_home"] else {}
        settings = str(apt.write_settings(root, urls, *way))
        module.run_command_environ_update = {"LC_ALL": "C", "APT_CONFIG": settings, **home}

    def run(self, arguments: Sequence[str], cwd: Path | None = None, data: str | None = None) -> str:
        status, output, errors = self.module.run_command(arguments, cwd=cwd and str(cwd), data=data)
        if status != 0:
            # apt says why on a line below that of the URL, and what that means at the end.
            words = [line.strip(" .") for line in (output + errors).splitlines() if re.match(r"E: |W: |  \S", line)]
            if not words or not arguments[0].startswith(("apt-", apt.APT_HELPER)):
                words = [line for line in (errors or output).splitlines() if line.strip()][-3:]
            raise RepositoryError(f"{' '.join(arguments[:3])} ... failed: {' / '.join(dict.fromkeys(words))}")
        return str(output)

    def newer(self, one: str, other: str) -> bool:
        return bool(self.module.run_command(["dpkg", "--compare-versions", one, "gt", other])[0] == 0)

    def check_key(self) -> None:
        """Check that the user's key can sign without a prompt. Raises RepositoryError."""
        home, fingerprint = self.params["gnupg_home"] or "this user's GnuPG home", self.fingerprint
        listing = self.module.run_command(["gpg", "--batch", "--with-colons", "--list-secret-keys", fingerprint])
        expires = mirror.parse_secret_key(listing[1], fingerprint, home)
        try:
            unattended = ["--batch", "--no-tty", "--pinentry-mode=loopback", *(f"-{one}" for one in self.passphrase)]
            self.run(["gpg", *unattended, "--armor", "--detach-sign", "--local-user", fingerprint], data="test")
        except RepositoryError as error:
            raise RepositoryError(
                f"gpg cannot sign with {fingerprint} in {home} without a prompt: {error}. Set "
                "tfserving_mirror_signing_key_passphrase, or let this user's gpg-agent know it. Nothing was changed"
            ) from error
        if expires is not None and expires - time.time() < EXPIRY_WARNING_SECONDS:
            self.module.warn(
                f"the mirror's key expires on {time.strftime('%Y-%m-%d', time.gmtime(expires))}, and from then on no "
                "host takes packages from the mirror. This prolongs it: gpg --quick-set-expire "
                f"{fingerprint} 5y. Then play again, and renew the key on the hosts"
            )

    def is_published(self, packages: Sequence[Package], public_key: str) -> bool:
        """Say whether the mirror is whole and signed by the key, in the form that the key has now."""
        if not mirror.is_complete(self.layout, packages, public_key):
            return False
        verify = ["gpg", "--batch", "--status-fd=1", "--verify", str(self.layout.in_release)]
        status, said, _ = self.module.run_command(verify)
        return status == 0 and bool(re.search(rf"^\[GNUPG:\] VALIDSIG .* {self.fingerprint}$", said, re.MULTILINE))

    def debs(self) -> list[Package] | None:
        """Return the .deb files that are given, or None where check mode cannot know them."""
        for given in self.params["debs"]:
            file = self.layout.deb(given["sha256"].lower())
            if file.exists():
                continue
            if self.module.check_mode:
                return None
            arriving = self.layout.build / file.name
            apt.download(given["src"], file.stem, arriving, self.run)
            arriving.replace(file)
        return [mirror.describe_deb(self.layout.deb(one["sha256"].lower()), self.run) for one in self.params["debs"]]

    def gather(self, packages: Sequence[Package], from_upstream: Sequence[Package]) -> None:
        """Let the .deb of every package be among the downloads."""
        for package in packages:
            file, public = self.layout.deb(package.sha256), self.layout.public / package.filename
            if mirror.is_there(file, package):
                continue
            if file.exists():  # cut, as by a full disk
                file.unlink()
            if mirror.is_there(public, package):
                os.link(public, file)  # noqa: PTH200 - Path.hardlink_to is Python 3.10's
            elif self.upstream and package in from_upstream:
                arriving = self.layout.build / package.sha256
                arriving.mkdir()
                self.upstream.download(package, arriving).replace(file)
            else:
                raise RepositoryError(
                    f"the mirror has lost {package.basename}, and upstream does not have it. Give it in "
                    f"tfserving_mirror_debs with sha256 {package.sha256}"
                )

    def update(self) -> dict[str, Any]:
        """Let the mirror be what it has to be, and return what the module returns. Raises RepositoryError."""
        self.check_key()
        published = mirror.read_published(self.layout)
        names, versions, prune = (self.params[name] for name in ("packages", "versions", "prune"))
        from_upstream = self.upstream.packages(names) if self.upstream else []
        debs = self.debs()
        if debs is None:
            return {"changed": True, "packages": [], "incomplete": True}
        plan = mirror.make_plan(published, from_upstream, debs, versions, names, prune, self.newer)
        public_key = self.run(["gpg", "--batch", "--armor", "--export", self.fingerprint])
        stale = bool(plan.added or plan.dropped) or not self.is_published(published, public_key)
        if stale and not self.module.check_mode:
            self.gather(plan.packages, from_upstream)
            signing = [f"-gpg-key={self.fingerprint}", *self.passphrase]
            mirror.publish(self.layout, mirror.build(self.layout, plan.packages, signing, self.run), public_key)
        left = mirror.surplus(self.layout, plan.packages, [one.sha256 for one in debs])
        if not self.module.check_mode:
            for file in left:
                file.unlink()
        return {
            "changed": stale or bool(left) or self.was_cut,
            "packages": mirror.rows(plan, self.newer),
            "incomplete": False,
            "diff": {"before": lines([*plan.kept, *plan.dropped]), "after": lines(plan.packages)},
        }

    def work(self) -> dict[str, Any]:
        """Update, alone, with a directory to work in that is gone afterwards. Raises RepositoryError."""
        if self.module.check_mode:
            return self.update()
        self.layout.downloads.mkdir(parents=True, exist_ok=True)
        with (self.layout.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RepositoryError(f"another run is at work in {self.layout.path}; wait for its end") from error
            shutil.rmtree(self.layout.build, ignore_errors=True)
            self.layout.build.mkdir()
            try:
                return self.update()
            finally:
                shutil.rmtree(self.layout.build)


def lines(packages: Sequence[Package]) -> str:
    return "".join(sorted(f"{one.name} {one.version} {one.architecture} {one.sha256}\n" for one in packages))


def main() -> None:
    text = {"type": "str", "required": True}
    texts = {"type": "list", "elements": "str", "default": []}
    debs = {"type": "list", "elements": "dict", "default": [], "options": {"sha256": text, "src": text}}
    upstream = {"uri": text, "suite": text, "keyring": {"type": "path", "required": True, "no_log": False}}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "signing_key": {**text, "no_log": False},
            "gnupg_home": {"type": "path"},
            "passphrase": {"type": "str", "no_log": True},
            "upstream": {"type": "dict", "options": upstream},
            "packages": {**texts, "choices": list(mirror.PACKAGES), "default": list(mirror.PACKAGES)},
            "versions": texts,
            "debs": debs,
            "prune": {"type": "bool", "default": False},
            "proxy": {"type": "str", "no_log": True},
            "no_proxy": texts,
            "timeout_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = Builder(module).work()
    except (OSError, RepositoryError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

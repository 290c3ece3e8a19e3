# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings a mirror up to date: asks upstream, gathers the .deb files, has them indexed and signed, publishes them."""

from __future__ import annotations

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
    """One run of the module apt_mirror; module's parameters are that module's."""

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
                "host accepts packages from the mirror. This extends it: gpg --quick-set-expire "
                f"{fingerprint} 5y. Then rerun the playbook, and renew the key on the hosts with serving.yml"
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

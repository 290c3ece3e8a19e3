# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change the installed package so that a run that fails, or is killed at any point, can be rolled back.

The store is a directory of root's on the host:

    change.json    the change that is not over, and the previous package; written before anything is installed
    previous/      the .deb of the previous package, while there is one
    new/           what apt has fetched for the change under way
    sent.deb       the .deb as Ansible brought it to the host; the account that it logs in as may have it open
    given.deb      root's copy of it, or what the host downloaded, during the change
    kept.deb       the .deb of what is installed, where it was given and apt may not have it
    kept.json      what kept.deb is
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import apt_get
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import (
    copy_and_hash,
    file_sha256,
    in_the_making,
    read_json,
    sync,
    write_json,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import (
    DownloadError,
    download_to,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.installed_package import rebuild
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import (
    ARCHITECTURES,
    NAMES,
    PROGRAM,
    Host,
    Package,
    PackageChange,
    PackageError,
    diagnose,
    missing_cpu_flags,
    parse_dpkg_query,
    parse_fields,
    parse_madison,
    parse_removals,
)

# What both modules ask for.
PACKAGE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "variant": {"type": "str", "choices": ["auto", "optimized", "universal"], "default": "auto"},
    "version": {"type": "str", "default": ""},
    "deb_sha256": {"type": "str"},
}
CPUINFO = Path("/proc/cpuinfo")
VERSION_TIMEOUT_SECONDS = 60
DOWNLOAD_TIMEOUT_SECONDS = 60


class PreviousPackageLost(PackageError):
    """The store does not have the previous package any more."""


class Store:
    """The directory that holds the previous package."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.new = self.directory / "new"
        self.previous = self.directory / "previous"
        self.sent = self.directory / "sent.deb"
        self.given = self.directory / "given.deb"
        self._change = self.directory / "change.json"
        self._kept_deb = self.directory / "kept.deb"
        self._kept = self.directory / "kept.json"

    def prepare(self) -> None:
        """Make the directories, empty new/, and forget what a killed run has left half written."""
        for path in (self.directory, self.new, self.previous):
            path.mkdir(parents=True, exist_ok=True)
            # The user that apt downloads as has to reach its directory below; nobody but root can list or write.
            path.chmod(0o711)
        self.empty(self.new)
        for path in self.directory.glob("*.part"):
            path.unlink()

    @staticmethod
    def empty(directory: Path) -> None:
        for path in directory.iterdir() if directory.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def change(self) -> PackageChange | None:
        data = read_json(self._change)
        try:
            return PackageChange.of(data) if data else None
        except (KeyError, TypeError):
            return None

    def begin(self, change: PackageChange) -> None:
        """Record a change. The previous package has to be in previous/ by then."""
        for path in (*self.previous.glob("*.deb"), self.previous):
            sync(path)
        write_json(self._change, change.as_dict())

    def kept(self) -> Package | None:
        data = read_json(self._kept)
        try:
            return Package(**data) if data and self._kept_deb.is_file() else None
        except TypeError:
            return None

    def keep_as_previous(self, name: str) -> None:
        """Make the kept .deb the previous package, without a copy."""
        os.link(self._kept_deb, self.previous / f"{name}_kept.deb")

    def previous_deb(self) -> Path | None:
        return next(self.previous.glob("*.deb"), None)

    def settle(self, new: Package) -> None:
        """Forget the previous package. A given .deb becomes the kept one; apt can download its own again."""
        if new.sha256:
            if self.given.is_file():
                self.given.replace(self._kept_deb)
            write_json(self._kept, new.as_dict())
        else:
            for path in (self._kept, self._kept_deb):
                if path.exists():
                    path.unlink()
        self.forget()

    def take_sent(self) -> str | None:
        """Let root's copy of sent.deb be given.deb. Returns its SHA256, None where nothing was sent. Raises OSError."""
        if not os.path.lexists(self.sent):
            return None
        part = self.given.with_name("given.deb.part")
        part.unlink(missing_ok=True)
        with in_the_making(part):
            try:
                found = copy_and_hash(self.sent, part)
            finally:
                self.sent.unlink()
            part.chmod(0o644)  # apt reads it as a user of its own
            part.replace(self.given)
        return found

    def forget(self) -> None:
        """Remove what belongs to a change; change.json goes last, as it says that there is more to remove."""
        self.empty(self.new)
        self.empty(self.previous)
        for path in (self.sent, self.given):
            path.unlink(missing_ok=True)
        if self._change.exists():
            self._change.unlink()


def read_missing_cpu_flags() -> list[str]:
    """Return what the optimized build needs and this CPU lacks."""
    try:
        return missing_cpu_flags(CPUINFO.read_text())
    except OSError:
        return missing_cpu_flags("")


def observe(module: AnsibleModule, store: Store, is_apt_ready: bool = True) -> Host:
    """Return what the host has and knows. Fails the module where apt cannot be asked, unless it is not ready yet."""
    line = r"${Package}\t${Version}\t${db:Status-Want}\t${db:Status-Eflag}\t${db:Status-Status}\n"
    # dpkg-query exits 1 when it has never heard of one of them.
    _, listed, _ = module.run_command(["dpkg-query", "--show", f"--showformat={line}", *NAMES.values()])
    _, madison, _ = module.run_command(["apt-cache", "madison", *NAMES.values()], check_rc=is_apt_ready)
    installed, present, is_unfinished, held = parse_dpkg_query(listed)
    change = store.change()
    rollback_target = change.previous if change and not change.is_installed and store.previous_deb() else None
    proven = [one for one in (change.new if change and change.is_installed else None, store.kept()) if one]
    for index, one in enumerate(installed):
        sha256 = next((other.sha256 for other in proven if one.is_same_version(other)), "")
        installed[index] = replace(one, sha256=sha256)
    return Host(
        missing_cpu_flags=read_missing_cpu_flags(),
        installed=installed,
        present=present,
        is_unfinished=is_unfinished,
        held=held,
        known=parse_madison(madison),
        change=change,
        rollback_target=rollback_target,
    )


class Changer:
    """Changes the package of this host."""

    def __init__(self, module: AnsibleModule, store: Store, user: str, group: str) -> None:
        self.module = module
        self.store = store
        self.user = user
        self.group = group

    def observe(self) -> Host:
        return observe(self.module, self.store)

    def _run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a program of Debian's; returns its exit status and all that it printed."""
        code, output, errors = self.module.run_command(list(command), environ_update=apt_get.ENVIRONMENT, cwd="/")
        return code, f"{output}\n{errors}"

    def _apt(self, *arguments: str | Path, archives: Path | None = None) -> str:
        """Run apt-get on this store; returns what it printed. Raises PackageError with apt's own words."""
        command = [
            "--allow-downgrades",
            "--allow-change-held-packages",
            "--no-show-upgraded",
            "--no-auto-remove",
            f"--option=Dir::Cache::archives={archives or self.store.new}",
            "--option=APT::Keep-Downloaded-Packages=true",
            *map(str, arguments),
        ]
        code, output = apt_get.change_packages(self.module, *command)
        if code:
            raise PackageError(apt_get.failure(output))
        return output

    def _check_removals(self, *arguments: str | Path, only: Sequence[str]) -> None:
        """Raise PackageError where this command of apt-get's would remove other packages than these."""
        surplus = sorted(set(parse_removals(self._apt("--simulate", *arguments))) - set(only))
        if surplus:
            raise PackageError(
                f"apt would also remove {', '.join(surplus)}. Remove that manually if nothing needs it, and rerun the "
                "playbook, or choose another package"
            )

    def _remove(self, names: Sequence[str]) -> None:
        """Remove packages of the server's, and no other. Raises PackageError."""
        self._check_removals("remove", *names, only=names)
        self._apt("remove", *names)

    def update_apt_cache(self) -> str:
        """Update the apt cache. Returns what apt complains of: one source that is out of reach need not matter."""
        return apt_get.complaints(apt_get.update(self.module)[1])

    def read_given(self, sha256: str) -> Package:
        """Return what given.deb is, once its digest and architecture are right. Raises PackageError.

        What was sent is copied and hashed at once, so that what is installed later is what was hashed.
        """
        try:
            found = self.store.take_sent() or file_sha256(self.store.given)
        except OSError as error:
            raise PackageError(f"the .deb of tfserving_package_deb is not on the host: {error}") from error
        if found != sha256:
            self.store.given.unlink()
            raise PackageError(
                f"tfserving_package_deb has SHA256 {found}, and tfserving_package_deb_sha256 is {sha256}. "
                "Nothing was changed. Get the digest from the builder of the package, over another channel than the "
                "package."
            )
        code, output = self._run(["dpkg-deb", "--field", str(self.store.given), "Package", "Version", "Architecture"])
        fields = parse_fields(output)
        if code or not {"Package", "Version", "Architecture"} <= set(fields):
            raise PackageError(f"tfserving_package_deb is no Debian package: {' '.join(output.split())}")
        if fields["Architecture"] not in ARCHITECTURES:
            raise PackageError(
                f"tfserving_package_deb is built for {fields['Architecture']}; it has to be one for amd64 or all"
            )
        return Package(fields["Package"], fields["Version"], sha256)

    def download(self, url: str, credentials: str | None, proxy: str | None, no_proxy: Sequence[str]) -> None:
        """Download a .deb to given.deb, piece by piece. Raises PackageError; its digest is checked by read_given."""
        part = self.store.given.with_name("given.deb.part")
        try:
            with in_the_making(part):
                with part.open("wb") as file:
                    download_to(file, url, proxy, no_proxy, DOWNLOAD_TIMEOUT_SECONDS, credentials=credentials)
                part.replace(self.store.given)
        except DownloadError as error:
            raise PackageError(f"tfserving_package_deb: {error}") from error

    def ask_version(self, host: Host) -> str:
        """Return what the installed program answers to --version, as the server's user. Raises PackageError."""
        code, output = self._run(
            [
                "setpriv",
                f"--reuid={self.user}",
                f"--regid={self.group}",
                "--clear-groups",
                "--no-new-privs",
                "timeout",
                "--kill-after=5",
                str(VERSION_TIMEOUT_SECONDS),
                PROGRAM,
                "--version",
            ]
        )
        if code:
            raise PackageError(diagnose(code, output, host.missing_cpu_flags))
        return output.strip()

    def install(self, new: Package) -> str:
        """Install a package; where new has a sha256, from given.deb. Returns its answer to --version.

        Until the .deb of the new package and that of the old one are on the host, nothing is changed. Raises
        PackageError after everything is as it was before.
        """
        host = self.observe()
        target: str | Path = self.store.given if new.sha256 else f"{new.name}={new.version}"
        if host.is_unfinished or (host.change and not host.change.is_installed):
            apt_get.configure_unpacked(self.module)
            host = self.observe()
        is_held = bool(host.held) or (host.change is not None and host.change.is_held)
        try:
            self._fetch(host, new, target)
            change = PackageChange(new, self._save_previous(host), is_held=is_held)
        except PackageError:
            if not host.change:
                self.store.forget()
            raise
        self.store.begin(change)
        trouble = "cannot be installed"
        try:
            self._replace(host, new, target, is_held)
            trouble = "does not run here"
            answer = self.ask_version(host)
        except PackageError as error:
            raise PackageError(f"{new} {trouble}: {error}. {self._undo(change)}") from error
        if change.previous and self.store.previous_deb():
            self.store.begin(replace(change, is_installed=True))
            self.store.empty(self.store.new)
        else:
            self.store.settle(new)
        return answer

    def _fetch(self, host: Host, new: Package, target: str | Path) -> None:
        """Have apt fetch all that a change needs, and see that it takes nothing else away. Raises PackageError."""
        others = [name for name in host.present if name != new.name]
        try:
            self._check_removals("install", "--reinstall", target, only=others)
            if others:
                self._check_removals("remove", *others, only=others)
            self._apt("install", "--download-only", "--reinstall", target)
        except PackageError as error:
            raise PackageError(f"{new} cannot be installed: {error}. Nothing was changed.") from error

    def _save_previous(self, host: Host) -> Package | None:
        """Save the .deb of the previous package in the store. Returns that package.

        A change that is not over keeps its own: that is the last package which is known to have served. Raises
        PackageError where a rollback would be impossible.
        """
        change = host.change
        if change and change.previous and self.store.previous_deb():
            return change.previous
        self.store.empty(self.store.previous)
        if change and not change.is_installed and not (change.previous and is_exactly(host, change.previous)):
            return change.previous  # the host has nothing that is known to serve
        if not host.installed:
            return None
        previous = host.installed[0]
        try:
            if previous.sha256 and previous == self.store.kept():
                self.store.keep_as_previous(previous.name)
            else:
                self._fetch_previous(previous)
        except (OSError, PackageError) as error:
            self._rebuild_previous(previous, error)
        return previous

    def _fetch_previous(self, previous: Package) -> None:
        """Have apt download the .deb of the previous package. Raises PackageError."""
        target = f"{previous.name}={previous.version}"
        self._apt("install", "--download-only", "--reinstall", target, archives=self.store.previous)
        for path in self.store.previous.glob("*.deb"):
            if not path.name.startswith(f"{previous.name}_"):
                path.unlink()
        if not self.store.previous_deb():
            raise PackageError("apt does not know this version")

    def _rebuild_previous(self, previous: Package, why: Exception) -> None:
        """Build the .deb of the previous package from the installed files, for this reason. Raises PackageError."""
        deb = self.store.previous / f"{previous.name}_rebuilt.deb"
        try:
            rebuild(self._run, previous.name, self.store.new / "tree", deb)
        except (OSError, PackageError) as error:
            raise PackageError(
                f"a rollback to {previous}, which is installed, would be impossible. Its .deb cannot be downloaded: "
                f"{why}. It cannot be built from the installed files: {error}. Nothing was changed. What you can do: "
                "add this version to the repository; or reinstall it from its .deb (dpkg --install); or do without a "
                f"rollback (apt-get remove {previous.name}). Then rerun the playbook."
            ) from error
        self.module.warn(
            f"The .deb of {previous} cannot be downloaded: {why}. For a rollback it was built from the installed files."
        )

    def _replace(self, host: Host, new: Package, target: str | Path, is_held: bool) -> None:
        """Install new in the place of what is there, and hold it where that was: apt forgets it on the way."""
        others = [name for name in host.present if name != new.name]
        if others:
            # In a step of its own: the packages do not say that they conflict, so apt might unpack first.
            self._remove(others)
        self._apt("install", "--no-remove", "--reinstall", target)
        if is_held:
            self._run(["apt-mark", "hold", new.name])

    def _undo(self, change: PackageChange) -> str:
        """Restore what was there before a change that failed. Returns a sentence that says so."""
        previous = change.previous or "The state before"
        try:
            return self.put_back(change)
        except PreviousPackageLost as error:
            return (
                f"{previous} could not be restored: {error}. Set "
                "tfserving_package_version to another that apt knows and rerun the playbook."
            )
        except PackageError as error:
            return f"{previous} could not be restored: {error}. Rerun the playbook to try again."

    def put_back(self, change: PackageChange) -> str:
        """Undo a change. Returns a sentence that says so. Raises PackageError, and keeps the change then."""
        self.store.begin(replace(change, is_installed=False, is_failed=True))
        previous, deb = change.previous, self.store.previous_deb()
        host = self.observe()
        if host.is_unfinished:
            apt_get.configure_unpacked(self.module)
            host = self.observe()
        if previous is None:
            if host.present:
                self._remove(host.present)
            self.store.forget()
            return "It was removed again."
        if not is_exactly(host, previous):
            if deb is None:
                raise PreviousPackageLost(f"its .deb is no longer in {self.store.previous}")
            self._replace(host, previous, deb, change.is_held or bool(host.held))
        self.store.forget()
        return f"{previous} was restored."


def is_exactly(host: Host, package: Package) -> bool:
    """Say whether a host has this package, whole, and not the other one."""
    only = list(host.present) == [package.name] and not host.is_unfinished
    return only and any(one.is_same_version(package) for one in host.installed)

"""Who competes: each one's command for a job, as a good engineer would type it."""

from __future__ import annotations

import json
import shlex
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.hosts import ACCOUNT, PASSWORD, SSH, STATE, BenchError, on_hosts, output_of
from bench.models import SHARD

INVENTORY = "bench/inventory/hosts.yml"
COLLECTIONS = STATE / "collections"
BASE = "/srv/bench"
ASIDE = f"{BASE}/aside"
ASIDE_MEGABYTES = 4_000  # on all hosts together; more than what the small files of all runs take
RSH = shlex.join(SSH)
# One digest of the names and contents of all files.
DIGEST = "find . -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum"


@dataclass(frozen=True)
class Job:
    """Versions of a model that shall be on hosts, where some of them are already."""

    model: str
    source: Path
    versions: tuple[int, ...]
    hosts: tuple[str, ...]
    present: tuple[int, ...] = ()
    pull: dict[str, Any] = field(default_factory=dict)  # catalogue keys in the place of a source on the controller

    @property
    def missing(self) -> tuple[int, ...]:
        return tuple(version for version in self.versions if version not in self.present)


class Contender(ABC):
    """One way to bring models to hosts; each has a base path of its own, so that they do not help each other."""

    name: str
    slug: str
    delivers = True

    @property
    def base(self) -> str:
        return f"{BASE}/{self.slug}"

    def path(self, job: Job) -> str:
        return f"{self.base}/{job.model}"

    @abstractmethod
    def command(self, job: Job) -> list[str]:
        """Return the command that does the whole job."""

    def environment(self) -> dict[str, str]:
        return {}

    def fill(self, job: Job) -> None:
        """Bring the versions that shall be present, by whatever way is quick: nobody looks at the clock."""
        sources = [f"{job.source}/{version}" for version in job.present]
        for host in job.hosts:
            output_of(["rsync", "-aH", "-e", RSH, *sources, f"{host}:{self.path(job)}/"])

    def reset(self, job: Job) -> None:
        """Leave the versions that shall be present, and nothing else of this model.

        The rest is moved aside. For some minutes after many files were removed, ext4 may take longer to make others:
        without a journal it passes over inodes that were just freed.
        """
        keep = "".join(f" ! -name {version} ! -name .manifest-{version}.json" for version in job.present)
        move = f"sudo find {job.model} -mindepth 1 -maxdepth 1{keep} -exec mv -t $aside {{}} +"
        most = ASIDE_MEGABYTES // len(job.hosts)
        on_hosts(
            job.hosts,
            f"sudo mkdir -p {self.base} {ASIDE} && cd {self.base}"
            f" && if [ $(sudo du --summarize --block-size=1000000 {ASIDE} | cut -f1) -gt {most} ];"
            f" then sudo rm -rf {ASIDE}/*; fi"
            f" && aside=$(sudo mktemp -d -p {ASIDE})"
            f" && if [ -d {job.model} ]; then {move}; fi"
            f" && {self.make_room(job)}",
        )

    def make_room(self, job: Job) -> str:
        return f"sudo install -d -o deploy -g deploy {self.base} {job.model}"

    def verify(self, job: Job) -> None:
        """Raise BenchError where a run has not done the job: then it has no time."""
        if not self.delivers:
            return
        for version in job.missing:
            expected = digest_of_source(job.source / str(version))
            there = f"{self.path(job)}/{version}"
            if set(on_hosts(job.hosts, f"sudo sh -c {shlex.quote(f'cd {there} && {DIGEST}')}")) != {expected}:
                raise BenchError(f"{self.name}: {there} on the hosts is not what the source has")


class ManualRsync(Contender):
    """rsync into a temporary name and a rename; the version before it as a basis, where there is one."""

    name = "manual rsync"
    slug = "manual"

    def command(self, job: Job) -> list[str]:
        each = [self._one_host(job, host) for host in job.hosts]
        return side_by_side(each)

    def _one_host(self, job: Job, host: str) -> str:
        path = self.path(job)
        if not job.missing:
            return f"rsync -a -e '{RSH}' {job.source}/ {host}:{path}/"
        steps = []
        for version in job.missing:
            basis = f" --copy-dest=../{version - 1}" if version - 1 in job.present else ""
            source, incoming = f"{job.source}/{version}", f"{path}/.incoming-{version}"
            steps.append(f"rsync -a{basis} -e '{RSH}' {source}/ {host}:{incoming}/")
            steps += self._checks(source, host, incoming)
            steps.append(f"{RSH} {host} mv {incoming} {path}/{version}")
        return " && ".join(steps)

    def _checks(self, source: str, host: str, incoming: str) -> list[str]:
        """Return what is done about a version before it gets its name."""
        return []


class ManualRsyncVerified(ManualRsync):
    """The same, with digests of both sides compared and everything on the disk before the rename."""

    name = "manual rsync, verified"
    slug = "verified"

    def _checks(self, source: str, host: str, incoming: str) -> list[str]:
        return [
            f"here=$(cd {source} && {DIGEST})",
            f"there=$({RSH} {host} {shlex.quote(f'cd {incoming} && sync --file-system . && {DIGEST}')})",
            '[ "$here" = "$there" ]',
        ]


class AdHoc(Contender):
    """One module of Ansible's that copies a directory, called without a playbook."""

    module: str
    options: dict[str, Any]

    def command(self, job: Job) -> list[str]:
        if job.missing:
            (version,) = job.missing
            copied = {"src": f"{job.source}/{version}/", "dest": f"{self.path(job)}/{version}/"}
        else:
            copied = {"src": f"{job.source}/", "dest": f"{self.path(job)}/"}
        return ad_hoc(job.hosts, self.module, {**copied, **self.options})


class Synchronize(AdHoc):
    """As its documentation has it; use_ssh_args makes it read the lab's ssh_config."""

    name = "ansible.posix.synchronize"
    slug = "synchronize"
    module = "ansible.posix.synchronize"
    options = {"use_ssh_args": True}

    def environment(self) -> dict[str, str]:
        return {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}


class Copy(AdHoc):
    name = "ansible.builtin.copy"
    slug = "copy"
    module = "ansible.builtin.copy"
    options = {}


class Ping(Contender):
    """The least that Ansible can do with a host."""

    name = "ansible -m ping"
    slug = "ping"
    delivers = False

    def command(self, job: Job) -> list[str]:
        return ad_hoc(job.hosts, "ansible.builtin.ping", {})

    def fill(self, job: Job) -> None:
        """It looks at no model."""


class Streams(Contender):
    """The bytes of the largest file through one ssh a host, into nothing: what the link and ssh can carry."""

    name = "ssh streams"
    slug = "streams"
    delivers = False

    def command(self, job: Job) -> list[str]:
        (version,) = job.versions
        return side_by_side([f"{RSH} {host} 'cat > /dev/null' < {job.source}/{version}/{SHARD}" for host in job.hosts])


class Ours(Contender):
    """The role tfserving_models with the defaults it has: verified, atomic, with manifests."""

    name = "tfserving_models"
    slug = "ours"
    login: Mapping[str, str] = {}

    def command(self, job: Job) -> list[str]:
        entry = {"name": job.model, "source": str(job.source), "versions": list(job.versions), **job.pull}
        variables = {
            "tfserving_models_catalog": [entry],
            "tfserving_models_base_path": self.base,
            "tfserving_group": "root",
            **self.login,
        }
        where = ["-i", INVENTORY, "--limit", ":".join(job.hosts)]
        return ["ansible-playbook", *where, "bench/playbooks/models.yml", "-e", json.dumps(variables)]

    def fill(self, job: Job) -> None:
        output_of(self.command(Job(job.model, job.source, job.present, job.hosts)), ANSIBLE_FORKS=str(len(job.hosts)))

    def make_room(self, job: Job) -> str:
        return "true" if job.present else f"if [ -d {job.model} ]; then sudo mv -T {job.model} $aside/model; fi"


class OursByPassword(Ours):
    """The same for an account whose sudo asks for a password: root publishes a copy of what the account receives."""

    name = "tfserving_models, sudo with a password"
    slug = "ours-by-password"
    login = {"ansible_user": ACCOUNT, "ansible_become_password": PASSWORD}


@cache
def digest_of_source(version: Path) -> str:
    return output_of(["sh", "-c", f"cd {shlex.quote(str(version))} && {DIGEST}"])


def empty_aside(hosts: Sequence[str]) -> None:
    """Remove what was moved aside."""
    on_hosts(hosts, f"sudo rm -rf {ASIDE}")


def side_by_side(scripts: Sequence[str]) -> list[str]:
    """Return a command that runs the scripts at the same time and fails when one does."""
    started = "\n".join(f"{{ {script}; }} & jobs+=($!)" for script in scripts)
    return ["bash", "-ec", f"{started}\nfor job in ${{jobs[@]}}; do wait $job; done"]


def ad_hoc(hosts: Sequence[str], module: str, options: dict[str, Any]) -> list[str]:
    arguments = ["-a", json.dumps(options)] if options else []
    return ["ansible", "-i", INVENTORY, ":".join(hosts), "-m", module, *arguments]


def install_synchronize() -> None:
    """Unpack ansible.posix from its locked package."""
    if (COLLECTIONS / "ansible_collections").is_dir():
        return
    with TemporaryDirectory(dir=STATE) as scratch:
        output_of(
            ["pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", "bench/posix.txt", "-d", scratch]
        )
        (wheel,) = Path(scratch).glob("*.whl")
        fresh = Path(scratch, "collections")
        with zipfile.ZipFile(wheel) as package:
            package.extractall(
                fresh, [name for name in package.namelist() if name.startswith("ansible_collections/ansible/posix/")]
            )
        fresh.rename(COLLECTIONS)

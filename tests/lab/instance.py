"""One instance of the lab: a network, systemd hosts on it, and the ssh configuration that reaches them.

Addresses are fixed within the instance's network and names stand in /etc/hosts, so a restarted container is the same
host, and the containers' resolver stays the machine's own.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import images
import packages
import repository
import runtime
import tls
import wheels
from command import LabError, Progress, digest, run, write_if_changed
from engine import LABEL, Engine, can_be_started, is_alive
from images import BOOKWORM, TRIXIE, Release

INSTANCE_LABEL = f"{LABEL}.instance"
RECIPE_LABEL = f"{LABEL}.recipe"
BOOT_SECONDS = 60
NOTICE_SECONDS = 20
LOOPBACK = "127.0.0.2"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


@dataclass(frozen=True)
class Host:
    """A host; `last_octet` is its fixed place in the instance's network."""

    name: str
    release: Release
    last_octet: int
    serves_models: bool = True
    aliases: tuple[str, ...] = ()
    # Names that no other host can resolve.
    own_aliases: tuple[str, ...] = ()


HOSTS = (
    Host("infra", TRIXIE, 10, serves_models=False, aliases=("packages.lab", "proxy.lab"), own_aliases=("inside.lab",)),
    Host("debian12", BOOKWORM, 11),
    Host("debian13a", TRIXIE, 12),
    Host("debian13b", TRIXIE, 13),
)
INFRA = HOSTS[0]
MODEL_HOSTS = len(HOSTS) - 1
MOST_MODEL_HOSTS = 20


def hosts(model_hosts: int) -> tuple[Host, ...]:
    """The hosts of an instance: those that every instance has, then debian13c and so on."""
    further = range(model_hosts - MODEL_HOSTS)
    return (*HOSTS, *(Host(f"debian13{chr(ord('c') + i)}", TRIXIE, HOSTS[-1].last_octet + 1 + i) for i in further))


@dataclass(frozen=True)
class Lab:
    """Where things lie: the checkout, and `.lab/` in it with caches and one directory per instance."""

    checkout: Path

    @property
    def state(self) -> Path:
        return self.checkout / ".lab"

    @property
    def scratch(self) -> Path:
        return self.state / "scratch"

    @property
    def requirements(self) -> Path:
        return self.checkout / "requirements" / "lab-runtime.txt"

    def instance(self, name: str) -> Instance:
        return Instance(self, name)


@dataclass(frozen=True)
class Instance:
    """Names and files of one instance."""

    lab: Lab
    name: str

    @property
    def directory(self) -> Path:
        return self.lab.state / self.name

    @property
    def network(self) -> str:
        return f"tfserving-{self.name}"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def model_hosts(self) -> Path:
        """How many model hosts it has, in one line; without the file as many as every instance."""
        return self.directory / "model_hosts"

    @property
    def hosts(self) -> tuple[Host, ...]:
        return hosts(int(self.model_hosts.read_text()) if self.model_hosts.is_file() else MODEL_HOSTS)

    @property
    def infra_address(self) -> Path:
        """The address of infra in one line, for the controller, which cannot resolve the lab's names."""
        return self.directory / "infra.address"

    @property
    def certificate(self) -> tls.Certificate:
        return tls.Certificate(self.directory / "tls")

    @property
    def repository(self) -> repository.Repository:
        return repository.Repository(
            sources=packages.SOURCES,
            web=self.directory / "www",
            keys=self.directory / "gnupg",
        )

    def container(self, host: Host) -> str:
        return f"tfserving-{self.name}-{host.name}"


def up(engine: Engine, instance: Instance, progress: Progress, model_hosts: int | None = None) -> None:
    """Build, create and start what is missing, then wait for every host. Without a number it keeps the one it has."""
    take_over(engine, instance, progress)
    instance.directory.mkdir(parents=True, exist_ok=True)
    if model_hosts:
        write_if_changed(instance.model_hosts, f"{model_hosts}\n")
    build_inputs(engine, instance, progress)
    addresses = ensure_network(engine, instance)
    existing = containers_of(engine, instance)
    for surplus in existing.keys() - {instance.container(host) for host in instance.hosts}:
        progress.say(f"{surplus}: removing, there are fewer model hosts now")
        remove_container(engine, surplus)

    def bring_up(host: Host) -> str:
        ensure_container(engine, instance, host, addresses, existing.get(instance.container(host)), progress)
        return host_key(engine, instance, host)

    with ThreadPoolExecutor() as pool:
        keys = dict(zip(instance.hosts, pool.map(bring_up, instance.hosts), strict=True))
    write_if_changed(instance.known_hosts, "".join(f"{addresses[host]} {key}\n" for host, key in keys.items()))
    write_if_changed(instance.ssh_config, ssh_config(instance, addresses))
    write_if_changed(instance.infra_address, f"{addresses[INFRA]}\n")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: wait_until_running(instance, host, progress), instance.hosts))
    progress.say(f"{instance.name}: {len(instance.hosts)} hosts running; ssh -F {instance.ssh_config} {HOSTS[1].name}")


def build_inputs(engine: Engine, instance: Instance, progress: Progress) -> None:
    """Images, TensorFlow runtimes, package repository, login key and certificate, side by side."""
    lab = instance.lab
    shutil.rmtree(lab.scratch, ignore_errors=True)
    lab.scratch.mkdir(parents=True)
    stale = [release for release in images.RELEASES if not runtime.is_current(lab.state, lab.requirements, release)]
    uv = wheels.find_uv(lab.checkout) if stale else Path()

    with ThreadPoolExecutor(max_workers=8) as pool:
        host_images = {
            release: pool.submit(images.build_host_image, engine, release, lab.scratch, progress)
            for release in images.RELEASES
        }

        def install_runtime(release: Release) -> None:
            fresh = runtime.download(uv, lab.requirements, release, lab.scratch, progress)
            image = host_images[release].result()
            runtime.publish(engine, image, fresh, lab.state, lab.requirements, release, progress)

        def build_infra() -> None:
            host_images[TRIXIE].result()
            images.build_infra_image(engine, lab.scratch, progress)

        work: list[Future[Any]] = [
            *host_images.values(),
            *(pool.submit(install_runtime, release) for release in stale),
            pool.submit(build_infra),
            pool.submit(repository.publish, instance.repository, progress),
            pool.submit(ensure_login_key, instance),
            pool.submit(tls.ensure_certificate, instance.certificate),
        ]
    for done in work:
        done.result()
    shutil.rmtree(lab.scratch)


def ensure_login_key(instance: Instance) -> None:
    if not instance.key.is_file():
        run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"deploy@{instance.network}", "-f", instance.key],
            what="making the login key",
        )


def ensure_network(engine: Engine, instance: Instance) -> dict[Host, str]:
    """The address of every host; podman chooses a free subnet for a new network."""
    if instance.network not in {network["name"] for network in engine.networks()}:
        engine.podman(
            "network", "create", "--disable-dns", *labels(engine, instance), instance.network,
            what=f"creating the network {instance.network}",
        )  # fmt: skip
    inspected = json.loads(engine.podman("network", "inspect", instance.network, what="inspecting the network"))
    subnet = ipaddress.ip_network(inspected[0]["subnets"][0]["subnet"])
    return {host: str(subnet[host.last_octet]) for host in instance.hosts}


def labels(engine: Engine, instance: Instance) -> list[str]:
    return [f"--label={LABEL}={engine.owner}", f"--label={INSTANCE_LABEL}={instance.name}"]


def container_options(engine: Engine, instance: Instance, host: Host, addresses: dict[Host, str]) -> list[str]:
    """Everything that makes this container what it is.

    With CAP_SYS_ADMIN, no seccomp filter and nothing masked, systemd boots to `running` and hardened units start;
    without the capability they fail with 226/NAMESPACE, and --privileged leaves systemd degraded. CAP_NET_ADMIN is for
    nftables, in the container's own network. CAP_SYS_PTRACE lets root see whose a socket is, as on any machine.
    """
    names = [(name, addresses[other]) for other in addresses for name in (other.name, *other.aliases) if other != host]
    own_names = [(name, addresses[host]) for name in host.aliases] + [(name, LOOPBACK) for name in host.own_aliases]
    mounts = [f"{instance.key}.pub:/home/deploy/.ssh/authorized_keys:ro"]
    if host.serves_models:
        mounts.append(f"{runtime.directory(instance.lab.state, host.release)}:{runtime.MOUNT_POINT}:ro")
    else:
        mounts.append(f"{instance.repository.web}:/srv/www:ro")
        mounts.append(f"{instance.certificate.directory}:/etc/nginx/tls:ro")
    return [
        "--systemd=always",
        "--cap-add=SYS_ADMIN",
        "--cap-add=NET_ADMIN",
        "--cap-add=SYS_PTRACE",
        "--security-opt=seccomp=unconfined",
        "--security-opt=unmask=ALL",
        f"--hostname={host.name}",
        f"--network={instance.network}",
        f"--ip={addresses[host]}",
        *(f"--add-host={name}:{address}" for name, address in [*names, *own_names]),
        *(f"--volume={mount}" for mount in mounts),
        *labels(engine, instance),
        images.host_tag(host.release) if host.serves_models else images.infra_tag(),
    ]


def ensure_container(
    engine: Engine,
    instance: Instance,
    host: Host,
    addresses: dict[Host, str],
    existing: dict[str, Any] | None,
    progress: Progress,
) -> None:
    """Create the container, or replace it when it is not what the recipe says now, and start it."""
    container = instance.container(host)
    options = container_options(engine, instance, host, addresses)
    if host.serves_models:
        mounted = runtime.recipe(instance.lab.requirements, host.release)
    else:
        mounted = instance.certificate.server.read_text()
    recipe = digest(*options, mounted)
    if existing:
        existing = settled(engine, instance, container, existing)
        if existing["Labels"].get(RECIPE_LABEL) == recipe and is_alive(existing):
            return
        if existing["Labels"].get(RECIPE_LABEL) != recipe or not can_be_started(existing):
            progress.say(f"{host.name}: replacing, its recipe has changed or its processes were killed")
            remove_container(engine, container)
            existing = None
    if not existing:
        engine.podman(
            "create", f"--name={container}", f"--label={RECIPE_LABEL}={recipe}", *options,
            what=f"creating {container}",
        )  # fmt: skip
    engine.podman("start", container, what=f"starting {container}", advice="tests/lab/lab.py down, then up")
    progress.say(f"{host.name}: started")


def settled(engine: Engine, instance: Instance, container: str, existing: dict[str, Any]) -> dict[str, Any]:
    """Return what podman says of a container once it has noticed its end: a host that powers off takes a moment.

    Where its monitor was killed too, podman never notices.
    """
    deadline = time.monotonic() + NOTICE_SECONDS
    while not (is_alive(existing) or can_be_started(existing)) and time.monotonic() < deadline:
        time.sleep(0.5)
        existing = containers_of(engine, instance).get(container, existing)
    return existing


def remove_container(engine: Engine, container: str) -> None:
    engine.podman("rm", "--force", "--time=0", container, what=f"removing {container}")


def host_key(engine: Engine, instance: Instance, host: Host) -> str:
    """The host's public key, which it makes at its first boot, read from inside and so beyond doubt."""
    container = instance.container(host)

    def read() -> str:
        return engine.podman("exec", container, "cat", HOST_KEY, what=f"reading the ssh host key of {host.name}")

    kind, key = patiently(read).split()[:2]
    return f"{kind} {key}"


def ssh_config(instance: Instance, addresses: dict[Host, str]) -> str:
    """For `ssh -F`, Ansible and testinfra alike."""
    hosts = "".join(f"Host {host.name}\n    HostName {addresses[host]}\n\n" for host in instance.hosts)
    return f"""\
{hosts}Host *
    User deploy
    IdentityFile {instance.key}
    IdentitiesOnly yes
    UserKnownHostsFile {instance.known_hosts}
    StrictHostKeyChecking yes
    BatchMode yes
    ConnectTimeout 10
"""


def wait_until_running(instance: Instance, host: Host, progress: Progress) -> None:
    """Until the host answers over ssh and its systemd has finished booting."""
    ask = "systemctl is-system-running --wait || systemctl list-units --failed --plain --no-legend"

    def answer() -> str:
        return run(
            # A replaced host has its predecessor's address and another MAC: the first connection may hang in ARP.
            ["ssh", "-F", instance.ssh_config, "-o", "ConnectTimeout=1", host.name, ask],
            what=f"waiting for {host.name}",
            advice=f"see podman logs {instance.container(host)}; tests/lab/lab.py down and up make it anew",
        )

    state = patiently(answer).strip()
    if state != "running":
        progress.say(f"{host.name}: up, but systemd says {' '.join(state.split())}")


def patiently(attempt: Callable[[], str]) -> str:
    """Repeat until it succeeds or a boot's time is over."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            return attempt()
        except LabError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def containers_of(engine: Engine, instance: Instance) -> dict[str, dict[str, Any]]:
    """The instance's containers by name, of whichever checkout."""
    return {
        container["Names"][0]: container
        for container in engine.containers()
        if container["Labels"].get(INSTANCE_LABEL) == instance.name
    }


def take_over(engine: Engine, instance: Instance, progress: Progress) -> None:
    """Another checkout's instance of this name: refuse while it runs, sweep it away when it is dead."""
    foreign = {
        name: container
        for name, container in containers_of(engine, instance).items()
        if container["Labels"][LABEL] != engine.owner
    }
    for container in foreign.values():
        if is_alive(container):
            raise LabError(
                f"the instance {instance.name} runs from another checkout: {container['Labels'][LABEL]}\n"
                f"next: run down there, or choose another name: tests/lab/lab.py up --name NAME"
            )
    for name in foreign:
        progress.say(f"{name}: removing what another checkout left")
        remove_container(engine, name)
    for network in engine.networks():
        if network["name"] == instance.network and network["labels"][LABEL] != engine.owner:
            engine.podman("network", "rm", instance.network, what=f"removing the network {instance.network}")


def down(engine: Engine, instance: Instance, progress: Progress) -> None:
    """Remove the instance's containers, network and files; images and runtimes stay for the next one."""
    mine = [name for name, item in containers_of(engine, instance).items() if item["Labels"][LABEL] == engine.owner]
    if mine:
        engine.podman("rm", "--force", "--time=0", *mine, what=f"removing the hosts of {instance.name}")
    for network in engine.networks():
        if network["name"] == instance.network and network["labels"][LABEL] == engine.owner:
            engine.podman("network", "rm", instance.network, what=f"removing the network {instance.network}")
    shutil.rmtree(instance.directory, ignore_errors=True)
    progress.say(f"{instance.name}: removed")


def clean(engine: Engine, lab: Lab, progress: Progress) -> None:
    """Remove all instances of this checkout, the lab's images that no other checkout uses, and every cache."""
    for name in instance_names(engine):
        down(engine, lab.instance(name), progress)
    in_use = {container["Image"] for container in engine.containers()}
    listing = engine.podman("image", "ls", "--filter", f"label={LABEL}", "--format", "json", what="list images")
    for image in json.loads(listing or "[]"):
        if not in_use & set(image["Names"]):
            engine.podman("image", "rm", image["Id"], what=f"removing the image {' '.join(image['Names'])}")
    shutil.rmtree(lab.state, ignore_errors=True)
    progress.say(f"removed {lab.state} and the images")


def instance_names(engine: Engine) -> list[str]:
    """The instances of this checkout that have a container or a network."""
    labelled = [item["Labels"] for item in engine.containers()] + [item["labels"] for item in engine.networks()]
    return sorted({item[INSTANCE_LABEL] for item in labelled if item[LABEL] == engine.owner})


def status_rows(engine: Engine, lab: Lab) -> list[tuple[str, ...]]:
    """One row per host of every instance of this checkout."""
    rows: list[tuple[str, ...]] = [("INSTANCE", "HOST", "ADDRESS", "DEBIAN", "STATE")]
    for name in instance_names(engine):
        instance = lab.instance(name)
        addresses = ensure_network(engine, instance)
        existing = containers_of(engine, instance)
        for host in instance.hosts:
            container = instance.container(host)
            if container not in existing:
                state = "missing"
            elif is_alive(existing[container]):
                state = "running"
            else:
                state = "stopped"
            rows.append((name, host.name, addresses[host], host.release.codename, state))
    return rows

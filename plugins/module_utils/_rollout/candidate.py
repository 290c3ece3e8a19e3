# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A second server that loads new versions before any client can reach them.

A server answers requests without a version from the highest version that is AVAILABLE, so a new version cannot be
tried in the server itself. The candidate is the server's own unit with other ports, in /run: a reboot forgets it, and
systemd ends it after a time. What it takes down with it is nobody's: what the gateway sends it in a step of a rollout,
the server answers as soon as the candidate is gone.
"""

from __future__ import annotations

import grp
import os
import shutil
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import catalog_samples
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
    check_port,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import (
    UNIT_PATH,
    quoted_argument,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import trial
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.trial import running_path
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.models_config import running_pid
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Server
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.gates import (
    Result,
    difference,
    latency,
    skipped,
    smoke,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MARKER_SECTION,
    family,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    Versions,
    expected_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import render
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    ServingClient,
    ServingError,
    reason,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    Ports,
    command_line,
    local_client,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import (
    NotServed,
    SystemdUnit,
    last_words,
    wait_until_served,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore

# Of all candidates' units, and the directory with what they read. Each has a part of its own, named after its server.
NAME = "tfserving-candidate"
UNITS = Path("/run/systemd/system")
DIRECTORY = Path("/run", NAME)
# How long the gates may take beyond the wait for the server: then systemd ends it, whatever has become of the run.
GATES_SECONDS = 3600


def overrides(command: list[str], where: Ports, models_config: Path, running: Path, seconds: int) -> str:
    """Return what a candidate has otherwise than a server, which was started with this command.

    It can be reached from its own host only, and where memory runs out it goes before any server. running is the
    directory below /run that systemd makes at its start, and removes when it has ended, however that was.
    """
    own = {"port": where.grpc, "rest_api_port": where.rest_api, "model_config_file": models_config}
    words = [word for word in command if word[2:].partition("=")[0] not in (*own, "grpc_socket_path")]
    words += [f"--{flag}={value}" for flag, value in own.items()]
    return (
        f"[Service]\nExecStart=\nExecStart={' '.join(map(quoted_argument, words))}\n"
        # What a drop-in does at a start or a stop is about the server.
        "ExecStartPre=\nExecStartPost=\nExecStop=\nExecStopPost=\n"
        f"RuntimeDirectory=\nRuntimeDirectory={running.name}\nRuntimeDirectoryMode=0755\nRuntimeDirectoryPreserve=no\n"
        f"Restart=no\nRuntimeMaxSec={seconds}\nOOMScoreAdjust=500\n"
        "IPAddressAllow=\nIPAddressDeny=any\nIPAddressAllow=localhost\n"
    )


def _free_ports() -> Ports:
    """Return two ports that nobody has. Who takes one before the server does is found out by its control group."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return Ports(*(one.getsockname()[1] for one in taken))


@contextmanager
def candidate(
    module: AnsibleModule, server: Server, pid: int, wanted: Versions, where: Ports, seconds: int
) -> Iterator[ServingClient]:
    """Run a candidate of a server, which runs as pid, with these versions and ports, and give a client of it.

    It stays, for so many seconds beyond the gates, and is removed where they are 0. Raises NotServed and OSError.
    """
    params = module.params
    name = candidate_name(server)
    unit, directory, since = SystemdUnit(module, f"{name}.service"), DIRECTORY / name, time.time()
    drop_ins = UNITS / f"{unit.name}.d"
    try:
        _make_models(directory, Path(params["base_path"]), wanted, params["group"])
        drop_ins.mkdir(parents=True)
        for file in (UNIT_PATH / f"{server.unit.name}.d").glob("*.conf"):
            (drop_ins / file.name).symlink_to(file)
        # Not one of the servers that these roles know again. Of the drop-ins, the last one counts.
        text = server.unit_file.read_text(encoding="utf-8").partition(f"[{MARKER_SECTION}]")[0]
        (UNITS / unit.name).write_text(text, encoding="utf-8")
        lifetime = params["timeout_seconds"] + GATES_SECONDS + seconds
        config = directory / "models.config"
        text = overrides(command_line(pid), where, config, running_path(name), lifetime)
        (drop_ins / "zzz-candidate.conf").write_text(text, encoding="utf-8")
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        module.run_command(["systemctl", "start", unit.name], check_rc=True)
        client = local_client(where, unit.cgroup)
        try:
            wait_until_served(client, unit, wanted, {}, params["timeout_seconds"])
        except NotServed as error:
            raise NotServed(f"{error}\n{last_words(unit.log(since))}", error.refused) from error
        yield client
    finally:
        if not seconds:
            _remove(module, name)


def candidate_name(server: Server) -> str:
    """Return the unit of a server's candidate, without .service."""
    return f"{NAME}-{server.unit.name.removesuffix('.service')}"


def check_running(module: AnsibleModule, candidates: list[dict[str, Any]]) -> None:
    """Raise NotServed where the port of a candidate, which has unit and port, is not its own any more."""
    for one in candidates:
        unit = SystemdUnit(module, f"{one['unit']}.service")
        try:
            check_port(one["port"], unit.cgroup())
        except OSError as error:
            words = last_words(unit.log(time.time() - GATES_SECONDS))
            raise NotServed(f"the second server has ended: {error}\n{words}") from error


def _make_models(directory: Path, base_path: Path, wanted: Versions, group: str) -> None:
    """Make a base path for each model with links to its versions, distributed or published, and models.config."""
    group_id = grp.getgrnam(group).gr_gid
    links = {name: directory / "models" / name for name in wanted}
    DIRECTORY.mkdir(exist_ok=True)
    directory.mkdir()
    (directory / "models").mkdir()
    for path in links.values():
        path.mkdir()
    for path in (DIRECTORY, directory, directory / "models", *links.values()):
        path.chmod(0o755)  # whatever the umask is
    models = {}
    for name, versions in wanted.items():
        store = ModelStore(base_path / name)
        there = store.published()
        for version in versions:
            path = store.path / there[version] if version in there else store.distributed(version)
            (links[name] / str(version)).symlink_to(path)
        models[name] = {
            "name": name,
            "base_path": str(links[name]),
            "model_platform": "tensorflow",
            "model_version_policy": {"specific": {"versions": sorted(versions)}},
        }
    config = directory / "models.config"
    config.write_text(render(models))
    os.chown(config, 0, group_id)
    config.chmod(0o640)


def remove(module: AnsibleModule) -> bool:
    """End what there is of candidates, after the gateway sends nothing there any more; say whether there was anything.

    Raises NginxError and OSError.
    """
    is_trial = trial.end()
    is_left = _remove(module, f"{NAME}*")
    if DIRECTORY.is_dir():
        shutil.rmtree(DIRECTORY)
    return is_trial or is_left


def _remove(module: AnsibleModule, name: str) -> bool:
    """End the candidates with a name like this, which may be a pattern, and say whether there was one."""
    left = sorted(UNITS.glob(f"{name}.service*"))
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            module.run_command(["systemctl", "stop", path.name])
            path.unlink()
    for path in DIRECTORY.glob(name):
        shutil.rmtree(path)
    if left:
        module.run_command(["systemctl", "daemon-reload"])
        module.run_command(["systemctl", "reset-failed", f"{name}.service"])
    return bool(left)


def run_gates(module: AnsibleModule, params: dict[str, Any]) -> tuple[list[Result], list[dict[str, Any]]]:
    """Try what changes would bring to clients, and return what was measured, and the candidates that stay.

    Versions that a server does not have yet are tried in a candidate, and one that gets a label in the server itself.
    params are those of the module model_candidate, which also says what a candidate that stays has: unit, port and
    models. Raises NotServed where a version is not served, or does not answer, NginxError and OSError.
    """
    remove(module)  # what a run that was killed has left
    has_passed = False
    try:
        results, staying = _run_gates(module, params)
        has_passed = all(one["passed"] for one in results)
    finally:
        if not has_passed:
            remove(module)
    return results, staying if has_passed else []


def _run_gates(module: AnsibleModule, params: dict[str, Any]) -> tuple[list[Result], list[dict[str, Any]]]:
    results: list[Result] = []
    staying: list[dict[str, Any]] = []
    there = family(params["unit"], params["config_path"])
    for one in params["changes"]:
        if one["versions"] and one["unit"] not in there:
            results.append(skipped(one["model"], f"{one['unit']} is new"))
    for unit, directory in there.items():
        server = Server(module, unit, directory)
        changes = {one["model"]: one for one in params["changes"] if one["unit"] == unit}
        pid = running_pid(module, server.unit.name)
        if not changes:
            continue
        if not pid:
            raise NotServed(f"{server.unit.name} does not run, so nothing can be compared with it")
        live, models = server.client(pid), server.models()
        served = {**dict.fromkeys(changes, []), **expected_versions(models)}
        for name, change in changes.items():
            labels = models.get(name, {}).get("version_labels", {})
            for label, version in change["labels"].items():
                if version in served[name] and labels.get(label, version) != version:
                    results += _Gates(live, live, name, params).of(version, labels[label])
        wanted = {
            name: sorted(set(change["versions"]) - set(served[name]))
            for name, change in changes.items()
            if not set(change["versions"]) <= set(served[name])
        }
        # Those of which a new version will answer the requests that name none.
        takes = [name for name, new in wanted.items() if served[name] and max(changes[name]["versions"]) in new]
        seconds = params["stay_seconds"] if takes else 0
        if wanted:
            where = _free_ports()
            with candidate(module, server, pid, wanted, where, seconds) as new:
                for name, versions in wanted.items():
                    gates, running = _Gates(new, live, name, params), max(served[name], default=None)
                    results += [result for version in versions for result in gates.of(version, running)]
            if seconds:
                staying.append({"unit": candidate_name(server), "port": where.rest_api, "models": takes})
    return results, staying


class _Gates:
    """The gates of one model: new is a client of what has the new version, old one of the server."""

    def __init__(
        self,
        new: ServingClient,
        old: ServingClient,
        model: str,
        params: dict[str, Any],
    ) -> None:
        self._new = new
        self._old = old
        self._model = model
        self._samples = catalog_samples(params["catalog"]).get(model, [])
        self._params = params

    def of(self, version: int, running: int | None) -> list[Result]:
        """Compare a version with the running one. Raises NotServed where one does not answer a sample."""
        if not self._samples:
            return [self._skipped("no sample_requests")]
        if running is not None and not self._is_answered(running):
            running = None
        found = [self._smoke(version, running, sample) for sample in self._samples]
        if running is None:
            return [*found, self._skipped("no running version that answers the samples")]
        if not self._params["latency"]["requests"]:
            return found
        measured = self._latency(version, running)
        # What else the host does can slow one down for a moment. The second time counts.
        if not all(one["passed"] for one in measured):
            measured = self._latency(version, running)
        return [*found, *measured]

    def _latency(self, version: int, running: int) -> list[Result]:
        limits = self._params["latency"]
        old: list[float] = []
        new: list[float] = []
        for count in range(limits["warmup_requests"] + limits["requests"]):
            sample = self._samples[count % len(self._samples)]
            for client, number, seconds in ((self._old, running, old), (self._new, version, new)):
                with self._answering(number):
                    seconds.append(
                        client.predict_seconds(self._model, number, sample["signature_name"], sample["instances"])
                    )
        warm = slice(limits["warmup_requests"], None)
        return latency(self._model, old[warm], new[warm], limits["max_ratio"], limits["max_p99_ratio"])

    def _is_answered(self, running: int) -> bool:
        """Say whether the running version takes the samples, which are those of the new one."""
        try:
            for sample in self._samples:
                self._old.predict(self._model, running, sample["signature_name"], sample["instances"])
        except ServingError:
            return False
        return True

    def _smoke(self, version: int, running: int | None, sample: dict[str, Any]) -> Result:
        answer = self._answer(self._new, version, sample)
        if "expected" in sample:
            found = difference(answer, sample["expected"])
            return smoke(self._model, found, sample["tolerance"], "what is expected")
        if running is None:
            return self._skipped("no running version that answers the samples")
        found = difference(answer, self._answer(self._old, running, sample))
        return smoke(self._model, found, self._params["smoke"]["max_difference"], f"version {running}")

    def _answer(self, client: ServingClient, version: int, sample: dict[str, Any]) -> list[Any]:
        with self._answering(version):
            return client.predict(self._model, version, sample["signature_name"], sample["instances"])

    @contextmanager
    def _answering(self, version: int) -> Iterator[None]:
        what = f"{self._model} version {version}: a sample request"
        try:
            yield
        except ServingError as error:
            raise NotServed(f"{what} is answered {error.status}: {error}") from error
        except ForeignListener:
            raise
        except OSError as error:
            raise NotServed(f"{what} is not answered: {reason(error)}") from error

    def _skipped(self, why: str) -> Result:
        return skipped(self._model, why)

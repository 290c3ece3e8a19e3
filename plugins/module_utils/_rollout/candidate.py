# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A second server that loads new versions before any client can reach them.

A server answers requests without a version from the highest version that is AVAILABLE, so a new version cannot be
tried in the server itself. The candidate is the server's own unit with other ports, in /run: a reboot forgets it, and
systemd ends it after a time. What it takes down with it is nobody's.
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
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import (
    UNIT_PATH,
    quoted_argument,
)
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

UNIT = "tfserving-candidate.service"
UNIT_FILE = Path("/run/systemd/system", UNIT)
DROP_INS = Path(f"{UNIT_FILE}.d")
DIRECTORY = Path("/run/tfserving-candidate")
# How long the gates may take beyond the wait for the server: then systemd ends it, whatever has become of the run.
GATES_SECONDS = 3600


def overrides(command: list[str], where: Ports, models_config: Path, seconds: int) -> str:
    """Return what a candidate has otherwise than a server, which was started with this command.

    It can be reached from its own host only, and where memory runs out it goes before any server.
    """
    own = {"port": where.grpc, "rest_api_port": where.rest_api, "model_config_file": models_config}
    words = [word for word in command if word[2:].partition("=")[0] not in (*own, "grpc_socket_path")]
    words += [f"--{flag}={value}" for flag, value in own.items()]
    return (
        f"[Service]\nExecStart=\nExecStart={' '.join(map(quoted_argument, words))}\n"
        # What a drop-in does at a start or a stop is about the server.
        "ExecStartPre=\nExecStartPost=\nExecStop=\nExecStopPost=\nRuntimeDirectory=\n"
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
    module: AnsibleModule, server: Server, pid: int, base_path: Path, wanted: Versions, group: str, timeout_seconds: int
) -> Iterator[ServingClient]:
    """Run a candidate of a server, which runs as pid, with these versions, and give a client of it.

    Raises NotServed and OSError.
    """
    unit, where, since = SystemdUnit(module, UNIT), _free_ports(), time.time()
    _remove(module)  # what a run that was killed has left
    try:
        _make_models(base_path, wanted, group)
        DROP_INS.mkdir(parents=True)
        for file in (UNIT_PATH / f"{server.unit.name}.d").glob("*.conf"):
            (DROP_INS / file.name).symlink_to(file)
        # Not one of the servers that these roles know again. Of the drop-ins, the last one counts.
        text = server.unit_file.read_text(encoding="utf-8").partition(f"[{MARKER_SECTION}]")[0]
        UNIT_FILE.write_text(text, encoding="utf-8")
        text = overrides(command_line(pid), where, DIRECTORY / "models.config", timeout_seconds + GATES_SECONDS)
        (DROP_INS / "zzz-candidate.conf").write_text(text, encoding="utf-8")
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        module.run_command(["systemctl", "start", UNIT], check_rc=True)
        client = local_client(where, unit.cgroup)
        try:
            wait_until_served(client, unit, wanted, {}, timeout_seconds)
        except NotServed as error:
            raise NotServed(f"{error}\n{last_words(unit.log(since))}", error.refused) from error
        yield client
    finally:
        _remove(module)


def _make_models(base_path: Path, wanted: Versions, group: str) -> None:
    """Make a base path for each model with links to its versions, distributed or published, and models.config."""
    group_id = grp.getgrnam(group).gr_gid
    links = {name: DIRECTORY / "models" / name for name in wanted}
    for directory in (DIRECTORY, DIRECTORY / "models", *links.values()):
        directory.mkdir()
        directory.chmod(0o755)  # whatever the umask is
    models = {}
    for name, versions in wanted.items():
        store = ModelStore(base_path / name)
        there = store.published()
        for version in versions:
            directory = store.path / there[version] if version in there else store.distributed(version)
            (links[name] / str(version)).symlink_to(directory)
        models[name] = {
            "name": name,
            "base_path": str(links[name]),
            "model_platform": "tensorflow",
            "model_version_policy": {"specific": {"versions": sorted(versions)}},
        }
    config = DIRECTORY / "models.config"
    config.write_text(render(models))
    os.chown(config, 0, group_id)
    config.chmod(0o640)


def _remove(module: AnsibleModule) -> None:
    if UNIT_FILE.exists():
        module.run_command(["systemctl", "stop", UNIT])
        UNIT_FILE.unlink()
    for directory in (DROP_INS, DIRECTORY):
        if directory.is_dir():
            shutil.rmtree(directory)
    module.run_command(["systemctl", "daemon-reload"])
    module.run_command(["systemctl", "reset-failed", UNIT])


def run_gates(module: AnsibleModule, params: dict[str, Any]) -> list[Result]:
    """Try what changes would bring to clients, and return what was measured.

    Versions that a server does not have yet are tried in a candidate, and one that gets a label in the server itself.
    params are those of the module model_candidate. Raises NotServed where a version is not served, or does not answer.
    """
    results: list[Result] = []
    there = family(params["unit"], params["config_path"])
    for one in params["changes"]:
        if one["versions"] and one["unit"] not in there:
            results.append(skipped(one["model"], f"{one['unit']} is new"))
    base_path, group, timeout = Path(params["base_path"]), params["group"], params["timeout_seconds"]
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
        if wanted:
            with candidate(module, server, pid, base_path, wanted, group, timeout) as new:
                for name, versions in wanted.items():
                    gates, running = _Gates(new, live, name, params), max(served[name], default=None)
                    results += [result for version in versions for result in gates.of(version, running)]
    return results


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

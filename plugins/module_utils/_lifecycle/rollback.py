# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rolls back to the last good configuration, and withdraws versions that a server refuses."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import ManagedFile
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import (
    UNIT_PATH,
    properties_of,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.history import note_served
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    parse_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import (
    MODELS_CONFIG,
    family,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.last_good import (
    LastGood,
    describe,
    files_of,
    read_last_good,
    write_last_good,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    LiveConfig,
    Models,
    NotTaken,
    expected_versions,
    observe,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import (
    read,
    render,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    ServingClient,
    ServingError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    local_client,
    poll_wait_seconds,
    ports,
    process_flags,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import (
    NotServed,
    Refusals,
    SystemdUnit,
    wait_until_served,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.text_format import TextFormatError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import (
    bring_back,
    prove,
    set_aside,
    unproven,
    withdraw,
)

# So often the servers are looked at again after versions that they have refused were withdrawn.
ATTEMPTS = 3


class Server:
    """One unit of a family, with its configuration directory."""

    def __init__(self, module: AnsibleModule, unit: str, directory: str) -> None:
        self.module = module
        self.unit = SystemdUnit(module, f"{unit}.service")
        self.unit_file = UNIT_PATH / self.unit.name
        self.models_config = Path(directory, MODELS_CONFIG)

    def reads_at_start(self, path: str) -> bool:
        """Say whether a file takes effect at a start of the server only."""
        in_directory = Path(path).parent == self.models_config.parent and Path(path).name != MODELS_CONFIG
        return in_directory or path == str(self.unit_file)

    def models(self) -> Models:
        """Return what its models.config says, nothing where it cannot be read."""
        return read(self.models_config)[1] or {}

    def flags(self, pid: int) -> dict[str, str]:
        """Return the flags of its process, or those with which systemd would start it."""
        facts = describe(self.unit_file) or {"text": ""}
        return process_flags(pid) or dict(re.findall(r"--(\w+)=(\S+)", facts["text"]))

    def restart(self) -> None:
        """Start it at boot and now, whatever systemd thinks of its failures."""
        for word in ("reset-failed", "enable", "restart"):
            self.module.run_command(["systemctl", word, self.unit.name])

    def client(self, pid: int) -> ServingClient:
        """Return a client that takes no other's answers."""
        return local_client(ports(self.flags(pid)), self.unit.cgroup)


class Servers:
    """All units of one tfserving_service_name. samples are requests by model, as catalog_samples returns them."""

    def __init__(
        self,
        module: AnsibleModule,
        unit: str,
        config_path: str,
        samples: dict[str, list[dict[str, Any]]],
        timeout_seconds: float,
    ) -> None:
        self._module = module
        self._unit, self._config_path = unit, config_path
        self._samples, self._timeout_seconds = samples, timeout_seconds
        self._restored: list[str] = []
        self._withdrawn: list[dict[str, Any]] = []
        self._started: set[str] = set()

    def record(self, unless_recorded: bool) -> None:
        """Record what serves; see the module's options. Raises OSError."""
        servers = self._servers(family(self._unit, self._config_path))
        if not servers:
            return
        if unless_recorded and (read_last_good(self._config_path) or not all(map(self._serves_all, servers))):
            return
        names = [server.unit.name for server in servers]
        states = {} if unless_recorded else properties_of(self._module, names, "InvocationID")
        invocations = {name: facts.get("InvocationID", "") for name, facts in states.items()}
        write_last_good(self._config_path, family(self._unit, self._config_path), invocations)
        if unless_recorded:  # what has served, but for what was published since
            return
        note_served(self._config_path, [str(server.models_config.parent) for server in servers])
        for server in servers:
            models = server.models()
            for name, versions in expected_versions(models).items():
                for version in versions:
                    prove(ModelStore(Path(models[name]["base_path"])), version)

    def roll_back(self, restart: bool, refused_before: list[dict[str, Any]]) -> dict[str, Any]:
        """Roll back to what was recorded, and return the module's result. Raises OSError."""
        record = read_last_good(self._config_path)
        servers = self._servers(record.directories if record else family(self._unit, self._config_path))
        if record:
            self._restore(record, servers)
        if not restart and not any(server.reads_at_start(path) for server in servers for path in self._restored):
            for one in refused_before:
                self._withdraw(ModelStore(Path(one["path"])), one["model"], one["version"], one["reason"])
        problems = self._serve(servers, record, is_forced=restart)
        for _ in range(ATTEMPTS):
            refused = self._refused(servers, problems)
            if not refused:
                break
            for (model, version), (store, why) in refused.items():
                self._withdraw(store, model, version, why)
            problems = self._serve(servers, record)
        if problems and record and self._serves_without_unproven(servers, problems, record):
            problems = {}
        if not problems:
            self.record(unless_recorded=False)
        return self._result(problems, is_recorded=record is not None)

    def _serves_without_unproven(self, servers: list[Server], problems: dict[str, NotServed], record: LastGood) -> bool:
        """Say whether the servers serve without the versions that none has served yet, where none says which it is.

        They are withdrawn if that helps, and not to blame if it does not.
        """
        suspects = self._unproven(servers, problems)
        if not suspects:
            return False
        for (_, version), store in suspects.items():
            set_aside(store, version)
        helps = not self._serve(servers, record)
        for (model, version), store in suspects.items():
            bring_back(store, version)
            if helps:
                self._withdraw(store, model, version, "the server does not serve with it")
        for server in servers if not helps else []:
            self._restore_models(server, record, 0)
        return helps

    def _withdraw(self, store: ModelStore, model: str, version: int, reason: str) -> None:
        if version in unproven(store):
            withdraw(store, version, reason)
            self._withdrawn.append({"model": model, "version": version, "reason": reason})

    def _result(self, problems: dict[str, NotServed], is_recorded: bool) -> dict[str, Any]:
        words = [
            f"{one['model']} version {one['version']} was withdrawn: {one['reason'].rstrip('.')}."
            for one in self._withdrawn
        ]
        if self._restored:
            words.append(f"Restored {', '.join(self._restored)}.")
        if problems:
            words.append("What served before does not serve: " + " ".join(map(str, problems.values())))
        elif is_recorded:
            words.append("What served before serves.")
        return {
            "changed": bool(self._withdrawn or self._restored or self._started),
            "served": not problems,
            "withdrawn": self._withdrawn,
            "restored": self._restored,
            "message": " ".join(words),
        }

    def _servers(self, directories: dict[str, str]) -> list[Server]:
        return [Server(self._module, unit, directory) for unit, directory in directories.items()]

    def _restore(self, record: LastGood, servers: list[Server]) -> None:
        """Restore units and files, but for each models.config: see _restore_models."""
        there = family(self._unit, self._config_path)
        for unit in sorted(set(there) - set(record.directories)):
            self._systemctl("disable", "--now", f"{unit}.service")
        later = {str(server.models_config) for server in servers}
        for path in sorted(str(path) for path in files_of({**there, **record.directories})):
            if path not in record.files and Path(path).exists():
                Path(path).unlink()
                self._restored.append(path)
        for directory in set(there.values()) - {*record.directories.values(), self._config_path}:
            with suppress(OSError):  # what else lies there is the user's
                Path(directory).rmdir()
        for path, facts in record.files.items():
            if not record.is_as_on_disk(path) and path not in later:
                self._file(path, facts).write(facts["text"])
                self._restored.append(path)
        if self._restored:
            self._systemctl("daemon-reload")

    def _file(self, path: str, facts: dict[str, str]) -> ManagedFile:
        folder = Path(path).parent
        if not folder.is_dir():
            folder.mkdir(mode=0o751)
            self._module.set_group_if_different(str(folder), facts["group"], False)
        return ManagedFile(self._module, Path(path), facts["owner"], facts["group"], facts["mode"])

    def _serve(self, servers: list[Server], record: LastGood | None, is_forced: bool = False) -> dict[str, NotServed]:
        """Have all servers run with the files that are there now, wait, and return those that do not serve."""
        starting = [server for server in servers if is_forced or self._has_to_start(server, record)]
        for server in starting:
            self._restore_models(server, record, 0)
        for server in starting[1:] and starting:  # one may have the port of another
            self._systemctl("stop", server.unit.name)
        for server in starting:
            self._start(server)
        problems = {}
        for server in servers:
            pid = int(properties_of(self._module, [server.unit.name], "MainPID")[server.unit.name].get("MainPID") or 0)
            if server not in starting:
                self._restore_models(server, record, pid)
            models = server.models()
            expected = expected_versions(models)
            # A version that has served before is not judged by samples that may be new.
            samples = {
                model: self._samples.get(model, [])
                for model, versions in expected.items()
                if set(versions) & set(unproven(ModelStore(Path(models[model]["base_path"]))))
            }
            try:
                wait_until_served(server.client(pid), server.unit, expected, samples, self._timeout_seconds)
            except NotServed as error:
                problems[server.unit.name] = error
        return problems

    def _has_to_start(self, server: Server, record: LastGood | None) -> bool:
        """Say whether a server does not answer, or was started from other files than are there now."""
        name = server.unit.name
        states = properties_of(self._module, [name], "MainPID", "InvocationID")[name]
        is_outdated = (
            any(map(server.reads_at_start, self._restored))
            and name not in self._started
            and (record is None or record.invocations.get(name) != states.get("InvocationID"))
        )
        return is_outdated or not self._answers(server, int(states.get("MainPID") or 0))

    def _start(self, server: Server) -> None:
        server.restart()
        self._started.add(server.unit.name)

    def _systemctl(self, *words: str) -> None:
        self._module.run_command(["systemctl", *words])

    @staticmethod
    def _answers(server: Server, pid: int) -> bool:
        """Say whether a server answers from its own ports, whatever it says."""
        if not pid:
            return False
        try:
            server.client(pid).status("")
        except (ServingError, ForeignListener):
            return True  # of a foreign port a restart is no cure
        except OSError:
            return False
        return True

    def _serves_all(self, server: Server) -> bool:
        """Say whether a server has a version of each of its models, whatever else was published meanwhile."""
        pid = int(properties_of(self._module, [server.unit.name], "MainPID")[server.unit.name].get("MainPID") or 0)
        models = server.models()
        observed = observe(server.client(pid), models) if pid and models else None
        return bool(observed and observed.answers and all(observed.available.get(model) for model in models))

    def _restore_models(self, server: Server, record: LastGood | None, pid: int) -> None:
        """Restore models.config, less the models of which no version is left: they would keep a server from starting.

        A server that runs, as pid, is told of it in steps. Without a record the file stays, less the same.
        """
        path = str(server.models_config)
        facts = record.files.get(path) if record else describe(server.models_config)
        if facts is None:
            return
        try:
            models = parse_models_config(facts["text"])
        except TextFormatError:
            return  # what an earlier release, or somebody else, has left
        wanted = {name: models[name] for name, versions in expected_versions(models).items() if versions}
        text = facts["text"] if wanted == models else render(wanted)
        if describe(server.models_config) == {**facts, "text": text}:
            return
        file = self._file(path, facts)
        self._restored += [] if path in self._restored else [path]
        if pid:
            poll_wait = poll_wait_seconds(server.flags(pid))
            live = LiveConfig(server.client(pid), server.unit, file.write, render, {}, self._timeout_seconds, poll_wait)
            with suppress(NotTaken):  # whether it serves is seen later
                live.replace(server.models(), wanted, text)
        if describe(server.models_config) != {**facts, "text": text}:
            file.write(text)

    def _unproven(self, servers: list[Server], problems: dict[str, NotServed]) -> dict[tuple[str, int], ModelStore]:
        """Return the versions that a server with a problem is to serve and none has served yet, with their stores."""
        found: dict[tuple[str, int], ModelStore] = {}
        for server in servers:
            error = problems.get(server.unit.name)
            if error is None or isinstance(error.__cause__, ForeignListener):
                continue
            models = server.models()
            for name, versions in expected_versions(models).items():
                store = ModelStore(Path(models[name]["base_path"]))
                found.update({(name, one): store for one in unproven(store) if one in versions})
        return found

    def _refused(
        self, servers: list[Server], problems: dict[str, NotServed]
    ) -> dict[tuple[str, int], tuple[ModelStore, str]]:
        """Return the unproven versions that a server has refused, with their stores and its words."""
        words: Refusals = {key: why for error in problems.values() for key, why in error.refused.items()}
        suspects = self._unproven(servers, problems)
        return {key: (store, words[key]) for key, store in suspects.items() if key in words}

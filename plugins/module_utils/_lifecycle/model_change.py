# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings one server from some ModelConfigs to others, with a restart only where it cannot be told while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import ManagedFile
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.models_config import (
    running_pid,
    why_not_live,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.rollback import Server
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    LiveConfig,
    Models,
    NotTaken,
    Observed,
    Stuck,
    Versions,
    observe,
    published_of,
    wanted_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import (
    read,
    render,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.server_process import (
    poll_wait_seconds,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import (
    wait_until_served,
)


@dataclass
class ModelChange:
    """One server whose models.config changes: before and after are the models, text is what lies there before.

    Of models that stay as they are, waited is only for what was served before: they may have troubles of their own.
    """

    server: Server
    file: ManagedFile
    before: Models
    after: Models
    text: str
    timeout_seconds: float
    at_start: Observed = field(init=False)

    def __post_init__(self) -> None:
        self.at_start = observe(self.server.client(self._pid()), self.before, self.after)

    def _pid(self) -> int:
        return running_pid(self.server.module, self.server.unit.name)

    def _published(self) -> Versions:
        """Return the versions on disk, of models that stay as they are those that are served."""
        published = published_of(self.after)
        return {
            name: [one for one in versions if one in self.at_start.available.get(name, [])]
            if self.after[name] == self.before.get(name)
            else versions
            for name, versions in published.items()
        }

    def _live(self, pid: int) -> LiveConfig:
        server, poll_wait = self.server, poll_wait_seconds(self.server.flags(pid))
        return LiveConfig(server.client(pid), server.unit, self.file.write, render, {}, self.timeout_seconds, poll_wait)

    def carry_out(self) -> None:
        """Have the server serve it; one that cannot be told while it runs is restarted. Raises NotTaken and NotServed.

        Where a running server does not take the new file, it has the old one again.
        """
        pid, path = self._pid(), str(self.server.models_config)
        client = self.server.client(pid)
        if not why_not_live(pid, self.server.flags(pid), path, client, self.before, self.after):
            live = self._live(pid)
            try:
                live.replace(self.before, self.after, render(self.after), self._published())
                return
            except Stuck:
                pass  # a restart helps
            except NotTaken as error:
                raise NotTaken(f"{str(error).rstrip('.')}. {self.put_back()}", error.refused) from error
        self.file.write(render(self.after))
        self.server.restart()
        published = self._published()
        expected = {name: wanted_versions(model, published[name]) for name, model in self.after.items()}
        client = self.server.client(self._pid())
        wait_until_served(client, self.server.unit, expected, {}, self.timeout_seconds)

    def put_back(self) -> str:
        """Have the server at the old file again, and return a sentence about that."""
        try:
            current = read(self.server.models_config)[1] or {}
            return self._live(self._pid()).put_back(current, self.before, self.text, self.at_start)
        except Stuck as error:
            self.file.write(self.text)
            return f"{error}; restart it"

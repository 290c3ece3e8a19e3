# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls functions of the collection's module_utils on a host.

Ansible sends some 120 KB of its own with each module that a host runs. This sends the function's own source with what
it imports, a tenth of that, so that a fleet does not hang on the controller's uplink.
"""

from __future__ import annotations

import ast
import json
import shlex
import zlib
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

from ansible import constants
from ansible.errors import AnsibleActionFail

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common import host_lock, received_call
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model import version_files
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.run_cache import run_name

PYTHON = "/usr/bin/python3"  # where Debian has it, and the modules that are Debian's packages
PACKAGE = received_call.__name__.rsplit(".", 2)[0]
# Reads everything before it begins, from standard input or the file that is its argument. There are no single quotes in
# it, which shells would have to have quoted again.
START = (
    'import json,sys,zlib;f=open(sys.argv[1],"rb") if sys.argv[1:] else sys.stdin.buffer;'
    "p=json.loads(zlib.decompress(f.read()));n={};"
    f'exec(p["sources"]["{received_call.__name__}"],n);n["run"](p)'
)


COMPRESSION = 3  # of 0 to 9: lists of thousands of files take longer to be packed tighter than to travel


class HostProgram:
    """The host of an action's connection, as the user that the task becomes there."""

    def __init__(self, action: Any, task_vars: dict[str, Any]) -> None:
        self._action = action
        self._task_vars = task_vars

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Call a public function of module_utils with arguments that JSON can carry, and return what it returns.

        Raises AnsibleActionFail for what goes wrong, with the words of the function's OSError or SavedModelError.
        """
        payload = {
            "sources": dict(_sources(function.__module__, version_files.__name__, received_call.__name__)),
            "module": function.__module__,
            "function": function.__name__,
            "arguments": arguments,
            "errors": version_files.__name__,
            "lock": [host_lock.LOCK, run_name()],
        }
        done = self._start(zlib.compress(json.dumps(payload).encode(), COMPRESSION))
        answer = _read_answer(done["stdout"])
        if answer is None:
            words = (done["stderr"] or done["stdout"]).strip()
            raise AnsibleActionFail(f"{self._python()} on the host stopped with code {done['rc']}:\n{words}")
        if "error" in answer:
            raise AnsibleActionFail(answer["error"])
        return answer["result"]

    def _start(self, call: bytes) -> dict[str, Any]:
        """Start Python with a call: over standard input, or from a file where the connection has no pipelining.

        Then sudo can have a terminal, which `Defaults requiretty` asks for. Ansible removes the file after the task.
        """
        action = self._action
        command = [self._python(), "-c", START]
        options: dict[str, Any] = {}
        if action._is_pipelining_enabled("new"):  # noqa: SLF001 - these are there for actions
            options["in_data"] = call
        else:
            directory = action._connection._shell.tmpdir or action._make_tmp_path()  # noqa: SLF001
            file = action._connection._shell.join_path(directory, "call")  # noqa: SLF001
            action._transfer_data(file, call)  # noqa: SLF001
            action._fixup_perms2([directory, file], execute=False)  # noqa: SLF001
            command.append(file)
        environment = action._compute_environment_string().strip()  # noqa: SLF001 - as Ansible's modules get it
        done: dict[str, Any] = action._low_level_execute_command(  # noqa: SLF001
            f"{environment} {shlex.join(command)}".strip(), **options
        )
        return done

    def run_as_login_user(self, command: str) -> str:
        """Run a command without becoming another user, and return what it prints."""
        done = self._action._low_level_execute_command(command, sudoable=False)  # noqa: SLF001 - as above
        return str(done["stdout"])

    def _python(self) -> str:
        """Return the interpreter that is configured for the host."""
        template = constants.config.get_config_value("INTERPRETER_PYTHON", variables=self._task_vars)
        configured = str(self._action._templar.template(template))  # noqa: SLF001 - as above
        return PYTHON if configured.startswith("auto") else configured


def _read_answer(output: str) -> dict[str, Any] | None:
    """Return the answer in the last line: a shell may have printed its own before it."""
    try:
        answer = json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and answer.keys() & {"result", "error"} else None


@lru_cache(maxsize=None)
def _sources(*names: str) -> tuple[tuple[str, str], ...]:
    """Return the sources of these modules and of all that they import of the collection, by their full names."""
    sources: dict[str, str] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name not in sources:
            sources[name] = Path(str(import_module(name).__file__)).read_text()
            left += _imported(sources[name])
    return tuple(sources.items())


def _imported(source: str) -> set[str]:
    """Return the modules of the collection that a source imports anywhere, in either form of `from`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE}."):
            if hasattr(import_module(str(node.module)), "__path__"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                names.add(str(node.module))
    return names

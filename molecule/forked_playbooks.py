"""ansible-playbook, without what it takes each time to be imported and to build the same modules: a third of its time.

A process imports Ansible once. A copy of it plays each playbook, with a temporary directory of its own, as always, in
which the modules are that an earlier one has built.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import NoReturn

# What every playbook loads: Ansible's list of what its plugins were called once, and this collection's largest plugins.
PRELOADED = (
    "ansible.builtin",
    "modelops.tensorflow_serving.plugins.action.check_input",
    "modelops.tensorflow_serving.plugins.action.saved_models",
)
BUILT_MODULES = "ansiballz_cache"  # as ansible/executor/module_common.py names it


class ForkedPlaybooks:
    """Plays playbooks in an environment that all of them have."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Return how ansible-playbook ended, whose command line that is."""
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.TemporaryDirectory() as directory:
            outputs = [Path(directory, name) for name in ("stdout", "stderr")]
            print(json.dumps([command, *map(str, outputs)]), file=self._process.stdin, flush=True)
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(command, status, *(path.read_text() for path in outputs))

    def close(self) -> None:
        self._process.communicate()


def serve() -> None:
    """Play what is asked for on standard input, a line each, and answer with the exit status."""
    from ansible import constants
    from ansible.cli import playbook
    from ansible.plugins.loader import init_plugin_loader

    init_plugin_loader()
    warnings.filterwarnings("ignore", message="AnsibleCollectionFinder has already been configured")
    for name in PRELOADED:
        import_module(f"ansible_collections.{name}")

    shared = Path(constants.DEFAULT_LOCAL_TMP, BUILT_MODULES)
    shared.mkdir()

    def play(command: list[str], stdout: str, stderr: str) -> NoReturn:
        for number, opened in enumerate((os.devnull, stdout, stderr)):
            os.dup2(os.open(opened, os.O_RDWR | os.O_CREAT), number)
        Path(own, BUILT_MODULES).symlink_to(shared)
        constants.DEFAULT_LOCAL_TMP = own
        status = 1
        try:
            playbook.main(command)
        except SystemExit as end:
            status = end.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # what is to be done at the end is the first process's

    for line in sys.stdin:
        own = tempfile.mkdtemp(prefix="ansible-local-", dir=shared.parents[1])
        child = os.fork()
        if not child:
            play(*json.loads(line))
        _, status = os.waitpid(child, 0)
        shutil.rmtree(own)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()

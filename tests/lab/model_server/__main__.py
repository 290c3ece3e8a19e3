"""Entry point: answers --version and usage questions at once, imports TensorFlow only to serve."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import signal
import sys
from pathlib import Path

from . import flags, log

FAILURE = 255  # main() of the real server returns -1


def server_version() -> str:
    """Return the version of the model server: that of the VERSION file beside this one, else that of its API."""
    stamp = Path(__file__).with_name("VERSION")
    if stamp.is_file():
        return stamp.read_text(encoding="utf-8").strip()
    return importlib.metadata.version("tensorflow-serving-api")


def library_version() -> str:
    """Return the version of the installed TensorFlow, without importing it."""
    try:
        return importlib.metadata.version("tensorflow-cpu")
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("tensorflow")


def leave_out_the_python_api() -> None:
    """Let TensorFlow's parts be imported without its package's own __init__, which takes five times as long as they."""
    spec = importlib.machinery.PathFinder.find_spec("tensorflow")
    if spec and "tensorflow" not in sys.modules:
        package = importlib.util.module_from_spec(spec)
        sys.modules["tensorflow"] = package


def main(argv: list[str]) -> int:
    """Run the server with a command line without the program's name; returns the exit status, or never."""
    usage = flags.usage(sys.argv[0])
    parsed = flags.parse(argv)
    if not parsed.ok:
        sys.stdout.write(usage)
        return FAILURE
    if parsed.values["version"]:
        print(f"TensorFlow ModelServer: {server_version()}\nTensorFlow Library: {library_version()}")
        return 0
    if parsed.unknown:
        sys.stdout.write(f"unknown argument: {parsed.unknown[0]}\n{usage}")
        sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What Python's TensorFlow says of itself, the real one does not; log.py has read the variable before.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = str(max(1, log.min_level(os.environ.get("TF_CPP_MIN_LOG_LEVEL", ""))))

    leave_out_the_python_api()

    from .status import StatusError

    try:
        from . import server

        running = server.build_and_start(parsed.values)
    except StatusError as error:
        print(f"Failed to start server. Error: {error}")
        return FAILURE
    running.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

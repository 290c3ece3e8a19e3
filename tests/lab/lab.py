#!/usr/bin/env python3
"""The lab: three real systemd hosts over ssh and one infrastructure host, in podman containers."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import instance
import machine
from command import LabError, Progress
from engine import prepare_engine

CHECKOUT = Path(__file__).resolve().parents[2]
NOT_INSTANCES = ("runtime", "scratch")  # names that .lab/ has other uses for


def instance_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", text) or text in NOT_INSTANCES:
        raise argparse.ArgumentTypeError(
            f"{text!r}: use small letters, digits and '-', and not {' or '.join(NOT_INSTANCES)}"
        )
    return text


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    explained = {"up": "build, create and start what is missing", "down": "remove one instance; the caches stay"}
    for command, explanation in explained.items():
        one = commands.add_parser(command, help=explanation)
        default = os.environ.get("TFSERVING_LAB") or "serve"
        one.add_argument("--name", type=instance_name, default=default, help=f"the instance (default: {default})")
        if command == "up":
            one.add_argument(
                "--model-hosts",
                type=int,
                choices=range(instance.MODEL_HOSTS, instance.MOST_MODEL_HOSTS + 1),
                metavar="N",
                help=f"how many model hosts, {instance.MODEL_HOSTS} or more (default: as many as there are)",
            )
    commands.add_parser("status", help="list the hosts")
    commands.add_parser("clean", help="remove all instances, images and caches")
    programs = commands.add_parser("packages", help="check for the programs that the lab needs")
    programs.add_argument("--install", action="store_true", help="install what is missing, with apt-get")
    return parser.parse_args(argv)


@contextmanager
def alone(lab: instance.Lab) -> Iterator[None]:
    """One command at a time in a checkout: instances share caches and the choice of subnets."""
    lab.state.mkdir(exist_ok=True)
    with (lab.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def packages(install: bool, progress: Progress) -> None:
    if install:
        names = machine.install_packages()
        progress.say(f"installed {' '.join(names)}" if names else "all packages are there")
    machine.require_packages()


def run_command(options: argparse.Namespace, progress: Progress) -> None:
    machine.require_root_on_linux()
    if options.command == "packages":
        packages(options.install, progress)
        return
    machine.require_packages()
    lab = instance.Lab(CHECKOUT)
    with alone(lab):
        engine = prepare_engine(lab.state)
        if options.command == "up":
            instance.up(engine, lab.instance(options.name), progress, options.model_hosts)
        elif options.command == "down":
            instance.down(engine, lab.instance(options.name), progress)
        elif options.command == "clean":
            instance.clean(engine, lab, progress)
        else:
            rows = instance.status_rows(engine, lab)
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main(argv: list[str]) -> int:
    options = parse(argv)
    try:
        run_command(options, Progress())
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

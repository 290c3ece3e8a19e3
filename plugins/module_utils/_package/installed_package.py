# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Builds the .deb of an installed package again, from its files and from what dpkg knows of it.

Source of the forms: dpkg-query(1), dpkg(1) of --verify, deb-control(5). What an installed package has beside its own
fields: dpkg's lib/dpkg/parse.c.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Callable, Sequence

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import PackageError

Run = Callable[[Sequence[str]], "tuple[int, str]"]
"""Runs a program; returns its exit status and all that it printed."""

INFO = Path("/var/lib/dpkg/info")
# Fields of an installed package that its .deb has not.
STATUS_FIELDS = ("Status", "Conffiles", "Config-Version", "Triggers-Pending", "Triggers-Awaited")


def rebuild(run: Run, name: str, tree: Path, deb: Path) -> None:
    """Write deb, of an installed package; tree is a directory to work in, which is gone afterwards.

    Raises PackageError and OSError where it would not be what dpkg has installed.
    """

    def ask(*command: str) -> str:
        code, output = run(command)
        if code:
            raise PackageError(" ".join(output.split()))
        return output.strip("\n")

    paths = ask("dpkg-query", "--listfiles", name).splitlines()
    refuse_altered(name, paths, run(["dpkg", "--verify", name])[1])
    try:
        copy_files([Path(path) for path in paths if path != "/."], tree)
        control = tree / "DEBIAN"
        control.mkdir()
        control.chmod(0o755)
        (control / "control").write_text(control_file(ask("dpkg-query", "--status", name)))
        for member in ask("dpkg-query", "--control-list", name).split():
            shutil.copy2(ask("dpkg-query", "--control-path", name, member), control / member)
        part = deb.with_name(f"{deb.name}.part")
        # Fast rather than small: it is needed for a few minutes.
        ask("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(part))
        part.replace(deb)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def control_file(status: str) -> str:
    """Return the control file of a package from what `dpkg-query --status` prints."""
    fields = re.split(r"\n(?!\s)", status.strip("\n"))
    return "".join(f"{field}\n" for field in fields if field.partition(":")[0] not in STATUS_FIELDS)


def refuse_altered(name: str, paths: Sequence[str], verified: str, info: Path = INFO) -> None:
    """Raise PackageError where a file is not the package's own any more; verified is what `dpkg --verify` prints."""
    # A configuration file (c) may differ, and stays as it is when the .deb is installed.
    wrong = [line.split()[-1] for line in verified.splitlines() if line.strip() and not re.match(r"\S+ +c ", line)]
    wrong += [path for path in paths if not path.startswith("/")]  # what dpkg says of a diversion
    # Where a package brings none, dpkg writes them itself. Without them it verifies nothing.
    if not (info / f"{name}.md5sums").exists():
        raise PackageError("dpkg has no checksums of them")
    if wrong:
        raise PackageError(f"not as they were installed: {', '.join(wrong)}")


def copy_files(paths: Sequence[Path], tree: Path) -> None:
    """Copy files, links and directories into tree, under their own paths. Raises OSError for one that is missing."""
    # A directory may be a link on the host, as /lib is.
    directories = {parent for path in paths for parent in path.parents}
    tree.mkdir(parents=True)
    tree.chmod(0o755)
    for path in sorted(paths):
        copy = tree / path.relative_to("/")
        if path in directories or (path.is_dir() and not path.is_symlink()):
            copy.mkdir()
            shutil.copystat(path, copy)
        else:
            shutil.copy2(path, copy, follow_symlinks=False)

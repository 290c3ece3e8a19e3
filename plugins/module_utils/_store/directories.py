# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directories and the account of the server: which of them the roles may take, and what makes them theirs."""

from __future__ import annotations

import grp
import os
import pwd
import re
from pathlib import Path
from typing import Callable

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import Access, access_of, sync
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import control_characters
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import check_path

# Others may pass through, to a directory that they fill, and not list what is there.
BASE_MODE = 0o751
# By this a directory is known to be ours.
MARKER = ".tfserving-directory"
ADOPT = "tfserving_adopt_directories"

# What useradd makes and systemd takes (systemd's docs/USER_NAMES.md, the strict form).
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}")

# Where the unit sees nothing, or a directory of its own: ProtectHome=, PrivateTmp= and PrivateDevices=.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev")  # noqa: S108
# What belongs to the system as a whole, and what is empty again after a reboot.
_SYSTEM = (
    *("/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys"),
    *("/usr/bin", "/usr/lib", "/usr/sbin"),
)
# Directories with those of many programs: one in them can be the server's, they cannot.
_SHARED = (
    *("/", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/usr", "/usr/local"),  # noqa: S108
    *("/usr/share", "/var", "/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp"),  # noqa: S108
)


def account_problems(
    variable: str, name: str, look_up: Callable[[str], pwd.struct_passwd | grp.struct_group]
) -> list[str]:
    """Return what is wrong with the name of the server's user or group; look_up is pwd.getpwnam or grp.getgrnam."""
    if not _ACCOUNT.fullmatch(name):
        return [
            f"{variable} is {name!r}; it has to be the name of an account: up to 31 small letters, digits, - and _, "
            "the first of them a letter or _."
        ]
    try:
        number = look_up(name)[2]
    except KeyError:
        number = 0 if name == "root" else -1
    if number == 0:
        return [f"{variable} is {name}, which is root; the server needs no right of root's. Give it its own account."]
    return []


def place_problems(variable: str, path: str) -> list[str]:
    """Return why no directory of the server's can be there."""
    problems = control_characters(variable, path)
    if problems:
        return problems
    if not path.startswith("/") or ".." in Path(path).parts:
        return [f"{variable} is {path}; it has to begin with /, and to hold no .., ~ or variable of a shell."]
    places, name = _places(path)
    if any(_is_below(place, *_SYSTEM) for place in places):
        return [f"{variable} is {name}, which is the system's own or empty after a reboot; choose another directory."]
    if places & {*_SHARED}:
        return [
            f"{variable} is {name}, which is too broad: it gets an owner and a mode and is removed again, so give it a "
            f"directory of its own, such as {path.rstrip('/')}/tensorflow-serving."
        ]
    return []


def hidden_problems(variable: str, path: str) -> list[str]:
    """Return why the server's unit would not see what is in a directory."""
    places, name = _places(path)
    if not any(_is_below(place, *_HIDDEN) for place in places):
        return []
    return [
        f"{variable} is {name}, which systemd hides from the unit (ProtectHome, PrivateTmp, PrivateDevices), so the "
        "server would wait forever; choose another directory."
    ]


def _places(path: str) -> tuple[set[str], str]:
    """Return where a path is, by its name and by its links, and how it is called in a message."""
    real = os.path.realpath(path)
    named = os.path.normpath(path)
    return {named, real}, path if named == real else f"{path}, which leads to {real}"


def _is_below(place: str, *folders: str) -> bool:
    return any(place == folder or place.startswith(f"{folder}/") for folder in folders)


def directory_problems(variable: str, path: str, group: str, adopt: bool) -> list[str]:
    """Return why a directory may not be taken: where it is, who can change that, or whose it is."""
    problems = place_problems(variable, path)
    folder = Path(path)
    if not folder.is_absolute():
        return problems
    try:
        check_path(folder, variable)
    except SavedModelError as error:
        problems.append(f"{error}.")
    if problems or not folder.exists():
        return problems
    if not folder.is_dir():
        return [f"{variable} is {path}, which is no directory; choose another path."]
    if not (adopt or is_ours(folder, group) or not any(folder.iterdir())):
        return [
            f"{variable} is {path}, which holds files, was not made by this collection, and is {access(folder)}; it "
            f"would become {right_access(group)}. Choose another directory, or set {ADOPT} to true: its contents stay "
            "as they are."
        ]
    return []


def is_ours(folder: Path, group: str) -> bool:
    """Say whether this collection made a directory; version 0.1 left no mark, but an owner, a mode and manifests."""
    is_marked = (folder / MARKER).is_file()
    return is_marked or access(folder) == right_access(group) or any(folder.glob("*/.manifest-*.json"))


def access(folder: Path) -> str:
    """Return owner, group and mode as text, empty where there is no such directory."""
    return str(access_of(folder)) if folder.is_dir() else ""


def is_right(folder: Path, group: str) -> bool:
    """Say whether take has nothing to do."""
    return access(folder) == right_access(group) and (folder / MARKER).is_file()


def right_access(group: str) -> str:
    return str(Access("root", group, f"{BASE_MODE:04o}"))


def make_directory(folder: Path, group_id: int) -> None:
    """Make a directory of models or configuration what it should be. Raises OSError."""
    for one in reversed([folder, *folder.parents]):
        if not one.is_dir():
            one.mkdir()
            one.chmod(0o755)  # whatever umask Ansible runs with
            sync(one.parent)
    os.chown(folder, 0, group_id)
    folder.chmod(BASE_MODE)


def take(folder: Path, group_id: int) -> None:
    """Make a directory ours, for good. Raises OSError."""
    make_directory(folder, group_id)
    (folder / MARKER).touch(mode=0o644)


def access_diff(path: str, before: str, group: str) -> dict[str, str]:
    """Return how a diff shows the owner, group and mode that take gives a directory; before is what access says."""
    texts = {"before": f"{before}\n" if before else "", "after": f"{right_access(group)}\n"}
    return {"before_header": path, "after_header": path, **texts}

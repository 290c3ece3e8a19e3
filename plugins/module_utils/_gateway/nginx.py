# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nginx of the host: a new configuration is tried beside the old one, then takes its place, or nothing changes."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import replace_file

NGINX = "/usr/sbin/nginx"
ROOT = Path("/etc/nginx")
RUN = Path("/run/tfserving-gateway")
# There from before the first file is replaced until nginx has taken them all: a run that is cut leaves it to the next.
PENDING = RUN / "reload"
SITE = "tfserving-gateway"
SITE_PATH = ROOT / "conf.d" / f"{SITE}.conf"
# Not in /var/log/nginx, whose files Debian's logrotate has the workers own.
LOG = Path("/var/log/tfserving-gateway/access.log")
# What the servers last said of their health. nginx makes the directory.
HEALTH = Path("/run/tfserving-gateway-health")
# Where 0.1 logged.
OLD_LOG = Path("/var/log/nginx/tfserving-gateway.log")
ERROR_LOG = Path("/var/log/nginx/error.log")
PAGES = Path("/var/www/html")
TAKE_SECONDS = 10


class NginxError(Exception):
    """nginx does not take a configuration. The text has its own words."""


@dataclass(frozen=True)
class File:
    """A file as it has to be: path below /etc/nginx, or from the root on; owner always root."""

    path: str
    content: str
    mode: int = 0o644
    group: str = "root"

    def differs(self) -> bool:
        """Return whether it is not like this on the host."""
        path = ROOT / self.path
        try:
            status = path.stat()
            same = path.read_text() == self.content
        except (OSError, UnicodeDecodeError):
            return True
        return not same or (status.st_mode & 0o7777, status.st_uid) != (self.mode, 0) or _group(status) != self.group

    def write(self) -> None:
        """Make it like this."""
        path = ROOT / self.path
        make_directory(path.parent)
        replace_file(path, self.content.encode(), self.mode, 0, grp.getgrnam(self.group).gr_gid)


def make_directory(path: Path) -> None:
    """Make a directory that everybody may look into, as nginx's workers have to, whatever this process's umask is."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(0o755)


def _group(status: os.stat_result) -> str:
    try:
        return grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return str(status.st_gid)


def workers_group() -> str:
    """Return the group of nginx's workers, which nginx.conf names: Debian's is www-data."""
    text = (ROOT / "nginx.conf").read_text()
    found = re.search(r"^\s*user\s+([^\s;]+)(?:\s+([^\s;]+))?\s*;", text, re.MULTILINE)
    if not found:
        return "root"
    return found[2] or grp.getgrgid(pwd.getpwnam(found[1]).pw_gid).gr_name


def includes_conf_d() -> bool:
    """Return whether nginx.conf includes conf.d, as that of Debian and of nginx's own packages does."""
    text = (ROOT / "nginx.conf").read_text()
    return bool(re.search(rf"^\s*include\s+(?:{re.escape(str(ROOT))}/)?conf\.d/\*\.conf\s*;", text, re.MULTILINE))


@contextmanager
def staged(files: list[File], removed: list[str]) -> Iterator[Path]:
    """Give a directory that is /etc/nginx as it will be: the host's own files by links, ours as they are to be.

    It lies in memory and is root's alone, as there are keys in it. What nginx makes when it looks at our site is made
    in there: our log, and the directory for the servers' health.
    """
    make_directory(RUN)
    stage = Path(tempfile.mkdtemp(dir=RUN, prefix="stage-"))
    try:
        files = [file for file in files if not file.path.startswith("/")]
        ours = {file.path for file in files} | {path for path in removed if not path.startswith("/")}
        folders = {Path(path).parent.name for path in ours}
        for entry in ROOT.iterdir():
            if entry.name not in {"nginx.conf", *folders}:
                (stage / entry.name).symlink_to(entry)
        for folder in folders:
            (stage / folder).mkdir()
            for entry in ROOT.glob(f"{folder}/*"):
                if f"{folder}/{entry.name}" not in ours:
                    (stage / folder / entry.name).symlink_to(entry)
        moved = {str(LOG): f"{stage}/{LOG.name}", str(HEALTH): f"{stage}/{HEALTH.name}"}
        moved.update((f"{ROOT}/{folder}/", f"{stage}/{folder}/") for folder in folders)
        texts = {file.path: file.content for file in files}
        for name, text in {**texts, "nginx.conf": (ROOT / "nginx.conf").read_text()}.items():
            for there, here in moved.items():
                text = text.replace(there, here)
            (stage / name).write_text(text)
        yield stage
    finally:
        shutil.rmtree(stage)


def check(stage: Path, drop_in: str = "") -> str:
    """Return the whole configuration that is staged, with a line before each file that names it (nginx -T).

    Raises NginxError where nginx would not start with it, within what the lines of a drop-in of its unit allow.
    """
    command = [NGINX, "-T", "-q", "-c", str(stage / "nginx.conf")]
    if drop_in:
        settings = [f"--property={line}" for line in drop_in.splitlines() if re.match("[A-Za-z]", line)]
        command = ["/usr/bin/systemd-run", "--quiet", "--pipe", "--wait", "--collect", *settings, *command]
    done = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = done.stderr.strip().replace(str(stage), str(ROOT))
        hint = "Hardened, nginx would not start; tfserving_gateway_hardening_enabled: false leaves it as it is.\n"
        raise NginxError(f"{hint if drop_in else ''}{words}")
    return done.stdout.replace(str(stage), str(ROOT))


_SITE = re.compile(r"(?:^|[\s;{}])(?:server|stream|mail)\s*\{")


def sites(configuration: str) -> list[str]:
    """Return the files of a whole configuration that make nginx serve something."""
    parts = re.split(r"^# configuration file (.+):$", configuration, flags=re.MULTILINE)
    found = {name: re.sub(r"(?m)(^|[\s;{}])#.*$", r"\1", text) for name, text in zip(parts[1::2], parts[2::2])}
    return [name for name, text in found.items() if _SITE.search(text)]


def has_log() -> bool:
    """Return whether the log is there, the group adm's, and others cannot read it.

    Its owner is root until nginx is told to open its logs again (USR1): then it gives them to its workers.
    """
    try:
        status = LOG.stat()
    except OSError:
        return False
    return (status.st_mode & 0o7777, _group(status)) == (0o640, "adm")


def make_log() -> None:
    """Make it so, before nginx makes it for everybody to read. What 0.1 has logged elsewhere comes along."""
    adm = grp.getgrnam("adm").gr_gid
    make_directory(LOG.parent)
    os.chown(LOG.parent, 0, adm)
    for path in OLD_LOG.parent.glob(f"{OLD_LOG.name}*"):
        path.replace(LOG.with_name(path.name.replace(OLD_LOG.name, LOG.name)))
    LOG.touch(mode=0o640)
    LOG.chmod(0o640)
    os.chown(LOG, 0, adm)


def workers(master: int) -> set[int]:
    """Return the processes whose parent is the master."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == master:
            found.add(int(path.parent.name))
    return found


def master_pid() -> int:
    """Return the process that systemd calls nginx's main one, 0 where it does not run."""
    return int(_systemctl("show", "--property=MainPID", "--value", "nginx.service").strip() or 0)


def is_active() -> bool:
    return _systemctl("show", "--property=ActiveState", "--value", "nginx.service").strip() in ("active", "reloading")


def _systemctl(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
        ["/usr/bin/systemctl", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NginxError(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


def reload_units() -> None:
    """Have systemd read its units again."""
    _systemctl("daemon-reload")


def start() -> None:
    """Start nginx where it does not run. Raises NginxError."""
    _systemctl("start", "nginx.service")


def take(restart: bool) -> None:
    """Have nginx take its configuration, and its unit where it restarts, and return when it has. Raises NginxError.

    A reload that cannot bind a port ends well for systemctl, and the old workers go on: new ones are what shows.
    """
    mark = ERROR_LOG.stat().st_size if ERROR_LOG.exists() else 0
    if restart or not is_active():
        try:
            _systemctl("restart", "nginx.service")
        except NginxError as error:
            raise NginxError("\n".join([str(error), *_emergencies(mark)])) from error
        return
    master = master_pid()
    before = workers(master)
    _systemctl("reload", "nginx.service")
    deadline = time.monotonic() + TAKE_SECONDS
    while not workers(master) - before:
        if time.monotonic() > deadline:
            raise NginxError("\n".join(["nginx goes on with its old configuration:", *_emergencies(mark)]))
        time.sleep(0.1)


def _emergencies(mark: int) -> list[str]:
    """Return the lines about what failed that were logged after a mark."""
    try:
        with ERROR_LOG.open("rb") as file:
            file.seek(mark)
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return list(dict.fromkeys(line.partition("]")[2] for line in text.splitlines() if "[emerg]" in line))


def unused_default_site() -> list[str]:
    """Return Debian's link to its example site where nobody uses it: site and page are as they were packaged."""
    link, packaged = ROOT / "sites-enabled/default", ROOT / "sites-available/default"
    if not link.is_symlink() or not packaged.is_file() or link.resolve() != packaged.resolve():
        return []
    if PAGES.is_dir() and any(page.name != "index.nginx-debian.html" for page in PAGES.iterdir()):
        return []
    done = subprocess.run(  # noqa: S603 - the arguments are a list, no shell reads them
        ["/usr/bin/dpkg", "--verify", "nginx-common"], capture_output=True, text=True, check=False
    )
    return [] if str(packaged) in done.stdout or done.stderr else ["sites-enabled/default"]


_CONNECTING_OR_OPEN = ("01", "02")


def open_connections(table: str, ports: list[int], users: set[int]) -> int:
    """Return how many connections these users have to ports of 127.0.0.1, in the kernel's table /proc/net/tcp."""
    targets = {f"0100007F:{port:04X}" for port in ports}
    rows = [line.split() for line in table.splitlines()[1:]]
    return sum(row[2] in targets and row[3] in _CONNECTING_OR_OPEN and int(row[7]) in users for row in rows)

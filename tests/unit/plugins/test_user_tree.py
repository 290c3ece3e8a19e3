"""The account that receives files attacks root, who takes them: at each step, and at random.

The attacker is a process of an unprivileged user. The test stops root at a system call, lets the attacker do one thing,
and lets root go on.
"""

from __future__ import annotations

import grp
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from saved_model_files import make_saved_model

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._fetch.request import relative_path
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    MAX_DEPTH,
    SavedModelError,
    add_digests,
    list_files,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.arrival import (
    plan_versions,
    publish_version,
    stage_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.user_tree import (
    UserTree,
    check_path,
    remove_tree,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something that others lack")

LOGIN, GROUP = 4242, 1
GROUP_NAME = grp.getgrgid(GROUP).gr_name
WEIGHTS = "variables/variables.data-00000-of-00001"
WORDS = "assets/words.txt"
SECRET = b"root's secret"
ATTACKER = """
import os, random, shutil, socket, stat, sys, time
os.setgroups([]); os.setgid({user}); os.setuid({user}); os.umask(0)  # Python itself may be where only root may enter
for line in sys.stdin:
    try:
        exec(line.replace("\\0", "\\n"), globals())
        print("done", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


class Attacker:
    """A process of the login user that does what it is told."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", ATTACKER.format(user=LOGIN)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def begin(self, code: str) -> None:
        assert self.process.stdin
        print(code.replace("\n", "\0"), file=self.process.stdin, flush=True)

    def end(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def do(self, code: str) -> str:
        """Return "done", or the name of the error."""
        self.begin(code)
        return self.end()

    def must(self, code: str) -> None:
        assert self.do(code) == "done"


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    one = Attacker()
    yield one
    one.process.kill()
    one.process.wait()
    for pipe in (one.process.stdin, one.process.stdout):
        assert pipe
        pipe.close()


class Place:
    """A base path with a model, a source of two versions, the attacker's home, and what only root may touch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ModelStore(root / "models" / "MLP")
        self.incoming, self.staging = self.store.incoming(2), self.store.staging(2)
        self.home = root / "home"
        self.home.mkdir()
        os.chown(self.home, LOGIN, LOGIN)
        self.outside = root / "outside"  # has a secret under each name that a link could lead to
        for name in (WEIGHTS, WORDS, "words.txt", "variables.data-00000-of-00001", "shadow"):
            (self.outside / name).parent.mkdir(parents=True, exist_ok=True)
            (self.outside / name).write_bytes(SECRET)
            (self.outside / name).chmod(0o600)
        self._before = self._facts()
        self.source = make_saved_model(root / "source", weights=os.urandom(3 << 20))
        self.files = add_digests(self.source, list_files(self.source))

    def _facts(self) -> dict[str, Any]:
        found = (self.outside, *sorted(self.outside.rglob("*")))
        return {
            str(path): (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime, status.st_ino)
            for path, status in ((path, path.lstat()) for path in found)
        }

    def stage(self, version: int = 2) -> dict[str, Any]:
        wanted = {"model": "MLP", "version": version, "uid": LOGIN, "files": self.files, "resend": []}
        return dict(stage_versions(str(self.store.path.parent), GROUP_NAME, [wanted], 0)[0])

    def arrive(self, names: Any = None, version: int = 2) -> None:
        """Let files arrive, as rsync would bring them that runs as the login user."""
        incoming = self.store.incoming(version)
        for name in self.files if names is None else names:
            (incoming / name).parent.mkdir(exist_ok=True)
            shutil.copy2(self.source / name, incoming / name)
        for path in incoming.rglob("*"):
            os.chown(path, LOGIN, LOGIN)

    def publish(self, shared: Any = (), version: int = 2) -> dict[str, str]:
        """Return the sha256 of what was taken where that is not right."""
        return publish_version(
            str(self.store.path), version, GROUP_NAME, LOGIN,
            {name: facts["size"] for name, facts in self.files.items() if name not in shared},
            tree_digest(self.files), {name: self.files[name]["sha256"] for name in shared}, {}, {}, {},
            distribute=False,
        )  # fmt: skip

    def check(self) -> None:
        """Nothing that is root's was made, read or changed, and what is published is right."""
        assert self._facts() == self._before
        for path in self.store.path.rglob("*"):
            assert not path.is_file() or path.is_symlink() or SECRET not in path.read_bytes()
        for version in self.store.published():
            top = self.store.version(version)
            assert {path.relative_to(top).as_posix() for path in top.rglob("*") if not path.is_dir()} == {*self.files}
            assert {path.name for path in top.rglob("*") if path.is_dir()} == {"assets", "variables"}
            assert tree_digest(add_digests(top, list_files(top))) == tree_digest(self.files)
            for path in (top, *top.rglob("*")):
                status = path.lstat()
                assert (status.st_uid, status.st_gid) == (0, GROUP)
                assert stat.S_IMODE(status.st_mode) == (0o750 if path.is_dir() else 0o644)
                assert path.is_dir() or status.st_nlink <= len(self.store.published())

    def publish_in_peace(self) -> None:
        """The next run goes well: rsync puts directories in the place of links."""
        self.stage()
        for path in self.incoming.iterdir():
            if not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink()
        self.arrive()
        assert self.publish() == {}
        assert [*self.store.published()] == [2]
        self.check()
        assert not self.incoming.exists()


@pytest.fixture
def place() -> Iterator[Place]:
    """Not below pytest's own directory, which others may not enter."""
    root = Path(tempfile.mkdtemp(dir="/var/tmp"))  # noqa: S108 - root makes it, under a name that was not there
    root.chmod(0o711)
    yield Place(root)
    subprocess.run(["rm", "-rf", root], check=True)


@pytest.fixture
def stop_root(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Do something once, just before or after root's call of a function of os with this first argument.

    Returns a list that has what was done, when it was.
    """

    def stop(function: str, argument: str, attack: Callable[[], str], *, after: bool = False) -> list[str]:
        done: list[str] = []
        one_thread = Lock()  # root copies in several
        call = getattr(os, function)

        def attack_once() -> None:
            with one_thread:
                if not done:
                    done.append(attack())

        def watched(path: Any, *arguments: Any, **options: Any) -> Any:
            is_it = not isinstance(path, int) and os.fspath(path) == argument
            if is_it and not after:
                attack_once()
            result = call(path, *arguments, **options)
            if is_it and after:
                attack_once()
            return result

        monkeypatch.setattr(os, function, watched)
        return done

    return stop


def swap(directory: Path, name: str, target: Path) -> str:
    """Return the attacker's code that puts a link in the place of something."""
    return f"os.rename('{directory}/{name}', '{directory}/{name}.away'); os.symlink('{target}', '{directory}/{name}')"


# Links


@pytest.mark.parametrize(
    ("component", "leads_to"),
    [("variables", "variables"), ("assets", "assets"), (WEIGHTS, WEIGHTS), (WORDS, WORDS), (WORDS, "shadow")],
)
def test_link_in_the_place_of_a_component_is_not_followed(
    place: Place, attacker: Attacker, component: str, leads_to: str
) -> None:
    place.stage()
    place.arrive()
    attacker.must(swap(place.incoming, component, place.outside / leads_to))
    if component == leads_to and "/" in component or leads_to == "shadow":
        with pytest.raises(SavedModelError, match=f"{component} is a symbolic link, .* user id {LOGIN}"):
            place.publish()
    else:
        assert {name for name in place.files if name not in place.publish()} >= {
            name for name in place.files if name.startswith(f"{component}/")
        }
    assert place.store.published() == {}
    place.check()
    place.publish_in_peace()


def test_shared_files_are_not_linked_to_where_a_link_leads(place: Place, attacker: Attacker) -> None:
    place.stage(1)
    place.arrive(version=1)
    assert place.publish(version=1) == {}
    shared = place.stage()["shared"]
    assert WORDS in shared
    attacker.must(f"os.symlink('{place.outside}/assets', '{place.incoming}/assets')")
    (place.outside / WORDS).unlink()
    place._before = place._facts()
    assert place.publish(shared=shared) == {}
    place.check()
    assert (place.store.version(2) / WORDS).samefile(place.store.version(1) / WORDS)


@pytest.mark.parametrize("name", ["saved_model.pb", "assets", "variables"])
def test_top_of_what_is_taken_cannot_be_changed_by_who_has_it_open(
    place: Place, attacker: Attacker, stop_root: Callable[..., list[str]], name: str
) -> None:
    place.stage()
    place.arrive()
    attacker.must(f"os.chdir('{place.incoming}')")
    code = f"os.rename('{name}', '{name}.away'); os.symlink('{place.outside}/shadow', '{name}')"
    stopped = stop_root("open", name, lambda: attacker.do(code))
    assert place.publish() == {}
    assert stopped == ["PermissionError"]
    place.check()


@pytest.mark.parametrize("function", ["stat", "open"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("leads_to", ["outside/shadow", "home/own"])
def test_file_that_is_swapped_between_check_and_use_is_not_followed(
    place: Place, attacker: Attacker, stop_root: Callable[..., list[str]], function: str, after: bool, leads_to: str
) -> None:
    """Not even to a file of the attacker's that has the right contents."""
    place.stage()
    place.arrive()
    attacker.must(f"shutil.copy('{place.incoming}/{WORDS}', '{place.home}/own')")
    attacker.must(f"os.chdir('{place.incoming}/assets')")  # where it is when the top is closed
    code = f"os.rename('words.txt', 'away'); os.symlink('{place.root}/{leads_to}', 'words.txt')"
    stopped = stop_root(function, "words.txt", lambda: attacker.do(code), after=after)
    is_published = False
    with suppress(SavedModelError):
        is_published = place.publish() == {}
    assert stopped == ["done"]
    assert is_published == (function == "open" and after)  # then root has the right file open
    place.check()


@pytest.mark.parametrize("after", [False, True])
def test_directory_that_is_swapped_between_check_and_use_is_not_followed(
    place: Place, attacker: Attacker, stop_root: Callable[..., list[str]], after: bool
) -> None:
    """Below the top, whose entries cannot be swapped any more."""
    deep = "assets/deep/words.txt"
    (place.source / "assets/deep").mkdir()
    shutil.copy2(place.source / WORDS, place.source / deep)
    place.files = add_digests(place.source, list_files(place.source))
    place.stage()
    (place.incoming / "assets/deep").mkdir(parents=True)
    place.arrive()
    attacker.must(f"os.chdir('{place.incoming}/assets')")
    code = f"os.rename('deep', 'away'); os.symlink('{place.outside}', 'deep')"
    stopped = stop_root("open", "deep", lambda: attacker.do(code), after=after)
    found = place.publish()
    assert stopped == ["done"]
    assert (found == {}) == after
    if not after:
        assert {*place.files} - {*found} == {deep}
        assert place.store.published() == {}
    assert SECRET not in b"".join(path.read_bytes() for path in place.store.path.rglob("*") if path.is_file())


def test_basis_cannot_be_changed_and_nothing_of_it_comes_back(place: Place, attacker: Attacker) -> None:
    """As after a connection that was killed: the next run goes on with what is there."""
    place.stage(1)
    place.arrive(version=1)
    assert place.publish(version=1) == {}
    place.files[WEIGHTS]["sha256"] = "0" * 64  # it is to come anew
    place.stage()
    basis = place.store.basis(2)
    attacker.must(f"assert os.listdir('{basis}/variables') and open('{basis}/{WEIGHTS}', 'rb').read(1)")  # for rsync
    for code in (
        swap(basis, "variables", place.outside / "variables"),
        swap(basis, WEIGHTS, place.outside / "shadow"),
        swap(place.store.path, ".basis-2", place.outside),
        swap(place.store.path, ".incoming-2", place.outside),
        swap(place.store.path, ".staging-2", place.outside),
        f"open('{basis}/{WEIGHTS}', 'r+b')",
        f"os.chmod('{basis}/variables', 0o777)",
        f"os.listdir('{place.staging}')",
        f"os.listdir('{place.store.path}')",
    ):
        assert attacker.do(code) == "PermissionError", code
    attacker.must(f"os.mkdir('{place.incoming}/variables'); os.symlink('{place.outside}/shadow', "
                  f"'{place.incoming}/{WEIGHTS}')")  # fmt: skip
    place.stage()
    assert (place.incoming / WEIGHTS).is_symlink()
    assert attacker.do(f"open('{place.incoming}/{WEIGHTS}')") == "PermissionError"
    assert list(place.staging.iterdir()) == []


# Files that stay open, or are not what they should be


def test_descriptor_and_hard_link_that_are_kept_reach_no_published_file(place: Place, attacker: Attacker) -> None:
    place.stage()
    place.arrive()
    attacker.must(
        f"files = [open('{place.incoming}/{WEIGHTS}', 'r+b', 0), open('{place.incoming}/{WORDS}', 'r+b', 0)]; "
        f"os.link('{place.incoming}/{WORDS}', '{place.home}/link'); os.chmod('{place.home}/link', 0o666)"
    )
    assert place.publish() == {}
    attacker.must("[file.write(b'attack') for file in files]")
    attacker.must(f"open('{place.home}/link', 'w').write('attack')")
    place.check()
    assert {(place.store.version(2) / name).stat().st_nlink for name in place.files} == {1}


def test_copy_that_root_writes_cannot_be_opened(
    place: Place, attacker: Attacker, stop_root: Callable[..., list[str]]
) -> None:
    place.stage()
    place.arrive()
    copy = place.staging / WORDS
    stopped = stop_root("open", str(copy), lambda: attacker.do(f"open('{copy}', 'r+b')"), after=True)
    assert place.publish() == {}
    assert stopped == ["PermissionError"]


@pytest.mark.parametrize("change", ["write(b'x' * 100)", "truncate(1 << 19)", "write(b'x' * (8 << 20))"])
def test_what_is_written_while_root_reads_is_found_out(
    place: Place, attacker: Attacker, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The digest is that of the copy, and not more than the announced size and one byte is copied."""
    place.stage()
    place.arrive()
    attacker.must(f"file = open('{place.incoming}/{WEIGHTS}', 'r+b', 0); file.seek(2 << 20)")
    read, stopped = os.read, []

    def watched(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        if len(data) == 1 << 20 and not stopped:
            stopped.append(attacker.do(f"file.{change}"))
        return data

    monkeypatch.setattr(os, "read", watched)
    found = place.publish()
    assert stopped == ["done"]
    copy = (place.staging / WEIGHTS).read_bytes()
    assert len(copy) <= place.files[WEIGHTS]["size"] + 1
    assert found[WEIGHTS] == add_digests(place.staging, list_files(place.staging))[WEIGHTS]["sha256"]
    assert place.store.published() == {}
    place.check()
    place.publish_in_peace()


SPECIAL = {
    "named pipe": lambda path: os.mkfifo(path),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "directory": lambda path: path.mkdir(),
    "symbolic link": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_refused_without_being_opened(place: Place, kind: str) -> None:
    place.stage()
    place.arrive()
    (place.incoming / WORDS).unlink()
    SPECIAL[kind](place.incoming / WORDS)
    os.chown(place.incoming / WORDS, LOGIN, LOGIN, follow_symlinks=False)
    with pytest.raises(SavedModelError, match=f"{WORDS} is a {kind}, which no transfer"):
        place.publish()
    assert place.store.published() == {}
    assert not place.incoming.exists()  # nothing of it is gone on with
    place.publish_in_peace()


@pytest.mark.parametrize("code", ["os.mkfifo('words.txt')", "socket.socket(socket.AF_UNIX).bind('words.txt')"])
def test_file_that_becomes_a_pipe_between_check_and_use_holds_nobody_up(
    place: Place, attacker: Attacker, stop_root: Callable[..., list[str]], code: str
) -> None:
    place.stage()
    place.arrive()
    attacker.must(f"os.chdir('{place.incoming}/assets')")
    stopped = stop_root("open", "words.txt", lambda: attacker.do(f"os.unlink('words.txt'); {code}"))
    with suppress(SavedModelError):
        assert WORDS not in place.publish()
    assert stopped == ["done"]
    place.check()


def test_hard_link_to_a_file_of_roots_is_not_read(place: Place) -> None:
    """Where the kernel lets users make one (fs.protected_hardlinks=0)."""
    place.stage()
    place.arrive()
    (place.incoming / WORDS).unlink()
    os.link(place.outside / "shadow", place.incoming / WORDS)
    with pytest.raises(SavedModelError, match=f"{WORDS} belongs to user id 0, not to {LOGIN}"):
        place.publish()
    assert not place.incoming.exists()
    place.check()


def test_directories_of_the_attackers_making_are_not_published(place: Place, attacker: Attacker) -> None:
    place.stage()
    place.arrive()
    attacker.must(f"os.makedirs('{place.incoming}/variables/more/and/more'); os.mkdir('{place.incoming}/empty')")
    attacker.must(f"open('{place.incoming}/empty/file', 'w').write('not asked for')")
    assert place.publish() == {}
    place.check()


# Trees without end

NEST = """
os.chdir({path!r})
for level in range(1000):
    os.mkdir({name!r}); os.chdir({name!r})
os.chdir('/')
"""


@pytest.mark.parametrize("name", ["d", "d" * 255])
def test_a_thousand_directories_in_one_another_stop_nothing(place: Place, attacker: Attacker, name: str) -> None:
    """Their path is longer than the kernel takes, too."""
    place.stage()
    place.arrive()
    attacker.must(NEST.format(path=str(place.incoming), name=name))
    plan_versions(str(place.store.path.parent),
                  [{"model": "MLP", "version": 2, "uid": LOGIN, "files": place.files, "resend": []}], 0)  # fmt: skip
    assert UserTree(place.incoming, LOGIN).sizes() == {}
    assert place.publish() == {}
    place.check()
    assert not place.incoming.exists()


def test_a_thousand_directories_in_one_another_are_not_gone_on_with(place: Place, attacker: Attacker) -> None:
    place.stage()
    attacker.must(NEST.format(path=str(place.incoming), name="d"))
    place.stage()
    assert list(place.incoming.iterdir()) == []
    place.arrive()
    attacker.must(NEST.format(path=str(place.incoming), name="d"))
    place.staging.rmdir()
    place.staging.mkdir()
    words = f"{place.incoming}/d/.* directories are nested more than {MAX_DEPTH} deep"
    with pytest.raises(SavedModelError, match=words):
        UserTree(place.incoming, LOGIN).take(place.staging, None, GROUP)
    remove_tree(place.incoming)
    assert not place.incoming.exists()


def test_a_thousand_directories_in_one_another_are_no_saved_model(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=here)  # noqa: PTH102 - relative to a descriptor
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(SavedModelError, match=f"directories are nested more than {MAX_DEPTH} deep"):
        list_files(tmp_path)
    remove_tree(tmp_path / "d")
    deepest = tmp_path.joinpath(*["d"] * MAX_DEPTH)
    deepest.mkdir(parents=True)
    (deepest / "file").touch()
    assert len(list_files(tmp_path)) == 1
    with pytest.raises(SavedModelError, match=f"directories are nested more than {MAX_DEPTH} deep"):
        relative_path("d/" * 1000 + "file")


def test_path_without_end_is_no_file_of_a_saved_model(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d" * 250] * 5).mkdir(parents=True)
    with pytest.raises(SavedModelError, match="dddd.*: its path has more than 1000 characters"):
        list_files(tmp_path)


# Paths


def test_path_is_safe_where_only_root_can_change_what_it_leads_to(place: Place) -> None:
    check_path(place.store.path, "the_variable")
    (place.root / "link").symlink_to("models")
    (place.root / "absolute").symlink_to(place.root / "link")
    check_path(place.root / "absolute" / "MLP", "the_variable")
    (place.root / "sticky").mkdir()
    (place.root / "sticky").chmod(0o1777)
    (place.root / "sticky" / "models").mkdir()
    check_path(place.root / "sticky" / "models", "the_variable")
    (place.root / "loop").symlink_to("loop")
    with pytest.raises(SavedModelError, match="too many symbolic links"):
        check_path(place.root / "loop", "the_variable")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (None, "models is not root's alone.* others than root may write"),
        ("home", "home is not root's alone.* belongs to user id 4242"),
        ("home/missing", "home is not root's alone.* belongs to user id 4242"),
        ("../outside/../home", "home is not root's alone.* belongs to user id 4242"),
    ],
)
def test_path_that_others_can_change_is_refused(place: Place, link: str | None, words: str) -> None:
    models = place.root / "models"
    if link:
        models.symlink_to(link if link.startswith("home") else place.root / "source" / link)
    else:
        models.mkdir()
        models.chmod(0o777)
    with pytest.raises(SavedModelError, match=words):
        check_path(place.store.path, "the_variable")


def test_missing_component_is_refused_where_others_could_make_it(place: Place) -> None:
    place.root.chmod(0o1777)
    with pytest.raises(SavedModelError, match="others than root may write to it.*set the_variable to"):
        check_path(place.store.path, "the_variable")


# At random

RANDOM = """
dice, opened, until = random.Random({seed}), [], time.monotonic() + {seconds}
names = ['assets', 'variables', 'saved_model.pb', 'assets/words.txt', '{weights}', '.', 'variables/variables.index']
incoming, outside, home = '{incoming}', '{outside}', '{home}'
while time.monotonic() < until:
    name = dice.choice(names)
    path = incoming + '/' + name
    away = home + '/' + str(dice.random())
    try:
        what = dice.randrange(12)
        if what == 0:
            os.rename(path, away)
            os.symlink(dice.choice([outside, outside + '/shadow', outside + '/' + name]), path)
        elif what == 1: os.rename(path, away); os.mkfifo(path)
        elif what == 2: os.link(path, away); opened.append(open(away, 'r+b', 0))
        elif what == 3: opened.append(open(path, 'r+b', 0))
        elif what == 4: os.chmod(path, 0o777)
        elif what == 5: opened.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        elif what == 6: os.makedirs(path + '/new/' + str(dice.random()))
        elif what == 7: os.link(outside + '/shadow', path + '.linked')
        elif what == 8: os.rename(path, incoming + '/' + dice.choice(names))
        elif what == 9 and opened:
            one = dice.choice(opened)
            if isinstance(one, int): os.symlink(outside + '/shadow', dice.choice(names), dir_fd=one)
            else: one.seek(0); one.write(b'attack')
        elif what == 10: os.chdir(os.path.dirname(path))
        else: time.sleep(dice.random() / 20)
    except OSError: pass
    if len(opened) > 200: opened = opened[100:]
"""


def test_versions_are_published_rightly_whatever_is_done_meanwhile(place: Place, attacker: Attacker) -> None:
    seconds = 4.0
    version, told = 2, []
    attacker.begin(RANDOM.format(seed=7, seconds=seconds, weights=WEIGHTS, incoming=place.incoming,
                                 outside=place.outside, home=place.home))  # fmt: skip
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            shared = place.stage(version)["shared"]
            command = ["timeout", "0.5", "cp", "--recursive", "--no-target-directory", place.source, place.incoming]
            copied = subprocess.run(command, user=LOGIN, group=LOGIN, extra_groups=[], capture_output=True, check=False)
            told.append((copied.returncode, place.publish(shared, version)))
        except (SavedModelError, OSError) as error:
            told.append((None, str(error)))
        place.check()
        if version in place.store.published():  # once more, under the name that the attacker knows
            remove_tree(place.store.version(version))
            remove_tree(place.store.manifest(version))
    assert attacker.end() == "done"
    assert told
    place.check()
    place.publish_in_peace()

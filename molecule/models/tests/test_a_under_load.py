"""Versions come and go, and the sync is killed and deceived, under a server that has to predict all the while.

Everything happens on one host. A watcher there writes down each version the moment the server could see it; the last
two tests judge its record and the answers of the clients.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import INVENTORY, Server
from prediction_stream import Stream
from versions import (
    BASE,
    KILL_PROGRAM,
    PROGRAM,
    SHARD,
    copy_version,
    has_bytes,
    models_only,
    on_host,
    received,
    until,
    wait_for,
    write,
)

HOST = "debian12"
BIG_BYTES = 256 << 20
BIG = 100  # the version that is hard to get across
SEED = 4
KEEP = 3


class Watch:
    """A version_watcher.py on a host, and what it has written down."""

    def __init__(self, host, base: str, name: str) -> None:
        self.host = host
        self.unit = f"watch-{name}"
        self.record = f"/var/tmp/{self.unit}.jsonl"  # noqa: S108 - on a lab host
        program = f"/var/tmp/{self.unit}.py"  # noqa: S108
        write(host, program, Path(__file__).with_name("version_watcher.py").read_text())
        # It sees what the server sees. And root's inotify instances are few, as all containers share them.
        output = f"--property=User=tfserving --property=StandardOutput=truncate:{self.record}"
        host.run(f"systemctl stop {self.unit}; systemctl reset-failed {self.unit}")  # of a test run that was broken off
        host.check_output(f"systemd-run --quiet --collect --unit={self.unit} {output} python3 {program} {base}")
        wait_for(lambda: self.events("watching"))

    def events(self, *kinds: str) -> list[dict]:
        text = self.host.run(f"cat {self.record}").stdout
        events = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [event for event in events if not kinds or event["event"] in kinds]

    def problems(self) -> list[dict]:
        return [event for event in self.events() if event.get("problems")]

    def stop(self) -> None:
        self.host.check_output(f"systemctl stop {self.unit}")


@pytest.fixture(scope="module")
def server(server_on) -> Server:
    return server_on(HOST)


@pytest.fixture(scope="module", autouse=True)
def watch(server) -> Watch:
    return Watch(server.host, BASE, "models")


@pytest.fixture(scope="module", autouse=True)
def stream(server, digits):
    pixels = digits[0]["pixels"]
    custom = [[[value] for value in row] for row in pixels]
    bodies = {
        "MLP": {"instances": [pixels]},
        "MLP_custom": {"signature_name": "call", "instances": [custom]},
    }
    stream = Stream(server.address, bodies).start()
    yield stream
    stream.stop()


@pytest.fixture(scope="module")
def playbook(tmp_path_factory) -> Path:
    return models_only(tmp_path_factory.mktemp("playbooks"))


class Source:
    """Versions on the controller: copies of the two trained ones under further numbers, each with a mark of its own."""

    def __init__(self, root: Path, trained: Path) -> None:
        self.root = root
        self.trained = {"MLP": trained / "saved", "MLP_custom": trained / "saved_with_signature"}

    def add(self, model: str, version: int, padding_bytes: int = 0) -> Path:
        export = self.trained[model] / str(self.seed(version))
        return copy_version(export, self.root / model / str(version), padding_bytes)

    @staticmethod
    def seed(version: int) -> int:
        """Even numbers are copies of version 2, which predicts in other words than version 1."""
        return 2 - version % 2

    def variables(self) -> dict:
        models = [{"name": model, "source": str(self.root / model), "keep": KEEP} for model in self.trained]
        return {"tfserving_models_catalog": models}


@pytest.fixture(scope="module")
def source(tmp_path_factory, second_version) -> Source:
    source = Source(tmp_path_factory.mktemp("source"), second_version)
    for model in source.trained:
        shutil.copytree(source.trained[model] / "1", source.root / model / "1")
    return source


@pytest.fixture(scope="module")
def sync(play, playbook, source):
    """Publish what the source has, undisturbed."""
    return lambda: play(str(playbook), f"--limit={HOST}", variables=source.variables())


def is_published(server: Server, model: str, version: int) -> bool:
    return server.host.file(f"{BASE}/{model}/{version}").exists


def remove(server: Server, model: str, version: int) -> None:
    """Take a version away as the collection does, if it is there."""
    if is_published(server, model, version):
        server.host.check_output(
            f"cd {BASE}/{model} && mv {version} .removed-{version} && rm -r .removed-{version} .manifest-{version}.json"
        )


# What a manifest of the version in a directory says of its files.
MANIFEST = """
import hashlib, json, pathlib, sys
version = pathlib.Path(sys.argv[1])
files = {str(path.relative_to(version)): path.read_bytes() for path in version.rglob("*") if path.is_file()}
facts = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
print(json.dumps({"files": facts}))
"""


def test_watcher_sees_a_version_that_is_not_ready(server):
    """The proof that a clean record means something: what a plain copy does is in it, and what a rename does is not."""
    base = "/var/tmp/unserved"  # noqa: S108 - on a lab host
    host = server.host
    host.check_output(f"mkdir --parents {base}/MLP && chgrp tfserving {base}/MLP && chmod g+s {base}/MLP")
    # Large enough for its copying to take a while.
    host.check_output(
        f"cd {base}/MLP && cp --recursive {BASE}/MLP/1 .whole && head --bytes=100M /dev/zero >> .whole/{SHARD}"
    )
    for number in (1, 2, 3):
        host.check_output(f"cd {base}/MLP && python3 -c {shlex.quote(MANIFEST)} .whole > .manifest-{number}.json")
    watch = Watch(host, base, "unserved")
    host.check_output(f"cd {base}/MLP && cp --recursive .whole 1 && cp --recursive .whole .broken")
    host.check_output(f"cd {base}/MLP && printf x | dd of=.broken/{SHARD} seek=99 bs=1 conv=notrunc")
    host.check_output(f"cd {base}/MLP && mv .whole 2 && mv .broken 3")
    wait_for(lambda: len(watch.events("read")) == 3)
    host.check_output(f"cd {base}/MLP && mv 2 .gone && rm --recursive 1")
    watch.stop()
    found = [
        (event["event"], event["version"], " ".join(event["problems"]))
        for event in watch.events()
        if "version" in event
    ]
    assert [one for one in found if one[:2] == ("appeared", 1) and SHARD in one[2]]
    assert [one for one in found if one[:2] == ("touched", 1) and one[2].endswith("was modified")]
    assert [one for one in found if one[:2] == ("touched", 1) and one[2].endswith("saved_model.pb was deleted")]
    assert ("disappeared", 1, "it was deleted") in found
    assert [one for one in found if one[1] == 2] == [("appeared", 2, ""), ("read", 2, ""), ("disappeared", 2, "")]
    assert ("read", 3, f"{SHARD} has another sha256") in found
    host.check_output(f"rm --recursive {base}")


def test_versions_come_and_go(sync, source, server, digits):
    """Each new one is served within seconds, by the same process; no more are there than shall be kept."""
    pid = server.main_pid()
    said = {}
    for version in range(2, 7):
        for model in source.trained:
            source.add(model, version)
        played = sync()
        assert not played.failed, played.text
        assert played.changed() == (1 if version <= KEEP else 2), played.text  # one comes, one goes
        for model in source.trained:
            wait_for(lambda model=model, version=version: server.versions(model).get(version) == "AVAILABLE")
            there = {str(number) for number in range(max(1, version - KEEP + 1), version + 1)}
            assert set(server.host.check_output(f"ls {BASE}/{model}").split()) == there
        wait_for(lambda version=version: server.versions("MLP").get(version - 1) == "END")
        said[version] = server.predict("MLP", {"instances": [digits[0]["pixels"]]})
    assert said[2] != said[3]
    assert all(answer == said[2 + version % 2] for version, answer in said.items())
    assert server.main_pid() == pid


def everything_of(mark: str) -> list[int]:
    """Return the processes that a run has started, its ssh connections included, wherever they hang in the tree."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@dataclass
class Run:
    """A sync that can be killed."""

    process: subprocess.Popen
    mark: str

    def kill(self) -> None:
        """Kill whatever it has started, until nothing of it is left."""
        while pids := everything_of(self.mark):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.poll()

    def is_over(self) -> bool:
        return self.process.poll() is not None


@pytest.fixture(scope="module")
def start(playbook, source):
    """Begin to publish what the source has."""

    @contextmanager
    def run():
        mark = f"SYNC_MARK={uuid.uuid4()}"
        name, _, value = mark.partition("=")
        command = ["ansible-playbook", f"--inventory={INVENTORY}", playbook, f"--limit={HOST}"]
        with subprocess.Popen(
            [*command, "--extra-vars", json.dumps(source.variables())],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, name: value},
        ) as process:
            started = Run(process, mark)
            try:
                yield started
            finally:
                started.kill()

    return run


@dataclass(frozen=True)
class Moment:
    """When a sync of the big version is killed, and which part of it: the controller's side, or one on the host."""

    phase: str  # starting, transferring or verifying
    delay: float  # what follows the phase's begin: seconds, or for transferring the share of bytes that is there, 0..1
    victim: str

    def condition(self) -> str:
        """What a shell on the host waits for."""
        staging = f"{BASE}/MLP/.staging-{BIG}"
        if self.phase == "starting":
            return f"sleep {self.delay:.3f}"
        if self.phase == "transferring":
            return until(has_bytes(f"{staging}/{SHARD}", int(self.delay * BIG_BYTES)))
        # rsync brings files of mode 0600, and who verifies them begins with the mode that they are published with.
        is_filling = f'[ "$(stat -c %a {staging}/{SHARD} 2> /dev/null)" = 600 ]'
        is_filled = f"{is_filling} && {has_bytes(f'{staging}/{SHARD}', BIG_BYTES)}"
        return f"{until(is_filled)}; {until(f'! {is_filling}')}; sleep {self.delay:.3f}"


# How to end what on the host takes part in a sync.
HOST_KILLS = {
    "rsync": "pkill -KILL -x rsync",
    "program": KILL_PROGRAM,
    "connection": "pkill -KILL -f '^sshd.*: deploy'",
}


def moments() -> list[Moment]:
    """Return a random moment for each part of each phase; each run but the last goes on from where one was killed."""
    dice = random.Random(SEED)  # noqa: S311 - chance, not cryptography
    victims = ["controller", "controller", "controller", "rsync", "rsync", "connection"]
    shares = sorted(dice.uniform(0.02, 0.98) for _ in victims)
    dice.shuffle(victims)
    return [
        Moment("starting", dice.uniform(0.3, 3), "controller"),
        *(Moment("transferring", share, victim) for share, victim in zip(shares, victims)),
        *(Moment("verifying", dice.uniform(0, 0.1), victim) for victim in ("program", "connection", "controller")),
    ]


@pytest.fixture(scope="module")
def big(source) -> Path:
    return source.add("MLP", BIG, BIG_BYTES)


def kill_at(moment: Moment, start, host) -> tuple[bool, bool]:
    """Begin to publish the big version and kill that. Returns whether something was killed, and whether it went well.

    A run goes well all the same when it can make up for what was killed.
    """
    mark = "/var/tmp/killed"  # noqa: S108 - on a lab host
    kill = HOST_KILLS.get(moment.victim)
    with start() as run:
        waiting = on_host(HOST, f"{moment.condition()}; {kill or 'true'} && touch {mark}")
        if kill:
            run.process.wait(90)
        else:
            waiting.wait(90)
            assert not run.is_over(), moment
            run.kill()
        waiting.wait(90)
    if moment.phase == "verifying":  # which may go on to the end without the run that began it
        wait_for(lambda: not host.run(f"pgrep -f {PROGRAM}").stdout)
    is_hit = host.file(mark).exists
    host.check_output(f"rm --force {mark}")
    return is_hit, run.process.returncode == 0


def test_sync_that_is_killed_at_any_moment_breaks_nothing(start, sync, server, watch, big):
    told = []
    for moment in moments():
        is_hit = False
        while not is_hit:
            is_hit, went_well = kill_at(moment, start, server.host)
            is_there = is_published(server, "MLP", BIG)
            told.append(f"{moment}: {is_hit=}, {went_well=}, {is_there=}")
            assert watch.problems() == [], told
            assert is_there == went_well or moment.phase == "verifying", told
            assert len(told) < 15, told
            if is_there:
                wait_for(lambda: server.versions("MLP").get(BIG) == "AVAILABLE")
                remove(server, "MLP", BIG)
    print(*told, sep="\n")
    played = sync()
    assert not played.failed, played.text
    wait_for(lambda: server.versions("MLP").get(BIG) == "AVAILABLE")
    assert sync().changed() == 0


def wait_until_staged(server: Server, share: float, then: str = "true") -> str:
    """Wait until a part of the big version has arrived, 0..1, and return what a command says at that moment."""
    condition = Moment("transferring", share, "").condition()
    return server.host.check_output(f"timeout 30 sh -c {shlex.quote(f'{condition}; {then}')}")


def test_run_after_a_late_kill_transfers_only_the_rest(start, sync, server, big):
    remove(server, "MLP", BIG)
    with start() as run:
        wait_until_staged(server, 0.7)
        run.kill()
    assert not is_published(server, "MLP", BIG)
    before = received(server.host)
    played = sync()
    assert (played.failed, played.changed()) == (False, 1), played.text
    assert received(server.host) - before < 0.4 * BIG_BYTES
    assert is_published(server, "MLP", BIG)


@contextmanager
def silent_link(server: Server):
    """Lose all that the host's sshd sends, without a word to either side. What clients get is not touched."""
    rule = ["INPUT", "--source", server.address, "--protocol", "tcp", "--sport", "22", "--jump", "DROP"]
    subprocess.run(["iptables", "--insert", *rule], check=True)
    try:
        yield
        listed = subprocess.run(
            ["iptables", "--list", "INPUT", "1", "--verbose", "--exact"], capture_output=True, text=True, check=True
        )
        assert int(listed.stdout.split()[0]) > 0, listed.stdout  # packets
    finally:
        subprocess.run(["iptables", "--delete", *rule], check=True)


def test_link_that_falls_silent_breaks_nothing(start, sync, server, watch, big):
    remove(server, "MLP", BIG)
    with start() as run:
        wait_until_staged(server, 0.2)
        with silent_link(server):
            time.sleep(3)
            assert not run.is_over()
        assert run.process.wait(60) == 0
    assert is_published(server, "MLP", BIG)
    remove(server, "MLP", BIG)
    with start() as run:
        wait_until_staged(server, 0.2)
        with silent_link(server):
            time.sleep(1)
            run.kill()
    assert not is_published(server, "MLP", BIG)
    played = sync()
    assert (played.failed, played.changed()) == (False, 1), played.text
    assert watch.problems() == []


def test_run_that_hangs_does_not_touch_what_the_next_run_publishes(start, sync, server, source, watch, big):
    """Its network was cut without a word, and comes back when the version is there, made from a newer export."""
    remove(server, "MLP", BIG)
    with start() as run:
        # What feeds it has to stop too: the bytes that have come so far shall be written when it goes on.
        feeding = "ps -o ppid= -p $(pgrep --oldest -x rsync)"
        stop = f"hanging=$(echo $({feeding}) $(pgrep -x rsync)); kill -STOP $hanging; echo $hanging"
        hanging = wait_until_staged(server, 0.3, stop).split()
        run.kill()
    with (big / SHARD).open("r+b") as shard:
        shard.seek(-(200 << 20), os.SEEK_END)
        for _ in range(190):
            shard.write(os.urandom(1 << 20))
    try:
        played = sync()
        assert not played.failed, played.text
        assert is_published(server, "MLP", BIG)
    finally:
        server.host.run(f"kill -CONT {' '.join(hanging)}")
    wait_for(lambda: not server.host.run("pgrep -x rsync").stdout)
    manifest = json.loads(server.host.file(f"{BASE}/MLP/.manifest-{BIG}.json").content_string)
    assert server.host.file(f"{BASE}/MLP/{BIG}/{SHARD}").sha256sum == manifest["files"][SHARD]["sha256"]
    assert watch.problems() == []


def test_run_that_follows_on_the_heels_of_a_killed_one_publishes(start, sync, server, watch, big):
    """The program of the killed run is still at work on the host: it reads what has arrived, and would rename it."""
    remove(server, "MLP", BIG)
    with start() as run:
        wait_until_staged(server, 1)
        run.kill()
    played = sync()
    assert not played.failed, played.text
    wait_for(lambda: server.versions("MLP").get(BIG) == "AVAILABLE")
    assert server.host.run(f"find {BASE}/MLP/{BIG} ! -user root").stdout == ""
    assert watch.problems() == []


# In rsync's place on the host: changes a byte of the shard after the transfer, and nothing that rsync would see it by.
CORRUPTER = f"""\
#!/bin/sh
/usr/bin/rsync "$@"
status=$?
shard={BASE}/MLP_custom/.staging-VERSION/{SHARD}
if [ -e "$shard" ] && [ ! -e /var/tmp/corrupted-once ]; then
    python3 -c '
import os, sys
before = os.stat(sys.argv[1])
with open(sys.argv[1], "r+b") as shard:
    shard.seek(1000)
    byte = shard.read(1)[0]
    shard.seek(1000)
    shard.write(bytes([byte ^ 255]))
os.utime(sys.argv[1], ns=(before.st_atime_ns, before.st_mtime_ns))
' "$shard"
    ONCE
fi
exit $status
"""


@pytest.fixture
def corrupt(server):
    """Have a version of MLP_custom corrupted on its way, once or always."""
    wrapper, once = "/usr/local/bin/rsync", "/var/tmp/corrupted-once"  # noqa: S108 - on a lab host

    def run(version: int, is_once: bool) -> None:
        text = CORRUPTER.replace("VERSION", str(version)).replace("ONCE", f"touch {once}" if is_once else ":")
        write(server.host, wrapper, text)
        server.host.check_output(f"chmod 755 {wrapper}")

    yield run
    server.host.check_output(f"rm --force {wrapper} {once}")


def test_file_that_is_corrupted_on_its_way_is_sent_again(corrupt, sync, source, server):
    source.add("MLP_custom", 50, padding_bytes=10000)
    corrupt(50, is_once=True)
    played = sync()
    assert server.host.file("/var/tmp/corrupted-once").exists  # noqa: S108
    assert not played.failed, played.text
    assert f"{SHARD} of MLP_custom version 50 did not arrive as sent; sent again" in played.words
    wait_for(lambda: server.versions("MLP_custom").get(50) == "AVAILABLE")


def test_file_that_is_corrupted_time_and_again_is_refused(corrupt, sync, source, server):
    source.add("MLP_custom", 51, padding_bytes=10000)
    corrupt(51, is_once=False)
    played = sync()
    assert played.failed
    assert f"{SHARD} of {source.root / 'MLP_custom' / '51'} did not arrive as sent, twice" in played.words
    assert "nothing was published" in played.words
    assert not is_published(server, "MLP_custom", 51)
    assert server.versions("MLP_custom")[50] == "AVAILABLE"


def test_no_version_was_visible_before_it_was_ready(watch):
    watch.stop()
    events = watch.events()
    assert events[-1]["event"] == "finished"
    assert watch.problems() == []
    seen = {(one["model"], one["version"]) for one in watch.events("appeared") if one["how"] == "moved to"}
    assert {(model, version) for model in ("MLP", "MLP_custom") for version in range(2, 7)} <= seen
    assert ("MLP", BIG) in seen


def test_no_prediction_failed(stream):
    stream.stop()
    assert stream.failures == []
    assert stream.answers / stream.seconds >= 50

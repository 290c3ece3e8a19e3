"""Rollouts on eight hosts behind HAProxy under a steady load over REST and gRPC, with what may go wrong meanwhile.

Environment: TFSERVING_FLEET_RATE, the requests a second; TFSERVING_FLEET_KILLS, how many rollouts are killed at
random moments within TFSERVING_FLEET_SPAN seconds; TFSERVING_FLEET_SEED, which moments.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

PROJECT = Path(__file__).resolve().parents[2]
NAME = "fleet"
LAB = PROJECT / ".lab" / NAME
LOGS = PROJECT / ".lab" / "fleet-logs"  # what each run printed
LAB_COMMAND = [sys.executable, str(PROJECT / "tests/lab/lab.py")]
INVENTORY = [f"--inventory={PROJECT / path}" for path in ("inventories/lab", "tests/fleet/inventory.yml")]
SERVING, ROLLOUT, ROLLBACK = (str(PROJECT / f"playbooks/{name}.yml") for name in ("serving", "rollout", "rollback"))
HAPROXY = str(PROJECT / "examples/haproxy/haproxy.yml")
HOSTS = ("debian12", *(f"debian13{letter}" for letter in "abcdefg"))
BALANCER = "infra"
MODELS = {"MLP": "saved", "MLP_custom": "saved_with_signature"}
OLD_PACKAGE, NEW_PACKAGE = "2.18.0", "2.19.1"
RATE = float(os.environ.get("TFSERVING_FLEET_RATE", "100"))
KILLS = int(os.environ.get("TFSERVING_FLEET_KILLS", "3"))
SPAN_SECONDS = float(os.environ.get("TFSERVING_FLEET_SPAN", "90"))
SEED = int(os.environ.get("TFSERVING_FLEET_SEED", str(random.randrange(1000))))  # noqa: S311
IDLE_SHARE, IDLE_SECONDS = 0.5, 20
REFUSAL = "this version refuses bright pictures"
# What is not about the waits: two batches, and gates that are over quickly. Latencies of a machine that the controller,
# eight hosts and their clients share say nothing.
LATENCY = {"max_ratio": 20, "max_p99_ratio": 100}
SHORT = {
    "tfserving_rollout_batches": ["1", "100%"],
    "tfserving_rollout_soak": {"seconds": 5, "max_latency_ratio": 20, "min_requests": 10},
    "tfserving_rollout_latency": LATENCY,
}


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print what was measured, whether or not the test passes."""

    def run(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="", flush=True)

    return run


# ---- the lab, what it serves and who asks


def environment() -> dict[str, str]:
    containers = str(PROJECT / ".lab/containers.conf")
    return {**os.environ, "TFSERVING_LAB": NAME, "ANSIBLE_NOCOLOR": "1", "CONTAINERS_CONF": containers}


@dataclass
class Play:
    """A finished ansible-playbook: its status, output and time."""

    status: int
    text: str
    seconds: float

    @property
    def changed(self) -> int:
        return sum(map(int, re.findall(r"\bchanged=(\d+)", self.text.partition("PLAY RECAP")[2])))


def command(playbook: str, variables: dict[str, Any], *arguments: str) -> list[str]:
    given = [f"--extra-vars={json.dumps(variables)}", *arguments]
    return ["ansible-playbook", *INVENTORY, f"--forks={len(HOSTS)}", playbook, *given]


def start_play(playbook: str, variables: dict[str, Any], *arguments: str) -> Running:
    LOGS.mkdir(exist_ok=True)
    log = LOGS / f"{time.strftime('%H%M%S')}-{Path(playbook).stem}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(playbook, variables, *arguments), cwd=PROJECT, env=environment(), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return Running(process, log)


def play(playbook: str, variables: dict[str, Any], *arguments: str) -> Play:
    began = time.monotonic()
    running = start_play(playbook, variables, *arguments)
    try:
        status = running.process.wait()
    finally:
        if running.process.poll() is None:
            running.kill(workers=True)
    return Play(status, running.text(), time.monotonic() - began)


def must(played: Play) -> Play:
    assert played.status == 0, played.text
    return played


def ssh(host: str, script: str) -> str:
    done = subprocess.run(
        ["ssh", "-F", str(LAB / "ssh_config"), host, script], check=True, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def address(host: str) -> str:
    found = re.search(rf"^Host {host}\n\s+HostName (\S+)", (LAB / "ssh_config").read_text(), re.MULTILINE)
    assert found, host
    return found[1]


def bring_up() -> None:
    subprocess.run([*LAB_COMMAND, "up", "--name", NAME, "--model-hosts", str(len(HOSTS))], check=True)


def brightness(picture: list[list[float]]) -> float:
    return sum(map(sum, picture))


@dataclass
class Catalog:
    """The models on the controller. Each version has the files of another training than the one before."""

    trained: Path
    source: Path
    package: str = OLD_PACKAGE
    last: int = 0

    def next(self) -> int:
        """Make a version of each model, and return its number."""
        self.last += 1
        for directory in MODELS.values():
            files = self.trained / directory / str(1 + (self.last + 1) % 2)
            shutil.copytree(files, self.source / directory / str(self.last))
        return self.last

    @property
    def version(self) -> int:
        """The newest."""
        return max(int(one.name) for one in (self.source / MODELS["MLP"]).iterdir())

    def drop(self) -> None:
        """Remove the newest version, whose number is not used again."""
        for directory in MODELS.values():
            shutil.rmtree(self.source / directory / str(self.last))

    def variables(self, **given: Any) -> dict[str, Any]:
        digits = json.loads((self.trained / "digits.json").read_text())["digits"]
        darkest = min((digit["pixels"] for digit in digits), key=brightness)
        models: list[dict[str, Any]] = [
            {"name": name, "source": str(self.source / directory)} for name, directory in MODELS.items()
        ]
        models[0]["sample_requests"] = [{"instances": [darkest]}]
        return {"tfserving_models_catalog": models, "tfserving_package_version": self.package, **SHORT, **given}


@pytest.fixture(scope="module")
def trained() -> Path:
    """Versions 1 and 2 of both models, and digits."""
    output = PROJECT / ".lab" / "fleet-models"
    for version, seed in ((1, 0), (2, 1)):
        train = ["examples/mnist/train.py", f"--output={output}", f"--version={version}", f"--seed={seed}"]
        subprocess.run([sys.executable, *train], cwd=PROJECT, check=True)
    return output


@pytest.fixture(scope="module")
def catalog(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Served on all hosts of a lab of its own, behind HAProxy."""
    made = Catalog(trained, tmp_path_factory.mktemp("models"))
    made.next()
    subprocess.run([*LAB_COMMAND, "down", "--name", NAME], check=True)
    bring_up()
    must(play(HAPROXY, made.variables()))
    must(play(SERVING, made.variables()))
    yield made
    subprocess.run([*LAB_COMMAND, "down", "--name", NAME], check=True)


@dataclass
class Traffic:
    """What the clients have been answered."""

    process: subprocess.Popen[bytes]
    log: Path
    position: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def since_last(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return counts and failures since this was asked last; the last seconds are waited for."""
        assert self.process.poll() is None, "the clients have ended"
        time.sleep(3)
        with self.log.open("rb") as written:
            written.seek(self.position)
            whole = written.read().rpartition(b"\n")[0]
        self.position += len(whole) + 1 if whole else 0
        lines = [json.loads(line) for line in whole.splitlines()]
        counts = [line for line in lines if "at" in line]
        summed: dict[str, float] = {kind: sum(one[kind] for one in counts) for kind in ("REST", "gRPC")}
        summed["slowest"] = max((one["slowest"] for one in counts), default=0.0)
        return summed, [line for line in lines if "failure" in line]


def idle_share() -> float:
    """Return how much of the machine is idle over the next seconds, 0..1."""

    def cpu() -> list[int]:
        return [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]

    before = cpu()
    time.sleep(IDLE_SECONDS)
    spent = [after - one for after, one in zip(cpu(), before, strict=True)]
    return (spent[3] + spent[4]) / sum(spent)


@pytest.fixture(scope="module")
def idle_before(catalog: Catalog) -> float:
    """The share of the machine that is idle while the hosts serve nobody."""
    time.sleep(5)
    return idle_share()


@pytest.fixture(scope="module")
def traffic(idle_before: float, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    log = tmp_path_factory.mktemp("traffic") / "log"
    program, digits = str(PROJECT / "tests/fleet/traffic.py"), str(catalog.trained / "digits.json")
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, program, address(BALANCER), str(RATE), digits], stdout=output)
    running = Traffic(process, log)
    deadline = time.monotonic() + 60
    while not log.read_bytes():
        assert process.poll() is None, "the clients do not start"
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.5)
    yield running
    process.send_signal(signal.SIGTERM)
    process.wait(60)


@pytest.fixture(autouse=True)
def failures(traffic: Traffic, say: Callable[[str], None]) -> Iterator[list[dict[str, Any]]]:
    """Every test is under traffic, and no request fails but those that a test takes out of this list."""
    traffic.since_last()
    found: list[dict[str, Any]] = []
    traffic.failures = found
    yield found
    counts, later = traffic.since_last()
    found += later
    words = f"{counts['REST']:.0f} REST and {counts['gRPC']:.0f} gRPC requests, the slowest {counts['slowest']:.2f} s"
    say(f"{words}; {len(found)} failed that may not")
    assert not found


def taken(traffic: Traffic, failures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the failures of this test so far, which it judges itself."""
    _, found = traffic.since_last()
    failures.clear()
    return found


# ---- what the hosts have in the end


def served() -> dict[str, list[int]]:
    """Return the versions that each host serves, one of each model where all is well."""

    def ask(host: str) -> list[int]:
        versions = []
        for model in MODELS:
            answer = requests.get(f"http://{address(host)}:8501/v1/models/{model}", timeout=20).json()
            states = answer["model_version_status"]
            versions += [int(one["version"]) for one in states if one["state"] == "AVAILABLE"]
        return versions

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        return dict(zip(HOSTS, pool.map(ask, HOSTS), strict=True))


def everywhere(version: int) -> dict[str, list[int]]:
    return dict.fromkeys(HOSTS, [version] * len(MODELS))


def states() -> dict[str, str]:
    """Return what HAProxy says of each server, for REST and gRPC."""
    lines = ssh(BALANCER, "echo show stat | sudo socat stdio UNIX-CONNECT:/run/haproxy/admin.sock").splitlines()
    fields = [line.split(",") for line in lines if line.startswith(("rest,", "grpc,"))]
    return {f"{one[0]}/{one[1]}": one[17] for one in fields if one[1] in HOSTS}


def is_settled(catalog: Catalog) -> None:
    """Check that every host serves the newest version, and that there is nothing left to do."""
    assert served() == everywhere(catalog.version)
    after = play(SERVING, catalog.variables())
    assert (after.status, after.changed) == (0, 0), after.text
    assert set(states().values()) == {"UP"}


def table(played: Play) -> dict[str, str]:
    """Return the result of each host in the table at the end of a rollout."""
    rows = [line.split() for line in played.text.partition("Print the result")[2].splitlines()]
    return {
        row[1]: " ".join(row[2:4]) if row[2] == "not" else row[2] for row in rows if len(row) > 2 and row[1] in HOSTS
    }


# ---- what runs, and what is killed


@dataclass
class Running:
    """An ansible-playbook at work."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, task: str, times: int) -> None:
        deadline = time.monotonic() + 600
        while len(re.findall(rf"^TASK \[.*{re.escape(task)}", self.text(), re.MULTILINE)) < times:
            assert self.process.poll() is None, f"it has ended before {task}:\n{self.text()}"
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def kill(self, *, workers: bool) -> str:
        """End it as kill -9 does, its workers too or only the process group; return the task that it was at.

        Ansible's workers have sessions of their own: without a controller they end with their task.
        """
        victims = [self.process.pid, *(descendants(self.process.pid) if workers else [])]
        os.killpg(self.process.pid, signal.SIGKILL)
        for pid in victims[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        tasks = re.findall(r"^(?:TASK|PLAY) \[(.*?)\]", self.text(), re.MULTILINE)
        return tasks[-1].removeprefix("modelops.tensorflow_serving.") if tasks else "before the first task"


def descendants(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *descendants(child)]
    return found


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started = []

    def run(playbook: str, variables: dict[str, Any]) -> Running:
        started.append(start_play(playbook, variables))
        return started[-1]

    yield run
    for one in started:
        if one.process.poll() is None:
            one.kill(workers=True)


def roll_out_until_done(catalog: Catalog, **given: Any) -> list[Play]:
    """Play rollout.yml until it ends well, as after a return that withdrew the version: with it once more."""
    played = [play(ROLLOUT, catalog.variables(**given))]
    while played[-1].status != 0 and len(played) < 4:
        played.append(play(ROLLOUT, catalog.variables(tfserving_models_retry_withdrawn=True, **given)))
    assert played[-1].status == 0, "\n".join(one.text for one in played)
    return played


# ---- the tests, each of which begins with what the one before has left


def test_load_takes_at_most_half_of_the_machine(idle_before, say):
    """What else the machine does meanwhile is not the load's."""
    idle = idle_share()
    say(f"{RATE:.0f} requests a second: {idle:.0%} of {os.cpu_count()} cores idle, {idle_before:.0%} without them")
    assert idle_before - idle <= 1 - IDLE_SHARE, "set TFSERVING_FLEET_RATE lower"


def test_rollout_in_the_default_batches(catalog, say):
    version = catalog.next()
    seconds = 60
    played = must(play(ROLLOUT, {
        **{name: value for name, value in catalog.variables().items() if name != "tfserving_rollout_batches"},
        "tfserving_rollout_soak": {"seconds": seconds, "max_latency_ratio": 20},
    }))  # fmt: skip
    assert table(played) == dict.fromkeys(HOSTS, "passed")
    batches = played.text.count("Let clients use the new versions")
    waits = batches * seconds
    say(f"rollout: {played.seconds:.0f} s, of which {batches} waits of {seconds} s are {waits}")
    assert served() == everywhere(version)
    is_settled(catalog)


def test_rollback(catalog, say):
    if catalog.version == 1:
        catalog.next()
        must(play(ROLLOUT, catalog.variables()))
    played = must(play(ROLLBACK, catalog.variables()))
    say(f"rollback: {played.seconds:.0f} s")
    assert served() == everywhere(catalog.version - 1)
    after = play(SERVING, catalog.variables())
    assert (after.status, after.changed) == (0, 0), after.text


def test_upgrade_restarts_one_drained_host_after_the_other(catalog, say):
    catalog.package = NEW_PACKAGE
    played = must(play(SERVING, catalog.variables()))
    drained = re.findall(r"changed: \[(\S+) -> infra", played.text.partition("Send the server no more requests")[2])
    say(f"upgrade: {played.seconds:.0f} s, {played.seconds / len(HOSTS):.0f} s for a host")
    assert set(drained) == {*HOSTS}
    for host in HOSTS:
        assert NEW_PACKAGE in ssh(host, "tensorflow_model_server --version")
    after = play(SERVING, catalog.variables())
    assert (after.status, after.changed) == (0, 0), after.text
    assert set(states().values()) == {"UP"}


def test_killed_controller_and_the_next_run(catalog, start, say):
    catalog.next()
    running = start(ROLLOUT, catalog.variables(tfserving_rollout_soak={"seconds": 60}))
    running.wait_for("Let clients use the new versions", 1)
    time.sleep(2)
    task = running.kill(workers=True)
    time.sleep(20)  # without anybody who looks after it
    played = must(play(ROLLOUT, catalog.variables()))
    say(f"killed at {task}; went on in {played.seconds:.0f} s")
    is_settled(catalog)


def refusing_version(source: Path, pictures: list[Any]) -> None:
    """Export a version of MLP that answers the darker pictures, and an error to the brightest fifth."""
    program = (
        "import sys, tensorflow as tf\n"
        "class Model(tf.Module):\n"
        "    def __init__(self):\n"
        "        self.weights = tf.Variable(tf.zeros([784, 10]))\n"
        "    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.float32, name='images')])\n"
        "    def serve(self, images):\n"
        f"        check = tf.debugging.assert_less(tf.reduce_sum(images), float(sys.argv[2]), '{REFUSAL}')\n"
        "        with tf.control_dependencies([check]):\n"
        "            return {'output_0': tf.nn.softmax(tf.reshape(images, [-1, 784]) @ self.weights)}\n"
        "model = Model()\n"
        "tf.saved_model.save(model, sys.argv[1], signatures=model.serve)\n"
    )
    sums = sorted(map(brightness, pictures))
    limit = (sums[len(sums) * 4 // 5 - 1] + sums[len(sums) * 4 // 5]) / 2
    shutil.rmtree(source)
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run([sys.executable, "-c", program, str(source), str(limit)], check=True, env=quiet)


def test_error_gate_lets_only_the_first_batch_answer_wrongly(catalog, traffic, failures, say):
    old = catalog.version
    version = catalog.next()
    digits = json.loads((catalog.trained / "digits.json").read_text())["digits"]
    refusing_version(catalog.source / MODELS["MLP"] / str(version), [digit["pixels"] for digit in digits])
    soak = {"seconds": 15, "max_latency_ratio": 20, "min_requests": 30}
    played = play(ROLLOUT, catalog.variables(tfserving_rollout_soak=soak))
    assert played.status != 0, played.text
    assert re.search(r"soak errors of MLP: \d", played.text), played.text
    assert table(played) == dict.fromkeys(HOSTS, "returned"), played.text
    assert served() == everywhere(old)
    found = taken(traffic, failures)
    seconds = max(one["answered"] for one in found) - min(one["sent"] for one in found)
    say(f"error gate: {played.seconds:.0f} s; {len(found)} answers of the refused version, over {seconds:.0f} s")
    assert {one["server"] for one in found} == {HOSTS[0]}
    assert all(REFUSAL in one["failure"] for one in found), found
    catalog.drop()
    after = play(SERVING, catalog.variables())
    assert (after.status, after.changed) == (0, 0), after.text


# The named steps: the task, and in which batch the run is killed there.
STEPS = {
    "distributing": ("tfserving_models : Publish the versions", 1),
    "before traffic": ("Try the new versions in a second server", 2),
    "changing": ("Write the configuration, and wait until running servers have loaded it", 2),
    "under traffic": ("Let clients use the new versions", 2),
    "returning": ("Return to what was served before", 1),
    "ending": ("Forget the rollout", 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_at_a_step(catalog, start, step, tmp_path, say):
    catalog.next()
    task, times = STEPS[step]
    given: dict[str, Any] = {}
    if step == "returning":
        gate = tmp_path / "gate.yml"
        gate.write_text(
            "- name: Stop\n  ansible.builtin.fail:\n    msg: red\n  when: inventory_hostname == 'debian13c'\n"
        )
        given["tfserving_rollout_gate_tasks"] = str(gate)
    running = start(ROLLOUT, catalog.variables(**given))
    running.wait_for(task, times)
    time.sleep(0.3)
    at = running.kill(workers=False)
    played = roll_out_until_done(catalog)
    say(f"{step}: killed at {at}; done after {times_of(played)}")
    is_settled(catalog)


def times_of(played: list[Play]) -> str:
    return " and ".join(f"{one.seconds:.0f} s (exit code {one.status})" for one in played)


@pytest.mark.parametrize("number", range(1, KILLS + 1))
def test_interrupted_at_random(catalog, start, number, say):
    """Odd ones with all of Ansible's processes, even ones with those of its process group."""
    catalog.next()
    running = start(ROLLOUT, catalog.variables())
    after = random.Random(SEED + number).uniform(0, SPAN_SECONDS)  # noqa: S311
    try:
        running.process.wait(after)
    except subprocess.TimeoutExpired:
        at = running.kill(workers=number % 2 == 1)
    else:
        at = "nothing, as it was over"
    played = roll_out_until_done(catalog)
    say(f"seed {SEED}: killed after {after:.0f} s at {at}; done after {times_of(played)}")
    is_settled(catalog)


def test_lost_host_costs_at_most_the_requests_in_flight(catalog, traffic, failures, say):
    lost = HOSTS[-1]
    container = f"tfserving-{NAME}-{lost}"
    subprocess.run(["podman", "kill", "--signal=KILL", container], env=environment(), check=True, capture_output=True)
    killed = time.time()
    time.sleep(20)
    found = taken(traffic, failures)
    down = [name for name, state in states().items() if state != "UP"]
    say(f"lost host: {len(found)} requests failed, all in flight: {[one['failure'] for one in found]}")
    assert down == [f"rest/{lost}", f"grpc/{lost}"]
    assert all(one["sent"] <= killed for one in found), (killed, found)
    bring_up()
    played = must(play(SERVING, catalog.variables(), f"--limit={lost}"))
    say(f"a new host in its place: {played.seconds:.0f} s")
    is_settled(catalog)

"""What cannot be served or does not fit is refused in time; and hosts that fetch by themselves."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from conftest import PROJECT, S3_ENDPOINT, S3_KEY, SERVING, STORE_PASSWORD, STORE_USER
from versions import (
    KILL_PROGRAM,
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
PROXIED = "debian13b"
EXPORT = PROJECT / "examples/mnist/saved/1"
MLP = {"name": "MLP", "source": str(EXPORT.parent)}
MLP_CUSTOM = {"name": "MLP_custom", "source": str(PROJECT / "examples/mnist/saved_with_signature")}


@pytest.fixture(scope="module")
def sync(play, tmp_path_factory):
    """Publish a catalogue of some models on one host, without a look at the server."""
    playbook = models_only(tmp_path_factory.mktemp("playbooks"))

    def run(*models: dict, **variables):
        given = {"tfserving_models_catalog": list(models), **variables}
        return play(str(playbook), f"--limit={HOST}", variables=given)

    return run


def test_model_that_would_not_answer_is_refused_before_anything_is_changed(play):
    export = {**MLP, "source": str(PROJECT / "tests/unit/plugins/saved_models/sequential_saved"), "versions": [900]}
    played = play(SERVING, f"--limit={HOST}", variables={"tfserving_models_catalog": [export, MLP_CUSTOM]})
    assert (played.failed, played.changed()) == (True, 0), played.text
    for word in ("reads what is never restored or initialised", "sequential/dense/kernel", "model.export(DIR)"):
        assert word in played.words
    assert "Store the signing key" not in played.text


SMALL = "/var/small"  # a file system of its own
SMALL_BASE = f"{SMALL}/models"


@pytest.fixture(scope="module")
def small(on):
    """A host with a small file system."""
    host = on(HOST)
    host.check_output(f"mkdir --parents {SMALL} && mount -t tmpfs -o size=64m,mode=0755 small {SMALL}")
    yield host
    host.check_output(f"umount {SMALL} && rmdir {SMALL}")


@pytest.fixture(scope="module")
def large(small, sync, tmp_path_factory) -> Path:
    """A source whose version 3 does not fit in; versions 1 and 2 are published."""
    source = tmp_path_factory.mktemp("source")
    for version in (1, 2):
        copy_version(EXPORT, source / str(version), padding_bytes=4 << 20)
    played = sync({**MLP, "source": str(source)}, tfserving_models_base_path=SMALL_BASE)
    assert not played.failed, played.text
    copy_version(EXPORT, source / "3", padding_bytes=200 << 20)
    return source


def published(host, model: str = "MLP") -> list[str]:
    return host.check_output(f"ls {SMALL_BASE}/{model}").split()


def test_version_without_room_is_refused_before_its_first_byte(small, sync, large):
    before = received(small)
    played = sync({**MLP, "source": str(large), "keep": 1}, tfserving_models_base_path=SMALL_BASE)
    assert (played.failed, played.changed()) == (True, 0), played.text
    needed, free, prunable = re.search(
        r"not enough disk space for the new versions: ([\d.]+) MiB needed, ([\d.]+) MiB free, and pruning would free "
        r"([\d.]+) MiB",
        played.words,
    ).groups()
    assert 200 < float(needed) < 202
    assert 50 < float(free) < 64
    assert 4 < float(prunable) < 5  # version 1; version 2 is the newest that is there
    assert received(small) - before < 4 << 20
    assert published(small) == ["1", "2"]


def test_transfer_that_fills_the_disk_publishes_nothing_and_the_next_run_finishes(small, sync, large):
    small.check_output(f"mount -o remount,size=300m {SMALL}")
    half_way = until(has_bytes(f"{SMALL_BASE}/MLP/.staging-3/{SHARD}", 20 << 20))
    eater = on_host(HOST, f"{half_way}; cat /dev/zero > {SMALL}/eaten")
    played = sync({**MLP, "source": str(large)}, tfserving_models_base_path=SMALL_BASE)
    eater.wait(90)
    assert played.failed
    assert "No space left on device" in played.words
    assert published(small) == ["1", "2"]
    small.check_output(f"rm {SMALL}/eaten")
    played = sync({**MLP, "source": str(large)}, tfserving_models_base_path=SMALL_BASE)
    assert not played.failed, played.text
    assert published(small) == ["1", "2", "3"]
    sha256 = hashlib.sha256((large / "3" / SHARD).read_bytes()).hexdigest()
    assert small.file(f"{SMALL_BASE}/MLP/3/{SHARD}").sha256sum == sha256


# An account whose sudo asks for a password receives files by itself, and root copies them.
ACCOUNT, PASSWORD = "publisher", "four words are enough"
ATTACKED = "/var/attacked"
ATTACKED_BASE = f"{ATTACKED}/models"
# What a second process of that account does meanwhile, in the only directory that it may change. Told to keep, it
# spoils nothing: it holds files open and links them elsewhere, and writes to them once its file `now` is there.
ATTACK = f"""\
import os, random, sys, time
incoming, outside, home = "{ATTACKED_BASE}/MLP/.incoming-3", "{ATTACKED}/outside", "/home/{ACCOUNT}"
names = ["{SHARD}", "variables", "assets", "assets/mark.txt"]
opened, links = [], []
while not os.path.exists(home + "/now"):
    name = random.choice(names)
    path, away = incoming + "/" + name, home + "/" + str(random.random())
    try:
        what = random.randrange(*(3, 6) if sys.argv[1] == "keep" else (0, 7))
        if what == 0:
            os.symlink(outside, path)
        elif what == 1:
            os.rename(path, away)
            os.symlink(outside + "/shadow", path)
        elif what == 2 and opened:
            os.pwrite(random.choice(opened), b"attack", 0)
        elif what == 3 and len(links) < 100:
            os.link(path, away)
            os.chmod(away, 0o666)
            links.append(away)
        elif what == 4 and len(opened) < 100:
            opened.append(os.open(path, os.O_RDWR))
        elif what == 5:
            os.makedirs(incoming + "/empty/" + str(random.random()))
    except OSError:
        pass
    time.sleep(random.random() / 200)
for one in opened + links:
    try:
        os.pwrite(one if isinstance(one, int) else os.open(one, os.O_RDWR), b"attack", 0)
    except OSError:
        pass
print(len(opened), len(links))
"""


@pytest.fixture
def account(on):
    """The account on the host, and as variables for a play."""
    host, home = on(HOST), f"/home/{ACCOUNT}"
    host.check_output(f"useradd --create-home {ACCOUNT} && echo {ACCOUNT}:{PASSWORD} | chpasswd")
    host.check_output(f"cp --recursive ~deploy/.ssh {home}/ && chown --recursive {ACCOUNT}: {home}/.ssh")
    host.check_output(f"echo '{ACCOUNT} ALL=(ALL:ALL) ALL' > /etc/sudoers.d/{ACCOUNT}")
    host.check_output(f"mkdir --parents {ATTACKED}/outside && echo secret > {ATTACKED}/outside/shadow")
    host.check_output(f"chmod 600 {ATTACKED}/outside/shadow")
    yield {"ansible_user": ACCOUNT, "ansible_become_password": PASSWORD}
    host.check_output(
        f"pkill -KILL -u {ACCOUNT}; userdel --remove {ACCOUNT}; rm -r /etc/sudoers.d/{ACCOUNT} {ATTACKED}"
    )


def test_account_that_attacks_what_it_receives_changes_nothing_that_is_published(account, sync, on, tmp_path):
    host, size = on(HOST), 32 << 20
    given = {"tfserving_models_base_path": ATTACKED_BASE, **account}
    model = {**MLP, "source": str(tmp_path)}
    copy_version(EXPORT, tmp_path / "1", size)
    played = sync(model, **given)
    assert not played.failed, played.text

    # Its transfers go on where they were cut, as root's do.
    copy_version(EXPORT, tmp_path / "2", size)
    late = until(has_bytes(f"{ATTACKED_BASE}/MLP/.incoming-2/{SHARD}", size * 3 // 4))
    killer = on_host(HOST, f"{late}; pkill -KILL -x rsync")
    assert sync(model, **given).failed
    killer.wait(90)
    before = received(host)
    played = sync(model, **given)
    assert not played.failed, played.text
    assert received(host) - before < size // 2

    copy_version(EXPORT, tmp_path / "3", size)
    write(host, f"/home/{ACCOUNT}/attack.py", ATTACK)
    attack = f"systemd-run --quiet --property=User={ACCOUNT} --unit=attack-%s python3 /home/{ACCOUNT}/attack.py %s"
    host.check_output(attack % ("all", "all"))
    sync(model, **given)  # which may be refused
    host.check_output(f"systemctl stop attack-all; rm --recursive --force {ATTACKED_BASE}/MLP/3")
    host.check_output(attack % ("keep", "keep"))
    played = sync(model, **given)
    assert not played.failed, played.text
    host.check_output(f"touch /home/{ACCOUNT}/now")
    wait_for(lambda: host.run("systemctl is-active attack-keep").stdout.strip() != "active")
    kept = re.findall(r"(\d+) (\d+)$", host.check_output("journalctl --unit=attack-keep --output=cat"), re.MULTILINE)
    assert min(map(int, kept[0])) > 0
    published = f"{ATTACKED_BASE}/MLP/3"
    there = host.check_output(f"cd {published} && find . -type f -exec sha256sum {{}} +")
    found = {line.split()[1][2:]: line.split()[0] for line in there.splitlines()}
    files = [file for file in (tmp_path / "3").rglob("*") if file.is_file()]
    assert found == {file.relative_to(tmp_path / "3").as_posix(): sha256_of(file) for file in files}
    assert host.check_output(f"find {published} ! -user root -o -perm /022 -o -type d -empty") == ""
    assert host.check_output(f"stat -c %h {published}/{SHARD} {published}/saved_model.pb").split() == ["1", "3"]
    assert host.check_output(f"ls {ATTACKED}/outside").split() == ["shadow"]
    assert host.run(f"grep --recursive secret {ATTACKED_BASE}").stdout == ""
    assert sync(model, **given).changed() == 0


def test_account_whose_sudo_wants_a_terminal_publishes_without_pipelining(account, sync, on, tmp_path):
    host, model = on(HOST), {**MLP, "source": str(tmp_path)}
    copy_version(EXPORT, tmp_path / "1")
    host.check_output(f"echo 'Defaults:{ACCOUNT} requiretty' >> /etc/sudoers.d/{ACCOUNT}")
    given = {"tfserving_models_base_path": ATTACKED_BASE, **account}
    assert "you must have a tty" in sync(model, **given).words
    played = sync(model, ansible_pipelining=False, **given)
    assert not played.failed, played.text
    assert sync(model, ansible_pipelining=False, **given).changed() == 0
    assert host.check_output(f"ls /home/{ACCOUNT}/.ansible/tmp") == ""


STORE = "https://packages.lab/private-models/pulled"
SLOW_PORT = 8081
SLOW = f"""\
server {{
    listen {SLOW_PORT};
    access_log /var/log/nginx/access.log lab;
    limit_rate 20m;
    root /srv;
}}
"""


def pack(version: Path, suffix: str) -> Path:
    """Make the archive of a version beside it."""
    archive = version.with_name(version.name + suffix)
    subprocess.run(["tar", "--auto-compress", "-cf", archive, "-C", version, "."], check=True)
    return archive


def sha256_of(archive: Path) -> str:
    return hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def digest_of():
    """The digest of a version, as the module saved_model_info prints it."""

    def run(version: Path) -> str:
        info = ["--module-name=modelops.tensorflow_serving.saved_model_info", f"--args=path={version}"]
        printed = subprocess.run(["ansible", "localhost", *info], check=True, capture_output=True, text=True).stdout
        return re.search(r"\bdigest\W+([0-9a-f]{64})\b", printed)[1]

    return run


@pytest.fixture(scope="module")
def pulled(model_store, digest_of, tmp_path_factory) -> list[dict]:
    """A model for each kind of source: version 1 of all is the same export."""
    version = copy_version(EXPORT, tmp_path_factory.mktemp("pulled") / "1")
    model_store.put(version, "pulled/1")
    models = []
    for suffix in (".tar.zst", ".tar.gz", ".tar"):
        archive = pack(version, suffix)
        model_store.put(archive, f"pulled/{archive.name}")
        name, source = suffix.rpartition(".")[2], f"{STORE}/{{version}}{suffix}"
        models.append({"name": name, "source": source, "versions": [1], "digests": {1: sha256_of(archive)}})
    trees = {"s3": "s3://models/pulled", "rsync": "rsync://packages.lab/private-models/pulled"}
    tree = {"versions": [1], "digests": {1: digest_of(version)}}
    return [*models, *({"name": name, "source": source, **tree} for name, source in trees.items())]


CREDENTIALS = {
    "tfserving_models_url_username": STORE_USER,
    "tfserving_models_url_password": STORE_PASSWORD,
    "tfserving_models_s3": {
        "endpoint_url": S3_ENDPOINT,
        "access_key_id": S3_KEY["accessKey"],
        "secret_access_key": S3_KEY["secretKey"],
    },
}
SECRET = "s3cret"  # noqa: S105 - what all of the lab's passwords begin with


@pytest.fixture(scope="module")
def fetched(play, pulled, proxy_log):
    """Both hosts serve all of them. Returns the play and what the proxy was asked for."""
    assert STORE_PASSWORD.startswith(SECRET)
    assert S3_KEY["secretKey"].startswith(SECRET)
    mark = proxy_log.mark()
    variables = {"tfserving_models_catalog": [MLP, MLP_CUSTOM, *pulled], **CREDENTIALS}
    played = play(SERVING, "-vvv", f"--limit={HOST},{PROXIED}", variables=variables)
    assert not played.failed, played.text
    return played, proxy_log.requests_since(mark)


@pytest.mark.parametrize("name", [HOST, PROXIED])
def test_host_fetches_from_every_kind_of_source_and_serves(fetched, pulled, server_on, digits, name):
    for model in pulled:
        wait_for(lambda model=model: server_on(name).versions(model["name"]).get(1) == "AVAILABLE")
        assert server_on(name).accuracy(model["name"], digits) >= 0.95


def test_host_behind_a_proxy_fetches_through_it(fetched, server_on, web_log):
    _, requests = fetched
    address = server_on(PROXIED).address
    for target in ("packages.lab:443", "packages.lab:873"):
        assert f"CONNECT {target}" in requests
    assert [one for one in requests if S3_ENDPOINT in one]
    assert not [line for line in web_log.lines() if line.startswith(f"{address} ") and "/pulled/" in line]


@pytest.mark.parametrize("name", [HOST, PROXIED])
def test_credentials_are_shown_nowhere(fetched, on, name):
    played, _ = fetched
    assert SECRET not in played.text
    assert SECRET not in on(name).check_output("journalctl --no-pager")
    where = "/etc /home /root /tmp /var/lib/tensorflow-serving /var/log /var/tmp"
    pattern = f"{SECRET[:-1]}[{SECRET[-1]}]"  # which is not what it finds, as sudo logs this command
    assert on(name).run(f"grep --recursive --files-with-matches --binary-files=text {pattern} {where}").stdout == ""


def test_archive_with_another_digest_is_refused(fetched, pulled, model_store, sync, tmp_path, on):
    archive = pack(copy_version(EXPORT, tmp_path / "2"), ".tar.zst")
    model_store.put(archive, "pulled/2.tar.zst")
    model = {**pulled[0], "versions": [1, 2], "digests": {**pulled[0]["digests"], 2: "0" * 64}}
    played = sync(MLP, MLP_CUSTOM, model, **CREDENTIALS)
    assert played.failed
    assert f"its sha256 is {sha256_of(archive)}, expected is {'0' * 64}" in played.words
    assert on(HOST).check_output("ls /var/lib/tensorflow-serving/models/zst").split() == ["1"]


@pytest.fixture
def slow(on):
    """A port of infra's web server that sends 20 MB a second."""
    infra, settings = on("infra"), "/etc/nginx/sites-enabled/slow"
    write(infra, settings, SLOW)
    infra.check_output("systemctl reload nginx")
    yield
    infra.check_output(f"rm {settings} && systemctl reload nginx")


def test_download_that_was_cut_goes_on_where_it_stopped(fetched, model_store, sync, tmp_path, on, slow, web_log):
    size = 64 << 20
    archive = pack(copy_version(EXPORT, tmp_path / "3", size), ".tar")
    model_store.put(archive, "pulled/3.tar")
    source = f"http://packages.lab:{SLOW_PORT}/models/pulled/{{version}}.tar"
    model = {"name": "tar", "source": source, "versions": [3], "digests": {3: sha256_of(archive)}}
    host, base = on(HOST), "/var/lib/tensorflow-serving/models/tar"
    late = until(has_bytes(f"{base}/.staging-3.download/archive", size * 3 // 4))
    killer = on_host(HOST, f"{late}; {KILL_PROGRAM}")
    assert sync(model).failed
    killer.wait(90)
    assert host.check_output(f"ls {base}").split() == ["1"]
    before, mark = received(host), web_log.mark()
    played = sync(model)
    assert not played.failed, played.text
    assert received(host) - before < size // 2
    assert [line for line in web_log.lines_since(mark) if '3.tar" 206 ' in line]
    assert host.check_output(f"ls {base}").split() == ["1", "3"]

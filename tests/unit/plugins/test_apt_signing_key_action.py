"""The action on the controller: one download for a fleet, and what is made of a key that has expired.

Most tests call the action with its module in this process; the last ones run ansible-playbook.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from openpgp_packets import armour
from signing_key_files import OTHER, OTHER_FINGERPRINT, PINNED, signing_key
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.action import apt_signing_key as action_plugin
from ansible_collections.modelops.tensorflow_serving.plugins.modules import apt_signing_key

ROOT = Path(__file__).resolve().parents[3]
NAME = "modelops.tensorflow_serving.apt_signing_key"
URL = "http://keys.example.com/key.gpg"
KEY = signing_key()

Ask = Callable[..., dict[str, Any]]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="keyrings are root's"),
    pytest.mark.usefixtures("no_environment_proxy"),
]
either_way = pytest.mark.parametrize("fetch", ["controller", "host"])


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    return tmp_path / "serving.gpg"


@pytest.fixture
def ask(
    serving: StubServer,
    keyring: Path,
    run_module: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Ask:
    """Run the action once, for this host, as one run of Ansible; memory=... makes it a later task of the same run."""
    serving.answer("/key.gpg", armour(KEY))

    def run(check: bool = False, memory: Path | None = None, **arguments: Any) -> dict[str, Any]:
        given = {"fingerprint": PINNED, "path": str(keyring), "timeout_seconds": 5, **arguments}
        if not {"url", "src", "content"} & set(given):
            given["url"] = f"{serving.url}/key.gpg"
        task = SimpleNamespace(
            async_val=0, check_mode=check, diff=True, action=NAME, args=given, get_search_path=lambda: [str(ROOT)]
        )
        plugin = action_plugin.ActionModule(task, MagicMock(), MagicMock(), DataLoader(), MagicMock(), MagicMock())

        def execute(module_name: str, module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
            assert module_name == NAME
            return run_module(apt_signing_key, check=check, **module_args)

        monkeypatch.setattr(plugin, "_execute_module", execute)
        monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(memory or tmp_path_factory.mktemp("run")))
        result: dict[str, Any] = plugin.run(task_vars={})
        return result

    return run


def end_of(result: dict[str, Any], which: str = "published") -> str:
    return str(result[which]["expires"])


# Renewal


@either_way
def test_key_is_stored_and_found_converged_without_a_request(
    ask: Ask, serving: StubServer, keyring: Path, fetch: str
) -> None:
    result = ask(fetch=fetch)
    assert (result["changed"], result["usable"], result.get("warnings", [])) == (True, True, [])
    assert keyring.read_bytes() == KEY
    serving.requests.clear()
    result = ask(fetch=fetch)
    assert (result["changed"], result["usable"], result["published"]) == (False, True, None)
    assert serving.requests == []


@either_way
@pytest.mark.parametrize("days_left", [29, -1])
def test_copy_that_is_due_is_renewed(ask: Ask, serving: StubServer, keyring: Path, fetch: str, days_left: int) -> None:
    keyring.write_bytes(signing_key(days_left))
    result = ask(fetch=fetch)
    assert (result["changed"], result["key"]["days_left"]) == (True, 400)
    assert "expires" in result["diff"]["before"]
    assert keyring.read_bytes() == KEY
    assert len(serving.requests) == 1


@either_way
@pytest.mark.parametrize("published", [signing_key(20), signing_key(20, signed_days_ago=11), signing_key(5)])
def test_copy_that_is_due_stays_when_nothing_better_is_published(
    ask: Ask, serving: StubServer, keyring: Path, fetch: str, published: bytes
) -> None:
    keyring.write_bytes(signing_key(20))
    serving.answer("/key.gpg", published)
    result = ask(fetch=fetch)
    assert (result["changed"], result["usable"]) == (False, True)
    *older, due = result["warnings"]
    assert due == (
        f"The signing key {PINNED} expires on {end_of(result, 'key')} (days left: 20), and no renewed key is published."
    )
    assert [f"it expires on {end_of(result)}, the copy on {end_of(result, 'key')}" in text for text in older] == (
        [True] if published == signing_key(5) else []
    )
    assert result["ansible_stats"]["data"]["warning"] == " ".join(result["warnings"])
    assert keyring.read_bytes() == signing_key(20)
    assert len(serving.requests) == 1


@either_way
def test_published_key_that_expires_soon_is_stored_with_a_warning(ask: Ask, serving: StubServer, fetch: str) -> None:
    serving.answer("/key.gpg", signing_key(1))
    result = ask(fetch=fetch)
    assert (result["changed"], len(result["warnings"])) == (True, 1)
    assert "(days left: 1)" in result["ansible_stats"]["data"]["warning"]


@either_way
@pytest.mark.parametrize("copy", [None, signing_key(5), signing_key(-5)], ids=["no copy", "good copy", "expired copy"])
@pytest.mark.parametrize("expired_key", ["fail", "keep"])
def test_impostor_is_refused_whatever_the_copy(
    ask: Ask, serving: StubServer, keyring: Path, fetch: str, copy: bytes | None, expired_key: str
) -> None:
    if copy:
        keyring.write_bytes(copy)
    serving.answer("/key.gpg", OTHER)
    result = ask(fetch=fetch, expired_key=expired_key)
    assert (result["failed"], result["reason"]) == (True, "refused")
    assert f"{serving.url}/key.gpg has fingerprint {OTHER_FINGERPRINT}, pinned is {PINNED}" in result["msg"]
    assert (keyring.read_bytes() if keyring.exists() else None) == copy


@either_way
def test_mode_that_was_set_is_told_when_the_key_stays(ask: Ask, serving: StubServer, keyring: Path, fetch: str) -> None:
    keyring.write_bytes(signing_key(20))
    for status in (200, 503):
        serving.answer("/key.gpg", signing_key(20), status=status)
        keyring.chmod(0o600)
        assert ask(fetch=fetch)["changed"]
        assert keyring.stat().st_mode & 0o777 == 0o644
        assert not ask(fetch=fetch)["changed"]


# Unreachable, expired, revoked


@either_way
def test_good_copy_goes_on_with_a_warning_when_nothing_can_be_downloaded(ask: Ask, keyring: Path, fetch: str) -> None:
    keyring.write_bytes(signing_key(5))
    url = f"http://127.0.0.1:{unused_port()}/key.gpg"
    result = ask(fetch=fetch, url=url)
    assert (result.get("failed", False), result["changed"], result["usable"]) == (False, False, True)
    warning, due = result["warnings"]
    assert f"due for renewal, and cannot get {url}: " in warning
    assert due.endswith("(days left: 5), and a renewed key could not be downloaded.")
    assert result["ansible_stats"]["data"]["warning"] == due
    assert ("asked by the controller" in warning) is (fetch == "controller")


@either_way
def test_expired_copy_fails_when_nothing_can_be_downloaded(ask: Ask, keyring: Path, fetch: str) -> None:
    keyring.write_bytes(signing_key(-5))
    result = ask(fetch=fetch, url=f"http://127.0.0.1:{unused_port()}/key.gpg")
    assert (result["failed"], result["reason"], result["changed"]) == (True, "expired", False)
    assert result["msg"].startswith(f"The signing key {PINNED} expired on {end_of(result, 'key')}, and a renewed key")
    assert "Connection refused" in str(result["warnings"])


@either_way
def test_expired_copy_is_kept_on_request(ask: Ask, keyring: Path, fetch: str) -> None:
    keyring.write_bytes(signing_key(-5))
    result = ask(fetch=fetch, url=f"http://127.0.0.1:{unused_port()}/key.gpg", expired_key="keep")
    assert (result.get("failed", False), result["changed"], result["usable"]) == (False, False, False)
    assert f"{PINNED} expired on {end_of(result, 'key')}" in str(result["warnings"])
    assert keyring.read_bytes() == signing_key(-5)


@either_way
@pytest.mark.parametrize("expired_key", ["fail", "keep"])
def test_nothing_to_go_on_with_is_an_error(ask: Ask, keyring: Path, fetch: str, expired_key: str) -> None:
    result = ask(fetch=fetch, url=f"http://127.0.0.1:{unused_port()}/key.gpg", expired_key=expired_key)
    assert (result["failed"], result["reason"]) == (True, "unreachable")
    assert not keyring.exists()


@pytest.mark.parametrize("way", ["controller", "host", "content"])
@pytest.mark.parametrize("copy", [None, signing_key(-300)], ids=["no copy", "expired copy"])
@pytest.mark.parametrize(
    ("published", "end"),
    [(signing_key(-3), "expired on {}"), (signing_key(revoked=True), "is revoked")],
    ids=["expired", "revoked"],
)
def test_published_key_that_is_over_fails_or_is_kept_out(
    ask: Ask, serving: StubServer, keyring: Path, way: str, copy: bytes | None, published: bytes, end: str
) -> None:
    if copy:
        keyring.write_bytes(copy)
    serving.answer("/key.gpg", published)
    arguments = {"content": armour(published).decode()} if way == "content" else {"fetch": way}
    failed = ask(**arguments)
    assert (failed["failed"], failed["reason"], failed["changed"]) == (True, "expired", False)
    if not copy:
        origin = "as given" if way == "content" else "as published now"
        words = f"The signing key {PINNED} {end.format(end_of(failed))}, {origin}"
        assert failed["msg"] == words
    kept = ask(expired_key="keep", **arguments)
    assert (kept.get("failed", False), kept["usable"], kept["changed"]) == (False, False, False)
    assert kept["warnings"] == [f"{failed['msg']}. Continuing with what is installed."]
    assert kept["ansible_stats"]["data"]["warning"] == kept["warnings"][0]
    assert (keyring.read_bytes() if keyring.exists() else None) == copy


@either_way
def test_good_copy_goes_on_with_a_warning_when_the_key_is_published_as_revoked(
    ask: Ask, serving: StubServer, keyring: Path, fetch: str
) -> None:
    keyring.write_bytes(signing_key(5))
    serving.answer("/key.gpg", signing_key(revoked=True))
    result = ask(fetch=fetch)
    assert (result.get("failed", False), result["changed"], result["usable"]) == (False, False, True)
    assert f"{PINNED} is published as revoked" in str(result["warnings"])


# Keys that are given


@pytest.mark.parametrize("form", [armour(KEY), KEY], ids=["armoured", "binary"])
def test_key_file_is_stored_without_a_request(
    ask: Ask, serving: StubServer, keyring: Path, tmp_path: Path, form: bytes
) -> None:
    (tmp_path / "owner.asc").write_bytes(form)
    assert ask(src=str(tmp_path / "owner.asc"))["changed"]
    assert keyring.read_bytes() == KEY
    assert not ask(src=str(tmp_path / "owner.asc"))["changed"]
    assert serving.requests == []


@pytest.mark.parametrize("content", [armour(KEY).decode(), base64.b64encode(KEY).decode()], ids=["armour", "base64"])
def test_inline_key_is_stored_without_a_request(ask: Ask, serving: StubServer, keyring: Path, content: str) -> None:
    assert ask(content=content)["changed"]
    assert keyring.read_bytes() == KEY
    assert not ask(content=content)["changed"]
    assert serving.requests == []


@pytest.mark.parametrize("stale", [signing_key(200), signing_key(-5)], ids=["ends sooner", "expired"])
def test_stale_file_does_not_replace_a_copy_that_lasts_longer(
    ask: Ask, keyring: Path, tmp_path: Path, stale: bytes
) -> None:
    keyring.write_bytes(KEY)
    (tmp_path / "stale.gpg").write_bytes(stale)
    result = ask(src=str(tmp_path / "stale.gpg"))
    assert (result["changed"], result["usable"]) == (False, True)
    (warning,) = result["warnings"]
    assert warning.startswith(f"The key that was given is older than the host's copy: it expires on {end_of(result)}, ")
    assert keyring.read_bytes() == KEY


@pytest.mark.parametrize(
    "src", ["keys/missing.asc", "/missing.asc", "{tmp}"], ids=["relative", "absolute", "a directory"]
)
def test_file_that_cannot_be_read_is_named(ask: Ask, keyring: Path, tmp_path: Path, src: str) -> None:
    src = src.format(tmp=tmp_path)
    with pytest.raises(AnsibleActionFail, match=f"^src: .*{src}"):
        ask(src=src)
    assert not keyring.exists()


def test_one_source_of_the_key_is_asked_for(ask: Ask) -> None:
    with pytest.raises(Exception, match=r"mutually exclusive: url\|src\|content"):
        ask(url=URL, content="key")
    with pytest.raises(Exception, match="mutually exclusive"):
        ask(src="key.asc", content="")
    for nothing in ({"url": None}, {"url": ""}, {"src": ""}, {"content": None}):
        with pytest.raises(AnsibleActionFail, match="one of url, src and content is required"):
            ask(**nothing)


@either_way
def test_check_mode_downloads_and_writes_nothing(ask: Ask, serving: StubServer, keyring: Path, fetch: str) -> None:
    result = ask(check=True, fetch=fetch)
    assert (result["changed"], result["usable"]) == (True, True)
    assert len(serving.requests) == 1
    assert not keyring.exists()


# Ways of the download


def test_proxy_of_the_controllers_environment_comes_first(
    ask: Ask, proxy: StubServer, keyring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.answer(URL, KEY)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert ask(url=URL, proxy=f"http://127.0.0.1:{unused_port()}")["changed"]
    assert proxy.requests == [("GET", URL)]


def test_no_proxy_of_the_controllers_environment_comes_first(
    ask: Ask, serving: StubServer, proxy: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask(proxy=proxy.url)["changed"]
    assert (len(serving.requests), proxy.requests) == (1, [])


@either_way
@pytest.mark.parametrize(
    "environment", [{}, {"https_proxy": "http://127.0.0.1:1"}, {"all_proxy": "http://127.0.0.1:1"}]
)
def test_given_proxy_is_used_where_the_environment_has_none_for_the_url(
    ask: Ask, proxy: StubServer, monkeypatch: pytest.MonkeyPatch, fetch: str, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    proxy.answer(URL, KEY)
    assert ask(url=URL, proxy=proxy.url, fetch=fetch)["changed"]
    assert proxy.requests == [("GET", URL)]


@either_way
def test_no_proxy_is_heeded(ask: Ask, serving: StubServer, proxy: StubServer, fetch: str) -> None:
    assert ask(proxy=proxy.url, no_proxy=["example.com", "127.0.0.1"], fetch=fetch)["changed"]
    assert (len(serving.requests), proxy.requests) == (1, [])


def test_host_uses_the_given_proxy_whatever_its_environment(
    ask: Ask, proxy: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    proxy.answer(URL, KEY)
    assert ask(url=URL, proxy=proxy.url, fetch="host")["changed"]


@either_way
def test_tls_through_a_proxy_reached_by_tls_is_refused(ask: Ask, proxy: StubServer, keyring: Path, fetch: str) -> None:
    tls_proxy = f"https://user:s3cret@127.0.0.1:{proxy.port}"
    result = ask(url="https://keys.example.com/key.gpg", proxy=tls_proxy, fetch=fetch)
    assert (result["failed"], result["reason"]) == (True, "unreachable")
    assert f"through 127.0.0.1:{proxy.port}: Python cannot speak TLS" in result["msg"]
    assert "s3cret" not in str(result)
    assert not keyring.exists()


def test_refusal_is_remembered_for_this_way_only(
    ask: Ask, serving: StubServer, proxy: StubServer, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    for _ in range(2):
        assert ask(url=URL, proxy=proxy.url, memory=memory)["msg"].endswith("Not Found, asked by the controller")
    assert len(proxy.requests) == 1
    serving.answer(URL, KEY)  # as another proxy
    assert ask(url=URL, proxy=serving.url, memory=memory)["changed"]
    assert (len(proxy.requests), len(serving.requests)) == (1, 1)


# Runs of ansible-playbook

HOSTS = 3
Results = dict[str, list[dict[str, Any]]]


@dataclass
class Run:
    """What a run printed, and what each task returned for each host, in the order of the hosts."""

    output: str
    results: Results


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Run]:
    """Run the action for three hosts, all of them this one, in batches of two; a failed one does not stop the rest."""

    def play(tasks: dict[str, dict[str, Any]], *options: str, **environment: str) -> Run:
        common = {"fingerprint": PINNED, "path": str(tmp_path / "{{ inventory_hostname }}.gpg")}
        steps: list[dict[str, Any]] = []
        for name, arguments in tasks.items():
            told = f"RESULT {name} {{{{ inventory_hostname }}}} {{{{ key | to_json | b64encode }}}} END"
            steps.append({"name": name, NAME: {**common, **arguments}, "register": "key", "ignore_errors": True})
            steps.append({"name": "Tell the result", "ansible.builtin.debug": {"msg": told}})
        (tmp_path / "play.yml").write_text(
            yaml.safe_dump([{"hosts": "all", "gather_facts": False, "serial": 2, "tasks": steps}], sort_keys=False)
        )
        (tmp_path / "hosts").write_text(
            f"host[1:{HOSTS}] ansible_connection=local ansible_python_interpreter='{{{{ ansible_playbook_python }}}}'\n"
        )
        (tmp_path / "ansible.cfg").write_text("[connection]\npipelining = true\n")
        settings = {
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),  # nobody's own
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        }
        done = subprocess.run(
            ["ansible-playbook", "--inventory=hosts", "--forks=5", *options, "play.yml"],
            cwd=tmp_path,
            env=os.environ | settings | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        results: Results = {name: [] for name in tasks}
        for name, _, told in sorted(re.findall(r"RESULT (\w+) (\w+) (\S+) END", output)):
            results[name].append(json.loads(base64.b64decode(told)))
        return Run(output, results)

    return play


def keyrings(tmp_path: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(tmp_path.glob("host*.gpg"))]


def changes(results: list[dict[str, Any]]) -> list[bool]:
    return [result["changed"] for result in results]


def failures(results: list[dict[str, Any]]) -> list[tuple[bool, str]]:
    return [(result["failed"], result.get("reason", "")) for result in results]


def test_fleet_makes_one_request_and_the_next_run_none(
    play: Callable[..., Run], serving: StubServer, tmp_path: Path
) -> None:
    serving.answer("/key.gpg", armour(KEY))
    serving.delay_seconds = 0.5
    tasks = {"store": {"url": f"{serving.url}/key.gpg"}}
    assert changes(play(tasks).results["store"]) == [True] * HOSTS
    assert (len(serving.requests), keyrings(tmp_path)) == (1, [KEY] * HOSTS)
    assert changes(play(tasks).results["store"]) == [False] * HOSTS
    assert len(serving.requests) == 1


def test_fleet_asks_once_for_what_is_refused(play: Callable[..., Run], serving: StubServer, tmp_path: Path) -> None:
    serving.answer("/other.gpg", OTHER)
    missing, other = f"{serving.url}/key.gpg", f"{serving.url}/other.gpg"
    results = play({"missing": {"url": missing}, "impostor": {"url": other}}).results
    assert failures(results["missing"]) == [(True, "unreachable")] * HOSTS
    assert {one["msg"] for one in results["missing"]} == {f"cannot get {missing}: Not Found, asked by the controller"}
    assert failures(results["impostor"]) == [(True, "refused")] * HOSTS
    assert all(f"{other} has fingerprint {OTHER_FINGERPRINT}" in one["msg"] for one in results["impostor"])
    assert sorted(serving.requests) == [("GET", "/key.gpg"), ("GET", "/other.gpg")]
    assert keyrings(tmp_path) == []


def test_hosts_download_by_themselves_on_request_and_take_files_from_beside_the_playbook(
    play: Callable[..., Run], serving: StubServer, tmp_path: Path
) -> None:
    serving.answer("/key.gpg", signing_key(20))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "owner.asc").write_bytes(armour(KEY))
    tasks = {"url": {"url": f"{serving.url}/key.gpg", "fetch": "host"}, "src": {"src": "owner.asc"}}
    results = play(tasks).results
    assert (changes(results["url"]), changes(results["src"])) == ([True] * HOSTS, [True] * HOSTS)
    assert [one["key"]["days_left"] for one in results["url"]] == [20] * HOSTS
    assert len(serving.requests) == HOSTS
    assert keyrings(tmp_path) == [KEY] * HOSTS


def test_check_mode_of_a_run_writes_nothing_and_missing_files_and_expired_keys_are_told(
    play: Callable[..., Run], serving: StubServer, tmp_path: Path
) -> None:
    serving.answer("/key.gpg", armour(KEY))
    (tmp_path / "expired.gpg").write_bytes(signing_key(-5))
    tasks = {
        "fresh": {"url": f"{serving.url}/key.gpg"},
        "kept": {"url": f"{serving.url}/gone.gpg", "path": str(tmp_path / "expired.gpg"), "expired_key": "keep"},
        "missing": {"src": "missing.asc"},
    }
    run = play(tasks, "--check", "--diff", "--limit=host1")
    (fresh,), (kept,), (missing,) = run.results.values()
    assert (fresh["changed"], keyrings(tmp_path)) == (True, [])
    printed = " ".join(run.output.split())
    assert f"+{PINNED} expires {end_of(fresh, 'key')}" in printed
    assert (kept["failed"], kept["usable"]) == (False, False)
    assert f"The signing key {PINNED} expired on {end_of(kept, 'key')}, and a renewed key could not" in printed
    assert "due for renewal, and cannot get" in printed
    assert missing["failed"]
    assert "src: there is no file missing.asc on the controller" in missing["msg"]


@pytest.mark.parametrize("way", ["option", "environment"])
def test_password_of_a_proxy_is_printed_nowhere(
    play: Callable[..., Run], proxy: StubServer, tmp_path: Path, way: str
) -> None:
    proxy.answer(URL, KEY)
    secret = f"http://user:s3cret%40word@127.0.0.1:{proxy.port}"
    given = {"proxy": secret} if way == "option" else {}
    environment = {} if way == "option" else {"http_proxy": secret}
    tasks = {
        f"{fetch}{number}": {"url": url, "fetch": fetch, "path": str(tmp_path / fetch), **given}
        for fetch in ("controller", "host")
        for number, url in enumerate((f"{URL}s", URL))
    }
    run = play(tasks, "-vvv", "--diff", "--limit=host1", **environment)
    told = [one for (one,) in run.results.values()]
    assert [one["failed"] for one in told] == [True, False, True, False]
    assert f" through 127.0.0.1:{proxy.port}: Not Found" in told[0]["msg"]
    assert "s3cret" not in run.output
    assert "s3cret" not in str(told)
    assert {one.get("proxy-authorization") for one in proxy.headers} == {"Basic dXNlcjpzM2NyZXRAd29yZA=="}


def test_clock_that_is_ahead_is_named(ask: Ask, keyring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host says that the key has expired, and by the controller's clock it has not."""

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(days=60)

    keyring.write_bytes(signing_key(-30))
    monkeypatch.setattr(action_plugin, "datetime", Earlier)
    result = ask(content=armour(signing_key(-30)).decode())
    assert "is past by the host's clock but not by the controller's" in result["msg"]

"""Packages of Debian are installed where they are missing, and the apt cache is updated only where that is needed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.modules import debian_packages

Play = Callable[..., dict[str, Any]]

DPKG_QUERY = """#!/bin/sh
for name; do
    case $name in --*) continue ;; esac
    [ -e {state}/installed/$name ] && printf '%s\\t1.0\\t%s\\n' $name $(cat {state}/installed/$name)
done
exit 1  # as where it has never heard of one of them
"""
APT_GET = """#!/bin/sh
action=
for word; do
    case $word in
    --*) ;;
    update) action=update; touch {state}/updated; [ -e {state}/offline ] && echo 'W: Could not connect to mirror' ;;
    install) action=install ;;
    *)
        if [ ! -e {state}/known ] && {{ [ ! -e {state}/updated ] || [ -e {state}/offline ]; }}; then
            echo "E: Unable to locate package $word" >&2
            action="$action fails"
        else
            echo installed > {state}/installed/$word
        fi ;;
    esac
done
echo "$*" >> {state}/called
case $action in *fails*) exit 100 ;; esac
"""


class Host:
    """A host whose apt and dpkg are stand-ins that keep what they know in files."""

    def __init__(self, state: Path) -> None:
        self.state = state
        (state / "installed").mkdir(parents=True)

    def has(self, name: str, status: str = "installed") -> None:
        (self.state / "installed" / name).write_text(f"{status}\n")

    def set(self, flag: str) -> None:
        (self.state / flag).touch()

    def calls(self) -> list[str]:
        """Return what apt-get was asked for, without its options."""
        called = self.state / "called"
        lines = called.read_text().splitlines() if called.exists() else []
        return [" ".join(word for word in shlex.split(line) if not word.startswith("--")) for line in lines]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"apt-get": APT_GET, "dpkg-query": DPKG_QUERY}.items():
        (programs / name).write_text(text.format(state=tmp_path / "state"))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return Host(tmp_path / "state")


@pytest.fixture
def play(host: Host, run_module: Callable[..., dict[str, Any]]) -> Play:
    def run(*names: str, check: bool = False, **more: Any) -> dict[str, Any]:
        return run_module(debian_packages, check=check, name=list(names), **more)

    return run


@pytest.mark.parametrize("names", [[], ["rsync"], ["rsync", "zstd"]])
def test_apt_is_not_asked_where_all_is_installed(host: Host, play: Play, names: list[str]) -> None:
    for name in names:
        host.has(name)
    result = play(*names)
    assert (result["changed"], result["installed"], host.calls()) == (False, [], [])
    assert result["versions"] == dict.fromkeys(names, "1.0")


def test_only_what_is_missing_is_installed_and_the_cache_stays(host: Host, play: Play) -> None:
    host.set("known")
    host.has("nginx")
    result = play("nginx", "openssl", "logrotate")
    assert (result["changed"], result["installed"]) == (True, ["openssl", "logrotate"])
    assert host.calls() == ["install openssl logrotate"]
    assert result["diff"] == {"before": "nginx 1.0\n", "after": "logrotate 1.0\nnginx 1.0\nopenssl 1.0\n"}
    assert result["versions"] == {"nginx": "1.0", "openssl": "1.0", "logrotate": "1.0"}
    assert not play("nginx", "openssl", "logrotate")["changed"]


@pytest.mark.parametrize("status", ["config-files", "half-configured", "unpacked"])
def test_package_that_is_not_whole_is_installed(host: Host, play: Play, status: str) -> None:
    host.set("known")
    host.has("rsync", status)
    assert play("rsync")["installed"] == ["rsync"]


def test_cache_is_updated_where_the_lists_do_not_have_the_package(host: Host, play: Play) -> None:
    assert play("rsync")["changed"]
    assert host.calls() == ["install rsync", "update", "install rsync"]


def test_every_call_keeps_to_signed_packages_and_to_what_is_needed(host: Host, play: Play) -> None:
    play("rsync")
    for call in (host.state / "called").read_text().splitlines():
        assert "APT::Get::AllowUnauthenticated=false" in call
        assert "Acquire::AllowInsecureRepositories=false" in call
        assert call.endswith((" update", " install --no-install-recommends --no-remove rsync"))


@pytest.mark.parametrize("known", [False, True])
def test_check_mode_says_what_would_be_installed_without_asking_apt(host: Host, play: Play, known: bool) -> None:
    if known:
        host.set("known")
    host.has("nginx")
    result = play("nginx", "openssl", check=True)
    assert (result["changed"], result["installed"], host.calls()) == (True, ["openssl"], [])
    assert (result["versions"], result["diff"]) == (
        {"nginx": "1.0"},
        {"before": "nginx 1.0\n", "after": "nginx 1.0\nopenssl\n"},
    )


@pytest.mark.parametrize(("reason", "begins"), [("", "rsync"), ("rsync, by which the models arrive",) * 2])
def test_error_says_what_for_why_and_what_to_do(host: Host, play: Play, reason: str, begins: str) -> None:
    host.set("offline")
    result = play("rsync", reason=reason)
    assert result["failed"]
    assert result["msg"] == (
        f"{begins}, cannot be installed: E: Unable to locate package rsync. apt-get update said: W: Could not connect "
        "to mirror. Give the host a Debian or Ubuntu mirror that it can reach, or install rsync manually, and rerun "
        "the playbook."
    )

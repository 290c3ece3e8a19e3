"""The module gateway_nginx on a directory as /etc/nginx; nginx and systemd only write down what they are told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rendered_templates import render

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import nginx, trial
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import site as site_files
from ansible_collections.modelops.tensorflow_serving.plugins.modules import gateway_nginx

RunModule = Callable[..., dict[str, Any]]
SITE = "server { access_log LOG; proxy_cache_path HEALTH; ssl_certificate ROOT/tfserving-gateway/tls.pem; }\n"
DROP_IN = "# words\n[Service]\nNoNewPrivileges=true\nReadWritePaths=/run /var/log\n"
OFF: dict[str, Any] = {"site": "", "certificate": "", "key": "", "rotation": "", "hardening": ""}
# As nginx -T -q -c FILE: prints what it reads, makes what the site names, and refuses what has the word "broken".
NGINX = """#!/bin/sh
cd "$(dirname "$4")" || exit 1
grep -rq broken conf.d && { echo "[emerg] broken" >&2; exit 1; }
for file in "$4" "$PWD"/conf.d/*; do echo "# configuration file $file:"; cat "$file"; done
sed -n 's/.*access_log \\([^;]*\\).*/\\1/p' conf.d/*.conf | xargs --no-run-if-empty touch
"""

run_program = subprocess.run
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="what is written is root's")


class Host:
    """A host, and what was called there since the last play. fails is the verb of systemctl that does."""

    def __init__(self, path: Path, run_module: RunModule) -> None:
        self.path, self.root = path, path / "nginx"
        self.drop_in, self.rotation = path / "systemd/nginx.service.d/gateway.conf", path / "rotation"
        self.log, self.health, self.run = path / "log/access.log", path / "health", path / "run"
        self.active, self.fails = True, ""
        self.called: list[str] = []
        self._run_module = run_module

    def systemctl(self, *arguments: str) -> str:
        if arguments[0] == "show":
            return {"ActiveState": "active" if self.active else "inactive", "MainPID": "0"}[arguments[1][11:]]
        self.called.append(arguments[0])
        if arguments[0] == self.fails:
            self.active = arguments[0] == "reload"
            self.fails = ""
            raise nginx.NginxError("nginx says no")
        self.active = self.active or arguments[0] != "daemon-reload"
        return ""

    def start_program(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run nginx, also as a transient unit would."""
        at = command.index(str(self.path / "bin"))
        self.called.append(" ".join(["nginx", *command[5:at]]))
        return run_program(command[at:], **options)

    def play(self, check: bool = False, **changed: Any) -> dict[str, Any]:
        self.called.clear()
        site = SITE.replace("LOG", str(self.log)).replace("HEALTH", str(self.health)).replace("ROOT", str(self.root))
        given = {"site": site, "certificate": "pem", "key": "key", "rotation": "rotate", "hardening": DROP_IN}
        return self._run_module(gateway_nginx, check=check, **{**given, **changed})

    def files(self) -> set[str]:
        """Return the files that the module has written."""
        paths = [path for path in self.path.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.path)) for path in paths} - {"bin", "nginx/nginx.conf"}


@pytest.fixture
def host(tmp_path: Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path, run_module)
    (host.root / "conf.d").mkdir(parents=True)
    included = f"include {host.root}/conf.d/*.conf;"
    (host.root / "nginx.conf").write_text(f"user root;\nhttp {{\n  # server {{\n  {included}\n}}\n")
    host.drop_in.parent.parent.mkdir()
    program = tmp_path / "bin"
    program.write_text(NGINX)
    program.chmod(0o755)
    paths = {"ROOT": host.root, "RUN": host.run, "PENDING": host.run / "reload", "LOG": host.log, "HEALTH": host.health}
    paths |= {"OLD_LOG": tmp_path / "log/old.log", "ERROR_LOG": tmp_path / "error.log", "NGINX": program}
    for name, path in paths.items():
        monkeypatch.setattr(nginx, name, str(path) if name == "NGINX" else path)
    moved = {site_files.DROP_IN: str(host.drop_in), site_files.ROTATION: str(host.rotation)}
    monkeypatch.setattr(site_files, "SHOWN", tuple(moved.get(name, name) for name in site_files.SHOWN))
    for name, path in {"DROP_IN": host.drop_in, "ROTATION": host.rotation}.items():
        monkeypatch.setattr(site_files, name, str(path))
    monkeypatch.setattr(nginx, "unused_default_site", list)
    numbers = count()
    monkeypatch.setattr(nginx, "workers", lambda master: {next(numbers)})
    monkeypatch.setattr(nginx, "_systemctl", host.systemctl)
    monkeypatch.setattr(nginx.subprocess, "run", host.start_program)
    return host


GATEWAY = {
    "nginx/conf.d/tfserving-gateway.conf",
    "nginx/tfserving-gateway/tls.pem",
    "rotation",
    "systemd/nginx.service.d/gateway.conf",
    "log/access.log",
}
HARDENED = "nginx --property=NoNewPrivileges=true --property=ReadWritePaths=/run /var/log"


def shown(result: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {Path(one["after_header"]).name: (one["before"], one["after"]) for one in result["diff"]}


@needs_root
def test_gateway_is_written_and_nginx_hardened_for_it(host: Host) -> None:
    checked = host.play(check=True)
    assert (checked["changed"], host.files(), host.called) == (True, set(), ["nginx", HARDENED])
    result = host.play()
    assert host.called == ["nginx", HARDENED, "daemon-reload", "restart"]
    assert host.files() == GATEWAY
    assert shown(result) == shown(checked)
    assert set(shown(result)) == {"tfserving-gateway.conf", "gateway.conf", "rotation"}
    assert (host.log.stat().st_mode & 0o7777, host.log.owner(), host.log.group()) == (0o640, "root", "adm")
    assert [host.play()["changed"], host.called] == [False, ["nginx"]]
    assert [host.play(key="other")["changed"], host.called] == [True, ["nginx", HARDENED, "reload"]]


@needs_root
def test_nginx_is_not_hardened_beside_another_site(host: Host) -> None:
    other = host.root / "conf.d/other.conf"
    for there in (True, False, True):
        if there:
            other.write_text("log_format x;\nserver\t{ }\n")
        else:
            other.unlink()
        result = host.play()
        assert result["other_sites"] == ([str(other)] if there else [])
        assert host.drop_in.exists() is not there
        assert host.called[-1] == ("reload" if there and "daemon-reload" not in host.called else "restart")
        assert host.play()["changed"] is False
    assert host.play(hardening="")["changed"] is False


@needs_root
def test_hardening_can_be_switched_off(host: Host) -> None:
    host.play()
    result = host.play(hardening="")
    assert shown(result) == {"gateway.conf": (DROP_IN, "")}
    assert host.called == ["nginx", "daemon-reload", "restart"]
    assert not host.drop_in.exists()


@needs_root
def test_off_is_a_state(host: Host) -> None:
    assert (host.play(**OFF)["changed"], host.called, host.files()) == (False, [], set())
    host.play()
    host.health.mkdir()
    checked = host.play(check=True, **OFF)
    assert host.files() == GATEWAY
    result = host.play(**OFF)
    assert host.called == ["nginx", "daemon-reload", "reload"]
    assert {after for _, after in shown(result).values()} == {""}
    assert len(shown(result)) == 3
    assert (result["changed"], shown(checked)) == (True, shown(result))
    assert host.files() == {"log/access.log"}
    assert not (host.root / "tfserving-gateway").exists()
    assert not host.health.exists()
    assert (host.play(**OFF)["changed"], host.called) == (False, [])


@needs_root
def test_off_starts_no_nginx_that_somebody_has_stopped(host: Host) -> None:
    host.play()
    host.active = False
    assert host.play(**OFF)["changed"]
    assert host.called == ["nginx", "daemon-reload"]


@needs_root
def test_off_is_also_for_a_host_without_nginx(host: Host) -> None:
    host.play()
    host.active = False
    (host.path / "bin").unlink()
    assert host.play(**OFF)["changed"]
    assert (host.called, host.files()) == (["daemon-reload"], {"log/access.log"})


@needs_root
@pytest.mark.parametrize("fails", ["restart", "daemon-reload"])
def test_what_was_is_put_back_where_nginx_does_not_restart(host: Host, fails: str) -> None:
    host.play(hardening="")
    before = {name: (host.path / name).read_bytes() for name in host.files()}
    host.fails = fails
    result = host.play(key="other")
    assert "nginx serves as before" in result["msg"]
    assert "nginx says no" in result["msg"]
    assert host.called[-2:] == ["daemon-reload", "start"]
    assert {name: (host.path / name).read_bytes() for name in host.files()} == before


@needs_root
def test_hardened_nginx_is_tried_before_a_file_is_replaced(host: Host) -> None:
    result = host.play(site="server { broken; }")
    assert "[emerg] broken" in result["msg"]
    assert host.files() == set()


@needs_root
def test_restart_that_a_cut_run_owes_is_made(host: Host) -> None:
    host.play()
    (host.run / "reload").write_text("restart")
    assert host.play()["changed"]
    assert host.called == ["nginx", "daemon-reload", "restart"]
    assert not host.play()["changed"]


@needs_root
def test_log_of_an_earlier_release_comes_along(host: Host) -> None:
    host.log.parent.mkdir()
    for name in ("old.log", "old.log.1", "old.log.2.gz"):
        host.log.with_name(name).write_text(name)
    host.play()
    logs = {path.name: path.read_text() for path in host.log.parent.iterdir()}
    assert logs == {"access.log": "old.log", "access.log.1": "old.log.1", "access.log.2.gz": "old.log.2.gz"}
    assert host.log.stat().st_mode & 0o7777 == 0o640


@needs_root
def test_log_that_others_can_read_is_mended(host: Host) -> None:
    host.play()
    host.log.chmod(0o644)
    assert host.play()["files"] == [str(host.log)]
    assert host.log.stat().st_mode & 0o7777 == 0o640


CANDIDATES = [{"unit": "candidate", "port": 40001, "models": ["MLP"]}]
TRIAL = {"nginx/conf.d/tfserving-gateway-trial.conf", "nginx/tfserving-gateway/trial.conf"}


@needs_root
def test_step_of_a_rollout_is_two_files_that_go_with_it(host: Host) -> None:
    host.play()
    site = (host.root / site_files.CONF).read_text()
    host.called.clear()
    diff = trial.begin("mirror", 10, CANDIDATES)
    assert [Path(one["after_header"]).name for one in diff] == ["tfserving-gateway-trial.conf", "trial.conf"]
    assert (host.called, host.files()) == (["nginx", "reload"], GATEWAY | TRIAL)
    (changed,) = [one for one in trial.begin("mirror", 20, CANDIDATES) if one["before"] != one["after"]]
    assert ("10% 1;" in changed["before"], "20% 1;" in changed["after"]) == (True, True)
    host.called.clear()
    assert trial.end()
    assert (host.called, host.files()) == (["reload"], GATEWAY)
    assert (host.root / site_files.CONF).read_text() == site
    host.called.clear()
    assert not trial.end()
    assert host.called == []
    assert not host.play()["changed"]


@needs_root
def test_step_that_was_cut_goes_with_the_next_run_of_the_role(host: Host) -> None:
    host.play()
    trial.begin("split", 10, CANDIDATES)
    result = host.play()
    assert (result["changed"], host.files()) == (True, GATEWAY)
    assert {after for name, (_, after) in shown(result).items() if "trial" in name} == {""}
    assert not host.play()["changed"]
    trial.begin("split", 10, CANDIDATES)
    host.play(**OFF)
    assert host.files() == {"log/access.log"}


@needs_root
def test_step_that_nginx_does_not_take_leaves_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.play()
    for model, fails in (("broken", ""), ("MLP", "reload")):
        host.fails = fails
        with pytest.raises(nginx.NginxError):
            trial.begin("split", 10, [{**CANDIDATES[0], "models": [model]}])
        assert host.files() == GATEWAY


@pytest.mark.parametrize(
    ("text", "serves"),
    [
        ("server {}", True),
        ("http{server\n{}}", True),
        ("stream {", True),
        ("upstream a { server b; }", False),
        ("# server {", False),
        ("a; # server {", False),
        ("http_server {", False),
        ("map a b { c#d x; } server { }", True),
    ],
)
def test_what_serves_is_found_in_a_whole_configuration(text: str, serves: bool) -> None:
    configuration = f"# configuration file /a:\nnothing\n\n# configuration file /b c:\n{text}\n"
    assert nginx.sites(configuration) == (["/b c"] if serves else [])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd looks at the drop-in")
def test_systemd_knows_every_line_of_the_drop_in_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / "tfserving-hardened.service"
    unit.write_text("[Service]\nType=forking\nExecStart=/bin/true\n")
    drop_in = tmp_path / f"{unit.name}.d/gateway.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(render("tfserving_gateway", "hardening.conf.j2"))
    verified = run_program(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    unit.write_text(unit.read_text() + render("tfserving_gateway", "hardening.conf.j2"))
    looked = run_program(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", unit], capture_output=True, text=True
    )
    if "unrecognized option" in looked.stderr:
        pytest.skip("systemd before 250 looks at units that are loaded only")
    assert float(re.findall(r"exposure level for \S+: ([0-9.]+)", looked.stdout)[0]) <= 3.0

"""The lab's decisions that need no container: which OCI runtime, which packages, who is alive, the same bytes again."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "lab"
sys.path.insert(0, str(LAB))

import engine  # noqa: E402
import lab  # noqa: E402
import machine  # noqa: E402
import repository  # noqa: E402
import upstream  # noqa: E402
from command import LabError, run  # noqa: E402
from engine import CgroupLayout  # noqa: E402

V1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
HYBRID = V1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
V2 = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"


@pytest.mark.parametrize(("mounts", "layout"), [(V1, "v1"), (HYBRID, "hybrid"), (V2, "v2")])
def test_cgroup_layout_is_read_from_the_mounts(mounts: str, layout: str) -> None:
    assert engine.cgroup_layout(mounts).value == layout


def test_crun_is_never_chosen_where_it_refuses_to_run() -> None:
    assert engine.choose_runtime(CgroupLayout.HYBRID, installed=lambda name: True) == "runc"
    assert engine.choose_runtime(CgroupLayout.V2, installed=lambda name: True) == "crun"
    assert engine.choose_runtime(CgroupLayout.V2, installed=lambda name: name == "runc") == "runc"


def test_no_usable_runtime_says_what_to_install() -> None:
    with pytest.raises(LabError, match=r"hybrid.*install runc\nnext: "):
        engine.choose_runtime(CgroupLayout.HYBRID, installed=lambda name: name == "crun")


def test_missing_packages_name_one_runtime_that_fits() -> None:
    assert machine.missing_packages(CgroupLayout.HYBRID, there=lambda name: name != "runc") == ["runc"]
    assert machine.missing_packages(CgroupLayout.V2, there=lambda name: name == "runc")[-1] == "rsync"


@pytest.mark.parametrize(
    ("cmdline", "cgroup", "alive"),
    [
        ("/lib/systemd/systemd\0", "0::/machine.slice/libpod-abc123.scope\n", True),
        ("/usr/bin/another\0", "0::/user.slice\n", False),
        ("", "0::/machine.slice/libpod-abc123.scope\n", False),
    ],
    ids=["running", "its number was given to another process", "zombie"],
)
def test_a_container_is_alive_while_its_own_first_process_runs(
    tmp_path: Path, cmdline: str, cgroup: str, alive: bool
) -> None:
    container = {"State": "running", "Pid": 7, "Id": "abc123"}
    assert not engine.is_alive(container, proc=tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_text(cmdline)
    (tmp_path / "7" / "cgroup").write_text(cgroup)
    assert engine.is_alive(container, proc=tmp_path) is alive


@pytest.mark.parametrize("name", ["runtime", "scratch", "../serve", "Serve", ""])
def test_an_instance_name_that_would_hit_other_files_is_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        lab.instance_name(name)


def test_a_failed_command_shows_its_output_and_the_next_step() -> None:
    script = "import sys; print('half done'); sys.exit('no space')"
    with pytest.raises(LabError) as failure:
        run([sys.executable, "-c", script], what="unpacking", advice="free some space")
    text = str(failure.value)
    assert text.startswith("unpacking failed (exit 1)")
    assert "  | half done\n  | no space\nnext: free some space" in text


def test_packages_of_the_same_sources_are_the_same_bytes(tmp_path: Path) -> None:
    if not shutil.which("dpkg-deb"):
        pytest.skip("no dpkg-deb here")
    sources = tmp_path / "model_server"
    sources.mkdir()
    (sources / "__main__.py").write_text("def main(argv): return 0\n")
    packages = []
    for attempt in ("first", "second"):
        scratch = tmp_path / attempt
        repository.build_package(sources, "tensorflow-model-server", "2.19.1", scratch / "pool", scratch)
        packages.append((scratch / "pool" / "tensorflow-model-server_2.19.1_all.deb").read_bytes())
    assert packages[0] == packages[1]


def test_upstream_that_cannot_be_reached_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = tmp_path / "upstream.yml"
    variables.write_text("---\ntfserving_apt_uri: http://127.0.0.1:1/apt\n")
    monkeypatch.setattr(upstream, "VARIABLES", variables)
    assert upstream.main() == 1
    told = capsys.readouterr().err
    assert "http://127.0.0.1:1/apt/dists/stable/InRelease cannot be reached" in told
    assert "Unset TFSERVING_UPSTREAM" in told

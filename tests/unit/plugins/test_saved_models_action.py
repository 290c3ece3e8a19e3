"""The action that publishes a catalogue, over a local connection: its modules and rsync run for real."""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from saved_model_files import SIGNATURES, make_saved_model

from ansible_collections.modelops.tensorflow_serving.plugins.action import saved_models
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.inspection import Inspection
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
    add_digests,
    list_files,
    tree_digest,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    WARMUP_FILE,
    warmup_records,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.staging import publish_distributed
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.versions import look_before_publishing
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import (
    unproven,
    withdraw,
    withdrawn,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils import host_calls, run_cache
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish import (
    carry_out,
    delta,
    model_sources,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.target import Receiver, find_receiver
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.transfer import Transport

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")

WEIGHTS = "variables/variables.data-00000-of-00001"
SAMPLE = {"signature_name": "serving_default", "instances": [[1.0, 2.0]]}
RSYNC = shutil.which("rsync") or ""
CALL = saved_models.HostProgram.call
by_root_and_by_the_login_user = pytest.mark.parametrize("receiver", [0, 1000], ids=["root", "login"], indirect=True)


@pytest.fixture
def new_run(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Begin another run of Ansible, which remembers nothing of the one before."""

    def begin() -> None:
        monkeypatch.setattr(run_cache.constants, "DEFAULT_LOCAL_TMP", str(tmp_path_factory.mktemp("run")))

    return begin


@pytest.fixture
def wrap_rsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in the place of rsync on both sides; "$@" are its arguments, $RSYNC is the real one."""

    def wrap(script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        wrapper = tmp_path / "bin" / "rsync"
        first = f'#!/bin/sh\nRSYNC={RSYNC}\n[ "$*" = --version ] && exec "$RSYNC" --version\n'
        wrapper.write_text(f"{first}for target; do :; done\n{script}\n")
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    return wrap


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for version in ("1", "2"):
        make_saved_model(tmp_path / "saved" / version, weights=version.encode())
    return tmp_path / "saved"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The base path, as an earlier run has made it."""
    (tmp_path / "models").mkdir(mode=0o751)
    (tmp_path / "models").chmod(0o751)
    return tmp_path / "models"


@pytest.fixture
def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The user id that rsync receives as: it runs as root here, and what it has made is given to that user."""
    uid = int(getattr(request, "param", 0))
    run = Transport._run

    def run_as_receiver(command: list[str], *arguments: Any) -> tuple[int, str]:
        done = run(command, *arguments)
        if uid:
            subprocess.run(["chown", "--recursive", str(uid), command[-1]], check=True)
        return done

    monkeypatch.setattr(Transport, "_run", staticmethod(run_as_receiver))
    return uid


@pytest.fixture
def action(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    new_run: Callable[[], None],
    receiver: int,
) -> Any:
    """An action for one host, this one; run it with publish()."""
    new_run()
    connection = MagicMock(transport="local")
    task = SimpleNamespace(async_val=0, check_mode=False, diff=True, action="saved_models", args={})
    plugin = saved_models.ActionModule(task, connection, MagicMock(), MagicMock(), MagicMock(), MagicMock())
    plugin.calls = []

    def execute(command: str, in_data: bytes = b"", **_: Any) -> dict[str, Any]:
        if "id -u" in command:
            return {"stdout": f"receiver={receiver},user\n"}
        plugin.calls.append(command)
        done = subprocess.run(["/bin/sh", "-c", command], input=in_data, capture_output=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}

    plugin._templar.template = lambda text: text
    monkeypatch.setattr(plugin, "_compute_environment_string", lambda: "")
    monkeypatch.setattr(plugin, "_low_level_execute_command", execute)
    return plugin


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the host's functions here, where what they ask the system can be put in the place of its answers."""

    def call(program: Any, function: Callable[..., Any], **arguments: Any) -> Any:
        program._action.calls.append(function.__name__)
        try:
            return json.loads(json.dumps(function(**json.loads(json.dumps(arguments)))))
        except (OSError, SavedModelError) as error:
            raise AnsibleActionFail(str(error)) from error

    monkeypatch.setattr(saved_models.HostProgram, "call", call)


@pytest.fixture
def in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the host's functions as on a host: by the Python that is there, with the sources that they are sent with."""
    monkeypatch.setattr(saved_models.HostProgram, "call", CALL)


@pytest.fixture
def publish(action: Any, models: Path, source: Path) -> Callable[..., dict[str, Any]]:
    """Run the action for model MLP with these settings of its entry."""

    def run(
        check: bool = False, host: dict[str, Any] | None = None, state: str = "published", **entry: Any
    ) -> dict[str, Any]:
        catalog = [{"name": "MLP", "source": str(source), **entry}]
        action._task.check_mode = check
        place = {"base_path": str(models), "group": grp.getgrgid(0).gr_name}
        action._task.args = {"catalog": catalog, "state": state, **place}
        action._task.args |= {"host": host} if host else {}
        result: dict[str, Any] = action.run(task_vars={})
        return result

    return run


def test_what_was_seen_earlier_spares_a_question_but_nothing_is_changed_by_it(
    publish: Callable[..., dict[str, Any]], action: Any, models: Path
) -> None:
    def seen() -> dict[str, Any]:
        return look_before_publishing(str(models), ["MLP"], grp.getgrgid(0).gr_name, adopt=False)

    empty = seen()
    assert publish(check=True, host=empty)["changed"]
    assert action.calls == []
    assert publish(host=empty)["changed"]
    action.calls.clear()
    assert not publish(host=seen())["changed"]
    assert action.calls == []
    assert not publish(host=empty)["changed"]  # another run has published it meanwhile
    assert len(action.calls) == 1


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.usefixtures("in_its_own_process")
@by_root_and_by_the_login_user
def test_all_versions_of_the_source_are_published(
    publish: Callable[..., dict[str, Any]], source: Path, models: Path
) -> None:
    result = publish()
    size = sum(map(len, tree(source / "1").values()))
    assert result["changed"]
    assert result["published"] == [{"model": "MLP", "version": version, "bytes": size} for version in (2, 1)]
    diff, place = result["diff"]
    assert (diff["before"], diff["after"]) == ("", f"MLP/1  {size} B\nMLP/2  {size} B\n")
    assert (place["after_header"], place["after"]) == (str(models), f"root:{grp.getgrgid(os.getgid())[0]} 0751\n")
    for version in ("1", "2"):
        assert tree(models / "MLP" / version) == tree(source / version)


@by_root_and_by_the_login_user
def test_what_was_distributed_is_published_without_being_sent(
    publish: Callable[..., dict[str, Any]], source: Path, models: Path, wrap_rsync: Callable[[str], None]
) -> None:
    store = ModelStore(models / "MLP")
    assert [one["version"] for one in publish(check=True, state="distributed")["published"]] == [2, 1]
    result = publish(state="distributed")
    assert (result["changed"], [one["version"] for one in result["published"]]) == (True, [2, 1])
    assert store.published() == {}
    assert tree(store.distributed(2)) == tree(source / "2")
    wrap_rsync("exit 1")
    assert not publish(state="distributed")["changed"]
    assert publish(check=True)["changed"]
    assert [one["version"] for one in publish()["published"]] == [2, 1]
    assert tree(models / "MLP/2") == tree(source / "2")
    assert sorted(path.name for path in store.path.glob(".*")) == [
        ".manifest-1.json",
        ".manifest-2.json",
        ".unproven-1",
        ".unproven-2",
    ]
    assert not publish()["changed"]


@pytest.mark.parametrize("changed", ["on the host", "in the source"])
def test_what_was_distributed_and_changed_is_sent_again(
    publish: Callable[..., dict[str, Any]], source: Path, models: Path, new_run: Callable[[], None], changed: str
) -> None:
    publish(state="distributed")
    if changed == "on the host":
        (models / "MLP/.distributed-2/saved_model.pb").write_bytes(b"")
    else:
        new_run()
        shutil.rmtree(source / "2")
        make_saved_model(source / "2", weights=b"other")
    publish()
    assert tree(models / "MLP/2") == tree(source / "2")
    assert list((models / "MLP").glob(".distributed-*")) == []


def test_what_is_changed_between_look_and_rename_is_not_published(
    publish: Callable[..., dict[str, Any]], models: Path
) -> None:
    publish(state="distributed")
    (models / "MLP/.distributed-2/saved_model.pb").write_bytes(b"")
    with pytest.raises(SavedModelError, match="rerun the playbook to send it again"):
        publish_distributed(str(models / "MLP"), 2)
    publish_distributed(str(models / "MLP"), 1)
    publish_distributed(str(models / "MLP"), 1)
    assert list(ModelStore(models / "MLP").published()) == [1]


def test_second_run_changes_nothing_reads_nothing_and_asks_the_host_once(
    publish: Callable[..., dict[str, Any]], action: Any, new_run: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    new_run()
    action.calls.clear()
    monkeypatch.setattr(model_sources, "add_digests", None)
    monkeypatch.setattr(model_sources, "check_saved_model", None)
    result = publish()
    assert (result["changed"], result["published"]) == (False, [])
    assert [diff["before"] == diff["after"] for diff in result["diff"]] == [True]
    assert len(action.calls) == 1


def test_base_path_with_other_rights_is_mended(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    publish()
    models.chmod(0o755)
    assert publish()["changed"]
    assert models.stat().st_mode & 0o7777 == 0o751
    assert not publish()["changed"]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("where", ["models", "models/MLP", "."])
@pytest.mark.parametrize(
    ("mode", "owner", "why"),
    [(0o777, 0, "others than root may write to it"), (0o755, 1000, "it belongs to user id 1000")],
)
def test_path_that_others_can_change_is_refused_before_anything_is_changed(
    publish: Callable[..., dict[str, Any]],
    models: Path,
    tmp_path: Path,
    where: str,
    mode: int,
    owner: int,
    why: str,
    check: bool,
) -> None:
    (models / "MLP").mkdir()
    place = tmp_path / where
    place.chmod(mode)
    os.chown(place, owner, -1)
    with pytest.raises(AnsibleActionFail, match=f"^{place.resolve()} is not root's alone.* {why}.*models_base_path"):
        publish(check=check)
    assert list((models / "MLP").iterdir()) == []
    assert place.stat().st_mode & 0o7777 == mode


def test_newest_version_is_published_first(
    publish: Callable[..., dict[str, Any]], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: (seen.append(Path(new).name), rename(old, new)))
    publish()
    assert seen == ["2", "1"]


@pytest.fixture
def refused(publish: Callable[..., dict[str, Any]], models: Path) -> ModelStore:
    """Version 2 was published, refused by a server, and withdrawn."""
    store = ModelStore(models / "MLP")
    publish()
    withdraw(store, 2, "MLP version 2 is END: NOT_FOUND: x")
    return store


def test_withdrawn_version_is_not_published_again_and_the_recap_says_so(
    publish: Callable[..., dict[str, Any]], refused: ModelStore, new_run: Callable[[], None]
) -> None:
    for check in (True, False):
        result = publish(check)
        assert (result["changed"], result["published"]) == (False, [])
        (one,) = result["withdrawn"]
        assert (one["model"], one["version"], one["reason"]) == ("MLP", 2, "MLP version 2 is END: NOT_FOUND: x")
        assert "MLP version 2 was withdrawn at " in result["ansible_stats"]["data"]["withdrawn"]
        assert "-e tfserving_models_retry_withdrawn=true" in result["ansible_stats"]["data"]["withdrawn"]
        new_run()
    assert list(refused.published()) == [1]


def test_withdrawn_version_counts_neither_for_the_policy_nor_for_keep(
    publish: Callable[..., dict[str, Any]], refused: ModelStore
) -> None:
    result = publish(keep=1, model_version_policy={"specific": {"versions": [2]}}, version_labels={"stable": 2})
    assert (result["changed"], [one["version"] for one in result["withdrawn"]]) == (False, [2])


def test_withdrawn_version_is_tried_again_where_that_is_asked_for(
    action: Any, publish: Callable[..., dict[str, Any]], refused: ModelStore
) -> None:
    publish(True)
    action._task.args["retry_withdrawn"] = True
    action._task.check_mode = False
    assert [one["version"] for one in action.run(task_vars={})["published"]] == [2]
    assert withdrawn(refused) == {}
    assert not refused.withdrawn(2).exists()
    assert unproven(refused) == [1, 2]


def test_other_files_under_the_number_of_a_withdrawn_version_are_published(
    publish: Callable[..., dict[str, Any]], refused: ModelStore, source: Path, new_run: Callable[[], None]
) -> None:
    new_run()
    shutil.rmtree(source / "2")
    make_saved_model(source / "2", weights=b"mended")
    assert [one["version"] for one in publish()["published"]] == [2]


def test_withdrawn_version_that_has_other_times_only_is_not_published(
    publish: Callable[..., dict[str, Any]], refused: ModelStore, source: Path, new_run: Callable[[], None]
) -> None:
    new_run()
    os.utime(source / "2/saved_model.pb", (1, 1))
    assert publish()["published"] == []


def test_version_that_would_be_pruned_is_not_published(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    assert [one["version"] for one in publish(keep=1)["published"]] == [2]
    assert not publish(keep=1)["changed"]
    assert [one["version"] for one in publish(keep=1, model_version_policy={"all": {}})["published"]] == [1]


def test_check_mode_says_what_would_be_published(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    result = publish(check=True)
    assert (result["changed"], len(result["published"])) == (True, 2)
    assert list(models.iterdir()) == []


def test_new_version_is_published_beside_the_others(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    publish(versions=[1])
    assert [one["version"] for one in publish(versions=[2])["published"]] == [2]
    assert sorted(path.name for path in (models / "MLP").iterdir() if path.is_dir()) == ["1", "2"]


def test_touched_source_is_not_published_again(publish: Callable[..., dict[str, Any]], source: Path) -> None:
    publish()
    os.utime(source / "1" / "saved_model.pb", (1, 1))
    assert not publish()["changed"]


@pytest.mark.parametrize("check", [False, True])
def test_changed_source_of_a_published_version_is_refused(
    publish: Callable[..., dict[str, Any]], source: Path, models: Path, check: bool
) -> None:
    publish(versions=[1])
    before = tree(models)
    (source / "1" / "assets" / "words.txt").write_text("two!\n")
    with pytest.raises(AnsibleActionFail, match="version 1 is published with sha256 .* export this one as version 3"):
        publish(check=check)
    assert tree(models) == before  # version 2 is not published either


def test_published_version_whose_source_was_damaged_is_told_as_such(
    publish: Callable[..., dict[str, Any]], source: Path
) -> None:
    publish()
    (source / "1" / WEIGHTS).unlink()
    with pytest.raises(AnsibleActionFail, match="is incomplete: variables/ has no variables.data-"):
        publish()


def digest_of(path: Path) -> str:
    return tree_digest(add_digests(path, list_files(path)))


@pytest.mark.parametrize("weights", [b"manual", b"1"], ids=["other files", "the same files"])
def test_version_that_others_put_there_is_left_with_a_warning_that_has_both_digests(
    publish: Callable[..., dict[str, Any]],
    action: Any,
    models: Path,
    source: Path,
    weights: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = make_saved_model(models / "MLP" / "1", weights=weights)
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    assert [one["version"] for one in publish()["published"]] == [2]
    assert (there / WEIGHTS).read_bytes() == weights
    (warning,) = warnings
    assert warning.startswith(
        "model MLP: version 1 on the host was put there by others, and is left as it is. Its files have "
        f"sha256 {digest_of(there)}, those of the catalogue {digest_of(source / '1')}. "
    )


def test_files_that_others_changed_after_publishing_are_told_and_other_times_are_not(
    publish: Callable[..., dict[str, Any]],
    action: Any,
    models: Path,
    source: Path,
    new_run: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(warmup=True, sample_requests=[SAMPLE])
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    for change, said in (
        (lambda path: os.utime(path / WEIGHTS, (1, 1)), 0),
        (lambda path: (path / WEIGHTS).write_bytes(b"!"), 1),
        (lambda path: (path / "link").symlink_to("saved_model.pb"), 2),
    ):
        new_run()
        change(models / "MLP" / "2")
        assert not publish(warmup=True, sample_requests=[SAMPLE])["changed"]
        assert len(warnings) == said
    wanted = digest_of(source / "2")
    assert f"version 2 on the host was published with sha256 {wanted} and changed since, and is left" in warnings[0]
    assert f"those of the catalogue {wanted}." in warnings[0]
    assert "Its files have sha256 (none, as there are links)" in warnings[1]


def test_archive_of_the_catalogue_is_not_taken_for_the_files_of_others(
    publish: Callable[..., dict[str, Any]], action: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = make_saved_model(models / "MLP" / "1")
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    publish(source="https://models.example.com/{version}.tar", versions=[1], digests={1: "a" * 64})
    assert f"sha256 {digest_of(there)}, the archive of the catalogue {'a' * 64}." in warnings[0]


def test_stray_entry_of_a_source_is_a_warning(
    publish: Callable[..., dict[str, Any]], action: Any, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "temp-1604").mkdir()
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    assert [one["version"] for one in publish()["published"]] == [2, 1]
    (warning,) = warnings
    assert warning.startswith(f"model MLP: {source} holds what is no version, and is passed over: temp-1604.")


def test_label_may_point_to_a_version_that_is_on_the_host_only(
    publish: Callable[..., dict[str, Any]], source: Path
) -> None:
    publish(versions=[1])
    shutil.rmtree(source / "1")
    assert publish(model_version_policy={"all": {}}, version_labels={"stable": 1, "canary": 2})["changed"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"version_labels": {"stable": 1}}, "label stable points to version 1, which is not served"),
        ({"model_version_policy": {"specific": {"versions": [3]}}}, "asks for version 3"),
        ({"versions": [3]}, "versions lists version 3"),
        ({"source": "/no/such/directory"}, "/no/such/directory is not a directory"),
    ],
)
def test_catalogue_that_cannot_be_served_changes_nothing(
    publish: Callable[..., dict[str, Any]], models: Path, entry: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(AnsibleActionFail, match=complaint):
        publish(**entry)
    assert list(models.iterdir()) == []


@by_root_and_by_the_login_user
def test_interrupted_transfer_is_resumed(
    publish: Callable[..., dict[str, Any]],
    models: Path,
    source: Path,
    tmp_path: Path,
    receiver: int,
    wrap_rsync: Callable[[str], None],
) -> None:
    wrap_rsync(f'cp --preserve=timestamps {source}/1/saved_model.pb "$target"; echo no more >&2; exit 30')
    with pytest.raises(AnsibleActionFail, match="code 30; the next run goes on from there:\nno more"):
        publish(versions=[1])
    there = sorted(path.name for path in (models / "MLP").iterdir())
    assert there == [".basis-1", *([".incoming-1"] if receiver else []), ".staging-1"]
    wrap_rsync(f'cd "$target"; find . -type f > {tmp_path}/arrived; exec "$RSYNC" "$@"')
    publish(versions=[1])
    assert (tmp_path / "arrived").read_text() == "./saved_model.pb\n"
    assert tree(models / "MLP" / "1") == tree(source / "1")


CORRUPT = f'"$RSYNC" "$@" && printf X | dd of="$target/{WEIGHTS}" bs=1 conv=notrunc 2> /dev/null'


@by_root_and_by_the_login_user
def test_file_that_is_corrupted_on_its_way_is_sent_again(
    publish: Callable[..., dict[str, Any]],
    action: Any,
    models: Path,
    source: Path,
    tmp_path: Path,
    wrap_rsync: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    wrap_rsync(f'if mkdir {tmp_path}/once 2> /dev/null; then {CORRUPT}; else exec "$RSYNC" "$@"; fi')
    publish(versions=[1])
    assert tree(models / "MLP" / "1") == tree(source / "1")
    assert warnings == [f"{WEIGHTS} of MLP version 1 did not arrive as sent; sent again"]


@by_root_and_by_the_login_user
def test_way_that_corrupts_always_publishes_nothing(
    publish: Callable[..., dict[str, Any]], models: Path, wrap_rsync: Callable[[str], None]
) -> None:
    wrap_rsync(CORRUPT)
    with pytest.raises(AnsibleActionFail, match=f"{WEIGHTS} of .* did not arrive as sent, twice"):
        publish(versions=[1])
    assert not (models / "MLP" / "1").exists()


def test_source_that_is_written_to_meanwhile_publishes_nothing(
    publish: Callable[..., dict[str, Any]], models: Path, source: Path, wrap_rsync: Callable[[str], None]
) -> None:
    wrap_rsync(f'echo more >> {source}/1/assets/words.txt; exec "$RSYNC" "$@"')
    with pytest.raises(AnsibleActionFail, match="source/1|saved/1 was written to"):
        publish(versions=[1])
    assert not (models / "MLP" / "1").exists()


@by_root_and_by_the_login_user
def test_next_version_is_told_the_host_by_what_differs(
    publish: Callable[..., dict[str, Any]],
    models: Path,
    source: Path,
    tmp_path: Path,
    wrap_rsync: Callable[[str], None],
) -> None:
    publish(versions=[1])
    (source / "2" / WEIGHTS).write_bytes(b"other")
    log = tmp_path / "sent"
    wrap_rsync(f'tr "\\0" "\\n" > {log}; printf "%s" "$*" > {log}.arguments; exec "$RSYNC" "$@" < {log}.names')
    (tmp_path / "sent.names").write_text(WEIGHTS)
    publish(versions=[1, 2])
    assert log.read_text() == f"./{WEIGHTS}"
    assert f"--copy-dest={models}/MLP/.basis-2" in (tmp_path / "sent.arguments").read_text()
    assert tree(models / "MLP" / "2") == tree(source / "2")
    assert (models / "MLP/1/saved_model.pb").samefile(models / "MLP/2/saved_model.pb")
    assert not (models / "MLP" / ".basis-2").exists()


@by_root_and_by_the_login_user
@pytest.mark.parametrize("is_here", [True, False])
def test_of_a_large_file_only_what_is_new_is_sent(
    publish: Callable[..., dict[str, Any]],
    models: Path,
    source: Path,
    tmp_path: Path,
    wrap_rsync: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    new_run: Callable[[], None],
    is_here: bool,
) -> None:
    """Where the version before is on the controller as well; else rsync finds it out."""
    monkeypatch.setattr(delta, "COMPARED_BYTES", 1000)
    monkeypatch.setattr(delta, "BLOCK_BYTES", 100)
    for version, weights in (("1", b"a" * 5000), ("2", b"a" * 2000 + b"b" * 150 + b"a" * 3000)):
        shutil.rmtree(source / version)
        make_saved_model(source / version, weights=weights)
    publish(versions=[1])
    new_run()
    wrap_rsync(
        f'tr "\\0" "\\n" < /proc/self/fd/0 > {tmp_path}/names; cat {tmp_path}/names >> {tmp_path}/sent;'
        f' tr "\\n" "\\0" < {tmp_path}/names | "$RSYNC" "$@"'
    )
    publish(versions=[1, 2] if is_here else [2])
    sent = (tmp_path / "sent").read_text()
    assert (WEIGHTS in sent, "delta-" in sent) == (not is_here, is_here)
    assert tree(models / "MLP" / "2") == tree(source / "2")
    assert sorted(path.name for path in (models / "MLP").iterdir()) == [
        ".manifest-1.json",
        ".manifest-2.json",
        ".unproven-1",
        ".unproven-2",
        "1",
        "2",
    ]


@by_root_and_by_the_login_user
def test_delta_that_is_corrupted_on_its_way_is_made_up_for(
    publish: Callable[..., dict[str, Any]],
    models: Path,
    source: Path,
    tmp_path: Path,
    wrap_rsync: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delta, "COMPARED_BYTES", 1000)
    shutil.rmtree(source / "1")
    shutil.rmtree(source / "2")
    make_saved_model(source / "1", weights=b"a" * (4 << 20))
    make_saved_model(source / "2", weights=b"a" * (3 << 20) + b"b" + b"a" * (1 << 20))
    publish(versions=[1])
    wrap_rsync('"$RSYNC" "$@"; case $target in *.deltas/) for data in "$target"*; do echo X > "$data"; done;; esac')
    publish(versions=[1, 2])
    assert tree(models / "MLP" / "2") == tree(source / "2")


def test_model_that_cannot_predict_is_refused(
    publish: Callable[..., dict[str, Any]], models: Path, source: Path
) -> None:
    shutil.rmtree(source / "2")
    make_saved_model(source / "2", unrestored=["dense/bias"])
    with pytest.raises(AnsibleActionFail, match="model MLP: .*saved/2.*dense/bias"):
        publish()
    assert list(models.iterdir()) == []


def test_model_that_breaks_its_contract_is_refused(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    wanted = {"serving_default": {"inputs": {"x": {"dtype": "int64"}}}}
    with pytest.raises(AnsibleActionFail, match="int64"):
        publish(signatures=wanted)
    assert list(models.iterdir()) == []
    wanted["serving_default"]["inputs"]["x"] = {"dtype": "float32", "shape": [-1, 2]}
    assert publish(signatures=wanted)["changed"]


OTHER_SAMPLE = {"signature_name": "call", "instances": [[1.0, 2.0]]}


@pytest.mark.parametrize("is_on_host", [False, True])
def test_sample_of_a_signature_that_a_served_version_lacks_is_refused_before_anything_is_sent(
    publish: Callable[..., dict[str, Any]], models: Path, is_on_host: bool
) -> None:
    if is_on_host:
        publish()
    before = tree(models)
    with pytest.raises(AnsibleActionFail, match="signature call, which .*sample_requests") as error:
        publish(sample_requests=[SAMPLE, OTHER_SAMPLE])
    assert str(error.value).count("\n") == 1
    assert tree(models) == before


def test_sample_of_a_signature_is_not_asked_of_a_version_that_is_not_served(
    publish: Callable[..., dict[str, Any]], source: Path
) -> None:
    shutil.rmtree(source / "2")
    make_saved_model(source / "2", signatures={**SIGNATURES, "call": SIGNATURES["serving_default"]})
    assert publish(sample_requests=[OTHER_SAMPLE])["changed"]
    assert not publish(sample_requests=[OTHER_SAMPLE])["changed"]


def test_served_version_whose_requests_would_not_be_batched_is_told(
    publish: Callable[..., dict[str, Any]], action: Any, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    run = action.run

    def with_flag(**_: Any) -> dict[str, Any]:
        action._task.args |= {"per_model_batching": True}
        result: dict[str, Any] = run(task_vars={})
        return result

    publish()
    assert warnings == []
    action.run = with_flag
    publish()
    assert [text.partition(",")[0] for text in warnings] == ["MLP version 2 has no batching_params.pbtxt"]
    make_saved_model(source / "3")
    (source / "3" / "batching_params.pbtxt").touch()
    warnings.clear()
    publish()
    assert warnings == []
    pulled = {"bytes": 1, "signatures": {}, "warnings": ["read in a branch"], "has_batching_file": False}
    monkeypatch.setattr(carry_out, "pull_version", lambda **_: pulled)
    publish(source="https://host/{version}.tar", versions=[4], digests={4: "a" * 64})
    assert [text.partition(",")[0] for text in warnings] == [
        "read in a branch",
        "MLP version 4 has no batching_params.pbtxt",
    ]


def test_what_may_be_a_fault_of_a_model_is_a_warning(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(action._display, "warning", warnings.append)
    inspection = Inspection(signatures=SIGNATURES, warnings=["reads in a branch"])
    monkeypatch.setattr(model_sources, "check_saved_model", lambda *_: inspection)
    publish(check=True, versions=[1])
    assert warnings == ["reads in a branch"]


@pytest.mark.parametrize("check", [False, True])
def test_diff_shows_how_signatures_change(publish: Callable[..., dict[str, Any]], source: Path, check: bool) -> None:
    publish(versions=[1])
    shutil.rmtree(source / "2")
    signatures = {
        "call": {
            "method_name": "tensorflow/serving/predict",
            "inputs": {"words": {"dtype": "string", "shape": [-1]}},
            "outputs": {"y": {"dtype": "float32", "shape": [-1, 1]}},
        }
    }
    make_saved_model(source / "2", signatures=signatures)
    diff = publish(check=check)["diff"][1]
    assert (diff["before_header"], diff["after_header"]) == ("MLP/1 signatures", "MLP/2 signatures")
    assert ("serving_default" in diff["before"], "call" in diff["after"]) == (True, True)
    assert ("words" in diff["before"], "words" in diff["after"]) == (False, True)


@by_root_and_by_the_login_user
@pytest.mark.parametrize("check", [False, True])
def test_host_without_disk_space_is_refused_before_the_first_byte(
    publish: Callable[..., dict[str, Any]],
    models: Path,
    source: Path,
    receiver: int,
    check: bool,
    wrap_rsync: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(versions=[1], keep=1)
    os.truncate(source / "2" / WEIGHTS, 1 << 20 if not receiver else 1 << 19)  # what another user receives is copied
    wrap_rsync("exit 99")
    free = SimpleNamespace(f_bavail=100, f_frsize=4096, f_files=9, f_favail=9)
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    with pytest.raises(
        AnsibleActionFail, match=r"not enough disk space .* 1\.0 MiB needed, 400\.0 KiB free, and pruning .* 0 B"
    ):
        publish(check=check)
    assert [path.name for path in (models / "MLP").iterdir() if path.is_dir()] == ["1"]


FETCHED = {"source": "https://host/{version}.tar", "versions": [1], "digests": {1: "a" * 64}}


def test_version_that_hosts_fetch_is_told_without_a_size(publish: Callable[..., dict[str, Any]], models: Path) -> None:
    result = publish(check=True, **FETCHED)
    assert result["published"] == [{"model": "MLP", "version": 1, "bytes": None}]
    assert result["diff"][0]["after"] == "MLP/1  size not known\n"
    assert list(models.iterdir()) == []


def test_password_of_one_server_is_not_shown_to_another(publish: Callable[..., dict[str, Any]], action: Any) -> None:
    other = {**FETCHED, "name": "other", "source": "rsync://elsewhere/models"}
    plain = {**FETCHED, "name": "plain", "source": "http://elsewhere/{version}.tar"}
    run = action.run

    def with_password(**_: Any) -> dict[str, Any]:
        action._task.args["catalog"].append(other)
        action._task.args |= {"url_password": "s3cret"}
        result: dict[str, Any] = run(task_vars={})
        return result

    action.run = with_password
    with pytest.raises(AnsibleActionFail, match="url_password would be shown to elsewhere and host") as error:
        publish(check=True, **FETCHED)
    assert "s3cret" not in str(error.value)
    other = plain
    with pytest.raises(AnsibleActionFail, match="in plain text to http://elsewhere/1.tar; fetch from https") as error:
        publish(check=True, **FETCHED)
    assert "s3cret" not in str(error.value)


def test_digest_of_a_fetched_version_that_changed_is_refused(
    publish: Callable[..., dict[str, Any]], models: Path, source: Path, new_run: Callable[[], None]
) -> None:
    publish(versions=[1])
    digest = tree_digest(add_digests(source / "1", list_files(source / "1")))
    stored = {"source": "s3://bucket/MLP", "versions": [1]}
    assert not publish(**stored, digests={1: digest})["changed"]
    with pytest.raises(AnsibleActionFail, match=f"published with sha256 {digest}, but digests .* now has {'b' * 64}"):
        publish(**stored, digests={1: "b" * 64})
    assert not publish(**FETCHED)["changed"]  # what came from the controller has no archive to compare with
    manifest = models / "MLP" / ".manifest-1.json"
    manifest.write_text(manifest.read_text().replace('"source_digest": null', f'"source_digest": "{"c" * 64}"'))
    with pytest.raises(AnsibleActionFail, match=f"published with sha256 {'c' * 64}, .* export this one as version 2"):
        publish(**FETCHED)


@by_root_and_by_the_login_user
def test_leftovers_in_staging_are_not_published(
    publish: Callable[..., dict[str, Any]], models: Path, source: Path
) -> None:
    (models / "MLP" / ".staging-1").mkdir(parents=True)
    (models / "MLP" / ".staging-1" / "old.txt").touch()
    publish(versions=[1])
    assert tree(models / "MLP" / "1") == tree(source / "1")


@pytest.mark.usefixtures("in_its_own_process")
def test_program_that_does_not_run_on_the_host_fails_the_task_with_its_words(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"rc": 127, "stdout": "Welcome!\n", "stderr": "sh: 1: /usr/bin/python3: not found\n"}
    monkeypatch.setattr(action, "_low_level_execute_command", lambda *_, **__: failed)
    with pytest.raises(AnsibleActionFail, match="python3 on the host stopped with code 127:\nsh: 1: .* not found$"):
        publish()


@pytest.mark.usefixtures("in_its_own_process")
def test_interpreter_and_environment_of_the_task_are_used(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def execute(command: str, **_: Any) -> dict[str, Any]:
        commands.append(command)
        return {"rc": 1, "stdout": "", "stderr": "no"}

    monkeypatch.setattr(action, "_compute_environment_string", lambda: "HTTPS_PROXY=http://proxy:3128 ")
    monkeypatch.setattr(action, "_low_level_execute_command", execute)
    action._templar.template = lambda _: "/opt/python3"
    with pytest.raises(AnsibleActionFail, match="/opt/python3 on the host"):
        publish()
    assert commands[0].startswith("HTTPS_PROXY=http://proxy:3128 /opt/python3 -c ")


@pytest.mark.usefixtures("in_its_own_process")
def test_without_pipelining_a_call_is_a_file_of_the_task(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As sudo with requiretty needs it: then nothing may come over standard input."""
    sent = []

    def put_file(source: str, target: str) -> None:
        sent.append(target)
        shutil.copy(source, target)

    action._connection.is_pipelining_enabled.return_value = False
    action._connection.put_file = put_file
    action._connection._shell.tmpdir = str(tmp_path)
    action._connection._shell.join_path = os.path.join
    monkeypatch.setattr(action, "_fixup_perms2", lambda *_, **__: None)
    execute = action._low_level_execute_command

    def without_input(command: str, in_data: bytes = b"", **options: Any) -> Any:
        assert not in_data
        return execute(command, **options)

    monkeypatch.setattr(action, "_low_level_execute_command", without_input)
    assert publish()["changed"]
    assert not publish()["changed"]
    assert len(sent) == len(action.calls)


def test_missing_rsync_on_the_host_is_told(
    publish: Callable[..., dict[str, Any]], wrap_rsync: Callable[[str], None]
) -> None:
    wrap_rsync("exit 127")
    with pytest.raises(AnsibleActionFail, match="rsync is missing on the host"):
        publish()


def test_missing_rsync_on_the_controller_is_told_before_anything_is_changed(
    publish: Callable[..., dict[str, Any]], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AnsibleActionFail, match="rsync is missing on the controller"):
        publish()
    assert list(models.iterdir()) == []


def test_connection_that_carries_no_files_is_refused_before_anything_is_changed(
    publish: Callable[..., dict[str, Any]], action: Any, models: Path
) -> None:
    action._connection.transport = "docker"
    with pytest.raises(AnsibleActionFail, match="connections of type ssh or local, not docker"):
        publish()
    assert list(models.iterdir()) == []


def answer_id(action: Any, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    execute = action._low_level_execute_command

    def answer(command: str, **options: Any) -> Any:
        return {"stdout": output} if "id -u" in command else execute(command, **options)

    monkeypatch.setattr(action, "_low_level_execute_command", answer)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("", "answers '', not a user id"),
        ("This account is locked\n", "answers 'This account is locked', not a user id"),
    ],
)
def test_login_user_that_cannot_be_found_out_is_told(
    publish: Callable[..., dict[str, Any]], action: Any, monkeypatch: pytest.MonkeyPatch, output: str, complaint: str
) -> None:
    answer_id(action, monkeypatch, output)
    with pytest.raises(AnsibleActionFail, match=complaint):
        publish()


def test_greeting_before_the_user_id_is_passed_over(
    publish: Callable[..., dict[str, Any]], action: Any, receiver: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_id(action, monkeypatch, f"Welcome!\nreceiver={receiver},user\n")
    assert publish()["changed"]


def test_greeting_that_rsync_would_choke_on_is_named_before_anything_is_changed(
    publish: Callable[..., dict[str, Any]], action: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_id(action, monkeypatch, "Welcome to web1!\r\nreceiver=0,user\r\n")
    action._connection.transport = "ssh"
    with pytest.raises(AnsibleActionFail, match="prints 'Welcome to web1!', which rsync .* must print nothing"):
        publish()
    assert list(models.iterdir()) == []


SUDO = """#!/bin/sh
printf "%s\\n" "$*" >> {log}
{asks}
shift 3
exec "$@"
"""


@pytest.mark.parametrize(
    ("login", "asks", "method", "become_user", "expected"),
    [
        (1000, "", "sudo", None, Receiver(0, ("sudo", "-n", "-u", "root"))),
        (1000, "exit 1", "sudo", None, Receiver(1000)),  # a password
        (1000, "", "sudo", "app", Receiver(1000)),
        (1000, "", "su", None, Receiver(1000)),
        (1000, "", None, None, Receiver(1000)),
        (0, "", "sudo", None, Receiver(0)),
        (0, "", None, None, Receiver(0)),
    ],
)
def test_rsync_runs_as_root_where_that_takes_no_password(
    tmp_path: Path,
    action: Any,
    monkeypatch: pytest.MonkeyPatch,
    login: int,
    asks: str,
    method: str | None,
    become_user: str | None,
    expected: Receiver,
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sudo").write_text(SUDO.format(log=tmp_path / "log", asks=asks))
    (tmp_path / "bin" / "id").write_text(f"#!/bin/sh\necho {login}\n")
    for program in (tmp_path / "bin").iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def execute(command: str, sudoable: bool) -> dict[str, str]:
        assert not sudoable
        return {"stdout": subprocess.check_output(["/bin/sh", "-c", command], text=True)}

    monkeypatch.setattr(action, "_low_level_execute_command", execute)
    action._connection.transport = "ssh"
    become = MagicMock(get_option={"become_user": become_user}.get)
    become.name = method
    action._connection.become = become if method else None
    assert find_receiver(action._connection, host_calls.HostProgram(action, {})) == expected
    asked = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert asked in ("", "-n -u root rsync --version\n")


@by_root_and_by_the_login_user
def test_samples_become_warmup_requests_that_the_server_and_the_next_run_accept(
    publish: Callable[..., dict[str, Any]], source: Path, models: Path, new_run: Callable[[], None]
) -> None:
    asked = {"warmup": True, "sample_requests": [SAMPLE]}
    publish(**asked)
    for version in ("1", "2"):
        published = tree(models / "MLP" / version)
        records = published.pop(WARMUP_FILE)
        assert published == tree(source / version)
        assert records == warmup_records("MLP", [SAMPLE], SIGNATURES)
        status = (models / "MLP" / version / WARMUP_FILE).stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o644)
        manifest = json.loads((models / "MLP" / f".manifest-{version}.json").read_text())
        assert manifest["digest"] == tree_digest(add_digests(source / version, list_files(source / version)))
        assert manifest["generated"][WARMUP_FILE]["size"] == len(records)
    new_run()
    assert not publish(**asked)["changed"]


def test_samples_that_do_not_fit_are_refused_before_anything_is_sent(
    publish: Callable[..., dict[str, Any]], models: Path
) -> None:
    with pytest.raises(AnsibleActionFail, match="model MLP: sample_requests: request 1, signature 'serving_default'"):
        publish(warmup=True, sample_requests=[{**SAMPLE, "instances": ["text"]}])
    assert list(models.iterdir()) == []

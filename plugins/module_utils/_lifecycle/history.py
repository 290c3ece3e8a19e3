# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host has served, change by change, and the models that are held at something earlier.

Both are files in the role's configuration directory. HISTORY gets an entry each time that other versions or labels are
served. HOLDS has the models that were rolled back: as long as the catalogue asks for what it asked for then, they stay
at what they were rolled back to.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import numbers
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.files import read_json, write_json
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.host_lock import look
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.instances import MODELS_CONFIG
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    published_of,
    wanted_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.models_config_file import read
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import ModelStore
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.withdrawn_versions import unproven

HISTORY = ".history.json"
HOLDS = ".rolled-back.json"
MOST_ENTRIES = 50

# What is served of a model: {"versions": {version: digest, None where it was not published by this collection},
# "labels": {label: version}}. Versions are words, as JSON has them.
State = Dict[str, Dict[str, Any]]
# time (UTC, ISO 8601), by (who, empty where nobody knows), models ({name: State}) and rejected, the names of the models
# that were rolled back from this.
Entry = Dict[str, Any]
History = List[Entry]
# versions and labels, which are served; instead_of, what the catalogue asked for then; time and by. is_over is true
# while a run brings the servers to something else.
Hold = Dict[str, Any]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def who() -> str:
    """Return who has the host's lock, empty where nobody has it."""
    return str((look() or {"owner": ""})["owner"])


# The history


def read_history(config_path: str) -> History:
    """Return the entries, the oldest first; none where there is no file that can be read."""
    content = read_json(Path(config_path, HISTORY))
    return content if isinstance(content, list) else []


def write_history(config_path: str, history: History) -> None:
    """Replace the history, where it is another. Raises OSError."""
    if history != read_history(config_path):
        write_json(Path(config_path, HISTORY), history, mode=0o600)


def served_states(directories: Iterable[str], *, proven_only: bool = False) -> dict[str, State]:
    """Return what servers with these configuration directories serve of what is on disk.

    With proven_only, versions that no server has served yet do not count.
    """
    states = {}
    for directory in directories:
        models = read(Path(directory, MODELS_CONFIG))[1] or {}
        for name, published in published_of(models).items():
            model, store = models[name], ModelStore(Path(models[name].get("base_path", "")))
            there = set(published) - set(unproven(store) if proven_only else ())
            states[name] = {
                "versions": {
                    str(version): (store.read_manifest(version) or {}).get("digest")
                    for version in wanted_versions(model, sorted(there))
                },
                "labels": dict(model.get("version_labels", {})),
            }
    return states


def with_entry(history: History, served: dict[str, State], held: Iterable[str], by: str) -> History:
    """Return a history with what is served now, where that is something else than its last entry.

    What is served again is not what was rolled back from any more; nor is what is served last, of a model that is not
    held: a rollback that was killed has left that.
    """
    last = history[-1]["models"] if history else {}
    if history:
        rejected = [name for name in history[-1]["rejected"] if name in held or served.get(name) != last.get(name)]
        history = [*history[:-1], {**history[-1], "rejected": rejected}]
    if not served or served == last:
        return history
    again = {name for name, state in served.items() if state != last.get(name)}
    older = [
        {
            **entry,
            "rejected": [
                name for name in entry["rejected"] if name not in again or served[name] != entry["models"].get(name)
            ],
        }
        for entry in history
    ]
    return _shortened([*older, {"time": now(), "by": by, "models": served, "rejected": []}])


def _shortened(history: History) -> History:
    """Leave out the oldest entries, but for those that models would be rolled back to."""
    surplus = len(history) - MOST_ENTRIES
    if surplus <= 0:
        return history
    needed = {index for name in history[-1]["models"] for index in _earlier(history, name)[:1]}
    gone = [index for index in range(len(history) - 1) if index not in needed][:surplus]
    return [entry for index, entry in enumerate(history) if index not in gone]


def rejecting(history: History, names: Iterable[str]) -> History:
    """Return a history in which models were rolled back from what is served last."""
    *older, last = history
    return [*older, {**last, "rejected": sorted({*last["rejected"], *names})}]


def note_served(config_path: str, directories: Iterable[str], *, proven_only: bool = False) -> None:
    """Note what is served now, where that is something else than before; see served_states. Raises OSError."""
    served = served_states(directories, proven_only=proven_only)
    history, held = read_history(config_path), read_holds(config_path)
    write_history(config_path, with_entry(history, served, held, who()))


def earlier(history: History, name: str) -> list[State]:
    """Return what was served of a model before what is served now, the newest first.

    What it was rolled back from does not count.
    """
    return [history[index]["models"][name] for index in _earlier(history, name)]


def _earlier(history: History, name: str) -> list[int]:
    there = [entry["models"].get(name) for entry in history]
    if not there or not there[-1]:
        return []
    rejected = [entry["models"].get(name) for entry in history if name in entry["rejected"]]
    return [
        index
        for index, one in reversed(list(enumerate(there)))
        if one and one["versions"] and one != there[-1] and one not in rejected
    ]


def needed_versions(history: History, holds: Mapping[str, Hold], name: str) -> set[int]:
    """Return the versions that a rollback of a model would serve, now or once a newer one is noted as served."""
    kept = earlier(history, name)[:1] + [entry["models"][name] for entry in history[-1:] if name in entry["models"]]
    held = holds.get(name, {"versions": []})["versions"]
    return {*held, *(int(version) for state in kept for version in state["versions"])}


def changes(history: History, most: int) -> list[dict[str, str]]:
    """Return the last changes, the newest first: time, by, model, and from and to in words."""
    found = []
    for before, after in zip([{"models": {}}, *history], history):
        for name in sorted({*before["models"], *after["models"]}):
            old, new = before["models"].get(name), after["models"].get(name)
            if old != new:
                told = {"model": name, "from": words(old), "to": words(new)}
                found.append({"time": after["time"], "by": after["by"], **told})
    return found[::-1][:most]


def words(state: Mapping[str, Any] | None) -> str:
    """Return versions and labels as a table has them."""
    if not state or not state["versions"]:
        return "none"
    labels = ", ".join(f"{label}: {version}" for label, version in sorted(state["labels"].items()))
    return ", ".join(map(str, sorted(map(int, state["versions"])))) + (f" ({labels})" if labels else "")


# Holds


def read_holds(config_path: str) -> dict[str, Hold]:
    """Return the holds by model."""
    content = read_json(Path(config_path, HOLDS))
    return content if isinstance(content, dict) else {}


def write_holds(config_path: str, holds: Mapping[str, Hold]) -> None:
    """Replace the holds, where they are others. Raises OSError."""
    path = Path(config_path, HOLDS)
    if holds == read_holds(config_path):
        return
    if holds:
        write_json(path, dict(holds), mode=0o600)
    else:
        path.unlink(missing_ok=True)


def new_hold(state: State, instead_of: Mapping[str, Any]) -> Hold:
    """Return a hold of a model at a state, for as long as the catalogue asks for versions and labels of instead_of."""
    return {
        "versions": sorted(map(int, state["versions"])),
        "labels": state["labels"],
        "instead_of": {key: instead_of[key] for key in ("versions", "labels")},
        "time": now(),
        "by": who(),
        "is_over": False,
    }


def mark_holds(config_path: str, in_force: Iterable[str]) -> None:
    """Note which holds are over once the servers serve what they are told now. Raises OSError."""
    holds = read_holds(config_path)
    write_holds(config_path, {name: {**hold, "is_over": name not in in_force} for name, hold in holds.items()})


def end_holds(config_path: str) -> None:
    """Forget the holds that are over. Raises OSError."""
    holds = read_holds(config_path)
    write_holds(config_path, {name: hold for name, hold in holds.items() if not hold["is_over"]})


def without_held(samples: Mapping[str, Any], config_path: str) -> dict[str, Any]:
    """Return the samples by model of those that are not held: they are made for what the catalogue asks for."""
    holds = read_holds(config_path)
    return {name: one for name, one in samples.items() if name not in holds or holds[name]["is_over"]}


def asked_for(model: Mapping[str, Any], published: list[int]) -> dict[str, Any]:
    """Return versions and labels that a ModelConfig of the catalogue asks for."""
    return {"versions": wanted_versions(dict(model), published), "labels": dict(model.get("version_labels", {}))}


def hold_of(
    holds: Mapping[str, Hold], model: Mapping[str, Any], published: list[int], *, is_as_before: bool = False
) -> Hold | None:
    """Return the hold that is in force for a ModelConfig of the catalogue, None where there is none.

    One whose versions are gone counts for nothing. A model that is_as_before is what the file has, as the catalogue
    asks for a version that was withdrawn.
    """
    hold = holds.get(model["name"])
    if not hold or not set(hold["versions"]) <= set(published):
        return None
    return hold if is_as_before or hold["instead_of"] == asked_for(model, published) else None


def held_model(model: Mapping[str, Any], hold: Hold) -> dict[str, Any]:
    """Return a ModelConfig with what is held."""
    return {
        **model,
        "model_version_policy": {"specific": {"versions": hold["versions"]}},
        "version_labels": hold["labels"],
    }


def held_since(hold: Hold) -> str:
    return f"rolled back at {hold['time']}{' by ' + hold['by'] if hold['by'] else ''}"


def hold_words(name: str, hold: Hold) -> str:
    """Return the warning about a model that does not follow the catalogue."""
    return (
        f"{name} was {held_since(hold)} to {numbers(hold['versions'])}, and stays there as long as the catalogue asks "
        f"for {words(hold['instead_of'])}. Change the catalogue, or end it with -e tfserving_rollout_override=true"
    )

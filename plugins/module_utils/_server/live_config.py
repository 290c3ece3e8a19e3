# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings a running server from one models.config to another without failing a request.

A label may only move to a version that is AVAILABLE when the server reads the file, or it refuses the whole file; and
a version must not go before its label has moved. So there are up to three files on the way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, NoReturn

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    Model,
    check_served,
    read_labels,
    read_policy,
    served_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import (
    ForeignListener,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    published_versions,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import (
    ServingClient,
    ServingError,
    reason,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import (
    MAX_RESTARTS,
    POLL_SECONDS,
    SETTLE_SECONDS,
    NotServed,
    Refusals,
    Unit,
    ended_with_server,
    foreign_port,
    missing_versions,
    refusals,
    seen,
    stuck_lines,
    unanswered_samples,
    unfinished,
)

# ModelConfigs by the names of their models, as config_files.parse_models_config returns them.
Models = Dict[str, Dict[str, Any]]
# Versions by the names of their models.
Versions = Dict[str, List[int]]
# What labels lead to, by model and label; None where a label leads nowhere.
Labels = Dict[str, Dict[str, Any]]

# For the server to read the file once its time to look at it has come.
REACTION_SECONDS = 3.0
# A server that looks for what is not there says so each second.
NOISE_SECONDS = 3.0


# What the file is to say


def catalog_models(
    catalog: list[dict[str, Any]],
    base_path: Path,
    published: Versions,
    withdrawn: Versions | None = None,
    current: Models | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the ModelConfigs of a catalogue, in its order, and what is wrong with it.

    Where a model has labels, its latest versions are listed one by one: else the server would drop a version as soon
    as a newer one is published, while the label still leads to it. A model whose entry asks for a version that was
    withdrawn stays as it is in current, the file that lies there; one that never served is left out.
    """
    models, problems = [], []
    names = [entry["name"] for entry in catalog]
    problems += [f"model {name} is listed more than once" for name in sorted({n for n in names if names.count(n) > 1})]
    for entry in catalog:
        name = entry["name"]
        try:
            policy = read_policy(entry.get("model_version_policy"))
            labels = read_labels(entry.get("version_labels") or {})
        except ValueError as error:
            problems.append(f"model {name}: {error}")
            continue
        versions = published.get(name, [])
        refused = set((withdrawn or {}).get(name, [])) - set(versions)
        if refused & {*policy.get("specific", {}).get("versions", []), *labels.values()} or (refused and not versions):
            if versions and name in (current or {}):
                models.append((current or {})[name])
            continue
        if versions:
            problems += check_served(Model(name, policy=policy, labels=labels), versions)
        if labels and versions and "latest" in policy:
            policy = {"specific": {"versions": served_versions(policy, versions)}}
        models.append(
            {
                "name": name,
                "base_path": str(base_path / name),
                "model_platform": "tensorflow",
                "model_version_policy": policy,
                "version_labels": labels,
            }
        )
    return models, problems


def announced_versions(entry: dict[str, Any]) -> set[int]:
    """Return the versions that an entry of the catalogue speaks of: what check mode cannot see on disk yet."""
    specific = (entry.get("model_version_policy") or {}).get("specific") or {}
    labels = (entry.get("version_labels") or {}).values()
    versions = [*(entry.get("versions") or []), *(specific.get("versions") or []), *labels]
    return {int(version) for version in versions if str(version).isdecimal()}


def published_of(models: Models) -> Versions:
    """Return the versions on disk of each model."""
    return {name: sorted(published_versions(Path(model.get("base_path", "")))) for name, model in models.items()}


def wanted_versions(model: dict[str, Any], published: list[int]) -> list[int]:
    """Return the versions that the server serves of a ModelConfig."""
    policy = model.get("model_version_policy") or {}
    if "latest" in policy:
        # 0 is what the server takes for 1.
        return served_versions({"latest": {"num_versions": policy["latest"].get("num_versions") or 1}}, published)
    if "specific" in policy:
        return served_versions({"specific": {"versions": policy["specific"].get("versions", [])}}, published)
    return served_versions({"all": {}} if "all" in policy else {"latest": {"num_versions": 1}}, published)


def expected_versions(models: Models) -> Versions:
    """Return the versions of each model that a server with these ModelConfigs serves of what is on disk."""
    published = published_of(models)
    return {name: wanted_versions(model, published[name]) for name, model in models.items()}


def unservable(models: Models) -> list[str]:
    """Return the models that the server would wait for, for ever and with all others, each with the way out."""
    problems = []
    for name, versions in published_of(models).items():
        path = models[name].get("base_path", "")
        if not versions:
            what = "has no version" if Path(path).is_dir() else "does not exist"
            problems.append(f"{path} {what}, and would keep the server from loading any change of any model")
        elif not wanted_versions(models[name], versions):
            problems.append(f"{path} has no version that the policy of model {name} serves")
    return problems


# The way there


@dataclass(frozen=True)
class Step:
    """One models.config on the way, and what a server says that has taken it.

    available has to be AVAILABLE and gone must not be; labels have to lead where they say.
    """

    purpose: str
    models: Models
    available: Versions
    labels: Labels
    gone: Versions = field(default_factory=dict)


def plan(old: Models, new: Models, published: Versions, available: Versions, labels: Labels) -> list[Step]:
    """Return the steps from what a server does to what it shall do, as few as there can be.

    old is the file that it has; published are the versions on disk of all models, available those that it serves, and
    labels what it makes of every label of both files.
    """
    wanted = {name: wanted_versions(model, published.get(name, [])) for name, model in new.items()}
    current = {
        name: {
            label: version
            for label, version in labels.get(name, {}).items()
            if version in available.get(name, []) and version in published.get(name, [])
        }
        for name in {**old, **new}
    }
    must_load = must_keep = False
    for name, model in new.items():
        for label, target in model.get("version_labels", {}).items():
            now = current[name].get(label)
            if now != target:
                must_load = must_load or target not in available.get(name, [])
                must_keep = must_keep or (now is not None and now not in wanted[name])
    steps = []
    if must_load:
        steps.append(_way_step("load what the labels will lead to", old, new, published, available, current))
    if must_keep:
        moved = {name: dict(model.get("version_labels", {})) for name, model in new.items()}
        left = {name: one for name, one in current.items() if name not in new}
        steps.append(_way_step("move the labels", old, new, published, available, {**moved, **left}))
    steps.append(
        Step(
            purpose="drop what is not wanted any more" if steps else "take the new file",
            models=new,
            available=wanted,
            labels={
                name: {**dict.fromkeys(labels.get(name, {})), **model.get("version_labels", {})}
                for name, model in new.items()
            },
            gone={
                name: sorted(set(versions) - set(wanted.get(name, [])))
                for name, versions in available.items()
                if set(versions) - set(wanted.get(name, []))
            },
        )
    )
    return steps


def _way_step(purpose: str, old: Models, new: Models, published: Versions, available: Versions, labels: Labels) -> Step:
    """Return the step at which old and new versions are served side by side, with these labels."""
    models: Models = {}
    both: Versions = {}
    for name in [*new, *(name for name in old if name not in new)]:
        on_disk = published.get(name, [])
        model = dict(new.get(name) or old[name], version_labels=labels.get(name, {}))
        kept = set(available.get(name, [])) & set(on_disk)
        # A version that an old model would load by now is none of this step's concern.
        wanted = set(wanted_versions(model, on_disk)) if name in new else kept
        if kept - wanted or name not in new:
            model["model_version_policy"] = {"specific": {"versions": sorted(kept | wanted)}}
        if kept | wanted:
            models[name] = model
            both[name] = sorted(kept | wanted)
    return Step(purpose, models, both, {name: dict(labels.get(name, {})) for name in models})


# Going there


class NotTaken(NotServed):
    """The server has not taken a file. The text says what it was waited for, without the log."""


class Refused(NotTaken):
    """The server says that it does not take the file."""


class Stuck(NotTaken):
    """The server takes no file any more, whatever it says. Only a restart helps."""


@dataclass(frozen=True)
class Observed:
    """What a server says of itself. answers is false while it has no open port, and then nothing is known."""

    answers: bool
    states: dict[str, dict[int, str]]
    labels: Labels

    @property
    def available(self) -> Versions:
        return {
            name: sorted(version for version, state in states.items() if state == "AVAILABLE")
            for name, states in self.states.items()
        }


def observe(client: ServingClient, *files: Models) -> Observed:
    """Ask a server for the models and labels of some files."""
    states: dict[str, dict[int, str]] = {}
    labels: Labels = {}
    try:
        for file in files:
            for name, model in file.items():
                if name not in states:
                    try:
                        states[name] = {version: one["state"] for version, one in client.status(name).items()}
                    except ServingError:
                        states[name] = {}
                of_model = labels.setdefault(name, {})
                for label in model.get("version_labels", {}):
                    if label not in of_model:
                        of_model[label] = client.label_version(name, label)
    except OSError:
        return Observed(answers=False, states={}, labels={})
    return Observed(answers=True, states=states, labels=labels)


class LiveConfig:
    """The models.config of a running server.

    write replaces the file in one step. samples are requests by model that versions have to answer. A step may take
    timeout_seconds from when the server has looked at the file, which it does every poll_wait_seconds.
    """

    def __init__(
        self,
        client: ServingClient,
        unit: Unit,
        write: Callable[[str], None],
        render: Callable[[Models, str], str],
        samples: dict[str, list[dict[str, Any]]],
        timeout_seconds: float,
        poll_wait_seconds: float,
    ) -> None:
        self._client = client
        self._unit = unit
        self._write = write
        self._render = render
        self._samples = samples
        self._timeout_seconds = timeout_seconds
        self._poll_wait_seconds = poll_wait_seconds
        self._answered: set[tuple[str, int]] = set()
        self.steps: list[str] = []  # the purposes of the files that were written

    def missing(self, step: Step) -> tuple[list[str], Refusals]:
        """Return what a server has not done of a step as text, and the versions that it will never serve.

        Raises NotTaken where somebody else's answers would be taken for the server's.
        """
        try:
            waiting, ended = missing_versions(self._client, step.available)
            for name, versions in step.gone.items():
                waiting += self._not_gone(name, versions)
            for name, labels in step.labels.items():
                for label, version in labels.items():
                    found = self._client.label_version(name, label)
                    if found != version:
                        leads, should = (one or "nowhere" for one in (found, version))
                        waiting.append(f"label {label} of {name} leads to {leads} instead of {should}")
        except ForeignListener as error:
            raise NotTaken(foreign_port(error, self._unit.name)) from error
        except OSError as error:
            return [f"{self._client.url} does not answer: {reason(error)}"], {}
        return waiting, ended

    def _not_gone(self, name: str, versions: list[int]) -> list[str]:
        try:
            status = self._client.status(name)
        except ServingError:
            return []
        states = {version: status[version]["state"] for version in versions if version in status}
        return [f"{name} version {number} is still {state}" for number, state in states.items() if state != "END"]

    def has_answered(self, name: str, version: int) -> bool:
        """Say whether a version has answered the samples of its model; one without samples has none to answer."""
        return not self._samples.get(name) or (name, version) in self._answered

    def is_taken(self, models: Models) -> bool:
        """Say at a glance whether the server does what a file says."""
        return self.missing(self._final(models)) == ([], {}) and not self._stuck(time.time() - NOISE_SECONDS)

    def settle(self, models: Models) -> None:
        """Wait until the server does what the file says that lies there. Raises NotTaken or Stuck."""
        step = self._final(models)
        is_visible = self.missing(step) != ([], {})
        self._wait(step, observe(self._client, models), time.time(), is_visible)

    def _final(self, models: Models) -> Step:
        labels = {name: dict(model.get("version_labels", {})) for name, model in models.items()}
        return Step("take the file", models, expected_versions(models), labels)

    def replace(self, old: Models, new: Models, text: str, published: Versions | None = None) -> None:
        """Go from the file that lies there to new, whose text is given; published limits what is waited for.

        Raises NotTaken, Stuck, or OSError where the file cannot be written.
        """
        now = observe(self._client, old, new)
        if not now.answers:
            raise NotTaken(f"{self._unit.name} does not answer")
        steps = plan(old, new, published or published_of({**old, **new}), now.available, now.labels)
        for number, step in enumerate(steps, start=1):
            is_last = step is steps[-1]
            way = f"Step {number} of {len(steps)} to another configuration: {step.purpose}."
            self._go(step, text if is_last else self._render(step.models, way))

    def _go(self, step: Step, text: str) -> None:
        problems = unservable(step.models)
        if problems:
            raise NotTaken("a model was removed in the meantime: " + "; ".join(problems))
        is_visible = self.missing(step) != ([], {})
        at_start = observe(self._client, step.models)
        self._write(text)
        self.steps.append(step.purpose)
        self._wait(step, at_start, time.time(), is_visible)

    def put_back(self, current: Models, old: Models | None, text: str, before: Observed) -> str:
        """Bring the previous file back, and return a sentence that says what has come of it.

        Raises Stuck when the server refuses that one too.
        """
        if old is None:
            self._write(text)
            return "The previous file was restored, but it cannot be read, so its state is not confirmed."
        problems = unservable(old)
        if problems:
            return f"The previous file was not restored, as the server would get stuck with it: {'; '.join(problems)}."
        # What was on disk and not served before is not waited for: it may be the cause of all this.
        served = {
            name: [version for version in versions if version in before.available.get(name, [])]
            for name, versions in published_of({**current, **old}).items()
        }
        try:
            self._samples = {}
            self.replace(current, old, text, served if before.answers else None)
        except Refused as error:
            raise Stuck(
                f"{self._unit.name} refuses the previous file too, and loads no further change: {error}"
            ) from error
        except NotTaken as error:
            self._write(text)
            return f"The previous file was restored, but its state is not confirmed: {str(error).rstrip('.')}."
        return "The previous file was restored, and the server follows it."

    def _stuck(self, since: float) -> list[tuple[str, str, str]]:
        return stuck_lines(self._unit.log(since))

    def _wait(self, step: Step, at_start: Observed, written: float, is_visible: bool) -> None:
        """Return when the server has taken a step whose file was written at this time.

        at_start is what it said before. Where the step changes nothing that can be seen, a refusal is waited for.
        """
        start = time.monotonic()
        restarts_before = self._unit.state()[1]
        ended_since = None
        while True:
            elapsed = time.monotonic() - start
            has_looked = elapsed > self._poll_wait_seconds + REACTION_SECONDS
            self._check_refusals(written)
            waiting, ended = self.missing(step)
            if not waiting:
                waiting = self._unproven(step)
            if not waiting and (is_visible or has_looked):
                if not self._stuck(max(written, time.time() - NOISE_SECONDS)):
                    return
                waiting = ["the server to stop looking for a model that is not there"]
            self._check_unit(restarts_before)
            ended_since = (ended_since or elapsed) if ended else None
            if ended_since is not None and elapsed - ended_since > SETTLE_SECONDS and has_looked:
                raise NotTaken("The server cannot load " + "; ".join(ended.values()), ended)
            if has_looked:
                self._check_stuck(step, written)
            if elapsed > self._timeout_seconds + self._poll_wait_seconds:
                self._give_up(step, waiting, at_start, written)
            time.sleep(POLL_SECONDS)

    def _unproven(self, step: Step) -> list[str]:
        """Ask for predictions of what has not answered yet. Raises NotTaken when one is refused."""
        open_versions = {
            name: [version for version in versions if (name, version) not in self._answered]
            for name, versions in step.available.items()
            if self._samples.get(name)
        }
        waiting, refused = unanswered_samples(self._client, open_versions, self._samples)
        if refused:
            raise NotTaken("; ".join(refused.values()), refused)
        if not waiting:
            self._answered |= {(name, version) for name, versions in open_versions.items() for version in versions}
        return waiting

    def _check_unit(self, restarts_before: int) -> None:
        state, restarts = self._unit.state()
        if state in ("failed", "inactive"):
            raise NotTaken(f"{self._unit.name} is {state}, so nothing is served")
        if restarts - restarts_before >= MAX_RESTARTS:
            raise NotTaken(f"{self._unit.name} keeps exiting; systemd has restarted it {restarts} times")

    def _check_refusals(self, written: float) -> None:
        """Raise Refused for a refusal of this file; the one before may have been refused just after its end."""
        log = self._unit.log(written)
        found = refusals(log)
        if found and (len(found) > 1 or found[-1].time > written + 1):
            raise Refused("The server refuses the file: " + found[-1].words, ended_with_server(log))

    def _check_stuck(self, step: Step, written: float) -> None:
        """Raise Stuck when the server looks for a model that the file it should have taken does not have."""
        found = self._stuck(max(written + self._poll_wait_seconds, time.time() - NOISE_SECONDS))
        if len(found) < 2:
            return
        model, path, words = found[-1]
        if any(path == one.get("base_path") for one in step.models.values()):
            if not published_of(step.models).get(model):
                raise NotTaken(f"the versions of model {model} were removed in the meantime: {words}")
            return
        raise Stuck(
            f"{self._unit.name} is stuck: it still looks for model {model} in {path}, which the file does not have, "
            f"and loads no further change ({words})"
        )

    def _give_up(self, step: Step, waiting: list[str], at_start: Observed, written: float) -> NoReturn:
        what = f"After {self._timeout_seconds:g} s still waiting (timeout_seconds): " + "; ".join(waiting)
        now = observe(self._client, step.models)
        is_loading = any(
            state not in ("AVAILABLE", "END") for states in now.states.values() for state in states.values()
        )
        what = f"{what}. Seen: {seen(self._client, self._unit, written)}"
        if now.answers and now == at_start and not is_loading:
            raise Stuck(f"{self._unit.name} has neither loaded nor refused the file. {what}")
        raise NotTaken(what, unfinished(self._client, step.available))

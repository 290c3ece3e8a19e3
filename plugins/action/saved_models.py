# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Publishes SavedModel versions on a host; documented by the module of the same name."""

from __future__ import annotations

import sys
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CATALOG_OPTIONS,
    CatalogError,
    Model,
    check_credentials,
    read_catalog,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.directories import access_diff
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.versions import (
    digests_of,
    look_before_publishing,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish import model_sources
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.carry_out import carry_out
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.plan import (
    HostState,
    PublishedVersion,
    PublishingPlan,
    foreign_notes,
    plan_publishing,
    signatures_diffs,
    versions_diff,
    withdrawn_text,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.push import Pusher
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.target import Target
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils._publish.transfer import Transport
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.host_calls import HostProgram

# How a host fetches; handed on to it as it is.
FETCH_SPEC = {
    "proxy": {"type": "str"},
    "no_proxy": {"type": "list", "elements": "str"},
    "url_username": {"type": "str"},
    "url_password": {"type": "str", "no_log": True},
    "s3_endpoint_url": {"type": "str"},
    "s3_region": {"type": "str"},
    "s3_access_key_id": {"type": "str"},
    "s3_secret_access_key": {"type": "str", "no_log": True},
    "s3_session_token": {"type": "str", "no_log": True},
}
ARGUMENT_SPEC = {
    "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
    "base_path": {"type": "str", "required": True},
    "group": {"type": "str", "required": True},
    "adopt": {"type": "bool", "default": False},
    "keep": {"type": "int"},
    "state": {"type": "str", "choices": ["published", "distributed"], "default": "published"},
    "retry_withdrawn": {"type": "bool", "default": False},
    "per_model_batching": {"type": "bool", "default": False},
    "host": {"type": "dict"},
    **FETCH_SPEC,
}

# Seen by the process that the user started, which loads this file too; those that run the tasks have no terminal.
IS_INTERACTIVE = sys.stdout.isatty()


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, self._args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            models = self._read_catalog()
            target = self._target(task_vars or {})
            host, plan = self._look_and_plan(models, target)
            self._warn_of_foreign(plan, target)
            pusher = Pusher(target, host, plan.prunable_bytes)
            if plan.may_exceed(host):
                pusher.check_space(plan.pushed)
            is_changed = plan.has_changes(host)
            published = [transfer.result for transfer in plan.transfers]
            if is_changed and not self._task.check_mode:
                fetching = {**{name: self._args[name] for name in FETCH_SPEC}, "no_proxy": self._args["no_proxy"] or []}
                published = carry_out(
                    plan,
                    target,
                    pusher,
                    fetching,
                    per_model_batching=self._args["per_model_batching"],
                    distribute=self._args["state"] == "distributed",
                )
        except (CatalogError, SavedModelError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        return {"changed": is_changed, **self._result(host, plan, published)}

    def _read_catalog(self) -> list[Model]:
        """Return the models of the catalogue. Raises CatalogError, and AnsibleActionFail where none could travel."""
        models = read_catalog(self._args["catalog"], self._args["keep"])
        for model in models:
            for note in model.notes:
                self._display.warning(f"model {model.name}: {note}")
        if any(model.sources for model in models):
            Transport.check(self._connection)
        check_credentials(models, bool(self._args["url_password"]))
        return models

    def _target(self, task_vars: dict[str, Any]) -> Target:
        return Target(
            program=HostProgram(self, task_vars),
            connection=self._connection,
            name=task_vars.get("inventory_hostname", ""),
            base_path=self._args["base_path"],
            group=self._args["group"],
            warn=self._display.warning,
            say=self._display.display if IS_INTERACTIVE or self._display.verbosity else None,
        )

    def _look_and_plan(self, models: list[Model], target: Target) -> tuple[HostState, PublishingPlan]:
        """Return what the host has, and lacks.

        What was seen earlier will do to find that it lacks nothing, but nothing is changed without another look.
        """
        names = [model.name for model in models]
        if self._args["host"] and set(names) <= self._args["host"]["models"].keys():
            host = HostState.of(self._args["host"])
            plan = self._plan(models, host)
            if self._task.check_mode or not plan.has_changes(host):
                return host, plan
        host = HostState.of(self._look(target, names))
        return host, self._plan(models, host)

    def _look(self, target: Target, names: list[str]) -> Any:
        return target.program.call(
            look_before_publishing,
            base_path=target.base_path,
            models=names,
            group=target.group,
            adopt=self._args["adopt"],
        )

    def _plan(self, models: list[Model], host: HostState) -> PublishingPlan:
        """Return what the host lacks, and show the warnings about it. Raises CatalogError for what forbids it."""
        plan = plan_publishing(
            models,
            host,
            model_sources,
            retry_withdrawn=self._args["retry_withdrawn"],
            per_model_batching=self._args["per_model_batching"],
            distribute=self._args["state"] == "distributed",
        )
        for note in plan.notes:
            self._display.warning(note)
        if plan.problems:
            raise CatalogError(plan.problems)
        return plan

    def _warn_of_foreign(self, plan: PublishingPlan, target: Target) -> None:
        if plan.foreign:
            asked = [[one.model.name, one.version] for one in plan.foreign]
            digests = target.program.call(digests_of, base_path=target.base_path, versions=asked)
            for note in foreign_notes(plan.foreign, digests, model_sources):
                self._display.warning(note)

    def _result(self, host: HostState, plan: PublishingPlan, published: list[PublishedVersion]) -> dict[str, Any]:
        result: dict[str, Any] = {
            "published": [{"model": one.model, "version": one.version, "bytes": one.bytes} for one in published],
            "withdrawn": plan.withdrawn,
        }
        if plan.withdrawn:
            told = " ".join(map(withdrawn_text, plan.withdrawn))
            result["ansible_stats"] = {"data": {"withdrawn": told}, "per_host": True, "aggregate": False}
        if self._task.diff:
            result["diff"] = [versions_diff(host, published, self._args["state"])]
            if host.base_access is not None:
                result["diff"].append(access_diff(self._args["base_path"], host.base_access, self._args["group"]))
            result["diff"] += signatures_diffs(host, published)
        return result

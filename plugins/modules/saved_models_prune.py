#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: saved_models_prune
short_description: Remove the SavedModel versions on a host that nobody uses any more
version_added: 0.1.0
description:
  - Of each model the newest versions stay, as many as O(catalog[].keep) or O(keep) says, and with them whatever the
    version policy serves, a label points to, or the running server still uses.
  - Every model server of the host is asked - those of O(instances), those whose units or C(models.config) are still on
    disk, and those that others have started - and a version that one of them uses stays. Of the models of a server that
    does not answer, or does not run, every version stays, with a warning.
  - A version that a server is about to unload is waited for.
  - Only versions that were published by M(modelops.tensorflow_serving.saved_models) are removed. Others stay, with a
    warning where they would have to go.
  - A version goes by one rename(2) to a name that the server does not parse, and its files after that.
  - What interrupted runs left is deleted silently.
extends_documentation_fragment:
  - modelops.tensorflow_serving.catalog
options:
  base_path:
    description: Directory on the host with one directory per model.
    type: path
    required: true
  keep:
    description: How many of the newest versions stay of a model whose entry does not say so by itself. Without both
      every version stays.
    type: int
  purge:
    description: Whether to remove the models that were published and are not in O(catalog). One that a C(models.config)
      on the host names stays, even if no version of it is loaded, as a missing base path stops the server's polling of
      all models.
    type: bool
    default: false
  unit:
    description: The systemd unit of the instance that has no name, without C(.service). The others' begin with it.
    type: str
    default: tensorflow-model-server
  config_path:
    description: Directory of the configuration. A named instance has a directory of its own in it.
    type: path
    default: /etc/tensorflow-serving
  instances:
    description: The instances, as in C(tfserving_service_instances). C(name) and C(models) are read of each.
    type: list
    elements: dict
    default: [{}]
  pending:
    description:
      - For check mode, when the play would first publish versions and have the servers of O(instances) follow the
        catalogue. These versions, each with C(model) and C(version), count as published, and what these servers use
        now does not count.
      - Other keys are not read.
    type: list
    elements: dict
  timeout_seconds:
    description: How long to wait for the servers to unload what is to be removed. By default ten seconds from when all
      of them have looked at their C(models.config) again.
    type: int
attributes:
  check_mode:
    description: Says what would be removed, without waiting.
    support: full
  diff_mode:
    description: Shows the versions of each model before and after.
    support: full
author:
  - The modelops.tensorflow_serving authors
seealso:
  - module: modelops.tensorflow_serving.saved_models
"""

EXAMPLES = r"""
- name: Keep the three newest versions of each model, and what is in use
  modelops.tensorflow_serving.saved_models_prune:
    catalog: "{{ tfserving_models_catalog }}"
    base_path: /var/lib/tensorflow-serving/models
    keep: 3
"""

RETURN = r"""
removed:
  description: The versions that were removed, or would be in check mode, and what each gave back, in bytes. Files that
    a version which stays has too give nothing back.
  returned: always
  type: list
  elements: dict
  sample: [{"model": "MLP", "version": 1, "bytes": 423511}]
freed_bytes:
  description: What all of them gave back.
  returned: success
  type: int
  sample: 423511
cleaned:
  description: Leftovers of interrupted runs and directories of purged models, below O(base_path), that were deleted.
  returned: success
  type: list
  elements: str
  sample: ["MLP/.removed-1"]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._catalog.catalog import (
    CATALOG_OPTIONS,
    numbers,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._lifecycle.prune import (
    LinkCount,
    Plan,
    delete_emptied_directory,
    delete_leftovers,
    plan_listed,
    plan_unlisted,
    version_sizes,
    wait_for_release,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.host_servers import (
    HostServer,
    find_servers,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.disk_space import version_lines
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._store.store import remove

UNLOAD_SECONDS = 10


def make_plans(params: dict[str, Any]) -> list[Plan]:
    """Return what may go, model by model. Raises OSError and ValueError."""
    base_path = Path(params["base_path"])
    pending: dict[str, set[int]] = {}
    for one in params["pending"] or []:
        pending.setdefault(str(one["model"]), set()).add(int(one["version"]))
    plans = [
        plan_listed(base_path, entry, params["keep"], pending.get(entry["name"], set())) for entry in params["catalog"]
    ]
    return plans + plan_unlisted(base_path, {plan.model for plan in plans}, params["purge"])


def servers_to_ask(module: AnsibleModule) -> list[HostServer]:
    """Return the servers whose word counts: in check mode, the play would have its own follow the catalogue first."""
    params = module.params
    models = [entry["name"] for entry in params["catalog"]]
    servers = find_servers(module, params["unit"], params["config_path"], params["instances"], models)
    is_announced = module.check_mode and params["pending"] is not None
    return [server for server in servers if not (is_announced and server.is_ours)]


def leave_out_configured(module: AnsibleModule, plans: list[Plan], servers: list[HostServer]) -> list[Plan]:
    """Return plans without the purged models that a server is told to serve, and warn of these."""
    left = []
    for plan in plans:
        told = [server for server in servers if plan.is_purged and server.names_of(plan.store.path) != set()]
        if told:
            where = " and ".join(server.config_name for server in told)
            module.warn(f"{plan.model} stays, as it is in {where}; playbooks/serving.yml takes it out there")
        else:
            left.append(plan)
    return left


def choose(module: AnsibleModule, plans: list[Plan], servers: list[HostServer]) -> dict[str, list[int]]:
    """Return which versions of each model go, and warn about those that stay."""
    timeout_seconds = module.params["timeout_seconds"]
    if timeout_seconds is None:
        timeout_seconds = max((server.poll_wait_seconds for server in servers), default=0) + UNLOAD_SECONDS
    usage = wait_for_release(servers, plans, 0 if module.check_mode else timeout_seconds)
    for server, facts in usage.unknown.items():
        module.warn(
            f"No version of {', '.join(facts['models'])} is removed, as {server} does not say which it uses: "
            f"{facts['reason']}. Start it (playbooks/serving.yml) or remove it, and rerun playbooks/prune.yml"
        )
    unlisted = {plan.model for plan in plans if plan.is_purged}
    for (model, version), why in usage.versions.items():
        fix = "playbooks/serving.yml takes it out of models.config" if model in unlisted else "see playbooks/status.yml"
        module.warn(f"{model}/{version} stays, as it {why}; {fix}")
    return {plan.model: usage.allowed(plan) for plan in plans}


def warn_of_others(module: AnsibleModule, plan: Plan, removed: list[int]) -> None:
    """Name what stays although the model needs it no more, as it is not this collection's."""
    if plan.by_hand:
        module.warn(
            f"{plan.store.path}: {numbers(plan.by_hand)} would be removed, but was not published by this collection, "
            "and stays; delete it by hand"
        )
    folders = plan.store.published()
    used = {name for one in plan.versions for name in (folders[one], plan.store.manifest(one).name)}
    foreign = [name for name in plan.left_over(removed) if name not in used] if plan.is_purged else []
    if foreign:
        module.warn(
            f"{plan.store.path} stays, as it holds what this collection did not put there: {', '.join(foreign[:5])}; "
            "delete it by hand"
        )


def versions_diff(plans: list[Plan], chosen: dict[str, list[int]]) -> dict[str, str]:
    """Return the versions with their sizes before and after, as the action saved_models shows them."""
    before = {(plan.model, one): size for plan in plans for one, size in version_sizes(plan).items()}
    after = {key: size for key, size in before.items() if key[1] not in chosen[key[0]]}
    return {"before_header": "published versions", "before": version_lines(before), "after": version_lines(after)}


def prune(module: AnsibleModule, removed: list[dict[str, Any]]) -> dict[str, Any]:
    """Add to removed what goes, and return the rest of the result. Raises OSError and ValueError."""
    servers = servers_to_ask(module)
    plans = leave_out_configured(module, make_plans(module.params), servers)
    chosen = choose(module, plans, servers)
    result: dict[str, Any] = {"cleaned": []}
    if module._diff:
        result["diff"] = versions_diff(plans, chosen)
    for plan in plans:
        count = LinkCount()
        result["cleaned"] += [f"{plan.model}/{path.name}" for path in plan.leftovers]
        for path in plan.leftovers:
            count.release(path)
        folders = plan.store.published()
        freed = {one: count.release(plan.store.path / folders[one]) for one in chosen[plan.model]}
        warn_of_others(module, plan, chosen[plan.model])
        if plan.is_purged and not plan.left_over(chosen[plan.model]):
            result["cleaned"].append(plan.model)
        if not module.check_mode and plan.leftovers:
            with plan.store.alone():
                delete_leftovers(plan)
        # The oldest first: whenever this is stopped, the newer ones are there.
        for one, size in freed.items():
            if not module.check_mode:
                with plan.store.alone():
                    remove(plan.store, one)
            removed.append({"model": plan.model, "version": one, "bytes": size})
        if not module.check_mode:
            delete_emptied_directory(plan)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "catalog": {"type": "list", "elements": "dict", "required": True, "options": CATALOG_OPTIONS},
            "base_path": {"type": "path", "required": True},
            "keep": {"type": "int"},
            "purge": {"type": "bool", "default": False},
            "unit": {"type": "str", "default": "tensorflow-model-server"},
            "config_path": {"type": "path", "default": "/etc/tensorflow-serving"},
            "instances": {"type": "list", "elements": "dict", "default": [{}]},
            "pending": {"type": "list", "elements": "dict"},
            "timeout_seconds": {"type": "int"},
        },
        supports_check_mode=True,
    )
    removed: list[dict[str, Any]] = []
    try:
        result = prune(module, removed)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error), changed=bool(removed), removed=removed)
    module.exit_json(changed=bool(removed), removed=removed, freed_bytes=sum(one["bytes"] for one in removed), **result)


if __name__ == "__main__":
    main()

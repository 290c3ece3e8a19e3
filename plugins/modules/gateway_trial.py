#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_trial
short_description: Have the gateway send a share of the requests to new versions, and judge how they are answered
version_added: 0.2.0
description:
  - A step of a rollout. The second servers that M(modelops.tensorflow_serving.model_candidate) has left running get a
    share of the REST requests that name no version, or copies of it.
  - A request that a second server does not answer, or answers with an error, is answered by the server as before. So is
    each from the moment on in which the second server has ended, however it has.
  - The step is two files beside the gateway's site, which includes them. nginx checks them before it takes them, and is
    reloaded.
attributes:
  check_mode:
    description: Does nothing.
    support: full
  diff_mode:
    description: Shows the files with O(state=begun).
    support: partial
options:
  state:
    description:
      - V(begun) begins a step, in the place of another.
      - V(judged) compares what the second servers have answered since O(mark) with what the servers have.
        Fails where more requests ended with an error, or took longer, than O(limits) allows, or a second server has
        ended. An error is every answer that is no success, as the server says 400 of what a model cannot compute.
      - V(ended) ends step and second servers.
    type: str
    choices: [begun, judged, ended]
    required: true
  candidates:
    description: The second servers, as RV(modelops.tensorflow_serving.model_candidate#module:running) says.
    type: list
    elements: dict
    default: []
  kind:
    description: Whether the second servers get copies, whose answers no client sees (V(mirror)), or answer (V(split)).
    type: str
    choices: [mirror, split]
    default: split
  percent:
    description: The share of the requests, more than 0 and at most 100, to two decimals.
    type: float
    default: 100.0
  mark:
    description: What RV(mark) was at the begin of the step.
    type: dict
    default: {}
  limits:
    description: C(max_error_share), which may be added to the servers' share of errors; C(max_latency_ratio) of the
      medians and C(max_p99_ratio), in which C(warmup_requests) of a second server's answers do not count;
      C(min_requests), with fewer of which to either nothing is judged; and C(require_requests), whether that is a
      failure.
    type: dict
    default: {}
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Send the new versions copies of 10 % of the requests
  modelops.tensorflow_serving.gateway_trial:
    state: begun
    candidates: "{{ tried.running }}"
    kind: mirror
    percent: 10
  register: step
"""

RETURN = r"""
mark:
  description: Where the gateway's log ended when the step had begun.
  returned: with O(state=begun)
  type: dict
  sample: {"inode": 1234, "offset": 56789}
gates:
  description: What was measured and what is allowed.
  returned: with O(state=judged)
  type: list
  elements: dict
  sample: [{"gate": "10 % copied: errors", "model": "MLP", "measured": "0.00% of 300, 0.00% to compare with",
    "allowed": "1.00%", "passed": true}]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway import nginx, trial
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.nginx import NginxError
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._gateway.site import failure
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout import gates
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.answers import (
    lines_since,
    mark,
    read_answers,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._rollout.candidate import (
    check_running,
    remove,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import NotServed


def step_words(kind: str, percent: float) -> str:
    """Return what a step does, as gates name it."""
    return f"{percent:g} % {'copied' if kind == trial.MIRROR else 'answered'}"


def judged(params: dict[str, Any]) -> list[gates.Result]:
    """Return how the second servers have answered, by model. Raises OSError where the log cannot be read."""
    step = step_words(params["kind"], params["percent"])
    names = {
        model: trial.upstream_names(number, one["port"])
        for number, one in enumerate(params["candidates"])
        for model in one["models"]
    }
    found = read_answers(lines_since(nginx.LOG, params["mark"]), names)
    return [result for model, both in found.items() for result in gates.trial(step, model, *both, params["limits"])]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["begun", "judged", "ended"]},
            "candidates": {"type": "list", "elements": "dict", "default": []},
            "kind": {"type": "str", "choices": list(trial.KINDS), "default": trial.SPLIT},
            "percent": {"type": "float", "default": 100.0},
            "mark": {"type": "dict", "default": {}},
            "limits": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    result: dict[str, Any] = {"changed": False}
    failed: list[str] = []
    try:
        if module.check_mode:
            pass
        elif params["state"] == "ended":
            result["changed"] = remove(module)
        else:
            check_running(module, params["candidates"])
            if params["state"] == "begun":
                result["diff"] = trial.begin(params["kind"], params["percent"], params["candidates"])
                result.update(changed=True, mark=mark(nginx.LOG))
            else:
                result["gates"] = judged(params)
                failed = [gates.words(one) for one in result["gates"] if not one["passed"]]
    except NotServed as error:
        failed = [f"{step_words(params['kind'], params['percent'])}: {error}"]
    except NginxError as error:
        module.fail_json(msg=failure(error))
    except OSError as error:
        module.fail_json(msg=str(error))
    if failed:
        module.fail_json(msg="before the change: " + "; ".join(failed), **{**result, "changed": False})
    module.exit_json(**result)


if __name__ == "__main__":
    main()

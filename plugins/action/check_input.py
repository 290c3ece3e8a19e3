# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks the input of roles on the controller; documented by the module of the same name."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import printable
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.role_checks import Inventory, problems_of
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.role_input import (
    Role,
    RoleInput,
    UnusableError,
    known_variables,
    roles,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.variable_names import (
    ALLOWED,
    COMMAND_LINE_ONLY,
    SERVING_VARIABLES,
    name_problems,
)

OF_SERVING = ("tfserving_common", "tfserving_apt", "tfserving_package", "tfserving_models", "tfserving_service")
SERVING = Role("serving.yml", SERVING_VARIABLES, SERVING_VARIABLES, {}, {})

# Read by the process that the user started, which loads this file too. Those that run the tasks are copies of it.
KNOWN = known_variables()


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(argument_spec={"roles": {"type": "list", "elements": "str"}})
        self._host_variables = task_vars or {}
        self._inputs: dict[str, RoleInput] = {}
        unknown = sorted({*(args["roles"] or [])} - {*roles()})
        if unknown:
            raise AnsibleActionFail(f"roles: there is no {', '.join(unknown)}; there are {', '.join(roles())}")
        names = self._roles_of_serving() if args["roles"] is None else args["roles"]
        problems = self._name_problems() + (self._serving_problems() if args["roles"] is None else [])
        inventory = Inventory(
            host=self._host_variables["inventory_hostname"],
            hostvars=self._host_variables.get("hostvars", {}),
            role=self._input_of,
            find=self._find,
        )
        for name in names:
            problems += problems_of(name, self._input_of(name), inventory)
        # What follows from another variable is worth a word only where that one is nobody's.
        problems = problems or [text for name in names for text in self._input_of(name).consequences]
        if problems:
            lines = [f"- {text}" for text in dict.fromkeys(problems)]
            raise AnsibleActionFail("\n".join(["The input cannot be used; nothing was changed.", *lines]))
        return {"changed": False}

    def _input_of(self, role: str) -> RoleInput:
        if role not in self._inputs:
            found = SERVING if role == SERVING.name else roles()[role]
            self._inputs[role] = RoleInput(found, self._host_variables, self._template_with)
        return self._inputs[role]

    def _template_with(self, variables: dict[str, Any]) -> Callable[[Any], Any]:
        template: Callable[[Any], Any] = self._templar.copy_with_new_env(available_variables=variables).template
        return template

    def _roles_of_serving(self) -> list[str]:
        try:
            has_gateway = (
                "tfserving_gateway_enabled" in self._host_variables
                and (self._input_of("tfserving_gateway")["tfserving_gateway_enabled"])
            )
        except UnusableError:
            has_gateway = True  # what is wrong is said of the role
        return [*OF_SERVING, *(["tfserving_gateway"] if has_gateway else [])]

    def _name_problems(self) -> list[str]:
        try:
            allowed = self._input_of(SERVING.name).get(ALLOWED, [])
        except UnusableError:
            allowed = []
        problems, warnings = name_problems(self._host_variables, KNOWN, allowed)
        for text in warnings:
            self._display.warning(text)
        return problems

    def _serving_problems(self) -> list[str]:
        """Return what is wrong with what the playbook itself reads."""
        seen = {*load_extra_vars(self._loader), *self._task.get_play().get_vars()}
        unseen = {
            name: printable(str(self._host_variables[name]))
            for name in COMMAND_LINE_ONLY
            if name in self._host_variables and name not in seen
        }
        return self._input_of(SERVING.name).problems + [
            f"{name} is {value} in the inventory, where a play cannot see it. Remove it there and pass "
            f"-e {name}={value}."
            for name, value in unseen.items()
        ]

    def _find(self, file: str) -> str | None:
        try:
            found: str = self._find_needle("files", file)
        except AnsibleError:
            return None
        return found

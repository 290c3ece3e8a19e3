# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a role gets from the variables of a host: worked out on the controller as the role itself would, and checked."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Iterator

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.errors import UnsupportedError
from ansible.parsing.dataloader import DataLoader

ROLES = Path(__file__).resolve().parents[2] / "roles"
# Since ansible-core 2.19 only what is trusted may hold templates.
_TRUSTED = "trusted_as_template" in inspect.signature(DataLoader.load_from_file).parameters

TemplateWith = Callable[["dict[str, Any]"], Callable[[Any], Any]]
"""Returns what works out a value with these variables, and raises AnsibleError where it cannot."""


@dataclass(frozen=True)
class Role:
    """What a role says about its variables, its own and those of the roles that it depends on.

    options is the argument_spec of the main entry point, or of all where there is none; all_options that of all.
    internal is its vars/main.yml.
    """

    name: str
    options: dict[str, dict[str, Any]]
    all_options: dict[str, dict[str, Any]]
    defaults: dict[str, Any]
    internal: dict[str, Any]


@lru_cache(maxsize=None)
def roles() -> dict[str, Role]:
    """Return all roles of the collection by name."""
    return {path.name: _role(path) for path in sorted(ROLES.iterdir()) if (path / "meta").is_dir()}


def known_variables() -> set[str]:
    """Return the names of all variables of all roles."""
    return {name for role in roles().values() for name in (*role.all_options, *role.defaults)}


def _role(path: Path) -> Role:
    entries = _meta(path / "meta/argument_specs.yml").get("argument_specs") or {}
    options = {name: entry.get("options") or {} for name, entry in entries.items()}
    all_options = {name: one for some in options.values() for name, one in some.items()}
    role = Role(
        name=path.name,
        options=options.get("main", all_options),
        all_options=all_options,
        defaults=_read(path / "defaults/main.yml"),
        internal=_read(path / "vars/main.yml"),
    )
    for dependency in _meta(path / "meta/main.yml").get("dependencies") or []:
        other = _role(ROLES / dependency["role"].rpartition(".")[2])
        role = replace(
            role,
            options={**other.options, **role.options},
            all_options={**other.all_options, **role.all_options},
            defaults={**other.defaults, **role.defaults},
        )
    return role


def _meta(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _read(path: Path) -> dict[str, Any]:
    """Return variables that hold templates."""
    trusted = {"trusted_as_template": True} if _TRUSTED else {}
    return DataLoader().load_from_file(str(path), **trusted) or {} if path.exists() else {}


class UnusableError(Exception):
    """A value that is wrong, missing or made of such a one. What is wrong is among the problems."""


class RoleInput:
    """The values of a role's variables for one host.

    What the host gives is of the types that the role's argument_specs say; the collection's own defaults are right.
    problems are what is wrong with variables by themselves. consequences are what cannot be worked out because of
    another variable, found when it is asked for: they are worth a word only where nothing else is wrong.
    """

    def __init__(self, role: Role, host_variables: dict[str, Any], template_with: TemplateWith) -> None:
        self.problems: list[str] = []
        self.consequences: list[str] = []
        # A play that imports roles has their defaults among the variables of its hosts.
        self._given = {
            name
            for name in host_variables.keys() & role.options.keys()
            if name not in role.defaults or host_variables[name] != role.defaults[name]
        }
        self._variables = {
            **role.defaults,
            **host_variables,
            **role.internal,
            "role_path": str(ROLES / role.name),
        }
        self._template = template_with(self._variables)
        self._values: dict[str, Any] = {}
        for name, option in role.options.items():
            if name in self._given:
                self._take(name, option)
            elif option.get("required") and name not in role.defaults:
                self.problems.append(f"{name} is not set, and has no default: {_description(option)}")

    def __getitem__(self, name: str) -> Any:
        """Return the value of a variable, also of one in vars/main.yml. Raises UnusableError."""
        if name not in self._values:
            if name in self._given or name not in self._variables:
                raise UnusableError(name)
            self._values[name] = self._worked_out(name)
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a variable that need not be set. Raises UnusableError."""
        return self[name] if name in self._variables else default

    def _take(self, name: str, option: dict[str, Any]) -> None:
        try:
            value = self._worked_out(name)
        except UnusableError:
            return
        result = ArgumentSpecValidator({name: option}).validate({name: value}, validate_role_argument_spec=True)
        self.problems += remove_values(list(_words(name, result)), result._no_log_values)
        if not result.error_messages:
            self._values[name] = _as_given(value, result.validated_parameters[name])

    def _worked_out(self, name: str) -> Any:
        try:
            return self._template(self._variables[name])
        except AnsibleError as error:
            follows = isinstance(error, AnsibleUndefinedVariable) and name not in self._given
            (self.consequences if follows else self.problems).append(_error_words(name, error))
            raise UnusableError(name) from error


def _error_words(name: str, error: AnsibleError) -> str:
    """Return what went wrong with a variable; a plugin of this collection says of which variable it speaks."""
    words = " ".join(str(error).split())
    _, failed, own = words.partition(" failed: ")
    if (
        name.startswith("__")
        and failed
        and words.startswith(("The lookup plugin 'modelops.", "The filter plugin 'modelops."))
    ):
        return own
    return f"{name} cannot be worked out: {words}"


def _as_given(given: Any, validated: Any) -> Any:
    """Return a validated value without what the validator has filled in, as a role does not get that either."""
    if isinstance(given, dict) and isinstance(validated, dict):
        return {key: _as_given(given[key], value) for key, value in validated.items() if key in given}
    if isinstance(given, list) and isinstance(validated, list) and len(given) == len(validated):
        return [_as_given(*pair) for pair in zip(given, validated)]
    return validated


def _words(name: str, result: Any) -> Iterator[str]:
    """Yield what a validator says of a variable, each with the name of it."""
    for error in result.errors:
        text = f"Unknown: {error.msg}" if isinstance(error, UnsupportedError) else error.msg
        yield text if name in text else f"{name}: {text}"


def _description(option: dict[str, Any]) -> str:
    text = option["description"]
    return text if isinstance(text, str) else text[0]

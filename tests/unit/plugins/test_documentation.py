"""What the plugins' documentation says is what the plugins take."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.plugins.action import ActionBase

COLLECTION = "modelops.tensorflow_serving"
PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py"))
ACTIONS = sorted(path.stem for path in (PLUGINS / "action").glob("*.py"))
FILTERS = sorted(path.stem for path in (PLUGINS / "filter").glob("*.py"))


class Captured(Exception):  # noqa: N818 - not an error
    """Carries what a plugin asks its arguments to be."""

    def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool = False, **_: Any) -> None:
        super().__init__()
        self.spec, self.check_mode = argument_spec, supports_check_mode


def load(kind: str, name: str) -> ModuleType:
    return importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.{kind}.{name}")


def accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> Captured:
    """Return the arguments that a task can give: those of the action of the module's name, else the module's own."""
    if name not in ACTIONS:
        return accepted_on_host(name, monkeypatch)
    action = load("action", name).ActionModule(None, None, None, None, None, None)
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(ActionBase, "validate_argument_spec", capture)
    with pytest.raises(Captured) as captured:
        action.run()
    captured.value.check_mode = action._supports_check_mode
    return captured.value


def accepted_on_host(name: str, monkeypatch: pytest.MonkeyPatch) -> Captured:
    """Return the arguments that a module checks against."""
    module = load("modules", name)
    monkeypatch.setattr(module, "AnsibleModule", capture)
    with pytest.raises(Captured) as captured:
        module.main()
    return captured.value


def capture(*_: Any, **settings: Any) -> None:
    raise Captured(**settings)


def documented(name: str) -> dict[str, Any]:
    """Return DOCUMENTATION of a module with the options and attributes of its fragments."""
    text: dict[str, Any] = yaml.safe_load(load("modules", name).DOCUMENTATION)
    for fragment in text.get("extends_documentation_fragment", []):
        short = fragment.removeprefix(f"{COLLECTION}.")
        shared = yaml.safe_load(load("doc_fragments", short).ModuleDocFragment.DOCUMENTATION)
        for part, entries in shared.items():
            assert not set(entries) & set(text.get(part, {}))
            text[part] = {**text.get(part, {}), **entries}
    return text


def comparable(options: dict[str, Any], nested: str) -> dict[str, Any]:
    """Reduce options or arguments to what both can say; nested is the key of their own options."""
    return {
        name: {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "required": option.get("required", False),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "options": comparable(option.get(nested) or {}, nested),
        }
        for name, option in options.items()
    }


def descriptions(options: dict[str, Any]) -> list[Any]:
    found = []
    for option in options.values():
        found += [option.get("description"), *descriptions(option.get("suboptions") or {})]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_documented_options_are_the_accepted_arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert comparable(documented(name)["options"], "suboptions") == comparable(
        accepted(name, monkeypatch).spec, "options"
    )


@pytest.mark.parametrize("name", [name for name in ACTIONS if hasattr(load("modules", name), "main")])
def test_module_behind_an_action_takes_some_of_its_arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the two have in common means the same; the module may take less, as the action does the rest."""
    module = accepted_on_host(name, monkeypatch)
    of_action = comparable(accepted(name, monkeypatch).spec, "options")
    of_module = comparable(module.spec, "options")
    assert of_module == {argument: of_action.get(argument) for argument in of_module}
    assert module.check_mode


@pytest.mark.parametrize("name", MODULES)
def test_documented_check_mode_is_supported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    support = documented(name)["attributes"]["check_mode"]["support"]
    assert accepted(name, monkeypatch).check_mode is (support == "full")


@pytest.mark.parametrize("name", MODULES)
def test_module_documents_itself_wholly(name: str) -> None:
    text = documented(name)
    assert text["module"] == name
    assert all(text[key] for key in ("short_description", "version_added", "description", "author"))
    assert all(descriptions(text["options"]))
    returned = yaml.safe_load(load("modules", name).RETURN) or {}
    assert all({"description", "returned", "type"} <= set(value) for value in returned.values())


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_use_its_options(name: str) -> None:
    text = documented(name)
    tasks = yaml.safe_load(load("modules", name).EXAMPLES)
    assert tasks
    required = {option for option, facts in text["options"].items() if facts.get("required")}
    for task in tasks:
        assert required <= set(task[f"{COLLECTION}.{name}"]) <= set(text["options"])


@pytest.mark.parametrize("name", FILTERS)
def test_filter_documents_its_parameters(name: str) -> None:
    module = load("filter", name)
    text = yaml.safe_load(module.DOCUMENTATION)
    ((registered, function),) = module.FilterModule().filters().items()
    _, *parameters = inspect.signature(function).parameters
    assert (text["name"], registered) == (name, name)
    assert list(text["options"]) == ["_input", *parameters]
    assert all(descriptions(text["options"]))
    assert all(text[key] for key in ("short_description", "version_added", "description", "author"))
    assert f"{COLLECTION}.{name}" in str(yaml.safe_load(module.EXAMPLES))
    assert set(yaml.safe_load(module.RETURN)) == {"_value"}

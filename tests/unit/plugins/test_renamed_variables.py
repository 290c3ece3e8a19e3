"""Old names of variables: the table for people and the dictionary for the roles say the same, and nothing uses them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.renamed_variables import RENAMED

ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT / "tests/unit/plugins/converted_inventory"


def variables_of_the_roles() -> set[str]:
    """Return what roles have defaults for or describe."""
    names: set[str] = set()
    for path in (ROOT / "roles").glob("*/defaults/main.yml"):
        names |= set(yaml.safe_load(path.read_text()))
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for entry_point in yaml.safe_load(path.read_text())["argument_specs"].values():
            names |= set(entry_point.get("options") or {})
    return names


def test_table_for_people_says_what_to_write() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.*)` \|$", (ROOT / "docs/upgrading.md").read_text(), re.MULTILINE)
    assert dict(rows) == RENAMED
    assert len(rows) == len(RENAMED)


def test_new_name_is_a_variable_and_an_old_one_is_not() -> None:
    known = variables_of_the_roles()
    assert {re.split(r"\W", new)[0] for new in RENAMED.values()} <= known
    assert not set(RENAMED) & known


def test_converted_inventories_have_every_old_name() -> None:
    assert set(RENAMED) <= {name for path in CASES.glob("*/0.1.yml") for name in yaml.safe_load(path.read_text())} | {
        "tfserving_apt_key_file"  # it excludes tfserving_apt_key_content
    }

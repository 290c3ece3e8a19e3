"""An inventory of 0.1 and its converted form come to the same files on the hosts.

expected/ holds what 0.1 made of 0.1.yml. After a change of a template, write it again:
rendered_inventory.py converted_inventory/NAME/now.yml DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

HERE = Path(__file__).parent
SPECS = sorted((HERE.parents[2] / "roles").glob("*/meta/argument_specs.yml"))
CASES = sorted(path.name for path in (HERE / "converted_inventory").iterdir())


@pytest.mark.parametrize("name", CASES)
def test_converted_inventory_gives_the_files_that_it_gave(name: str, tmp_path: Path) -> None:
    case = HERE / "converted_inventory" / name
    subprocess.run(
        [sys.executable, str(HERE / "rendered_inventory.py"), str(case / "now.yml"), str(tmp_path)], check=True
    )
    expected = {path.relative_to(case / "expected"): path for path in (case / "expected").rglob("*") if path.is_file()}
    assert {name: (tmp_path / name).read_text() for name in expected} == {
        name: path.read_text() for name, path in expected.items()
    }


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", SPECS, ids=[path.parts[-3] for path in SPECS])
def test_converted_inventory_is_what_the_roles_ask_for(path: Path, name: str) -> None:
    """null is taken where it means something, by Ansible too, which checks these before a role runs."""
    entry_points = yaml.safe_load(path.read_text())["argument_specs"].values()
    options = {name: option for entry_point in entry_points for name, option in entry_point.get("options", {}).items()}
    inventory = yaml.safe_load((HERE / "converted_inventory" / name / "now.yml").read_text())
    given = {variable: value for variable, value in inventory.items() if variable in options}
    assert ArgumentSpecValidator(options).validate(given).error_messages == []

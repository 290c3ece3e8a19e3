"""An inventory of 0.1 and its converted form come to the same files on the hosts.

expected/ holds what 0.1 made of 0.1.yml. Whoever changes a template writes it anew:
rendered_inventory.py converted_inventory/NAME/now.yml DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
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

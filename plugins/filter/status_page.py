# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: status_page
short_description: Turn rows of status_rows into a page of HTML
version_added: 0.1.0
description:
  - Returns a page that needs nothing but itself - no script, no picture, nothing from the network. Rows with drift are
    marked.
options:
  _input:
    description: The rows, as P(modelops.tensorflow_serving.status_rows#filter) returns them.
    type: list
    elements: dict
    required: true
  columns:
    description: The headers, each the key of its values in the rows.
    type: list
    elements: str
    required: true
  asked_at:
    description: When the servers were asked, as it is to be printed.
    type: str
    required: true
  changes:
    description: The last changes of the hosts, each with host, time, by, model, from and to. None are shown by default.
    type: list
    elements: dict
    default: []
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
page: "{{ rows | modelops.tensorflow_serving.status_page(['host', 'model', 'version', 'drift'], asked_at) }}"
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""

from pathlib import Path
from typing import Any, Callable, Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils import status_rows

TEMPLATES = Path(status_rows.__file__).parent


CHANGES = ("host", "time", "by", "model", "from", "to")


def status_page(
    rows: list[dict[str, Any]], columns: list[str], asked_at: str, changes: Sequence[dict[str, Any]] = ()
) -> str:
    """Return the page that DOCUMENTATION describes."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("status_page.html.j2").render(
        rows=rows,
        columns=columns,
        asked_at=asked_at,
        changes=changes,
        change_columns=CHANGES,
        hosts=len({row["host"] for row in rows}),
        drifted=len({row["host"] for row in rows if row["verdict"] == status_rows.DRIFT}),
        served=sum(row["verdict"] == status_rows.SERVED for row in rows),
    )


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"status_page": status_page}

# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prints a table; documented by the module of the same name."""

from __future__ import annotations

from typing import Any, Sequence

from ansible.plugins.action import ActionBase
from ansible.utils.color import stringc

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import printable

GAP = "  "


def aligned(columns: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """Return header, rule and rows as lines of equal columns; columns of numbers are aligned to the right.

    A key that a row lacks, or a value of None, is an empty cell. What would break a line is shown escaped.
    """
    cells = [["" if row.get(column) is None else printable(str(row[column])) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    right = [_is_of_numbers(column) for column in zip(*cells)] or [False] * len(columns)

    def line(texts: list[str]) -> str:
        padded = (
            text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in zip(texts, widths, right)
        )
        return GAP.join(padded).rstrip()

    return [line(columns), GAP.join("-" * width for width in widths), *map(line, cells)]


def coloured(lines: list[str], rows: list[dict[str, Any]], key: str | None, colours: dict[str, str]) -> list[str]:
    """Return the lines of aligned, each of a row in the colour of the row's value of key.

    Ansible's own settings say whether there are colours at all.
    """
    of_rows = [colours.get(str(row.get(key or ""))) for row in rows]
    return [stringc(line, colour) if colour else line for line, colour in zip(lines, [None, None, *of_rows])]


def _is_of_numbers(column: Sequence[str]) -> bool:
    """Say whether a column holds numbers, or nothing, and not nothing alone."""
    return any(column) and all(not cell or _is_number(cell) for cell in column)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "title": {"type": "str"},
                "columns": {"type": "list", "elements": "str", "required": True},
                "rows": {"type": "list", "elements": "dict", "required": True},
                "colour_by": {"type": "str"},
                "colours": {"type": "dict", "default": {}},
            }
        )
        title = [args["title"], ""] if args["title"] else []
        lines = aligned(args["columns"], args["rows"])
        self._display.display("\n".join(["", *title, *lines, ""]), log_only=True)
        shown = coloured(lines, args["rows"], args["colour_by"], args["colours"])
        self._display.display("\n".join(["", *title, *shown, ""]), screen_only=True)
        return {"changed": False}

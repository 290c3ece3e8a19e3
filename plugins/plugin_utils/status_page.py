# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rows of a fleet as a page of HTML that needs nothing but itself."""

from __future__ import annotations

from html import escape
from typing import Any, Mapping, Sequence

from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.status_rows import DRIFT, SERVED

STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; }
p { margin: 0 0 1.2rem; }
table { border-collapse: collapse; }
th, td { padding: .3rem .9rem .3rem .3rem; text-align: left; vertical-align: top; border-bottom: 1px solid #8884; }
td.version { text-align: right; }
td.digest { font-family: ui-monospace, monospace; }
tr.idle { opacity: .55; }
tr.served td.state { color: light-dark(#17723a, #5fd38d); }
tr.drift { background: light-dark(#fde8e6, #55211d); }
tr.drift td.drift, strong.drift { color: light-dark(#b3261e, #ffb4ab); font-weight: 600; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], asked_at: str) -> str:
    """Return the page. asked_at is when the servers were asked."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "\n".join(_row(row, columns) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width">
<title>TensorFlow Serving: what is served</title>
<style>
{STYLE}</style>
</head>
<body>
<h1>What is served</h1>
<p>{_summary(rows)} Asked at {escape(asked_at)}.</p>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</body>
</html>
"""


def _row(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    cells = "".join(
        f'<td class="{escape(column)}">{escape("" if row[column] is None else str(row[column]))}</td>'
        for column in columns
    )
    return f'<tr class="{escape(row["verdict"])}">{cells}</tr>'


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    hosts = {row["host"] for row in rows}
    drifted = {row["host"] for row in rows if row["verdict"] == DRIFT}
    served = sum(row["verdict"] == SERVED for row in rows)
    found = f'<strong class="drift">Drift on {len(drifted)}.</strong>' if drifted else "No drift."
    return f"{_count(len(hosts), 'host')}, {_count(served, 'version')} served as intended. {found}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""The figure: wall time and bytes sent, a row of bars per case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of a way to draw that needs no screen

from bench.report import CaseReport, megabytes  # noqa: E402
from bench.summary import Summary  # noqa: E402

COLUMNS: tuple[tuple[str, Callable[[Summary], float], Callable[[float], str]], ...] = (
    ("wall time, s", lambda one: one.wall_seconds, lambda value: f"{value:.1f}"),
    ("bytes sent by the controller, MB", lambda one: one.sent_bytes / 1e6, lambda value: megabytes(value * 1e6)),
)
OURS, OTHERS = "#d95f02", "#8da0b3"


def draw(cases: Sequence[CaseReport], ours: tuple[str, ...], path: Path) -> None:
    heights = [len(case.rows) for case in cases]
    figure, axes = plt.subplots(
        len(cases), len(COLUMNS), figsize=(12, 0.34 * sum(heights) + 0.65 * len(cases)), height_ratios=heights,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for row, case in enumerate(cases):
        labels = list(case.rows)
        for column, (unit, value_of, show) in enumerate(COLUMNS):
            axis = axes[row][column]
            values = [value_of(summary) for summary in case.rows.values()]
            colours = [OURS if label.startswith(ours) else OTHERS for label in labels]
            bars = axis.barh(labels if not column else range(len(labels)), values, color=colours, height=0.75)
            axis.bar_label(bars, [show(value) for value in values], padding=4, fontsize=9)
            axis.invert_yaxis()
            axis.margins(x=0.14)
            axis.set_xticks([])
            axis.spines[["top", "right", "bottom"]].set_visible(False)
            axis.tick_params(left=False, labelleft=not column)
            axis.set_title(
                case.title if not column else unit,
                loc="left" if not column else "right",
                fontsize=11,
                fontweight="bold" if not column else "normal",
                color="black" if not column else "#555555",
            )
        axes[row][0].set_title(COLUMNS[0][0], loc="right", fontsize=11, color="#555555")
    figure.savefig(path, dpi=110)
    plt.close(figure)

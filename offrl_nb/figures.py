"""One house style for every figure: colours that colour-blind readers can tell apart, direct labels.

For: curves with an interval and all seeds as points. Not for: figures that make one chapter's own point.
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from offrl_nb.evaluate import interval

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
GREY = "#666666"
STYLE = Path(__file__).with_name("book.mplstyle")


def house_style() -> None:
    """Set the book's look: white background (also in dark mode), light grid, no box, tables in full."""
    pd.set_option("display.max_colwidth", None)
    rc = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    sns.set_theme(style="whitegrid", palette=COLOURS, font_scale=1.05, rc=rc)


def curve(ax, table: pd.DataFrame, column="return", label="", colour=None) -> None:
    """Mean over seeds against the update, with a band (95 % bootstrap interval) and a thin line for each seed."""
    values = table.dropna(subset=[column]).pivot(index="step", columns="seed", values=column)
    (line,) = ax.plot(values.index, values.mean(axis=1, skipna=False), label=label, color=colour)
    bands = np.array([interval(row, draws=1000) for row in values.to_numpy()])
    colour = line.get_color()
    ax.fill_between(values.index, *bands.T, color=colour, alpha=0.2, linewidth=0)
    ax.plot(values.index, values, color=colour, alpha=0.3, linewidth=0.7)
    ax.set_xlabel("update")


def points(ax: Axes, results: dict[str, np.ndarray], colours: list[str] | None = None) -> None:
    """One row for each result: every seed as a dot, the mean as a bar, its 95 % bootstrap interval as a line."""
    for row, values in enumerate(results.values()):
        colour = (colours or COLOURS)[row % len(colours or COLOURS)]
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0]
        ax.plot(values, row + np.asarray(spread), "o", color=colour, markersize=5, alpha=0.6)
        ax.plot(interval(values), [row, row], color=colour, linewidth=2)
        ax.plot(np.mean(values), row, "|", color=colour, markersize=18, markeredgewidth=3)
    ax.set_yticks(range(len(results)), list(results))
    ax.set_ylim(len(results) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def reference(ax: Axes, value: float, label: str, vertical: bool = False) -> None:
    """A dashed line that says what a value means, labelled on the line itself."""
    (ax.axvline if vertical else ax.axhline)(value, color=GREY, linestyle="--", linewidth=1)
    text = {"color": GREY, "fontsize": 9, "va": "top", "textcoords": "offset points"}
    if vertical:
        text |= {"xycoords": ("data", "axes fraction"), "ha": "left", "rotation": 90}
        ax.annotate(label, (value, 0.98), (3, 0), **text)
    else:
        text |= {"xycoords": ("axes fraction", "data"), "ha": "right"}
        ax.annotate(label, (0.995, value), (0, -3), **text)


def legend(ax: Axes, **options) -> None:
    """A legend below the axes, where it covers no curve."""
    ax.legend(**{"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3} | options)

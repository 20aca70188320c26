"""One house style for every figure: colours that colour-blind readers can tell apart, direct labels.

For: curves with an interval and all seeds as points. Not for: figures that make one chapter's own point.
"""

import base64
import functools
import html
import io
import json
import re
import sys
from pathlib import Path
from string import Template

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from offrl_nb.evaluate import interval

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
GREY = "#666666"
# One colour a method in the whole book, by slug; cloning is grey, because all others are judged against it.
METHOD_COLOURS = json.loads(Path(__file__).with_name("colours.json").read_text())
STYLE = Path(__file__).with_name("book.mplstyle")
SLIDER = Template(Path(__file__).with_name("slider.html").read_text())


def house_style() -> None:
    """Set the book's look: white background (also in dark mode), light grid, no box, tables in full.

    In a notebook, figures get twice the pixels that they are shown with.
    """
    pd.set_option("display.max_colwidth", None)
    rc = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    sns.set_theme(style="whitegrid", palette=COLOURS, font_scale=1.05, rc=rc)
    if "ipykernel" in type(sys.stdout).__module__:
        from matplotlib_inline.backend_inline import set_matplotlib_formats  # comes with notebooks

        set_matplotlib_formats("retina")


def curve(ax, table: pd.DataFrame, column="return", label="", colour=None) -> None:
    """Mean over seeds against the update, with a band (95 % bootstrap interval) and a thin line for each seed."""
    values = table.dropna(subset=[column]).pivot(index="step", columns="seed", values=column)
    (line,) = ax.plot(values.index, values.mean(axis=1, skipna=False), label=label, color=colour)
    bands = np.array([interval(row, draws=1000) for row in values.to_numpy()])
    ax.fill_between(values.index, *bands.T, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.plot(values.index, values, color=line.get_color(), alpha=0.3, linewidth=0.7)
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
        ax.annotate(label, (value, 0.98), (3, 0), ("data", "axes fraction"), rotation=90, **text)
    else:
        ax.annotate(label, (0.995, value), (0, -3), ("axes fraction", "data"), ha="right", **text)


def legend(ax: Axes, **options) -> None:
    """A legend below the axes, where it covers no curve."""
    ax.legend(**{"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3} | options)


def slider(figures: list[Figure], labels: list[str], name: str, alt: str, start: int = 0) -> None:
    """Show figures as the frames of one picture with a knob below it, and close them.

    figures: the same artists in each, with the same limits and ticks; what they share is stored once.
    labels: a line for each figure that reads it: "τ = 0.9: 80 % of the values lie below V".
    name: what the knob turns, such as "expectile τ". alt: the picture in words.
    start: the frame that is shown first, and alone where the knob cannot work: in a notebook that is
        not trusted, in a viewer that strips handlers, without JavaScript.
    In figures write τ rather than $\\tau$: a browser sets the text of the frames, in fonts of its own.
    Raises ValueError for labels of another number than figures, a start that is none of them, or frames
    that differ in more than positions, colours and words.
    """
    from IPython.display import display  # here, because the other figures need no IPython

    if not 0 <= start < len(figures) == len(labels):
        raise ValueError(f"Give all {len(figures)} figures a label, and start at one of them.")
    tokens = [re.split("(?<=>)", _svg(figure)) for figure in figures]
    tags = [re.findall(r"</?\w+", "".join(frame)) for frame in tokens]
    if odd := [i for i, found in enumerate(tags) if found != tags[0]]:
        raise ValueError(f"Frames {odd} hold other artists, ticks or points in view than frame 0.")
    pieces = [part[0] if len(set(part)) == 1 else part for part in zip(*tokens, strict=True)]
    frames = json.dumps({"pieces": pieces, "labels": labels}, ensure_ascii=False)
    frames = frames.replace("&", "&amp;").replace("'", "&#39;")  # html.escape would add 20 kB
    still, (width, height) = _still(figures[start]), map(round, figures[start].bbox.size)
    words = {"name": name, "alt": alt, "reading": labels[start]}
    words = {key: html.escape(text) for key, text in words.items()}
    sizes = {"width": width, "height": height, "start": start, "last": len(figures) - 1}
    page = SLIDER.substitute(words | sizes, frames=frames, still=still)
    display({"text/html": page, "image/png": still, "text/plain": alt}, raw=True)
    for figure in figures:
        plt.close(figure)


def _svg(figure: Figure) -> str:
    """A figure as one line of SVG, with text as text; the numbers in its tags, not in its text, are cut."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "offrl_nb"}):
        figure.savefig(file := io.StringIO(), format="svg")
    svg = re.sub(r"(?s)^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->", "", file.getvalue())
    cut = functools.partial(re.sub, r"(\.\d\d)\d+|\s*\n\s*", r"\1")
    return re.sub(r"<(?!image)[^>]*>\s*", lambda tag: cut(tag[0]), svg)  # an image needs its digits


def _still(figure: Figure) -> str:
    """A figure as PNG in base64: twice as many pixels as are shown, 64 colours."""
    figure.savefig(file := io.BytesIO(), format="png", dpi=2 * figure.dpi)
    Image.open(file).convert("RGB").quantize(64).save(small := io.BytesIO(), "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()

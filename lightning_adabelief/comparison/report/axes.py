"""The look of the report's figures: their size, what their axes reach to, and how an optimizer's line is drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.line_styles import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.4, 4.0
"""Inches of a figure. Each is as wide as a telephone's screen, so that its text can be read there."""

LOG_RATIO = 10.0
"""The ratio of the worst shown value to the best one from which an axis is logarithmic."""

LARGE_LOG_RATIO = 1e3
"""The ratio from which a logarithmic axis has no room for numbers between the powers of ten."""

LARGEST_LOG_RATIO = 1e4
"""The ratio to which a logarithmic axis reaches where the untrained model's value is not known."""

SHOWN_QUANTILE = 0.8
"""The quantile of badness to which a linear axis reaches: what lies beyond must not hide the rest."""

FAILURE: dict[str, Any] = {
    "marker": "x",
    "markersize": 9,
    "markeredgewidth": 2.2,
    "linestyle": "",
    "zorder": 6,
}
"""The mark of a run that failed; its colour is the optimizer's."""


def make_axes(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Make a figure, and its axes with a grid.

    Args:
        height: Inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ax = figure.subplots()
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def write_svg(figure: Figure) -> str:
    """Return a figure as SVG, the same for the same figure, with its text as text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "adabelief compare"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def limit_y(ax: Axes, values: Sequence[np.ndarray], results: Results) -> None:
    """Set the y-axis so that each contender's best value is seen, and what went badly does not flatten the rest.

    Args:
        ax: The axes.
        values: Each contender's values.
        results: The comparison.
    """
    is_min = results.plan.mode == "min"
    finite = [found for contender in values if len(found := contender[np.isfinite(contender)])]
    untrained = [run.outcome.untrained for run in results.runs if run.outcome.untrained is not None]
    if not finite:
        return
    bests = [found.min() if is_min else found.max() for found in finite]
    everything = np.concatenate(finite)
    if is_min:
        best, worst = min(bests), max(*bests, np.quantile(everything, SHOWN_QUANTILE, method="lower"))
    else:
        best, worst = max(bests), min(*bests, np.quantile(everything, 1 - SHOWN_QUANTILE, method="higher"))
    if is_min and best > 0 and worst / best > LOG_RATIO:
        farthest = np.median(untrained) if untrained else best * LARGEST_LOG_RATIO
        worst = max(worst, min(everything.max(), farthest))
        _use_plain_log_scale(ax, worst / best)
        ax.set_ylim(best * (best / worst) ** 0.06, worst * (worst / best) ** 0.1)
    else:
        margin = 0.08 * abs(worst - best) or 0.05 * abs(best) or 1.0
        ax.set_ylim(min(best, worst) - margin, max(best, worst) + margin)


def _use_plain_log_scale(ax: Axes, ratio: float) -> None:
    """Make the y-axis logarithmic, with numbers as a reader writes them: 0.02 and not 2 x 10^-2."""
    from matplotlib.ticker import LogLocator, NullLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < LARGE_LOG_RATIO else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def keep_within(ax: Axes, value: float, results: Results) -> float:
    """Return a value that is shown: itself, or the end of the axis that it lies beyond; a NaN is at the worse end."""
    low, high = ax.get_ylim()
    if math.isnan(value):
        return high if results.plan.mode == "min" else low
    return min(max(value, low), high)


def style_line(style: Style, points: int) -> dict[str, Any]:
    """Return a line's look; its markers are at most ten, so that they don't hide it."""
    return {
        "color": style.color,
        "linestyle": style.linestyle,
        "linewidth": 1.8,
        "marker": style.marker,
        "markersize": 5.5,
        "markerfacecolor": "white",
        "markevery": max(1, points // 10),
        "zorder": 3,
    }


def add_legend(figure: Figure, names: Iterable[str]) -> None:
    """Add a legend below the axes, where it hides nothing."""
    longest = max(len(write_name(name)) for name in names)
    columns = max(1, min(4, 56 // (longest + 10)))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9, handlelength=3.6)


def write_name(name: str, longest: int = 24) -> str:
    """Return a name as a figure can show it: shortened in the middle, and without mathematics."""
    shown = name if len(name) <= longest else f"{name[: longest - 10]}…{name[-9:]}"
    return shown.replace("$", r"\$")

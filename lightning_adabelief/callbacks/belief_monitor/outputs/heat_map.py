"""The picture of a run: layers down, steps across, one panel a statistic."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_adabelief.beliefs.layers import LAYER_STATISTICS
from lightning_adabelief.callbacks.belief_monitor.outputs.history import LayerHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

PANELS = {
    "s_t": "mean, gradient²",
    "effective_step_size": "median, per unit of momentum",
    "step_gain_over_adam": "median, times Adam's step",
    "update_to_weight": "norm over norm, each step",
    "eps_share": "mean, share of s_t",
}
"""The statistics drawn, and what a title says of how they are condensed and of their unit."""

MAX_ROWS = 40
MAX_LABEL = 36  # characters
LOGARITHMIC = 30  # a colour scale is, where the largest value is so many times the smallest
EMPTY = "0.8"


def draw(histories: Mapping[str, LayerHistory], statistics: Sequence[str] = tuple(PANELS)) -> Figure:
    """Draw the heat map.

    Args:
        histories: From an optimizer's name to the history of its layers, with one step at least.
        statistics: Which of :data:`PANELS` to draw.

    Returns:
        A figure that pyplot does not know of. Optimizers are below each other, and one colour means
        one value in all of them. More than :data:`MAX_ROWS` layers of an optimizer are grouped by the
        module that they are in, and a row is the median of its group.
    """
    from matplotlib.figure import Figure

    groups = {name: group_layers(history.layers) for name, history in histories.items()}
    heights = [len(rows) for rows in groups.values()]
    height = 1.5 + 0.17 * sum(heights) + 0.3 * len(heights)
    figure = Figure(figsize=(2.2 + 2.3 * len(statistics), height), layout="constrained")
    axes = figure.subplots(len(groups), len(statistics), height_ratios=heights, squeeze=False)
    complete = True
    for statistic, column in zip(statistics, axes.T, strict=True):
        complete &= _draw_statistic(figure, list(column), histories, groups, statistic)
    for name, first in zip(groups, axes[:, 0], strict=True):
        _label_rows(first, list(groups[name]), name if len(groups) > 1 else "")
    notes = ["step"]
    if any(len(layers) > 1 for rows in groups.values() for layers in rows.values()):
        notes.append("(n): the median of n layers")
    if not complete:
        notes.append("grey: not measured, not finite, or 0 on a scale of decades")
    figure.supxlabel("   |   ".join(notes), fontsize=8, color="0.3")
    return figure


def render(figure: Figure) -> np.ndarray:
    """The figure's pixels: uint8, of shape (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(110)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_png(pixels: np.ndarray, path: Path) -> None:
    """Save :func:`render`'s pixels, all of them or none."""
    from PIL import Image

    part = path.with_name(path.name + ".part")
    Image.fromarray(pixels).save(part, format="png")
    os.replace(part, path)


def group_layers(names: Sequence[str]) -> dict[str, list[str]]:
    """Group layers into at most :data:`MAX_ROWS` rows.

    By module, as deep into the network as that many rows allow; where even its outermost modules are
    more, by neighbourhood.

    Returns:
        From a row's label to the layers in it, in their order.
    """
    for depth in range(max(name.count(".") for name in names) + 1, 0, -1):
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
        if len(groups) <= MAX_ROWS:
            return {_label(prefix, layers): layers for prefix, layers in groups.items()}
    size = math.ceil(len(names) / MAX_ROWS)
    chunks = [list(names[i : i + size]) for i in range(0, len(names), size)]
    return {_label(f"{chunk[0]} … {chunk[-1]}", chunk): chunk for chunk in chunks}


def _label(prefix: str, layers: Sequence[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{prefix} ({len(layers)})"


def _draw_statistic(
    figure: Figure,
    axes: Sequence[Axes],
    histories: Mapping[str, LayerHistory],
    groups: Mapping[str, Mapping[str, Sequence[str]]],
    statistic: str,
) -> bool:
    """Draw one statistic of all optimizers, with one colour scale, and tell whether each cell has a colour."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    tables = [_table(history, groups[name].values(), statistic) for name, history in histories.items()]
    complete = True
    norm = _norm(np.concatenate([table.ravel() for table in tables]), statistic)
    colors = colormaps["viridis"].with_extremes(bad=EMPTY)
    for ax, table, history in zip(axes, tables, histories.values(), strict=True):
        empty = ~np.isfinite(table) | (isinstance(norm, LogNorm) & (table <= 0))
        shown = np.ma.masked_where(empty, table)
        complete &= not empty.any()
        mesh = ax.pcolormesh(_edges(history.steps), np.arange(len(table) + 1), shown, norm=norm, cmap=colors)
        ax.set_facecolor(EMPTY)
        ax.invert_yaxis()
        ax.set_yticks([])
        ax.tick_params(labelsize=7, length=2)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for spine in ax.spines.values():
            spine.set_visible(False)
    axes[0].set_title(PANELS[statistic] + _remark(tables, statistic), loc="left", fontsize=8, y=1, pad=3)
    axes[0].annotate(statistic, (0, 1), (0, 15), "axes fraction", "offset points", fontsize=8.5, fontweight="bold")
    bar = figure.colorbar(mesh, ax=list(axes), location="bottom", aspect=30, shrink=0.95, pad=0.02)
    if not isinstance(norm, LogNorm):
        bar.set_ticks(MaxNLocator(4, steps=[1, 2, 5, 10]))
        bar.ax.ticklabel_format(axis="x", scilimits=(-2, 3))
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.xaxis.get_offset_text().set_fontsize(7)
    bar.outline.set_visible(False)
    return complete


def _remark(tables: Sequence[np.ndarray], statistic: str) -> str:
    """What tells an eps_share of a millionth from one of a hundredth, which have one colour."""
    shares = np.concatenate([table[np.isfinite(table)] for table in tables])
    small = statistic == "eps_share" and 0 < shares.max(initial=0) < 0.01
    return f", up to {shares.max():.0e}" if small else ""


def _table(history: LayerHistory, rows: Iterable[Sequence[str]], statistic: str) -> np.ndarray:
    """The statistic's values, of shape (rows, columns): medians over the layers of each row."""
    values = history.values[..., LAYER_STATISTICS.index(statistic)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a cell with nothing in it is NaN
        return np.stack([np.nanmedian(values[[history.layers.index(n) for n in row]], axis=0) for row in rows])


def _norm(values: np.ndarray, statistic: str) -> Normalize:
    """The scale of colours: a share's is 0 to 1; others go from smallest to largest, by decades if many."""
    from matplotlib.colors import LogNorm, Normalize

    if statistic == "eps_share":
        return Normalize(0, 1)
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)
    if statistic == "step_gain_over_adam":
        low, high = 1.0, max(high, 1.1)
    if high / low > LOGARITHMIC:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else 1.01 * low)


def _edges(steps: Sequence[int]) -> list[float]:
    """Where columns begin and end: each ends at its last step."""
    first = steps[0] - (steps[1] - steps[0]) if len(steps) > 1 else steps[0] - 1
    return [max(first, -1), *steps]


def _label_rows(ax: Axes, labels: Sequence[str], optimizer: str) -> None:
    """Name the rows, without what all names begin with, which stands above them."""
    common = os.path.commonprefix([label.split(" ")[0].rpartition(".")[0].split(".") for label in labels])
    prefix = "".join(f"{module}." for module in common if module)
    texts = [_shorten(label.removeprefix(prefix)) for label in labels]
    ax.set_yticks(np.arange(len(texts)) + 0.5, texts, fontsize=7, family="monospace")
    ax.tick_params(axis="y", length=0)
    heading = "\n".join(text for text in (optimizer, prefix) if text)
    ax.annotate(heading, (0, 1), (-4, 3), "axes fraction", "offset points", ha="right", fontsize=8, fontweight="bold")


def _shorten(label: str) -> str:
    """A label with its middle left out where it is too long."""
    half = MAX_LABEL // 2
    return label if len(label) <= MAX_LABEL else f"{label[: half - 1]}…{label[-half:]}"

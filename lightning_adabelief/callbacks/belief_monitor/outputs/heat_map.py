"""The picture of a run: layers down, steps across, one panel a statistic."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_adabelief.beliefs.statistic import BY_NAME, STATE_STATISTICS, Statistic
from lightning_adabelief.callbacks.belief_monitor.outputs.history import NAMES, LayerHistory
from lightning_adabelief.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

PANELS = tuple(row.name for row in STATE_STATISTICS if row.color_range)
"""The statistics drawn, in the order of the table."""

MAX_ROWS = 40
MAX_LABEL = 36  # characters
LOGARITHMIC_FROM = 30  # the ratio of the largest to the smallest value from which a colour scale has decades
EMPTY_COLOR = "0.8"


def draw(histories: Mapping[str, LayerHistory], statistics: Sequence[str] = PANELS) -> Figure:
    """Draw the heat map.

    Args:
        histories: From an optimizer's name to the history of its layers, with one step at least.
        statistics: Which of :data:`PANELS` to draw.

    Returns:
        A figure that pyplot does not keep. Optimizers are below each other, and one colour means
        the same value in all of them. More than :data:`MAX_ROWS` layers of an optimizer are grouped by the
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
    """Return the figure's pixels: uint8, of shape (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(110)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_png(pixels: np.ndarray, path: Path) -> None:
    """Save pixels as a PNG, so that a reader finds the old file or the whole new one."""
    from PIL import Image

    with replace_file(path) as part:
        Image.fromarray(pixels).save(part, format="png")


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
            return {_make_label(prefix, layers): layers for prefix, layers in groups.items()}
    size = math.ceil(len(names) / MAX_ROWS)
    chunks = [list(names[i : i + size]) for i in range(0, len(names), size)]
    return {_make_label(f"{chunk[0]} … {chunk[-1]}", chunk): chunk for chunk in chunks}


def _make_label(prefix: str, layers: Sequence[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{prefix} ({len(layers)})"


def _draw_statistic(
    figure: Figure,
    axes: Sequence[Axes],
    histories: Mapping[str, LayerHistory],
    groups: Mapping[str, Mapping[str, Sequence[str]]],
    statistic: str,
) -> bool:
    """Draw one statistic of all optimizers on one colour scale, and return True if each cell has a colour."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator

    tables = [_to_table(history, groups[name].values(), statistic) for name, history in histories.items()]
    complete = True
    row = BY_NAME[statistic]
    norm = _choose_color_scale(np.concatenate([table.ravel() for table in tables]), row)
    colors = colormaps["viridis"].with_extremes(bad=EMPTY_COLOR)
    for ax, table, history in zip(axes, tables, histories.values(), strict=True):
        empty = ~np.isfinite(table) | (isinstance(norm, LogNorm) & (table <= 0))
        shown = np.ma.masked_where(empty, table)
        complete &= not empty.any()
        mesh = ax.pcolormesh(_column_edges(history.steps), np.arange(len(table) + 1), shown, norm=norm, cmap=colors)
        ax.set_facecolor(EMPTY_COLOR)
        ax.invert_yaxis()
        ax.set_yticks([])
        ax.tick_params(labelsize=7, length=2)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for spine in ax.spines.values():
            spine.set_visible(False)
    title = f"{row.condensed}, {row.unit}{_note_small_fraction(tables, row)}"
    axes[0].set_title(title, loc="left", fontsize=8, y=1, pad=3)
    axes[0].annotate(statistic, (0, 1), (0, 15), "axes fraction", "offset points", fontsize=8.5, fontweight="bold")
    bar = figure.colorbar(mesh, ax=list(axes), location="bottom", aspect=30, shrink=0.95, pad=0.02)
    if isinstance(norm, LogNorm):
        smallest, largest = bar.ax.get_xlim()
        is_narrow = largest / smallest < 100  # where decades alone would be too few, and all minor ticks too many
        bar.set_ticks(LogLocator(subs=(1, 3) if is_narrow else (1,), numticks=6))
        bar.set_ticks([], minor=True)
        bar.formatter = LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(np.inf, np.inf))
    else:
        bar.set_ticks(MaxNLocator(4, steps=[1, 2, 5, 10]))
        bar.ax.ticklabel_format(axis="x", scilimits=(-2, 3))
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.xaxis.get_offset_text().set_fontsize(7)
    bar.outline.set_visible(False)
    return complete


def _note_small_fraction(tables: Sequence[np.ndarray], row: Statistic) -> str:
    """Return the largest of fractions that are all small: a millionth and a hundredth have the same colour."""
    values = np.concatenate([table[np.isfinite(table)] for table in tables])
    is_small = row.color_range == (0, 1) and 0 < values.max(initial=0) < 0.01
    return f", up to {values.max():.0e}" if is_small else ""


def _to_table(history: LayerHistory, rows: Iterable[Sequence[str]], statistic: str) -> np.ndarray:
    """Return the statistic's values, of shape (rows, columns): medians over the layers of each row."""
    values = history.values[..., NAMES.index(statistic)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a cell with nothing in it is NaN
        return np.stack([np.nanmedian(values[[history.layers.index(n) for n in row]], axis=0) for row in rows])


def _choose_color_scale(values: np.ndarray, row: Statistic) -> Normalize:
    """Return the statistic's scale of colours; where it leaves an end open, by decades if values are far apart."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = row.color_range or (None, None)
    if low is not None and high is not None:
        return Normalize(low, high)
    positive = values[np.isfinite(values) & (values > 0)]
    smallest, largest = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)
    if low is not None:
        smallest, largest = low, max(largest, 1.1 * low)
    if largest / smallest > LOGARITHMIC_FROM:
        return LogNorm(smallest, largest)
    return Normalize(smallest, largest if largest > smallest else 1.01 * smallest)


def _column_edges(steps: Sequence[int]) -> list[float]:
    """Return the borders between columns, each of which ends at its last step."""
    first = steps[0] - (steps[1] - steps[0]) if len(steps) > 1 else steps[0] - 1
    return [max(first, -1), *steps]


def _label_rows(ax: Axes, labels: Sequence[str], optimizer: str) -> None:
    """Name the rows; the prefix that all names share stands above them."""
    common = os.path.commonprefix([label.split(" ")[0].rpartition(".")[0].split(".") for label in labels])
    prefix = "".join(f"{module}." for module in common if module)
    texts = [_shorten(label.removeprefix(prefix)) for label in labels]
    ax.set_yticks(np.arange(len(texts)) + 0.5, texts, fontsize=7, family="monospace")
    ax.tick_params(axis="y", length=0)
    heading = "\n".join(text for text in (optimizer, prefix) if text)
    ax.annotate(heading, (0, 1), (-4, 3), "axes fraction", "offset points", ha="right", fontsize=8, fontweight="bold")


def _shorten(label: str) -> str:
    """Return a label, with its middle left out where it is too long."""
    half = MAX_LABEL // 2
    return label if len(label) <= MAX_LABEL else f"{label[: half - 1]}…{label[-half:]}"

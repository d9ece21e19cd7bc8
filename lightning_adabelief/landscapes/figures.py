"""The pictures of a comparison: paths on contours, and loss against step."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightning_adabelief.landscapes.markers import MINIMUM_MARKER, START_MARKER
from lightning_adabelief.landscapes.rates import Outcome
from lightning_adabelief.line_styles import Style, choose_styles, list_line_widths

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

GRID_POINTS = 200
LEVELS = 12
MARKERS_ON_A_LINE = 10
MAX_COLUMNS = 3
COLUMN_WIDTH = 3.9  # inches
LOSS_LINE_WIDTH = 1.3
LARGEST_LOSS = 1e200  # that fits on an axis
FARTHEST_MINIMUM = 1000.0
"""Distance from the start in x and in y within which the least loss found is marked, where the minimum isn't known."""


Results = Mapping[str, Sequence[Outcome]]
"""From each landscape's name to the outcomes on it."""


@dataclass
class PathsFigure:
    """The figure of the paths, of which it shows a part or the whole.

    Attributes:
        figure: The figure, which pyplot does not keep.
        lines: Each path's line with its points, of shape (points, 2).
        counters: Each panel's text that says the step, with the last step shown in the panel.
    """

    figure: Figure
    lines: list[tuple[Line2D, np.ndarray]] = field(default_factory=list)
    counters: list[tuple[Text, int]] = field(default_factory=list)

    def show(self, fraction: float) -> list[Artist]:
        """Show the first part of every path.

        Args:
            fraction: Part of each panel's steps, from 0 to 1.

        Returns:
            What has changed.
        """
        for line, points in self.lines:
            shown = points[: round(fraction * (len(points) - 1)) + 1]
            line.set_data(shown[:, 0], shown[:, 1])
        for text, last_step in self.counters:
            text.set_text(f"step {round(fraction * last_step)}")
        return [line for line, _ in self.lines] + [text for text, _ in self.counters]


def draw_paths(results: Results, criterion: str) -> PathsFigure:
    """Draw each landscape's contours with the optimizers' paths, until all have arrived.

    Args:
        results: Outcomes by landscape.
        criterion: How the learning rates were chosen, in words.
    """
    figure, axes = _make_panels(results, f"Circle: start. Star: minimum. {criterion}")
    paths = PathsFigure(figure)
    for ax, outcomes in zip(axes, results.values(), strict=True):
        _draw_contours(ax, outcomes)
        last_step = _find_last_step_of_interest(outcomes)
        for outcome, style, width in _list_styled(outcomes):
            points = _hide_far_points(ax, outcome.points[: last_step + 1].numpy())
            paths.lines.append((_plot_line(ax, points[:, 0], points[:, 1], outcome, style, width), points))
        counter = ax.text(0.98, 0.02, "", transform=ax.transAxes, ha="right", va="bottom", fontsize=8)
        paths.counters.append((counter, last_step))
        _add_legend(ax)
    paths.show(1.0)
    return paths


def draw_losses(results: Results, criterion: str, tolerance: float) -> Figure:
    """Draw each landscape's losses against the step, until all have arrived, and where they do.

    Args:
        results: Outcomes by landscape.
        criterion: How the learning rates were chosen, in words.
        tolerance: Loss above the minimum's that counts as reached.

    Returns:
        A figure that pyplot does not keep.
    """
    note = f"Grey line: the tolerance, {tolerance:g}. Full marker: from here on the loss is within it. {criterion}"
    figure, axes = _make_panels(results, note)
    for ax, outcomes in zip(axes, results.values(), strict=True):
        bottom, top = tolerance / 100, min(5 * max(float(outcomes[0].excess[0]), tolerance), LARGEST_LOSS)
        ax.set_yscale("log")
        ax.set_ylim(bottom, top)
        last_step = min(math.ceil(1.3 * _find_last_step_of_interest(outcomes)), len(outcomes[0].excess) - 1)
        for outcome, style, _ in _list_styled(outcomes):
            # 0 and infinity have no place on the axis.
            shown = outcome.excess[: last_step + 1].clamp(bottom / 10, 10 * top).numpy()
            _plot_line(ax, np.arange(len(shown)), shown, outcome, style, LOSS_LINE_WIDTH)
            if math.isfinite(outcome.reached):
                ax.plot(outcome.reached, tolerance, style.marker, color=style.color, markersize=9, zorder=5)
        ax.axhline(tolerance, color="0.5", linewidth=1, zorder=1)
        ax.set_xlabel("step", fontsize=8)
        is_known = outcomes[0].landscape.minimum is not None
        ax.set_ylabel(f"loss above the {'minimum' if is_known else 'least found'}", fontsize=8)
        _add_legend(ax)
    return figure


def _make_panels(results: Results, note: str) -> tuple[Figure, list[Axes]]:
    """Make a panel for each landscape, titled by its formula, and a note below all."""
    from matplotlib.figure import Figure

    columns = min(len(results), MAX_COLUMNS)
    rows = -(-len(results) // columns)
    width = max(COLUMN_WIDTH * columns, 5.5)
    figure = Figure(figsize=(width, 4.2 * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[len(results) :]:
        ax.set_axis_off()
    for ax, outcomes in zip(axes, results.values(), strict=False):
        ax.set_title(outcomes[0].landscape.formula, fontsize=10)
        ax.tick_params(labelsize=7)
    figure.supxlabel("\n".join(textwrap.wrap(note, width=int(14 * width))), fontsize=8, color="0.25")
    return figure, axes[: len(results)]


def _draw_contours(ax: Axes, outcomes: Sequence[Outcome]) -> None:
    """Draw a landscape's contours, its start and its minimum, in a window around them and the paths."""
    landscape, minimum = outcomes[0].landscape, _find_minimum(outcomes)
    (left, bottom), (right, top) = _choose_window(outcomes, minimum)
    x, y = np.meshgrid(np.linspace(left, right, GRID_POINTS), np.linspace(bottom, top, GRID_POINTS))
    with torch.no_grad():
        losses = landscape.losses(torch.from_numpy(np.stack([x, y], -1))).numpy()
    is_finite = np.isfinite(losses)
    # Levels at quantiles divide the window evenly, however steep the function is at its edge.
    levels = np.quantile(losses[is_finite], np.linspace(0, 1, LEVELS + 1) ** 1.5) if is_finite.any() else np.empty(0)
    levels = np.unique(levels)
    if len(levels) > 1:
        shown = np.ma.masked_where(~is_finite, losses)
        ax.contourf(x, y, shown, levels, cmap="Greys_r", alpha=0.2)
        ax.contour(x, y, shown, levels, colors="0.7", linewidths=0.5)
    ax.plot(*landscape.start, linestyle="", zorder=4, **START_MARKER)
    ax.plot(*minimum, linestyle="", zorder=6, **MINIMUM_MARKER)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)


def _find_minimum(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return a landscape's minimum; where it isn't known, the best point of the paths shown."""
    known = outcomes[0].landscape.minimum
    if known is not None:
        return known
    points = torch.cat([outcome.points for outcome in outcomes])
    excess = torch.cat([outcome.excess for outcome in outcomes])
    is_near = ((points - points[0]).abs() <= FARTHEST_MINIMUM).all(1)  # a function may have none, and fall for ever
    x, y = points[is_near][int(excess[is_near].argmin())].tolist()
    return x, y


def _find_last_step_of_interest(outcomes: Sequence[Outcome]) -> int:
    """Return the step by which every optimizer has arrived, or the last one if some never do."""
    last_step = len(outcomes[0].points) - 1
    return max(1, int(min(max(outcome.reached for outcome in outcomes), last_step)))


def _choose_window(outcomes: Sequence[Outcome], minimum: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower left and upper right corners: around start, minimum, and paths that don't go far astray."""
    ends = np.array([outcomes[0].landscape.start, minimum])
    size = max(np.abs(ends[0] - ends[1]).max(), 0.5)
    points = np.concatenate([outcome.points.numpy() for outcome in outcomes])
    near = points[(np.abs(points - ends.mean(0)) <= size).all(1)]
    shown = np.concatenate([ends, near])
    low, high = shown.min(0), shown.max(0)
    # Neither side is much longer than the other, so that a path along an axis has some height.
    half = 1.12 * np.maximum((high - low) / 2, 0.35 * (high - low).max() or 1.0)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _hide_far_points(ax: Axes, points: np.ndarray) -> np.ndarray:
    """Return points without those so far from the window that matplotlib can't draw a line to them."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    reach = 1000 * max(right - left, top - bottom)
    is_near = (np.abs(points - [left, bottom]) <= reach).all(1, keepdims=True)
    return np.where(is_near, points, np.nan)


def _list_styled(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Style, float]]:
    """Return each outcome with its style and the width of its line, in the order of drawing."""
    styles = choose_styles([outcome.optimizer for outcome in outcomes])
    widths = list_line_widths(len(outcomes))
    return [(outcome, styles[outcome.optimizer], width) for outcome, width in zip(outcomes, widths, strict=True)]


def _plot_line(ax: Axes, x: np.ndarray, y: np.ndarray, outcome: Outcome, style: Style, width: float) -> Line2D:
    (line,) = ax.plot(
        x,
        y,
        color=style.color,
        linestyle=style.linestyle,
        linewidth=width,
        marker=style.marker,
        markevery=max(1, len(x) // MARKERS_ON_A_LINE),
        markersize=4.5,
        markerfacecolor="white",
        label=_describe(outcome),
        zorder=3,
    )
    return line


def _describe(outcome: Outcome) -> str:
    """Return an outcome as a line of a legend."""
    steps = f"{outcome.reached:.0f} steps" if math.isfinite(outcome.reached) else "not reached"
    return f"{outcome.optimizer}, lr {outcome.lr:.2g}{'*' if outcome.is_at_edge else ''}: {steps}"


def _add_legend(ax: Axes) -> None:
    """Add a legend below the panel, where it hides nothing."""
    below = (0.5, -0.09 if not ax.get_xlabel() else -0.13)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=below, frameon=False, handlelength=4, labelspacing=0.3)

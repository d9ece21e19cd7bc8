"""The pictures of a comparison: paths on contours, and loss against step."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightning_adabelief.landscapes.functions import Landscape
from lightning_adabelief.landscapes.rates import Outcome
from lightning_adabelief.landscapes.style import MINIMUM_MARKER, START_MARKER, Style, choose_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID_POINTS = 200
LEVELS = 14
MARKERS_ON_A_PATH = 10
LEAST_EXCESS = 1e-6
"""Losses below this one are not told apart in the pictures."""

Results = Mapping[str, Sequence[Outcome]]
"""From each landscape's name to the outcomes on it."""


def draw_paths(results: Results, criterion: str) -> Figure:
    """Draw each landscape's contours with the optimizers' paths.

    Args:
        results: Outcomes by landscape.
        criterion: How the learning rates were chosen, in words.

    Returns:
        A figure that pyplot does not keep.
    """

    def draw(ax: Axes, outcomes: Sequence[Outcome], styles: Mapping[str, Style]) -> None:
        draw_contours(ax, outcomes)
        for outcome in outcomes:
            points = outcome.points[: _last_step_of_interest(outcomes) + 1].numpy()
            style = styles[outcome.optimizer]
            _plot_line(ax, points[:, 0], points[:, 1], style, label=_describe(outcome))
        ax.legend(fontsize=6.5, loc="best", framealpha=0.9, handlelength=3.2, borderpad=0.3)

    return _draw_panels(results, criterion, draw)


def draw_losses(results: Results, criterion: str, tolerance: float) -> Figure:
    """Draw each landscape's losses against the step, with the tolerance.

    Args:
        results: Outcomes by landscape.
        criterion: How the learning rates were chosen, in words.
        tolerance: Loss above the minimum's that counts as reached.

    Returns:
        A figure that pyplot does not keep.
    """

    def draw(ax: Axes, outcomes: Sequence[Outcome], styles: Mapping[str, Style]) -> None:
        for outcome in outcomes:
            shown = outcome.excess.clamp(min=LEAST_EXCESS / 10).numpy()
            _plot_line(ax, np.arange(len(shown)), shown, styles[outcome.optimizer], label=_describe(outcome))
        ax.axhline(tolerance, color="0.45", linewidth=0.8, zorder=1)
        ax.set_yscale("log")
        start = float(outcomes[0].excess[0])
        ax.set_ylim(min(LEAST_EXCESS, tolerance / 10), max(start, tolerance) * 8)
        ax.set_xlabel("step")
        ax.set_ylabel("loss above the minimum", fontsize=8)
        ax.legend(fontsize=6.5, loc="best", framealpha=0.9, handlelength=3.2, borderpad=0.3)

    return _draw_panels(results, f"Grey line: the tolerance, {tolerance:g}. {criterion}", draw)


def draw_contours(ax: Axes, outcomes: Sequence[Outcome]) -> None:
    """Draw a landscape's contours, its start and its minimum, in a window around them and the paths."""
    landscape = outcomes[0].landscape
    minimum = find_minimum(outcomes)
    (left, right), (bottom, top) = _choose_window(landscape, minimum, outcomes)
    x, y = np.meshgrid(np.linspace(left, right, GRID_POINTS), np.linspace(bottom, top, GRID_POINTS))
    with torch.no_grad():
        losses = landscape.losses(torch.from_numpy(np.stack([x, y], -1))).numpy()
    finite = losses[np.isfinite(losses)]
    if finite.size and finite.max() > finite.min():
        # Levels crowd towards the minimum, as those of a map of decades would, and 0 is among them.
        levels = finite.min() + (finite.max() - finite.min()) * np.linspace(0, 1, LEVELS) ** 3
        masked = np.ma.masked_invalid(losses)
        ax.contourf(x, y, masked, levels, cmap="Greys_r", alpha=0.28)
        ax.contour(x, y, masked, levels, colors="0.62", linewidths=0.5)
    ax.plot(*landscape.start, linestyle="", zorder=4, **START_MARKER)
    ax.plot(*minimum, linestyle="", zorder=5, **MINIMUM_MARKER)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)


def find_minimum(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return a landscape's minimum; where it isn't known, the best point that a shown path found."""
    known = outcomes[0].landscape.minimum
    if known is not None:
        return known
    best = min(outcomes, key=lambda outcome: float(outcome.excess.min()))
    x, y = best.points[int(best.excess.argmin())].tolist()
    return x, y


def _last_step_of_interest(outcomes: Sequence[Outcome]) -> int:
    """Return the step by which every optimizer has arrived, or the last one if some never do."""
    last = len(outcomes[0].points) - 1
    return int(min(max(outcome.reached for outcome in outcomes), last))


def _choose_window(
    landscape: Landscape, minimum: tuple[float, float], outcomes: Sequence[Outcome]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of x and of y: around start, minimum, and the paths where they don't go far astray."""
    ends = np.array([landscape.start, minimum])
    center, size = ends.mean(0), max(np.abs(ends[0] - ends[1]).max(), 0.5)
    points = np.concatenate([outcome.points.numpy() for outcome in outcomes])
    near = points[(np.abs(points - center) <= size).all(1)]
    shown = np.concatenate([ends, near])
    low, high = shown.min(0), shown.max(0)
    # Neither side is much longer than the other, so that a path along an axis is not squeezed into a line.
    half = np.maximum((high - low) / 2, 0.35 * (high - low).max()) * 1.12
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    return (left, right), (bottom, top)


def _draw_panels(
    results: Results, note: str, draw: Callable[[Axes, Sequence[Outcome], Mapping[str, Style]], None]
) -> Figure:
    """Draw a panel for each landscape, titled by its formula, and a note below."""
    from matplotlib.figure import Figure

    columns = min(len(results), 3)
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(max(3.9 * columns, 5), 3.4 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, outcomes in zip(axes, results.values(), strict=False):
        draw(ax, outcomes, choose_styles([outcome.optimizer for outcome in outcomes]))
        ax.set_title(outcomes[0].landscape.formula, fontsize=10)
        ax.tick_params(labelsize=7)
    for ax in axes[len(results) :]:
        ax.set_axis_off()
    figure.supxlabel("\n".join(textwrap.wrap(note, width=50 * columns)), fontsize=8, color="0.25")
    return figure


def _plot_line(ax: Axes, x: np.ndarray, y: np.ndarray, style: Style, label: str) -> None:
    ax.plot(
        x,
        y,
        color=style.color,
        linestyle=style.linestyle,
        marker=style.marker,
        markevery=max(1, len(x) // MARKERS_ON_A_PATH),
        markersize=4,
        linewidth=1.4,
        markerfacecolor="white",
        label=label,
        zorder=3,
    )


def _describe(outcome: Outcome) -> str:
    """Return an outcome in a line of a legend."""
    steps = f"{outcome.reached:.0f} steps" if outcome.reached < float("inf") else "not reached"
    return f"{outcome.optimizer}, lr {outcome.lr:.2g}{'*' if outcome.is_at_edge else ''}: {steps}"

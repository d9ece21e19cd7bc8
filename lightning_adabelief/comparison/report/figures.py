"""The figures of the report: the differences, the curves, and the metric against the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_adabelief.comparison.report.axes import (
    FAILURE,
    add_legend,
    keep_within,
    limit_y,
    make_axes,
    style_line,
    write_name,
    write_svg,
)
from lightning_adabelief.comparison.report.numbers import show_difference
from lightning_adabelief.comparison.report.results import Results, Run
from lightning_adabelief.comparison.statistics import Comparison
from lightning_adabelief.line_styles import choose_styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FARTHEST = 8.0
"""Differences that reach this many times as far as the median one are written, not drawn."""


def draw_figures(results: Results) -> dict[str, str]:
    """Draw all figures that there is something to draw in; return them as SVG by the names of their files."""
    figures = {
        "differences": draw_differences(results) if results.has_verdict else None,
        "curves": draw_curves(results, "step"),
        "curves-over-time": draw_curves(results, "seconds"),
        "rates": draw_rates(results),
    }
    return {name: write_svg(figure) for name, figure in figures.items() if figure is not None}


def draw_differences(results: Results) -> Figure:
    """Draw each contender's differences from the first one by seed, their mean and its interval."""
    compared = [comparison for comparison in results.comparisons.values() if comparison.seeds]
    styles = choose_styles(results.names)
    figure, ax = make_axes(height=1.5 + 0.42 * len(compared))
    left, right = _limit_differences(compared)
    ax.set_xlim(left, right)
    for row, each in enumerate(compared):
        style = styles[each.contender]
        if not left < each.mean < right:
            end, side, pattern = (left, "left", "← {}") if each.mean < 0 else (right, "right", "{} →")
            ax.text(end, row, pattern.format(show_difference(each)), ha=side, va="center", fontsize=9)
            continue
        ax.plot(each.differences, [row + 0.25] * len(each.seeds), ".", color=style.color, alpha=0.5, markersize=6)
        low, high = each.interval or (each.mean, each.mean)
        ax.plot([low, high], [row, row], color=style.color, linewidth=2.2, solid_capstyle="butt")
        ax.plot([low, high], [row, row], "|", color=style.color, markersize=10, markeredgewidth=2)
        ax.plot(each.mean, row, style.marker, color=style.color, markersize=8)
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set_ylim(len(compared) - 0.4, -0.6)
    ax.set_yticks(range(len(compared)), [write_name(each.contender) for each in compared])
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=5)
    better = "better" if results.plan.mode == "min" else "worse"
    for x, side, word in ((0.01, "left", better), (0.99, "right", "worse" if better == "better" else "better")):
        arrow = f"← {word}" if side == "left" else f"{word} →"
        ax.text(x, 1.02, arrow, transform=ax.transAxes, ha=side, va="bottom", fontsize=9, color="0.3")
    ax.set_xlabel(f"difference from {write_name(results.first)} in {results.metric}")
    return figure


def draw_curves(results: Results, over: str) -> Figure | None:
    """Draw the validation metric over the report's runs: the mean over seeds, and a band from the least to the most.

    Args:
        results: The comparison.
        over: ``"step"``, or ``"seconds"`` of training, averaged over the seeds.

    Returns:
        The figure; None if no run of the report has been validated.
    """
    curves = {name: _average_history(results, name) for name in results.names}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        return None
    styles = choose_styles(results.names)
    figure, ax = make_axes()
    for name, curve in curves.items():
        x, style = curve[:, 0 if over == "step" else 1], styles[name]
        ax.plot(x, curve[:, 2], label=write_name(name), **style_line(style, len(x)))
        ax.fill_between(x, curve[:, 3], curve[:, 4], color=style.color, alpha=0.13, linewidth=0)
    for end, value, name in _list_ends_of_failures(results, over):
        ax.plot(end, value, color=styles[name].color, **FAILURE)
    limit_y(ax, [curve[:, 2] for curve in curves.values()], results)
    ax.set_xlabel("optimizer steps" if over == "step" else "seconds of training")
    ax.set_ylabel(results.plan.metric)
    add_legend(figure, curves)
    return figure


def draw_rates(results: Results) -> Figure | None:
    """Draw what tuning found for each contender: the validation metric against the learning rate.

    Of several weight decays each rate's best is drawn. The chosen rate has a ring, one at which a run failed a cross.

    Returns:
        The figure; None if no run of tuning has ended.
    """
    rates = {name: _list_rates(results, name) for name in results.names}
    rates = {name: rows for name, rows in rates.items() if rows}
    if not rates:
        return None
    styles = choose_styles(results.names)
    figure, ax = make_axes()
    ax.set_xscale("log")
    limit_y(ax, [np.array([mean for _, mean, _ in rows]) for rows in rates.values()], results)
    for name, rows in rates.items():
        style = styles[name]
        finite = [(lr, mean) for lr, mean, _ in rows if math.isfinite(mean)]
        x, y = (np.array(column) for column in zip(*finite, strict=True)) if finite else (np.empty(0), np.empty(0))
        ax.plot(x, y, label=write_name(name), **style_line(style, 1))
        for lr, mean, has_failed in rows:
            if has_failed:
                ax.plot(lr, keep_within(ax, mean, results), color=style.color, clip_on=False, **FAILURE)
        chosen = results.find_chosen(name)
        for lr, mean, _ in rows:
            if chosen is not None and math.isclose(lr, chosen.lr, rel_tol=1e-6) and math.isfinite(mean):
                ring: dict[str, Any] = {
                    "markersize": 15,
                    "markerfacecolor": "none",
                    "markeredgewidth": 1.8,
                    "zorder": 7,
                }
                ax.plot(lr, mean, "o", color=style.color, **ring)
    ax.set_xlabel("learning rate")
    ax.set_ylabel(results.plan.metric)
    add_legend(figure, rates)
    return figure


def _limit_differences(compared: Sequence[Comparison]) -> tuple[float, float]:
    """Return the ends of the axis: around 0 and the intervals, but for those that would hide all others."""
    ends = np.array([each.interval or (each.mean, each.mean) for each in compared])
    extents = np.abs(ends).max(1)
    shown = ends[extents <= FARTHEST * np.quantile(extents, 0.5, method="lower")]
    low, high = min(0.0, shown.min()), max(0.0, shown.max())
    margin = 0.2 * (high - low) or 1.0
    return low - margin, high + margin


def _average_history(results: Results, name: str) -> np.ndarray:
    """Return a row for each step: step, mean seconds, and mean, least and largest value over the seeds."""
    found: dict[float, list[tuple[float, float]]] = {}
    for run in results.list_runs(name, in_report=True):
        for step, seconds, value in _list_points(run, results.plan.metric):
            found.setdefault(step, []).append((seconds, value))
    rows = []
    for step, points in sorted(found.items()):
        seconds, values = np.array(points).T
        rows.append((step, seconds.mean(), values.mean(), values.min(), values.max()))
    return np.array(rows)


def _list_points(run: Run, metric: str) -> Iterable[tuple[float, float, float]]:
    """List step, seconds and finite value of each validation of a run, the untrained model's first."""
    untrained, history = run.outcome.untrained, run.outcome.history
    points = [(row["step"], row.get("seconds", math.nan), row[metric]) for row in history if metric in row]
    if untrained is not None and not any(step == 0 for step, _, _ in points):
        points.insert(0, (0, 0.0, untrained))
    return [point for point in points if math.isfinite(point[2])]


def _list_ends_of_failures(results: Results, over: str) -> list[tuple[float, float, str]]:
    """List where the runs of the report that failed were validated last."""
    ends = []
    for name in results.names:
        for run in results.list_runs(name, in_report=True):
            points = list(_list_points(run, results.plan.metric))
            if run.has_failed and points:
                step, seconds, value = points[-1]
                ends.append((step if over == "step" else seconds, value, name))
    return ends


def _list_rates(results: Results, name: str) -> list[tuple[float, float, bool]]:
    """List each learning rate of tuning with the mean at its best weight decay (NaN without any), and if one failed."""
    found: dict[float, dict[float, list[Run]]] = {}
    for run in results.list_runs(name, in_report=False):
        found.setdefault(run.trial.lr, {}).setdefault(run.trial.weight_decay, []).append(run)
    rows = []
    for lr, by_decay in sorted(found.items()):
        best = min(by_decay.values(), key=lambda runs: _rank(_average(results, runs), results.plan.mode))
        rows.append((lr, _average(results, best), any(run.has_failed for run in best)))
    return rows


def _average(results: Results, runs: Sequence[Run]) -> float:
    values = [value for run in runs if (value := results.find_value(run, results.plan.metric)) is not None]
    return float(np.mean(values)) if values else math.nan


def _rank(value: float, mode: str) -> float:
    """Return what is smaller for a better value; a NaN is worst."""
    return math.inf if math.isnan(value) else value if mode == "min" else -value

"""The picture of :mod:`~lightning_adabelief.landscapes.regions`, which explains what AdaBelief does differently."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightning_adabelief.landscapes.markers import MINIMUM_MARKER, START_MARKER
from lightning_adabelief.landscapes.regions import (
    EVEN_SLOPE,
    MEASURED_STEPS,
    REGIONS,
    STEPS,
    Region,
    Steps,
    draw_gradients,
    find_loss,
)
from lightning_adabelief.line_styles import FIXED, choose_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_BETAS = (0.9, 0.999)
"""The betas of the averages in the middle row, unless others are given: the optimizers' defaults."""

SHOWN_GRADIENTS = 40
RELATIVE_LIMITS = (0.01, 100)
"""Steps relative to the ideal one that lie beyond are drawn at the edge."""

MAX_NAME_WIDTH = 18  # characters

NUMBER_OFFSETS = ((0, 7), (15, 0), (0, 9))
"""Places of the regions' numbers beside their weights, in points."""


def draw_regions(steps: Sequence[Steps], seed: int, betas: tuple[float, float] | None = None) -> Figure:
    """Draw the curve, the gradients in its regions, and the optimizers' steps beside the ideal ones.

    Args:
        steps: Each optimizer's.
        seed: Of the gradients' noise.
        betas: Of the averages drawn.

    Returns:
        A figure that pyplot does not keep.
    """
    from matplotlib.figure import Figure

    steps_height = 0.5 + 0.27 * len(steps)
    figure = Figure(figsize=(10, 5.2 + steps_height), layout="constrained")
    rows = figure.add_gridspec(3, 3, height_ratios=[2.0, 2.2, steps_height])
    _draw_curve(figure.add_subplot(rows[0, :]))
    for column, region in enumerate(REGIONS):
        _draw_gradients(figure.add_subplot(rows[1, column]), column, region, seed, betas or DEFAULT_BETAS)
        _draw_steps(figure.add_subplot(rows[2, column]), column, steps)
    figure.supxlabel(
        "A curve made for the purpose, after figure 1 of the AdaBelief paper. Gradients are its slope plus noise. The "
        "steps are the real optimizers',\n"
        f"as the root mean square of steps {STEPS - MEASURED_STEPS + 1} to {STEPS}. Each optimizer has one learning "
        "rate for all three regions, chosen so that the geometric mean of its multiples is 1.",
        fontsize=8,
        color="0.25",
    )
    return figure


def _draw_curve(ax: Axes) -> None:
    left, right = REGIONS[0].weight - 2.5, REGIONS[2].weight + 2.5
    weights = torch.linspace(left, right, 2001, dtype=torch.float64)
    ax.plot(weights, find_loss(weights), color="black", linewidth=1.6)
    ax.plot(0, 0, **MINIMUM_MARKER, zorder=5)
    for number, (region, offset) in enumerate(zip(REGIONS, NUMBER_OFFSETS, strict=True), 1):
        height = float(find_loss(torch.tensor(region.weight)))
        bounces = region.ideal_step < 1
        for place in (region.weight, -region.weight) if bounces else (region.weight,):
            ax.plot(place, height, zorder=4, **START_MARKER)
        ax.annotate(
            str(number),
            (region.weight, height),
            offset,
            textcoords="offset points",
            fontsize=13,
            weight="bold",
            ha="center",
        )
        if not bounces:
            ax.annotate("", (0, height), (region.weight, height), arrowprops={"arrowstyle": "-|>", "color": "0.4"})
            ax.text(region.weight / 2, height, "ideal step\n", ha="center", va="center", fontsize=9, color="0.25")
    ax.annotate(
        "ideal step: tiny",
        (REGIONS[1].weight + 0.1, 0.1),
        (3.2, 0.1),
        fontsize=9,
        color="0.25",
        va="center",
        arrowprops={"arrowstyle": "-", "color": "0.4"},
    )
    ax.set_title("How far should a weight move? It depends on where it is on the loss curve", loc="left", fontsize=11)
    ax.set_xlim(left, right)
    ax.set_ylim(-0.7, EVEN_SLOPE * (right + 5))
    ax.set_xlabel("weight", fontsize=9)
    ax.set_ylabel("loss", fontsize=9)
    ax.tick_params(labelsize=7)


def _draw_gradients(ax: Axes, column: int, region: Region, seed: int, betas: tuple[float, float]) -> None:
    """Draw the last gradients in a region, their trend, and the distances by which AdaBelief and Adam divide."""
    gradients = draw_gradients(region, seed).numpy()
    trend, root_s, root_v = (average[-SHOWN_GRADIENTS:] for average in _average(gradients, betas))
    step = np.arange(STEPS - SHOWN_GRADIENTS + 1, STEPS + 1)
    belief, adam = FIXED["adabelief"], FIXED["adam"]
    band = ax.fill_between(step, trend - root_s, trend + root_s, color=belief.color, alpha=0.3, linewidth=0)
    (line,) = ax.plot(step, trend, color=belief.color, linewidth=1.8)
    for side in (root_v, -root_v):
        (dashes,) = ax.plot(step, side, color=adam.color, linestyle=adam.linestyle, linewidth=1.3)
    (dots,) = ax.plot(step, gradients[-SHOWN_GRADIENTS:], ".", color="black", markersize=4)
    ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    largest = 1.12 * max(np.abs(gradients[-SHOWN_GRADIENTS:]).max(), root_v.max())
    ax.set_ylim(-largest, largest)
    ax.set_title(f"{column + 1}: {region.title}", fontsize=10, loc="left")
    ax.tick_params(labelsize=7)
    ax.set_xlabel("step", fontsize=8)
    if column == 0:
        ax.set_ylabel("gradient", fontsize=9)
    if column == 2:
        ax.legend(
            [dots, line, band, dashes],
            [
                "gradients",
                "their trend, $m_t$",
                r"$\pm\sqrt{s_t}$ around it: AdaBelief divides by this",
                r"$\pm\sqrt{v_t}$ around 0: Adam divides by this",
            ],
            fontsize=7.5,
            loc="lower center",
            bbox_to_anchor=(0.5, 0.18),
            framealpha=0.9,
        )


def _draw_steps(ax: Axes, column: int, steps: Sequence[Steps]) -> None:
    """Draw the optimizers' steps in a region as multiples of the ideal one."""
    styles = choose_styles([each.optimizer for each in steps])
    for row, each in enumerate(steps):
        style, relative = styles[each.optimizer], each.relative[column]
        shown = min(max(relative, RELATIVE_LIMITS[0]), RELATIVE_LIMITS[1])
        ax.plot([1, shown], [row, row], color=style.color, linestyle=style.linestyle, linewidth=2)
        ax.plot(shown, row, marker=style.marker, color=style.color, markersize=8)
        is_long = relative >= 1  # the number stands on the side that the line does not come from
        ax.annotate(
            f"{relative:.2g}x",
            (shown, row),
            (8 if is_long else -8, 0),
            textcoords="offset points",
            ha="left" if is_long else "right",
            va="center",
            fontsize=8,
        )
    ax.axvline(1, color="black", linewidth=1, zorder=0)
    ax.set_xscale("log")
    ax.set_xlim(*RELATIVE_LIMITS)
    ax.set_ylim(len(steps) - 0.5, -0.5)
    ax.set_xticks([0.1, 1, 10], ["1/10", "ideal", "10x"], fontsize=8)
    ax.minorticks_off()
    names = ["\n".join(textwrap.wrap(each.optimizer, MAX_NAME_WIDTH)) if column == 0 else "" for each in steps]
    ax.set_yticks(range(len(steps)), names)
    ax.tick_params(axis="y", length=0, labelsize=9 if max(map(len, names)) <= MAX_NAME_WIDTH else 7)
    ax.set_title("step taken: too short  |  too long", fontsize=9)


def _average(gradients: np.ndarray, betas: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return m_t, and the roots of s_t and v_t, bias-corrected, after each gradient."""
    beta1, beta2 = betas
    m = s = v = 0.0
    averages = []
    for t, g in enumerate(gradients.tolist(), 1):
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2
        v = beta2 * v + (1 - beta2) * g**2
        bias_correction1, bias_correction2 = 1 - beta1**t, 1 - beta2**t
        averages.append((m / bias_correction1, (s / bias_correction2) ** 0.5, (v / bias_correction2) ** 0.5))
    trend, root_s, root_v = np.array(averages).T
    return trend, root_s, root_v

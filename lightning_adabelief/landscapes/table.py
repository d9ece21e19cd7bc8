"""The table of steps to the tolerance: in the terminal, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lightning_adabelief.landscapes.rates import NEARBY_DISTANCE, NEARBY_STARTS, Outcome

if TYPE_CHECKING:
    from rich.table import Table

HEADER = ("function", "optimizer", "lr", "steps", "nearby", "their steps", "last loss")
CSV_HEADER = (
    "function",
    "start_x",
    "start_y",
    "optimizer",
    "lr",
    "lr_at_edge",
    "steps",
    "nearby_reached",
    "nearby_starts",
    "nearby_median_steps",
    "nearby_least_steps",
    "nearby_most_steps",
    "last_loss_above_least",
)


def make_table(results: Iterable[Sequence[Outcome]], steps: int, tolerance: float, criterion: str) -> Table:
    """Make a table for the terminal; the fewest steps of each function are bold.

    Args:
        results: Outcomes, by landscape.
        steps: The number of steps that each optimizer took.
        tolerance: Loss above the least that counts as reached.
        criterion: How the learning rates were chosen, in words.
    """
    from rich.markup import escape
    from rich.table import Table

    caption = f"{describe_columns(steps, tolerance)} {criterion}"
    table = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption=caption, caption_justify="left"
    )
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=i != 1, min_width=9 if i == 1 else None)
    for outcomes in results:
        best = min(outcome.reached for outcome in outcomes)
        for i, outcome in enumerate(outcomes):
            row = [escape(cell) for cell in make_row(outcome)]
            if outcome.reached == best < math.inf:
                row[3] = f"[bold]{row[3]}[/]"
            table.add_row(row[0] if i == 0 else "", *row[1:])
        table.add_row()
    return table


def make_markdown(
    results: Iterable[Sequence[Outcome]], steps: int, tolerance: float, criterion: str, versions: str
) -> str:
    """Return a Markdown document with the table, what its columns mean, and the versions that made it."""
    lines = ["# Steps to reach the minimum", "", describe_columns(steps, tolerance), criterion, ""]
    lines += [f"| {' | '.join(HEADER)} |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    for outcomes in results:
        lines += [f"| {' | '.join(make_row(outcome))} |" for outcome in outcomes]
    return "\n".join([*lines, "", versions, ""])


def make_csv(results: Iterable[Sequence[Outcome]]) -> str:
    """Return the table as CSV, where a step that was not reached is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for outcome in (outcome for outcomes in results for outcome in outcomes):
        nearby = outcome.reached_nearby
        writer.writerow(
            [
                outcome.landscape.name,
                *outcome.landscape.start,
                outcome.optimizer,
                outcome.lr,
                outcome.is_at_edge,
                _show_step(outcome.reached, ""),
                sum(map(math.isfinite, nearby)),
                len(nearby),
                *(_show_step(step, "") for step in (_find_median(nearby), nearby[0], nearby[-1])),
                float(outcome.excess[-1]),
            ]
        )
    return text.getvalue()


def describe_columns(steps: int, tolerance: float) -> str:
    """Return what the columns mean, in words."""
    return (
        f"Steps, of {steps}, after which the loss is within {tolerance:g} of the least and stays there; - where it "
        f"isn't. Nearby: from how many of {NEARBY_STARTS} other starts, at most {NEARBY_DISTANCE:g} away in x and y, "
        "with the same learning rate; their steps: median, least and most. Last loss: above the least one."
    )


def make_row(outcome: Outcome) -> list[str]:
    """Return an outcome in the columns of :data:`HEADER`."""
    nearby = outcome.reached_nearby
    median, least, most = (_show_step(step, "-") for step in (_find_median(nearby), nearby[0], nearby[-1]))
    return [
        outcome.landscape.name,
        outcome.optimizer,
        f"{outcome.lr:.3g}{'*' if outcome.is_at_edge else ''}",
        _show_step(outcome.reached, "-"),
        f"{sum(map(math.isfinite, nearby))} of {len(nearby)}",
        f"{median} ({least} to {most})" if math.isfinite(nearby[0]) else "-",
        f"{float(outcome.excess[-1]):.2g}",
    ]


def _find_median(ordered: Sequence[float]) -> float:
    """Return the median of sorted steps, the upper one of two."""
    return ordered[len(ordered) // 2]


def _show_step(step: float, otherwise: str) -> str:
    return f"{step:.0f}" if math.isfinite(step) else otherwise

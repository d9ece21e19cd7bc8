"""The result as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_adabelief.comparison.plan import Plan
from lightning_adabelief.comparison.report.numbers import (
    NOTHING,
    show,
    show_difference_shortly,
    show_mean,
    show_seconds,
)
from lightning_adabelief.comparison.report.results import Results, mean_over
from lightning_adabelief.comparison.report.verdict import write_verdict, write_warnings
from lightning_adabelief.comparison.stages import Outcomes, Stages

if TYPE_CHECKING:
    from rich.table import Table

VERDICTS = {"better": "[green]better[/]", "worse": "[red]worse[/]", "cannot be told apart": "can't tell"}


def make_table(plan: Plan, stages: Stages, outcomes: Outcomes) -> Table:
    """Make the table, which fits 80 columns; its caption is the answer in sentences.

    Args:
        plan: The comparison's plan.
        stages: The trials of each stage so far.
        outcomes: The outcomes of the trials that have ended.
    """
    from rich.markup import escape
    from rich.table import Table

    results = Results(plan, stages, outcomes)
    caption = escape("\n".join([*write_verdict(results), *write_warnings(results)]))
    better = "smaller" if plan.mode == "min" else "larger"
    table = Table(
        title=escape(f"{results.metric}, {better} is better"),
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        caption=caption,
        caption_justify="left",
    )
    table.add_column("optimizer", overflow="ellipsis")
    for name in ("lr", "mean ± sd", "difference ± 95 %", "verdict", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    values = results.find_values(results.metric)
    for name in results.names:
        comparison, chosen = results.comparisons.get(name), results.find_chosen(name)
        runs = results.list_runs(name, in_report=True)
        table.add_row(
            escape(name),
            show(chosen.lr if chosen else None),
            show_mean(list(values[name].values())),
            NOTHING if comparison is None else show_difference_shortly(comparison),
            NOTHING if comparison is None or not comparison.seeds else VERDICTS[comparison.verdict],
            show_seconds(mean_over(runs, lambda outcome: outcome.seconds)),
        )
    return table

"""The table of a plan, before it is run: its stages and what they cost."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lightning_adabelief.comparison.plan import Plan
from lightning_adabelief.comparison.report.numbers import show, show_seconds
from lightning_adabelief.comparison.stages import ADDED_RATES, MAX_WIDENINGS, REPORT, count_tuning_runs


def make_plan_table(plan: Plan, seconds_a_trial: float | None = None) -> Group:
    """Make the tables of a plan: its optimizers with their learning rates, and its stages with their runs.

    Args:
        plan: The plan.
        seconds_a_trial: The time of a run; None where it is unknown.
    """
    decays = " or ".join(f"{decay:g}" for decay in plan.weight_decays)
    reported = plan.test_metric or plan.metric
    better = "smaller" if plan.mode == "min" else "larger"
    return Group(
        Text.from_markup(
            f"[bold]{escape(plan.config)}[/]: chosen by {escape(plan.metric)}, compared by {escape(reported)}; "
            f"{better} is better; weight decay {decays}"
        ),
        "",
        _make_contenders(plan),
        "",
        _make_stages(plan, seconds_a_trial),
        "",
        Text(
            "Widened: more learning rates, for an optimizer whose best one lies at the edge of the grid.\n"
            "Time: of one run after another; --jobs N makes N at the same time.",
            style="dim",
        ),
    )


def _make_contenders(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("optimizer", no_wrap=True, style="cyan")
    table.add_column("learning rates")
    table.add_column("class", style="dim", overflow="fold")
    for contender in plan.contenders:
        rates = " ".join(show(contender.usual_lr * rate) for rate in plan.relative_rates)
        table.add_row(escape(contender.name), rates, escape(contender.class_path))
    return table


def _make_stages(plan: Plan, seconds: float | None) -> Table:
    optimizers, decays, seeds = len(plan.contenders), len(plan.weight_decays), len(plan.tuning_seeds)
    tuning, report = count_tuning_runs(plan), optimizers * len(plan.report_seeds)
    added = MAX_WIDENINGS * ADDED_RATES
    widened = added * optimizers * decays * seeds
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("stage", no_wrap=True)
    for name in ("optimizers", "rates", "decays", "seeds", "runs", "time"):
        table.add_column(name, justify="right", no_wrap=True)

    def add_row(stage: str, least: int, most: int, *factors: str) -> None:
        runs = _write_range(least, most, str)
        time = "unknown" if seconds is None else _write_range(least, most, lambda n: show_seconds(n * seconds))
        table.add_row(stage, *factors, runs, time)

    add_row("tuning", tuning, tuning, f"{optimizers}", f"{len(plan.relative_rates)}", f"{decays}", f"{seeds}")
    add_row("widened", 0, widened, f"up to {optimizers}", f"up to {added}", f"{decays}", f"{seeds}")
    add_row(REPORT, report, report, f"{optimizers}", "1", "1", f"{len(plan.report_seeds)}")
    add_row("all", tuning + report, tuning + widened + report, "", "", "", "")
    return table


def _write_range(least: int, most: int, write: Callable[[int], str]) -> str:
    if least == most:
        return write(most)
    return f"{write(least)} to {write(most)}" if least else f"up to {write(most)}"

"""A comparison's state in the terminal while it runs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lightning_adabelief.comparison.contenders import Contender
from lightning_adabelief.comparison.plan import Plan
from lightning_adabelief.comparison.progress import Progress
from lightning_adabelief.comparison.report.numbers import NOTHING, show, show_mean, show_seconds
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.stages import REPORT, choose_point, count_runs, list_tuning_means
from lightning_adabelief.comparison.trial import Outcome, Trial
from lightning_adabelief.comparison.worker_process import WorkerProcess

MAX_RUNNING_LINES = 8
"""The number of runs in progress that are listed."""


class Display:
    """The state of a comparison: a picture that is redrawn in a terminal, and elsewhere a line for each run that ends.

    It is a context manager; within it, nothing else may be printed to the console.

    Args:
        plan: The comparison's plan.
        jobs: The number of runs at the same time.
        console: The console to draw on; None for standard output.
    """

    def __init__(self, plan: Plan, jobs: int, console: Console | None = None) -> None:
        self._plan = plan
        self._jobs = jobs
        self._console = console or Console()
        self._progress = Progress()
        self._live = Live(self, console=self._console, refresh_per_second=1) if self._console.is_terminal else None
        self._printed: set[str] | None = None

    def __enter__(self) -> Display:
        """Begin to draw."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End drawing; the last picture stays if an error has ended the comparison."""
        if self._live:
            self._live.transient = error is None
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show a new state."""
        self._progress = progress
        if self._live is None:
            self._print_new_outcomes()

    def __rich__(self) -> RenderableType:
        """Draw the state, for Rich."""
        parts: list[RenderableType] = [self._make_title(), self._make_stages()]
        if self._progress.running:
            parts += ["", self._make_running()]
        if self._progress.outcomes:
            parts += ["", self._make_standing()]
        return Group(*parts)

    def _make_title(self) -> RenderableType:
        done, planned = len(self._progress.outcomes), count_runs(self._plan, self._progress.stages)
        title = Table.grid(expand=True)
        title.add_column(overflow="ellipsis", no_wrap=True)
        title.add_column(justify="right", no_wrap=True)
        title.add_row(
            Text(self._plan.config, style="bold"),
            f"{done} of {planned} runs, {describe_time_left(self._plan, self._progress, self._jobs)}",
        )
        return title

    def _make_stages(self) -> Table:
        table = Table.grid(expand=True, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        for stage, trials in self._progress.stages.items():
            outcomes = [self._progress.outcomes[t.name] for t in trials if t.name in self._progress.outcomes]
            done = len(outcomes)
            table.add_row(
                stage,
                ProgressBar(total=len(trials), completed=done),
                f"{done}/{len(trials)}",
                _list_failures(outcomes),
            )
        if REPORT not in self._progress.stages:
            planned = len(self._plan.contenders) * len(self._plan.report_seeds)
            table.add_row(f"[dim]{REPORT}", ProgressBar(total=1, completed=0), f"[dim]0/{planned}")
        return table

    def _make_running(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_row("[bold]running")
        here = WorkerProcess.current().host
        runs = sorted(self._progress.running.items(), key=lambda run: run[1].since)
        for name, worker in runs[:MAX_RUNNING_LINES]:
            elsewhere = "" if worker.host == here else f"on {worker.host.split()[0]}"
            table.add_row(escape(name), _write_clock(time.time() - worker.since), escape(elsewhere), style="cyan")
        if len(runs) > MAX_RUNNING_LINES:
            table.add_row(f"and {len(runs) - MAX_RUNNING_LINES} more")
        return table

    def _make_standing(self) -> Table:
        results = Results(self._plan, self._progress.stages, self._progress.outcomes)
        values = results.find_values(results.metric)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("so far", no_wrap=True, overflow="ellipsis", min_width=12, vertical="bottom")
        table.add_column("best lr", justify="right", no_wrap=True, vertical="bottom")
        table.add_column(f"{escape(self._plan.metric)}\nin tuning", justify="right", overflow="fold")
        table.add_column(f"{escape(results.metric)}\nin the report", justify="right", overflow="fold")
        table.add_column("seeds", justify="right", no_wrap=True, vertical="bottom")
        for contender in self._plan.contenders:
            reported = list(values[contender.name].values())
            row = (*self._describe_tuning(contender), show_mean(reported), f"{len(reported)}")
            table.add_row(escape(contender.name), *row)
        return table

    def _describe_tuning(self, contender: Contender) -> tuple[str, str]:
        """Return a contender's best learning rate, and the metric there."""
        plan, stages, outcomes = self._plan, self._progress.stages, self._progress.outcomes
        point = choose_point(plan, contender, stages, outcomes)
        if point is None:
            return NOTHING, NOTHING
        tuned = list_tuning_means(plan, contender, stages, outcomes)[point]
        return show(contender.usual_lr * point.relative_lr), show(tuned)

    def _print_new_outcomes(self) -> None:
        progress = self._progress
        planned = count_runs(self._plan, progress.stages)
        if self._printed is None:
            self._printed = set(progress.outcomes)
            self._console.print(f"{len(progress.outcomes)} of {planned} runs are done")
        for trial in [trial for trials in progress.stages.values() for trial in trials]:
            if trial.name in progress.outcomes and trial.name not in self._printed:
                self._printed.add(trial.name)
                line = f"[{len(self._printed)}/{planned}] {self._describe_end(trial)}"
                self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _describe_end(self, trial: Trial) -> str:
        outcome = self._progress.outcomes[trial.name]
        reported = self._plan.test_metric if trial.stage == REPORT and self._plan.test_metric else self._plan.metric
        value = outcome.metrics.get(reported, math.nan)
        result = f"{reported} {show(value)}" if outcome.status == "finished" else outcome.status
        seconds = show_seconds(self._progress.durations[trial.name])
        left = describe_time_left(self._plan, self._progress, self._jobs)
        return f"{trial.stage} {trial.name}: {result} in {seconds}, {left}"


def describe_time_left(plan: Plan, progress: Progress, jobs: int) -> str:
    """Tell how long a comparison still takes."""
    if len(progress.outcomes) == count_runs(plan, progress.stages):
        return "done"
    seconds = estimate_seconds_left(plan, progress, jobs)
    return "time to go: known after the first" if seconds is None else f"{show_seconds(seconds)} to go"


def estimate_seconds_left(plan: Plan, progress: Progress, jobs: int) -> float | None:
    """Estimate the time to a comparison's end, from the mean time of the runs that have ended.

    Args:
        plan: The comparison's plan.
        progress: Its state.
        jobs: The number of runs at the same time, of this worker; others are counted by what they run.

    Returns:
        Seconds; None before the first run has ended.
    """
    if not progress.durations:
        return None
    mean = sum(progress.durations.values()) / len(progress.durations)
    runs_left = count_runs(plan, progress.stages) - len(progress.outcomes)
    done = sum(min(time.time() - worker.since, mean) for worker in progress.running.values())
    return (runs_left * mean - done) / max(jobs, len(progress.running))


def _write_clock(seconds: float) -> str:
    hours, minutes = divmod(max(int(seconds), 0) // 60, 60)
    return f"{hours}:{minutes:02}:{int(seconds) % 60:02}" if hours else f"{minutes}:{int(seconds) % 60:02}"


def _list_failures(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes if outcome.status != "finished")
    return ", ".join(f"[{'red' if status == 'crashed' else 'yellow'}]{n} {status}[/]" for status, n in counts.items())

"""The runs of a comparison with what came of them, and the figures that the whole report is made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from lightning_adabelief.comparison.plan import Plan
from lightning_adabelief.comparison.stages import REPORT, Outcomes, Stages
from lightning_adabelief.comparison.statistics import Comparison, compare_with_first
from lightning_adabelief.comparison.trial import Outcome, Trial


@dataclass(frozen=True)
class Run:
    """A trial that has ended, and its outcome."""

    trial: Trial
    outcome: Outcome

    @property
    def has_failed(self) -> bool:
        """True if it diverged, collapsed or crashed."""
        return self.outcome.status != "finished"


@dataclass(frozen=True)
class Results:
    """A comparison as far as it has come.

    Attributes:
        plan: The comparison's plan.
        stages: The trials of each stage.
        outcomes: The outcomes of trials that have ended.
    """

    plan: Plan
    stages: Stages
    outcomes: Outcomes

    @property
    def metric(self) -> str:
        """The metric that the contenders are compared by."""
        return self.plan.test_metric or self.plan.metric

    @property
    def names(self) -> list[str]:
        """The contenders' names, in the plan's order."""
        return [contender.name for contender in self.plan.contenders]

    @property
    def first(self) -> str:
        """The name of the contender that the others are compared with."""
        return self.names[0]

    @cached_property
    def runs(self) -> list[Run]:
        """All runs that have ended, in the order of their stages."""
        trials = [trial for stage in self.stages.values() for trial in stage]
        return [Run(trial, self.outcomes[trial.name]) for trial in trials if trial.name in self.outcomes]

    @property
    def left(self) -> dict[str, int]:
        """The number of trials without an outcome, by stage; the report's is there as soon as it is planned."""
        return {
            stage: sum(trial.name not in self.outcomes for trial in trials) for stage, trials in self.stages.items()
        }

    @property
    def is_complete(self) -> bool:
        """True if every trial of the report, which is the last stage, has ended."""
        return REPORT in self.stages and not any(self.left.values())

    @property
    def has_verdict(self) -> bool:
        """True if the first contender and another one have values of the same seed."""
        return any(comparison.seeds for comparison in self.comparisons.values())

    def list_runs(self, contender: str, in_report: bool) -> list[Run]:
        """List a contender's runs of the report, or those of tuning."""
        return [r for r in self.runs if r.trial.contender == contender and (r.trial.stage == REPORT) == in_report]

    def find_chosen(self, contender: str) -> Trial | None:
        """Return a trial with a contender's chosen learning rate and weight decay; None before they are chosen."""
        return next((trial for trial in self.stages.get(REPORT, ()) if trial.contender == contender), None)

    def find_values(self, metric: str) -> dict[str, dict[int, float]]:
        """Return each contender's values of a metric by seed, in the report's runs; see :meth:`find_value`."""
        values: dict[str, dict[int, float]] = {}
        for name in self.names:
            found = {run.trial.seed: self.find_value(run, metric) for run in self.list_runs(name, in_report=True)}
            values[name] = {seed: value for seed, value in found.items() if value is not None}
        return values

    def find_value(self, run: Run, metric: str) -> float | None:
        """Return a run's value of a metric.

        That is the chosen checkpoint's. A diverged or collapsed run that has none has learned nothing, and is given the
        untrained model's, where that was measured: of the metrics that are compared, it stands for the test's too.

        Returns:
            A finite number; None if the run crashed or has no such value.
        """
        outcome = run.outcome
        if outcome.status == "crashed":
            return None
        value = outcome.metrics.get(metric, math.nan)
        if not math.isfinite(value) and self.has_stand_in(run, metric):
            value = outcome.untrained if outcome.untrained is not None else math.nan
        return value if math.isfinite(value) else None

    def has_stand_in(self, run: Run, metric: str) -> bool:
        """True if a run has no finite value of a metric that is compared, so that the untrained model's stands in."""
        is_compared = metric in (self.metric, self.plan.metric)
        has_value = math.isfinite(run.outcome.metrics.get(metric, math.nan))
        return run.outcome.status in ("diverged", "collapsed") and is_compared and not has_value

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """Each contender but the first against the first, by name."""
        return self.compare(self.metric)

    def compare(self, metric: str) -> dict[str, Comparison]:
        """Compare the contenders by a metric, for which the plan's mode is taken to hold."""
        compared = compare_with_first(self.find_values(metric), self.plan.mode)
        return {comparison.contender: comparison for comparison in compared}

    def list_other_metrics(self) -> list[str]:
        """List the test's other metrics; where no test is made, the validation's others.

        Those of the test are those that no validation wrote.
        """
        runs = [run for run in self.runs if run.trial.stage == REPORT and run.outcome.status != "crashed"]
        found = list(dict.fromkeys(name for run in runs for name in run.outcome.metrics))
        validated = {name for run in runs for row in run.outcome.history for name in row}
        if self.plan.test_metric is None:
            return [name for name in found if name in validated and name != self.metric]
        return [name for name in found if name not in validated and name not in (self.metric, self.plan.metric)]


def mean_over(runs: Sequence[Run], read: Callable[[Outcome], float]) -> float:
    """Return the mean of something over the runs that did not crash; NaN without any."""
    values = [read(run.outcome) for run in runs if run.outcome.status != "crashed"]
    return sum(values) / len(values) if values else math.nan

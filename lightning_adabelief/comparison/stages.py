"""The stages of a comparison: tuning, perhaps on a widened grid, then the report on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_adabelief.comparison.contenders import Contender
from lightning_adabelief.comparison.plan import Plan
from lightning_adabelief.comparison.trial import Outcome, Trial

REPORT = "report"
MAX_WIDENINGS = 2
"""The number of times that a contender's grid is widened at most."""

ADDED_RATES = 2
"""Learning rates that a widening adds."""

Stages = Mapping[str, Sequence[Trial]]
"""From a stage's name to its trials, in the order in which they ran."""

Outcomes = Mapping[str, Outcome]
"""From a trial's name to its outcome."""


class Point(NamedTuple):
    """A learning rate, relative to the contender's usual one, and a weight decay."""

    relative_lr: float
    weight_decay: float


def next_stage(plan: Plan, stages: Stages, outcomes: Outcomes) -> tuple[str, list[Trial]] | None:
    """Return the stage after those that are complete; None if the comparison is done.

    It depends on its arguments alone, so that each of several workers finds the same.

    Args:
        plan: The comparison's plan.
        stages: The stages so far, all of whose trials have an outcome.
        outcomes: The outcomes.
    """
    if REPORT in stages:
        return None
    if not stages:
        points = [Point(rate, decay) for rate in plan.relative_rates for decay in plan.weight_decays]
        return "tuning", _make_trials(plan, "tuning", {contender.name: points for contender in plan.contenders})
    if len(stages) <= MAX_WIDENINGS:
        widened = {contender.name: _widen(plan, contender, stages, outcomes) for contender in plan.contenders}
        if any(widened.values()):
            name = f"tuning-{len(stages) + 1}"
            return name, _make_trials(plan, name, widened)
    chosen = {contender.name: choose_point(plan, contender, stages, outcomes) for contender in plan.contenders}
    return REPORT, _make_trials(plan, REPORT, {name: [point] for name, point in chosen.items() if point})


def count_runs(plan: Plan, stages: Stages) -> int:
    """Return the number of runs of a comparison as far as it is known: its grids may yet be widened."""
    begun = sum(len(trials) for trials in stages.values()) if stages else count_tuning_runs(plan)
    return begun if REPORT in stages else begun + len(plan.contenders) * len(plan.report_seeds)


def count_tuning_runs(plan: Plan) -> int:
    """Return the number of runs of the first tuning stage."""
    return len(plan.contenders) * len(plan.relative_rates) * len(plan.weight_decays) * len(plan.tuning_seeds)


def choose_point(plan: Plan, contender: Contender, stages: Stages, outcomes: Outcomes) -> Point | None:
    """Choose a contender's learning rate and weight decay: the best mean over the tuning seeds.

    A run's value is its best checkpoint's; of one that diverged before any, the untrained model's. A crashed run counts
    for nothing. Of equal means, the learning rate nearest the usual one is chosen; of those at which runs failed, the
    smallest.

    Returns:
        The point; None if no trial has an outcome.
    """
    means = list_tuning_means(plan, contender, stages, outcomes)
    sign = 1 if plan.mode == "min" else -1
    failed = {
        Point(trial.relative_lr, trial.weight_decay)
        for trial in _list_tuned(contender, stages)
        if trial.name in outcomes and outcomes[trial.name].status != "finished"
    }

    def rank(point: Point) -> tuple[float, float]:
        distance = point.relative_lr if point in failed else abs(math.log(point.relative_lr))
        return sign * means[point], distance

    return min(means, key=rank) if means else None


def list_tuning_means(plan: Plan, contender: Contender, stages: Stages, outcomes: Outcomes) -> dict[Point, float]:
    """Return the mean of the validation metric over the tuning seeds, by learning rate and weight decay."""
    values: dict[Point, list[float]] = {}
    for trial in _list_tuned(contender, stages):
        outcome = outcomes.get(trial.name)
        if outcome is not None and outcome.status != "crashed":
            values.setdefault(Point(trial.relative_lr, trial.weight_decay), []).append(read_metric(plan, outcome))
    return {point: sum(seeds) / len(seeds) for point, seeds in sorted(values.items())}


def read_metric(plan: Plan, outcome: Outcome) -> float:
    """Return an outcome's validation metric; if it isn't finite, the untrained model's, or the worst there is."""
    value = outcome.metrics.get(plan.metric, math.nan)
    if not math.isfinite(value) and outcome.untrained is not None:
        value = outcome.untrained
    worst = math.inf if plan.mode == "min" else -math.inf
    return value if math.isfinite(value) else worst


def is_at_edge(plan: Plan, contender: Contender, stages: Stages, outcomes: Outcomes) -> int:
    """Return -1 if the chosen learning rate is the smallest that was tried, 1 if the largest, and otherwise 0."""
    rates = _list_rates(contender, stages)
    point = choose_point(plan, contender, stages, outcomes)
    if point is None or len(rates) < 2:
        return 0
    return -1 if point.relative_lr == rates[0] else 1 if point.relative_lr == rates[-1] else 0


def _widen(plan: Plan, contender: Contender, stages: Stages, outcomes: Outcomes) -> list[Point]:
    """Return the points beyond the edge at which a contender's best one lies; none if it lies within."""
    edge = is_at_edge(plan, contender, stages, outcomes)
    if edge == 0:
        return []
    rates = _list_rates(contender, stages)
    outermost, inner = (rates[-1], rates[-2]) if edge > 0 else (rates[0], rates[1])
    added = [_round(outermost * (outermost / inner) ** k) for k in range(1, ADDED_RATES + 1)]
    return [Point(rate, decay) for rate in added for decay in plan.weight_decays]


def _list_rates(contender: Contender, stages: Stages) -> list[float]:
    """List the relative learning rates that a contender was tried at, also where the runs crashed."""
    return sorted({trial.relative_lr for trial in _list_tuned(contender, stages)})


def _list_tuned(contender: Contender, stages: Stages) -> list[Trial]:
    """List a contender's trials of all stages but the report."""
    tuned = [trial for stage, trials in stages.items() if stage != REPORT for trial in trials]
    return [trial for trial in tuned if trial.contender == contender.name]


def _make_trials(plan: Plan, stage: str, points: Mapping[str, Sequence[Point]]) -> list[Trial]:
    """Make a stage's trials, seed by seed, so that early ones say something on every contender."""
    seeds = plan.report_seeds if stage == REPORT else plan.tuning_seeds
    return [
        _make_trial(plan, stage, contender, point, seed)
        for seed in seeds
        for contender in plan.contenders
        for point in points.get(contender.name, ())
    ]


def _make_trial(plan: Plan, stage: str, contender: Contender, point: Point, seed: int) -> Trial:
    lr = _round(contender.usual_lr * point.relative_lr, digits=4)
    decay = f"-wd{point.weight_decay:g}" if len(plan.weight_decays) > 1 else ""
    return Trial(
        name=f"{contender.slug}-lr{lr:g}{decay}-seed{seed}",
        stage=stage,
        contender=contender.name,
        relative_lr=point.relative_lr,
        lr=lr,
        weight_decay=point.weight_decay,
        seed=seed,
    )


def _round(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")

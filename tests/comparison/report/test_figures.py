"""The figures: what they show of failures, and what they don't let rule them."""

import dataclasses
import math

import numpy as np
import pytest

from lightning_adabelief.comparison.report.figures import draw_curves, draw_differences, draw_rates
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.stages import REPORT
from tests.comparison.synthetic import Behaviour, make_cases, make_plan, simulate

CASES = make_cases()


def load(case):
    drawn = CASES[case]
    return Results(drawn.plan, drawn.stages, drawn.outcomes)


def find_lines(figure, label=None, marker=None):
    (ax,) = figure.axes
    return [
        line
        for line in ax.lines
        if (label is None or line.get_label() == label) and (marker is None or line.get_marker() == marker)
    ]


def change_outcomes(results, changes, **outcome):
    """Return the results with other outcomes for the trials that ``changes`` is true of."""
    trials = {trial.name: trial for stage in results.stages.values() for trial in stage}
    outcomes = {
        name: dataclasses.replace(old, **outcome) if changes(trials[name]) else old
        for name, old in results.outcomes.items()
    }
    return Results(results.plan, results.stages, outcomes)


def test_a_rate_that_exploded_does_not_flatten_the_others():
    results = load("tie")
    exploded = change_outcomes(
        results,
        lambda trial: trial.stage == "tuning" and trial.relative_lr == 10,
        metrics={"val/loss": 1e12},
        status="collapsed",
    )
    low, high = draw_rates(exploded).axes[0].get_ylim()
    assert high < 10 and low > 0
    crosses = find_lines(draw_rates(exploded), marker="x")
    assert [line.get_ydata()[0] for line in crosses] == [high, high]


def test_the_chosen_rate_has_a_ring():
    results = load("loss")
    rings = [line for line in find_lines(draw_rates(results), marker="o") if line.get_markerfacecolor() == "none"]
    chosen = [results.find_chosen(name).lr for name in results.names]
    assert [line.get_xdata()[0] for line in rings] == chosen


def test_every_failed_rate_has_a_cross():
    results = load("failures")
    failed = {(r.trial.contender, r.trial.lr) for r in results.runs if r.has_failed and r.trial.stage != REPORT}
    assert len(find_lines(draw_rates(results), marker="x")) == len(failed)


@pytest.mark.parametrize(("mode", "values"), [("min", (0.02, 1.9)), ("max", (0.98, 0.6))])
def test_each_contenders_best_is_within_the_axis(mode, values):
    good, bad = values
    plan = make_plan(["adabelief", "adamw", "adam", "radam", "sgd"], mode=mode)
    results = load("loss")
    results = Results(plan, results.stages, results.outcomes)
    results = change_outcomes(results, lambda trial: True, metrics={"val/loss": good})
    results = change_outcomes(results, lambda trial: trial.contender == "sgd", metrics={"val/loss": bad})
    low, high = draw_rates(results).axes[0].get_ylim()
    assert low < min(values) < max(values) < high


def test_a_wide_range_of_losses_is_logarithmic_and_a_narrow_one_is_not():
    assert draw_rates(load("failures")).axes[0].get_yscale() == "log"
    assert draw_rates(load("eight")).axes[0].get_yscale() == "linear"


def test_curves_are_means_over_seeds_with_the_range_as_band():
    results = load("loss")
    (line,) = find_lines(draw_curves(results, "step"), label="adamw")
    runs = results.list_runs("adamw", in_report=True)
    last = [run.outcome.history[-1]["val/loss"] for run in runs]
    assert line.get_xdata()[-1] == runs[0].outcome.steps and line.get_ydata()[-1] == pytest.approx(np.mean(last))
    assert line.get_xdata()[0] == 0 and line.get_ydata()[0] == pytest.approx(
        np.mean([r.outcome.untrained for r in runs])
    )
    over_time = find_lines(draw_curves(results, "seconds"), label="adamw")[0]
    assert over_time.get_xdata()[-1] == pytest.approx(np.mean([run.outcome.history[-1]["seconds"] for run in runs]))


def test_a_failed_run_of_the_report_ends_in_a_cross_where_it_was_last_finite():
    results = load("failures")
    crosses = find_lines(draw_curves(results, "step"), marker="x")
    ends = [
        run.outcome.history[-2]["step"]
        for run in results.list_runs("radam", in_report=True)
        if run.outcome.status == "diverged"
    ]
    assert [line.get_xdata()[0] for line in crosses] == ends and len(ends) == 2


def test_a_difference_that_would_hide_the_others_is_written():
    figure = draw_differences(load("loss"))
    (ax,) = figure.axes
    assert ax.get_xlim()[1] < 0.1
    assert "+0.347 (+0.271 to +0.422) →" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(("mode", "left"), [("min", "← better"), ("max", "← worse")])
def test_the_sides_of_the_differences_are_named_by_the_mode(mode, left):
    results = load("win")
    results = Results(dataclasses.replace(results.plan, mode=mode), results.stages, results.outcomes)
    assert left in [text.get_text() for text in draw_differences(results).axes[0].texts]


def test_runs_without_any_history_have_no_curves():
    results = change_outcomes(load("win"), lambda trial: True, history=[], untrained=None)
    assert draw_curves(results, "step") is None


def test_rates_that_all_failed_without_a_value_are_crosses_all_the_same():
    drawn = simulate(make_plan(["adabelief", "adamw"]), [Behaviour()] * 2)
    results = Results(drawn.plan, drawn.stages, drawn.outcomes)
    results = change_outcomes(results, lambda t: True, status="diverged", metrics={}, untrained=None)
    crosses = find_lines(draw_rates(results), marker="x")
    assert len(crosses) == 10 and all(math.isfinite(line.get_ydata()[0]) for line in crosses)

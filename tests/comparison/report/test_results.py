"""The value of a run that failed, and the pairs that are compared."""

import dataclasses
import math

import pytest

from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.stages import REPORT
from lightning_adabelief.comparison.trial import Outcome
from tests.comparison.synthetic import Behaviour, make_plan, simulate


def compare_with(**outcome):
    """Return the results of two contenders, of whose second the run of seed 0 has another outcome."""
    drawn = simulate(make_plan(["adabelief", "adamw"]), [Behaviour(), Behaviour(0.06)])
    name = next(t.name for t in drawn.stages[REPORT] if t.contender == "adamw" and t.seed == 0)
    changed = dataclasses.replace(drawn.outcomes[name], **outcome)
    return Results(drawn.plan, drawn.stages, {**drawn.outcomes, name: changed})


@pytest.mark.parametrize("status", ["diverged", "collapsed"])
def test_a_failed_run_counts_by_its_best_checkpoint(status):
    results = compare_with(status=status, metrics={"val/loss": 2.0, "test/loss": 2.2})
    assert results.find_values("test/loss")["adamw"][0] == 2.2
    assert 0 in results.comparisons["adamw"].seeds


@pytest.mark.parametrize("metrics", [{}, {"test/loss": math.nan}, {"test/loss": math.inf}])
def test_the_untrained_model_stands_for_a_run_that_has_no_finite_value(metrics):
    results = compare_with(status="diverged", metrics=metrics, untrained=2.3)
    assert results.find_values("test/loss")["adamw"][0] == 2.3
    assert 0 not in results.find_values("test/accuracy")["adamw"]  # which nothing stands for


def test_a_pair_is_left_out_where_not_even_the_untrained_model_was_measured():
    results = compare_with(status="diverged", metrics={}, untrained=None)
    assert results.comparisons["adamw"].seeds == (1, 2, 3, 4)


def test_a_crashed_run_has_no_value_whatever_it_measured():
    results = compare_with(status="crashed", metrics={"test/loss": 0.01}, untrained=2.3)
    assert results.comparisons["adamw"].seeds == (1, 2, 3, 4)


def test_nothing_stands_for_a_finished_run_without_the_metric():
    results = compare_with(status="finished", metrics={"val/loss": 0.05}, untrained=2.3)
    assert results.comparisons["adamw"].seeds == (1, 2, 3, 4)


def test_validation_is_reported_where_there_is_no_test():
    plan = make_plan(["adabelief", "adamw"], test_metric=None)
    drawn = simulate(plan, [Behaviour(), Behaviour(0.09)])
    results = Results(plan, drawn.stages, drawn.outcomes)
    assert results.metric == "val/loss" and results.comparisons["adamw"].verdict == "worse"
    assert results.list_other_metrics() == ["val/accuracy"]


def test_other_metrics_are_those_of_the_test():
    assert compare_with().list_other_metrics() == ["test/accuracy"]


def test_runs_without_an_outcome_are_counted_as_missing():
    drawn = simulate(make_plan(["adabelief", "adamw"]), [Behaviour()] * 2, stop_after=13)
    results = Results(drawn.plan, drawn.stages, drawn.outcomes)
    assert results.left == {"tuning": 0, REPORT: 7} and not results.is_complete
    assert results.comparisons["adamw"].seeds == (0,)


def test_a_comparison_that_has_not_begun_has_no_verdict():
    drawn = simulate(make_plan(["adabelief", "adamw"]), [Behaviour()] * 2, stop_after=0)
    results = Results(drawn.plan, drawn.stages, {})
    assert not results.has_verdict and results.find_chosen("adamw") is None and results.runs == []


def test_a_crash_may_have_nothing_at_all():
    results = compare_with(**dataclasses.asdict(Outcome("crashed")))
    assert results.comparisons["adamw"].seeds == (1, 2, 3, 4) and results.is_complete

"""Stages: the same grid for all, widened at an edge, then fresh seeds."""

import math

from lightning_adabelief.comparison.plan import make_plan
from lightning_adabelief.comparison.stages import MAX_WIDENINGS, REPORT, choose_point, next_stage, read_metric
from lightning_adabelief.comparison.trial import Outcome
from lightning_adabelief.settings import read_settings


def make(optimizers=("adabelief", "adamw"), rates=(0.1, 1.0, 10.0), **options):
    tree = read_settings(["fit", "--config", "digits-cnn"]).tree
    return make_plan("digits-cnn", tree, optimizers, relative_rates=rates, seeds=2, **options)


def run(plan, measure, stages=None, outcomes=None):
    """Run all stages, with ``measure`` from a trial to its validation metric or outcome."""
    stages, outcomes = {} if stages is None else stages, {}
    while (following := next_stage(plan, stages, outcomes)) is not None:
        name, trials = following
        stages[name] = trials
        for trial in trials:
            result = measure(trial)
            outcomes[trial.name] = result if isinstance(result, Outcome) else Outcome("finished", {plan.metric: result})
    return stages, outcomes


def distance_to(best):
    return lambda trial: abs(math.log(trial.relative_lr / best)) + 0.01 * trial.seed


def test_tuning_gives_each_contender_the_same_relative_rates():
    name, trials = next_stage(make(("adabelief", "sgd")), {}, {})
    assert name == "tuning"
    rates = {c: [t.relative_lr for t in trials if t.contender == c] for c in ("adabelief", "sgd")}
    assert rates == {"adabelief": [0.1, 1.0, 10.0], "sgd": [0.1, 1.0, 10.0]}
    assert [t.lr for t in trials if t.contender == "sgd"] == [0.03, 0.3, 3.0]


def test_the_report_is_on_fresh_seeds_at_the_best_rate():
    stages, _ = run(make(), distance_to(1.0))
    assert list(stages) == ["tuning", REPORT]
    assert [(t.contender, t.relative_lr, t.seed) for t in stages[REPORT]] == [
        ("adabelief", 1.0, 0),
        ("adamw", 1.0, 0),
        ("adabelief", 1.0, 1),
        ("adamw", 1.0, 1),
    ]


def test_a_trials_name_is_its_own():
    stages, _ = run(make(("adabelief", "adamw", "sgd"), weight_decays=[0.0, 0.1]), distance_to(30.0))
    names = [trial.name for trials in stages.values() for trial in trials]
    assert len(set(names)) == len(names)


def test_the_grid_is_widened_for_the_contender_whose_best_is_at_an_edge():
    def measure(trial):
        return distance_to(50.0 if trial.contender == "adamw" else 1.0)(trial)

    stages, outcomes = run(make(), measure)
    assert list(stages) == ["tuning", "tuning-2", REPORT]
    assert [(t.contender, t.relative_lr) for t in stages["tuning-2"]] == [("adamw", 100.0), ("adamw", 1000.0)]
    assert [t.relative_lr for t in stages[REPORT] if t.contender == "adamw"] == [100.0, 100.0]


def test_the_grid_is_widened_downwards_too():
    stages, _ = run(make(), distance_to(0.012))
    assert [t.relative_lr for t in stages["tuning-2"] if t.contender == "adamw"] == [0.01, 0.001]


def test_widening_comes_to_an_end():
    stages, _ = run(make(), distance_to(1e9))
    assert list(stages) == ["tuning", *(f"tuning-{i + 2}" for i in range(MAX_WIDENINGS)), REPORT]


def test_one_rate_is_not_widened():
    stages, _ = run(make(rates=(1.0,)), distance_to(30.0))
    assert list(stages) == ["tuning", REPORT]


def test_weight_decay_is_chosen_with_the_rate():
    plan = make(weight_decays=[0.0, 0.01, 0.1])
    stages, outcomes = run(plan, lambda trial: distance_to(1.0)(trial) + abs(trial.weight_decay - 0.01))
    assert {(t.relative_lr, t.weight_decay) for t in stages[REPORT]} == {(1.0, 0.01)}


def test_larger_is_better_where_the_mode_says_so():
    plan = make(metric="val/accuracy", mode="max")
    _, outcomes = run(plan, lambda trial: -distance_to(1.0)(trial))
    stages, _ = run(plan, lambda trial: -distance_to(1.0)(trial))
    assert choose_point(plan, plan.contenders[0], stages, outcomes).relative_lr == 1.0


def test_a_diverged_run_counts_as_the_untrained_model():
    plan = make()
    assert read_metric(plan, Outcome("diverged", {plan.metric: math.nan}, untrained=2.3)) == 2.3
    assert read_metric(plan, Outcome("diverged")) == math.inf


def test_a_rate_at_which_runs_diverge_is_not_chosen():
    def measure(trial):
        if trial.relative_lr > 1:
            return Outcome("diverged", untrained=2.3)
        return distance_to(1.0)(trial) / 1e3

    stages, _ = run(make(), measure)
    assert {t.relative_lr for t in stages[REPORT]} == {1.0}


def test_a_rate_that_crashed_is_not_tried_again():
    def measure(trial):
        return Outcome("crashed") if trial.stage == "tuning-2" else distance_to(100.0)(trial)

    stages, _ = run(make(), measure)
    names = [trial.name for trials in stages.values() for trial in trials]
    assert len(set(names)) == len(names)


def test_a_crashed_run_counts_for_nothing():
    def measure(trial):
        return Outcome("crashed") if trial.relative_lr == 1.0 else distance_to(1.0)(trial)

    plan = make(rates=(0.1, 0.3, 1.0, 3.0))
    stages, outcomes = run(plan, measure)
    assert {t.relative_lr for t in stages[REPORT]} <= {0.3, 3.0}


def test_of_equal_rates_the_usual_one_is_chosen():
    stages, _ = run(make(), lambda trial: 0.5)
    assert list(stages) == ["tuning", REPORT]
    assert {trial.relative_lr for trial in stages[REPORT]} == {1.0}


def test_the_grid_is_widened_downwards_where_all_runs_fail():
    stages, _ = run(make(), lambda trial: Outcome("diverged", untrained=2.3))
    assert [trial.relative_lr for trial in stages["tuning-2"] if trial.contender == "adamw"] == [0.01, 0.001]

"""The answer in two sentences."""

import dataclasses

import pytest

from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.report.verdict import (
    write_question,
    write_verdict,
    write_warnings,
)
from lightning_adabelief.comparison.stages import REPORT
from lightning_adabelief.comparison.trial import Outcome, Trial
from tests.comparison.synthetic import make_cases, make_plan

CASES = make_cases()


def make_results(values, **changes):
    """Return the results of contenders whose test losses are given, seed by seed; None is a run that crashed."""
    seeds = range(max(map(len, values.values())))
    plan = make_plan(list(values), report_seeds=tuple(seeds), **changes)
    trials = [Trial(f"{name}-{seed}", REPORT, name, 1.0, 1e-3, 0.01, seed) for seed in seeds for name in values]
    outcomes = {
        trial.name: Outcome("finished", {plan.test_metric or plan.metric: values[trial.contender][trial.seed]})
        for trial in trials
        if trial.seed < len(values[trial.contender])
    }
    return Results(plan, {REPORT: trials}, outcomes)


FIRST = [0.10, 0.12, 0.11, 0.13, 0.09]
BETTER = [0.08, 0.11, 0.09, 0.11, 0.07]
WORSE = [0.20, 0.22, 0.20, 0.23, 0.20]
SIMILAR = [0.11, 0.11, 0.12, 0.12, 0.095]


@pytest.mark.parametrize(
    ("others", "answer"),
    [
        (
            {"adamw": BETTER},
            "Yes: adamw's test/loss is 0.0180 lower, or 16 % (95 % interval: 0.0124 to 0.0236 lower).",
        ),
        ({"adamw": WORSE}, "No: adamw's test/loss is 0.1000 higher, or 91 % (95 % interval: 0.0912 to 0.1088 higher)."),
        (
            {"adamw": SIMILAR},
            "That cannot be told with 5 seeds: adamw's test/loss is 0.001 higher, or 0.91 %, and the true difference "
            "may be anything from 0.012 lower to 0.014 higher (95 % interval).",
        ),
        ({"adamw": FIRST}, "It makes no difference: adamw's test/loss is the same for each of 5 seeds."),
        (
            {"adamw": BETTER, "sgd": WORSE, "adam": SIMILAR},
            "Yes: adamw is better by 0.0180 or 16 % (95 % interval: 0.0124 to 0.0236); sgd is worse by 0.1000 or 91 % "
            "(95 % interval: 0.0912 to 0.1088); adam (+0.001, 95 % interval: -0.012 to +0.014) cannot be told apart "
            "from adabelief with 5 seeds.",
        ),
        (
            {"sgd": WORSE, "adam": SIMILAR, "adamw": FIRST},
            "None is known to be: sgd is worse by 0.1000 or 91 % (95 % interval: 0.0912 to 0.1088); adam (+0.001, "
            "95 % interval: -0.012 to +0.014) and adamw (the same for each seed) cannot be told apart from adabelief "
            "with 5 seeds.",
        ),
        (
            {"adam": SIMILAR, "adamw": SIMILAR, "radam": SIMILAR},
            "That is not known: adam, adamw and radam cannot be told apart from adabelief with 5 seeds.",
        ),
    ],
)
def test_the_answer_has_the_size_of_the_difference_and_its_interval(others, answer):
    reached, answered = write_verdict(make_results({"adabelief": FIRST, **others}))
    assert answered == answer
    assert reached == (
        "On digits-cnn, adabelief reached a test/loss of 0.110 ± 0.016 (mean ± standard deviation of 5 seeds; smaller "
        "is better)."
    )


def test_a_larger_metric_may_be_the_better_one():
    results = make_results({"adabelief": FIRST, "adamw": BETTER}, mode="max", test_metric="test/accuracy")
    reached, answered = write_verdict(results)
    assert "larger is better" in reached and answered.startswith("No: adamw's test/accuracy is 0.0180 lower")


def test_one_seed_is_not_enough_and_the_answer_says_so():
    assert write_verdict(make_results({"adabelief": [0.1], "adamw": [0.08]})) == [
        "On digits-cnn, adabelief reached a test/loss of 0.1 (one seed; smaller is better).",
        "That cannot be told with one seed: adamw's test/loss is 0.02 lower, or 20 %, which may be chance.",
    ]


def test_a_percentage_is_left_out_where_it_says_nothing():
    assert "%" not in write_verdict(make_results({"adabelief": [-0.1], "adamw": [0.08]}))[1]
    assert "%" not in write_verdict(make_results({"adabelief": [0.001], "adamw": [0.08]}))[1]


def test_the_question_names_the_task_without_its_folder():
    plan = make_plan(["adabelief", "adamw"], config="/home/me/my-net.yaml")
    assert write_question(Results(plan, {}, {})) == "my-net: would adamw be better than adabelief?"
    plan = dataclasses.replace(plan, contenders=make_plan(["adamw", "sgd", "adam"]).contenders)
    assert write_question(Results(plan, {}, {})) == "my-net: would another optimizer be better than adamw?"


@pytest.mark.parametrize(
    ("case", "warnings"),
    [
        ("win", []),
        (
            "failures",
            [
                "radam's runs of seeds 0 and 3 ended without a finite test/loss: the untrained "
                "model's val/loss stands in for it.",
                "adam's run of seed 2 crashed, which is an error, and is left out.",
            ],
        ),
        (
            "begun",
            [
                "This comparison is not finished: 4 of 25 runs of the stage “tuning” have ended; the report's runs "
                "follow when the learning rates are chosen. Here is what there is so far."
            ],
        ),
    ],
)
def test_what_limits_the_answer_is_said(case, warnings):
    drawn = CASES[case]
    assert write_warnings(Results(drawn.plan, drawn.stages, drawn.outcomes)) == warnings


@pytest.mark.parametrize("case", ["begun", "planned"])
def test_there_is_no_answer_before_the_report(case):
    drawn = CASES[case]
    (sentence,) = write_verdict(Results(drawn.plan, drawn.stages, drawn.outcomes))
    assert sentence.startswith("There is no answer yet")


def test_contenders_that_have_no_seed_in_common_yet_give_no_answer():
    results = make_results({"adabelief": [0.1, 0.2], "adamw": [0.1, 0.2]})
    apart = {name: outcome for name, outcome in results.outcomes.items() if name in ("adabelief-0", "adamw-1")}
    (sentence,) = write_verdict(Results(results.plan, results.stages, apart))
    assert sentence.startswith("There is no answer yet")


def test_learning_rates_that_changed_nothing_are_said():
    case = CASES["tie"]
    first = next(iter(case.outcomes.values()))
    same = {name: first if name.startswith("adamw") else outcome for name, outcome in case.outcomes.items()}
    warnings = write_warnings(Results(case.plan, case.stages, same))
    assert [text for text in warnings if "each learning rate" in text] == [
        "adamw's runs are the same at each learning rate, so that none was chosen: the module or its schedule sets "
        "another one."
    ]
    assert not any("each learning rate" in text for text in write_warnings(Results(*vars(case).values())))

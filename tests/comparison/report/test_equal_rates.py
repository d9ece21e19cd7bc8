"""AdaBelief against Adam at equal learning rates."""

import pytest

from lightning_adabelief.comparison.report.equal_rates import make_equal_rates
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.trial import Outcome, Trial
from tests.comparison.synthetic import make_plan


def make_outcome(loss):
    return (
        Outcome("diverged", {"val/loss": 2.0}, untrained=2.3)
        if loss is None
        else Outcome("finished", {"val/loss": loss})
    )


def make_results(losses, rates=(0.1, 1.0, 10.0), **changes):
    """Return the results of a tuning whose losses are given by contender and rate; None is a run that diverged."""
    plan = make_plan(list(losses), relative_rates=rates, **changes)
    usual = {contender.name: contender.usual_lr for contender in plan.contenders}
    trials, outcomes = [], {}
    for name, values in losses.items():
        for rate, loss in zip(rates, values, strict=True):
            trial = Trial(f"{name}-{rate}", "tuning", name, rate, usual[name] * rate, 0.01, 1000)
            trials.append(trial)
            outcomes[trial.name] = make_outcome(loss)
    return Results(plan, {"tuning": trials}, outcomes)


def test_the_share_of_the_longer_step_is_what_the_matched_rates_take_away():
    results = make_results(
        {"adabelief": [0.4, 0.2, 0.3], "adabelief-matched": [0.46, 0.23, 0.36], "adam": [0.5, 0.25, 0.45]}
    )
    section = make_equal_rates(results)
    # differences from Adam: -0.1, -0.05, -0.15 at equal rates and -0.04, -0.02, -0.09 at matched ones
    assert (
        "adabelief's val/loss minus adam's is -0.1, and adabelief-matched's minus adam's -0.05."
        in section.paragraphs[1]
    )
    assert "explains -0.05, 50 % of the difference" in section.paragraphs[1]
    assert "0.9234 times these rates" in section.paragraphs[1]
    (table,) = section.tables
    assert table.header == (
        "learning rate",
        "adabelief",
        "adam",
        "adabelief-matched",
        "adabelief - adam",
        "adabelief-matched - adam",
    )
    assert table.rows[0] == ("0.0001", "0.4", "0.5", "0.46", "-0.1", "-0.04")


def test_a_rate_at_which_one_failed_is_not_in_the_mean():
    section = make_equal_rates(make_results({"adabelief": [0.4, 0.2, None], "adam": [0.5, 0.25, 9.0]}))
    assert (
        section.paragraphs[1]
        == "adabelief's val/loss minus adam's is -0.075 on average over the 2 rates at which none failed."
    )
    assert section.tables[0].rows[2] == ("0.01", "-", "9", "-")


def test_rates_that_all_failed_have_no_mean():
    section = make_equal_rates(make_results({"adabelief": [None] * 3, "adam": [0.5, 0.25, 9.0]}))
    assert section.paragraphs[1] == "At each of these rates a run failed, so that there is no mean difference."


def test_the_adam_with_the_same_kind_of_weight_decay_is_taken():
    section = make_equal_rates(make_results({"adabelief": [1.0] * 3, "adam": [2.0] * 3, "adamw": [3.0] * 3}))
    assert section.tables[0].header[2] == "adamw"


@pytest.mark.parametrize("names", [["adabelief", "sgd"], ["adamw", "adam"], ["adabelief", "radam"]])
def test_there_is_no_section_without_an_adabelief_and_an_adam(names):
    assert make_equal_rates(make_results({name: [1.0] * 3 for name in names})) is None


def test_there_is_no_section_without_a_rate_that_both_tried():
    specs = {"adabelief": [1.0], "adam": [1.0]}
    results = make_results(specs, rates=(1.0,))
    apart = [
        t if t.contender == "adam" else Trial(t.name, t.stage, "adabelief", 0.5, 5e-4, 0.01, 1000)
        for t in results.stages["tuning"]
    ]
    assert make_equal_rates(Results(results.plan, {"tuning": apart}, results.outcomes)) is None

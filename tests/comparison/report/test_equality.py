"""The section on what was not equal."""

import dataclasses

import pytest

from lightning_adabelief.comparison.report.equality import make_equality
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.stages import REPORT
from tests.comparison.synthetic import Behaviour, make_plan, simulate

TWO = ["adabelief", "adamw"]


def list_items(plan, behaviours, change=lambda trial, outcome: outcome):
    drawn = simulate(plan, behaviours)
    trials = {trial.name: trial for stage in drawn.stages.values() for trial in stage}
    outcomes = {name: change(trials[name], outcome) for name, outcome in drawn.outcomes.items()}
    section = make_equality(Results(plan, drawn.stages, outcomes))
    return section.items, " ".join(section.paragraphs)


def test_equal_runs_are_said_to_be_equal():
    items, text = list_items(make_plan(TWO), [Behaviour()] * 2)
    assert items == () and text.startswith("Nothing, as far as is known.") and "as digests of both show" in text


def test_what_the_plan_says_comes_first():
    items, text = list_items(make_plan(TWO, unequal=("adamw is not fused.",)), [Behaviour()] * 2)
    assert items == ("adamw is not fused.",) and text.endswith("But:")


def test_a_widened_grid_and_a_rate_that_is_still_at_its_edge_are_said():
    items, _ = list_items(make_plan(TWO), [Behaviour(), Behaviour(best=1e6)])
    widened, at_edge = items
    assert widened.startswith("adamw's best learning rate was at the edge of those tried, so it was given more: ")
    largest = widened.rstrip(".").rpartition(" ")[2]
    assert at_edge == (
        f"adamw's chosen learning rate, {largest}, is the largest one tried: one further out might have been better."
    )
    (item,), _ = list_items(make_plan(TWO), [Behaviour(), Behaviour(best=20)])
    assert "was given more" in item


@pytest.mark.parametrize(("decays", "is_said"), [((0.0, 0.1), False), ((0.01, 0.1), True), ((0.1,), False)])
def test_a_weight_decay_at_the_edge_is_said_unless_it_is_none_at_all(decays, is_said):
    plan = make_plan(TWO, weight_decays=decays)
    drawn = simulate(plan, [Behaviour()] * 2)
    report = [dataclasses.replace(trial, weight_decay=decays[0]) for trial in drawn.stages[REPORT]]
    results = Results(plan, {**drawn.stages, REPORT: report}, drawn.outcomes)
    items = [item for item in make_equality(results).items if "weight decay" in item]
    assert len(items) == (2 if is_said else 0) and all("is the smallest one tried" in item for item in items)


def test_runs_of_the_report_that_were_stopped_early_are_said():
    def stop_early(trial, outcome):
        return (
            dataclasses.replace(outcome, steps=500) if trial.name.startswith("adamw") and trial.seed == 2 else outcome
        )

    (item,), _ = list_items(make_plan(TWO), [Behaviour()] * 2, stop_early)
    assert item.endswith("stopped early: adabelief 660 to 660, adamw 500 to 660.")


@pytest.mark.parametrize(("key", "words"), [("weights", "initial weights"), ("batch", "first batch")])
def test_runs_of_a_seed_that_did_not_begin_alike_are_said(key, words):
    def begin_otherwise(trial, outcome):
        is_other = trial.contender == "adamw" and trial.seed in (1, 3)
        return dataclasses.replace(outcome, fingerprints={**outcome.fingerprints, key: "x"}) if is_other else outcome

    (item,), text = list_items(make_plan(TWO), [Behaviour()] * 2, begin_otherwise)
    assert item.startswith(f"The {words} differed between runs of the same seed (1, 3)")
    assert "digests" not in text


def test_another_machine_or_version_is_said():
    def run_elsewhere(trial, outcome):
        machine = {**outcome.machine, "versions": {**outcome.machine["versions"], "torch": "2.6.0"}}
        return dataclasses.replace(outcome, machine=machine) if trial.contender == "adamw" else outcome

    (item,), _ = list_items(make_plan(TWO), [Behaviour()] * 2, run_elsewhere)
    assert item == "Not all runs had the same torch: 2.14.1 (10 runs of adabelief); 2.6.0 (10 runs of adamw)."

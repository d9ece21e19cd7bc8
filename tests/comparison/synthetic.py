"""Comparisons whose runs are drawn, not trained: the stages are the real ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_adabelief.comparison.contenders import make_contenders, read_optimizer
from lightning_adabelief.comparison.plan import RELATIVE_RATES, Plan
from lightning_adabelief.comparison.stages import REPORT, next_stage
from lightning_adabelief.comparison.trial import Outcome, Trial

STEPS = 660
VALIDATIONS = 12


@dataclass(frozen=True)
class Behaviour:
    """A contender's loss at its best relative rate, and the rate from which on it fails."""

    loss: float = 0.05
    untrained: float = 2.3
    best: float = 1.0
    fails_above: float = math.inf
    failure: str = "diverged"
    fails_at_seeds: tuple[int, ...] = ()
    seconds: float = 30.0
    seed_noise: float = 0.15
    own_noise: float = 0.03


@dataclass(frozen=True)
class Comparison:
    """A plan with its stages and outcomes: all that a report is written from."""

    plan: Plan
    stages: dict[str, list[Trial]]
    outcomes: dict[str, Outcome]


def make_plan(specs: Sequence[Any], **changes: Any) -> Plan:
    configured = read_optimizer("lightning_adabelief.AdaBelief", {"lr": 1e-3, "betas": [0.9, 0.999]})
    settings = {
        "seed_everything": 0,
        "model": {"class_path": "my_project.Classifier", "init_args": {"width": 32, "optimizer": "AdaBelief"}},
        "trainer": {"max_epochs": 30},
    }
    plan = {
        "config": "digits-cnn",
        "settings": settings,
        "places": (("model", "init_args", "optimizer"),),
        "lr_ratios": (1.0,),
        "contenders": make_contenders(specs, configured),
        "relative_rates": RELATIVE_RATES,
        "weight_decays": (0.01,),
        "tuning_seeds": (1000,),
        "report_seeds": tuple(range(5)),
        "metric": "val/loss",
        "mode": "min",
        "test_metric": "test/loss",
        "warmup": 0.05,
    }
    return Plan(**{**plan, **changes})


def simulate(plan: Plan, behaviours: Sequence[Behaviour], stop_after: int | None = None) -> Comparison:
    """Draw the runs of a comparison, all or the first ``stop_after`` of them."""
    stages: dict[str, list[Trial]] = {}
    outcomes: dict[str, Outcome] = {}
    by_name = dict(zip([contender.name for contender in plan.contenders], behaviours, strict=True))
    while (stage := next_stage(plan, stages, outcomes)) is not None:
        name, trials = stage
        stages[name] = trials
        for trial in trials:
            if stop_after is not None and len(outcomes) == stop_after:
                return Comparison(plan, stages, outcomes)
            outcomes[trial.name] = draw_outcome(plan, trial, by_name[trial.contender])
    return Comparison(plan, stages, outcomes)


def draw_outcome(plan: Plan, trial: Trial, behaviour: Behaviour) -> Outcome:
    """Draw a run: a loss that falls exponentially, best at one rate, with noise that the seed's runs share."""
    shared = np.random.default_rng(trial.seed)
    own = np.random.default_rng([trial.seed, *map(ord, trial.name)])
    untrained = behaviour.untrained * (1 + 0.01 * shared.normal())
    distance = math.log10(trial.relative_lr / behaviour.best)
    loss = behaviour.loss * (1 + 1.5 * distance**2)
    loss *= math.exp(behaviour.seed_noise * shared.normal() + behaviour.own_noise * own.normal())
    is_failed = trial.relative_lr > behaviour.fails_above or (
        trial.stage == REPORT and trial.seed in behaviour.fails_at_seeds
    )
    fingerprints = {"weights": f"w{trial.seed}", "batch": f"b{trial.seed}"}
    machine = {"processor": "AMD EPYC, 2 cores", "threads": 1, "versions": {"python": "3.11.7", "torch": "2.14.1"}}
    if is_failed and behaviour.failure == "crashed":
        error = "Traceback (most recent call last):\n  ...\nRuntimeError: <b>out of memory</b>"
        return Outcome("crashed", machine=machine, fingerprints=fingerprints, error=error)
    history = []
    for i in range(1, VALIDATIONS + 1):
        share = i / VALIDATIONS
        value = loss + (untrained - loss) * math.exp(-7 * share) * math.exp(0.1 * own.normal())
        accuracy = 1 - value / (1.3 * untrained)
        row = {"epoch": i - 1, "step": STEPS * i // VALIDATIONS, "seconds": behaviour.seconds * share}
        history.append({**row, "train/loss": 0.9 * value, plan.metric: value, "val/accuracy": accuracy})
    if is_failed:
        history = history[:3]
        history[-1] = {**history[-1], plan.metric: math.nan}
    metrics = {plan.metric: history[-1][plan.metric], "val/accuracy": history[-1]["val/accuracy"]}
    if trial.stage == REPORT and plan.test_metric:
        metrics |= {plan.test_metric: math.nan if is_failed else 1.05 * loss, "test/accuracy": 1 - loss / 3}
    return Outcome(
        status=behaviour.failure if is_failed else "finished",
        metrics=metrics,
        untrained=untrained,
        history=history,
        seconds=behaviour.seconds * (0.25 if is_failed else 1 + 0.05 * own.normal()),
        steps=STEPS // 4 if is_failed else STEPS,
        optimizer_share=0.06 + 0.01 * own.random(),
        peak_memory=612 + 4 * own.random(),
        beliefs={"step_gain_over_adam": 1.2, "eps_share": 3e-7} if "adabelief" in trial.contender else {},
        fingerprints=fingerprints,
        machine=machine,
    )


LONG = "an_optimizer_with_a_very_long_name_that_somebody_gave_it"


def make_cases() -> dict[str, Comparison]:
    """Return a comparison for each thing that a report must be able to say."""
    two = ["adabelief", "adamw"]
    five = [*two, "adam", "radam", "sgd"]
    eight = ["adabelief", "adabelief-matched", "adam", "adamw", "radam", "nadam", "rmsprop", "sgd"]
    ordinary = Behaviour()
    better, worse = Behaviour(0.04), Behaviour(0.09, seconds=25)
    cases = {
        "win": simulate(make_plan(two), [ordinary, worse]),
        "tie": simulate(make_plan(two), [ordinary, ordinary]),
        "loss": simulate(make_plan(five), [ordinary, better, Behaviour(0.0505), worse, Behaviour(0.4, 10.0)]),
        "failures": simulate(
            make_plan(five, tuning_seeds=(1000, 1001), weight_decays=(0.0, 0.01, 0.1)),
            [
                Behaviour(fails_above=3),
                Behaviour(fails_above=1, failure="collapsed"),
                Behaviour(fails_above=3, failure="crashed", fails_at_seeds=(2,)),
                Behaviour(fails_above=0.5, fails_at_seeds=(0, 3)),
                Behaviour(fails_above=0.01),
            ],
        ),
        "unfinished": simulate(make_plan(five), [ordinary] * 5, stop_after=33),
        "begun": simulate(make_plan(five), [ordinary] * 5, stop_after=4),
        "planned": simulate(make_plan(five), [ordinary] * 5, stop_after=0),
        "one-seed": simulate(make_plan(two, report_seeds=(0,)), [ordinary, better]),
        "eight": simulate(make_plan(eight), [Behaviour(0.05 + 0.002 * i, own_noise=0.1) for i in range(8)]),
        "names": simulate(
            make_plan(
                [
                    "adabelief",
                    {"name": LONG, "class_path": "torch.optim.Adagrad", "init_args": {"lr_decay": 0.1}},
                    "torch.optim.Adamax",
                    {"name": "<b>a | b*", "class_path": "adam"},
                ],
                config="/home/somebody/experiments/a long name of a config & more.yaml",
            ),
            [ordinary, better, worse, ordinary],
        ),
    }
    gan = make_plan(["adabelief", "adam", "rmsprop"], config="digits-wgan", metric="val/frechet", test_metric=None)
    drawn = [Behaviour(6, fails_above=0.5, fails_at_seeds=(3,)), Behaviour(5.5, fails_above=3), Behaviour(9, 0.1)]
    return cases | {"gan": simulate(gan, [dataclasses.replace(each, untrained=50.0) for each in drawn])}

"""AdaBelief against Adam at equal learning rates, and how much of the difference its longer step explains."""

from __future__ import annotations

import math
from collections.abc import Callable

from lightning_adabelief.comparison.contenders import ADABELIEF, KNOWN, Contender
from lightning_adabelief.comparison.report.document import Section, Table
from lightning_adabelief.comparison.report.numbers import show, sign
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.trial import Trial

MATCHED = "adabelief-matched"
ADAMS = (KNOWN["adam"].class_path, KNOWN["adamw"].class_path)
ADABELIEFS = (ADABELIEF, "lightning_adabelief.ConfiguredAdaBelief")

Tried = dict[tuple[float, float, int], float | None]
"""From learning rate, weight decay and tuning seed to the metric; None where the run failed."""


def make_equal_rates(results: Results) -> Section | None:
    """Make the section; None unless an AdaBelief and an Adam were tried at the same learning rates."""
    belief = _find(results, lambda c: c.class_path in ADABELIEFS and c.name != MATCHED)
    if belief is None:
        return None
    adams = [contender for contender in results.plan.contenders if contender.class_path in ADAMS]
    adam = next(iter(sorted(adams, key=lambda c: c.is_decoupled != belief.is_decoupled)), None)
    if adam is None:
        return None
    tried = {name: _collect(results, name, lambda trial: trial.lr) for name in (belief.name, adam.name)}
    matched = _find(results, lambda c: c.name == MATCHED)
    if matched is not None:  # stands at the rate that its own was made from
        tried[MATCHED] = _collect(results, MATCHED, lambda trial: trial.relative_lr * belief.usual_lr)
    shared = [key for key in tried[belief.name] if all(key in runs for runs in tried.values())]
    if not shared:
        return None
    rows = [
        _make_row(rate, [key for key in shared if key[0] == rate], tried) for rate in sorted({k[0] for k in shared})
    ]
    header = ["learning rate", *tried, *(f"{name} - {adam.name}" for name in tried if name != adam.name)]
    table = Table(tuple(header), tuple(rows), f"{results.plan.metric} in tuning; - where a run failed.")
    return Section("At equal learning rates", paragraphs=tuple(_explain(results, tried, shared)), tables=(table,))


def _find(results: Results, is_it: Callable[[Contender], bool]) -> Contender | None:
    return next((contender for contender in results.plan.contenders if is_it(contender)), None)


def _collect(results: Results, name: str, find_rate: Callable[[Trial], float]) -> Tried:
    """Collect a contender's runs of tuning by the learning rate that they stand for."""
    tried: Tried = {}
    for run in results.list_runs(name, in_report=False):
        trial = run.trial
        key = (float(f"{find_rate(trial):.4g}"), trial.weight_decay, trial.seed)
        tried[key] = None if run.has_failed else results.find_value(run, results.plan.metric)
    return tried


def _make_row(rate: float, keys: list[tuple[float, float, int]], tried: dict[str, Tried]) -> tuple[str, ...]:
    """Return a rate with each contender's mean, and the differences from Adam, the second one."""
    means = {name: _average([runs[key] for key in keys]) for name, runs in tried.items()}
    adam = list(means)[1]
    differences = [sign(show(mean - means[adam])) for name, mean in means.items() if name != adam]
    return (show(rate), *map(show, means.values()), *differences)


def _average(values: list[float | None]) -> float:
    """Return the mean; NaN if any is missing."""
    return sum(math.nan if value is None else value for value in values) / len(values)


def _explain(results: Results, tried: dict[str, Tried], shared: list[tuple[float, float, int]]) -> list[str]:
    """Say how large the difference at equal rates is, and what is left of it with the longer step taken out."""
    belief, adam = list(tried)[:2]
    whole = [key for key in shared if all(runs[key] is not None for runs in tried.values())]
    sentences = [
        f"An equal learning rate is not an equal step: on gradients that are pure noise, AdaBelief moves further than "
        f"Adam at the same rate. Here are {belief} and {adam} at the rates that both were tried at."
    ]
    if not whole:
        return [*sentences, "At each of these rates a run failed, so that there is no mean difference."]
    rates = len({key[0] for key in whole})
    over = f"over the {'one rate' if rates == 1 else f'{rates} rates'} at which none failed"
    plain = _mean_difference(tried[belief], tried[adam], whole)
    if MATCHED not in tried:
        return [
            *sentences,
            f"{belief}'s {results.plan.metric} minus {adam}'s is {sign(show(plain))} on average {over}.",
        ]
    usual = {contender.name: contender.usual_lr for contender in results.plan.contenders}
    matched = _mean_difference(tried[MATCHED], tried[adam], whole)
    share = 1 - matched / plain if plain else math.nan
    percent = f", {100 * share:.0f} % of the difference" if 0 <= share <= 1 else ""
    return [
        *sentences,
        f"{MATCHED} stands at {show(usual[MATCHED] / usual[belief])} times these rates, where on pure noise it moves "
        f"as far as Adam. On average {over}, {belief}'s {results.plan.metric} minus {adam}'s is {sign(show(plain))}, "
        f"and {MATCHED}'s minus {adam}'s {sign(show(matched))}. So the longer step explains "
        f"{sign(show(plain - matched))}{percent}. These are means over {_count_seeds(whole)}, not a test.",
    ]


def _mean_difference(runs: Tried, others: Tried, keys: list[tuple[float, float, int]]) -> float:
    differences = [(runs[key] or 0.0) - (others[key] or 0.0) for key in keys]
    return sum(differences) / len(differences)


def _count_seeds(keys: list[tuple[float, float, int]]) -> str:
    seeds = len({key[2] for key in keys})
    return "one tuning seed" if seeds == 1 else f"{seeds} tuning seeds"

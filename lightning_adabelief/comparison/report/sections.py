"""The sections that show the result: table, other metrics, curves, learning rates, beliefs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_adabelief.comparison.report.document import Picture, Section, Table
from lightning_adabelief.comparison.report.numbers import (
    NOTHING,
    show,
    show_difference,
    show_mean,
    show_p,
    show_seconds,
    show_seeds_needed,
    show_share,
)
from lightning_adabelief.comparison.report.results import Results, Run, mean_over
from lightning_adabelief.comparison.statistics import LEVEL, POWER, Comparison
from lightning_adabelief.comparison.trial import Trial

Pictures = Mapping[str, str]
"""From a figure's name to its SVG."""

BELIEFS = ("step_gain_over_adam", "eps_share")


def make_result(results: Results, pictures: Pictures) -> Section:
    """Make the section of the table."""
    has_decays = len(results.plan.weight_decays) > 1
    header = (
        "optimizer",
        "verdict",
        results.metric,
        f"difference from {results.first} (95 % interval)",
        "p (Holm)" if len(results.names) > 2 else "p",
        "seeds to tell",
        "learning rate",
        *(["weight decay"] if has_decays else []),
        "time of a run",
        "optimizer's share of a step",
        "peak memory",
        "failed runs",
    )
    values = results.find_values(results.metric)
    rows = [
        (
            name,
            *_describe_comparison(results.comparisons.get(name), show_mean(list(values[name].values()))),
            *_describe_choice(results.find_chosen(name), has_decays),
            *_describe_cost(results.list_runs(name, in_report=True)),
            _count_failures(results, name),
        )
        for name in results.names
    ]
    better = "Smaller" if results.plan.mode == "min" else "Larger"
    caption = (
        f"Each optimizer's difference from {results.first} in {results.metric}: a small dot for each seed, the mean as "
        "a large mark, and its 95 % interval. An interval that crosses the line at 0 leaves open which of the two is "
        "better."
    )
    note = f"{better} is better. {_explain_statistics(results)}"
    return Section(
        "Result",
        pictures=_pick(pictures, differences=caption),
        tables=(Table(header, tuple(rows), note, words=2),),
    )


def make_other_metrics(results: Results) -> Section | None:
    """Make the section of the metrics that the verdict is not on; None without any."""
    names = results.list_other_metrics()
    if not names:
        return None
    compared = {metric: results.compare(metric) for metric in names}
    values = {metric: results.find_values(metric) for metric in names}
    rows = []
    for metric in names:
        for name in results.names:
            comparison = compared[metric].get(name)
            difference = NOTHING if comparison is None else show_difference(comparison)
            value = show_mean(list(values[metric][name].values()))
            rows.append((metric if name == results.first else "", name, value, difference))
    header = ("metric", "optimizer", "mean ± standard deviation", f"difference from {results.first} (95 % interval)")
    note = "Of the same checkpoints. No verdict is made on them: of many differences, some look large by chance."
    kind = "validation" if results.plan.test_metric is None else "test"
    return Section(f"Other metrics of the {kind}", tables=(Table(header, tuple(rows), note, words=2),))


def make_curves(results: Results, pictures: Pictures) -> Section | None:
    """Make the section of the curves; None if there are none yet."""
    shown = _pick(
        pictures,
        **{
            "curves": f"{results.plan.metric} over steps: the mean over the seeds of the report, and a band from the "
            "least to the largest. A cross is where a run that failed was validated last.",
            "curves-over-time": "The same over the time of training, which counts what an optimizer's step costs.",
        },
    )
    return Section("Curves", pictures=shown) if shown else None


def make_rates(results: Results, pictures: Pictures) -> Section | None:
    """Make the section on the choice of the learning rates; None before any has been tried."""
    decays = " and its best weight decay" if len(results.plan.weight_decays) > 1 else ""
    shown = _pick(
        pictures,
        rates=f"{results.plan.metric} of the best checkpoint at each learning rate{decays}, as tuning found it. A "
        "ring: the rate that was chosen. A cross: a run failed; one at the edge of the figure has a value beyond it, "
        "or none. A narrow valley is an optimizer that needs its rate searched for.",
    )
    if not shown:
        return None
    seeds = len(results.plan.tuning_seeds)
    text = (
        f"Each optimizer was tried at the same {len(results.plan.relative_rates)} multiples of its usual learning "
        f"rate, on {'one seed that is' if seeds == 1 else f'{seeds} seeds that are'} not among those of the report. "
        "Its best went into the report."
    )
    return Section("Learning rates", paragraphs=(text,), pictures=shown)


def make_beliefs(results: Results) -> Section | None:
    """Make the section of what the optimizers' own states say of their steps; None if no run has such figures."""
    rows = []
    for name in results.names:
        runs = [run for run in results.list_runs(name, in_report=True) if run.outcome.beliefs]
        if runs:
            rows.append((name, *(show(_average_belief(runs, key)) for key in BELIEFS)))
    note = (
        "Means over the report's runs. step_gain_over_adam: how many times as far as Adam's a step goes at the "
        "same learning rate; from an Adam's state, at least. eps_share: the share of s_t that is eps; near 1, "
        "AdaBelief is SGD with momentum."
    )
    return Section("Beliefs", tables=(Table(("optimizer", *BELIEFS), tuple(rows), note),)) if rows else None


def _describe_comparison(comparison: Comparison | None, value: str) -> tuple[str, ...]:
    """Return verdict, value, difference, p and seeds to tell; the first contender is compared with nothing."""
    if comparison is None:
        return ("baseline", value, NOTHING, NOTHING, NOTHING)
    return (
        comparison.verdict if comparison.seeds else NOTHING,
        value,
        show_difference(comparison),
        show_p(comparison.adjusted_p),
        show_seeds_needed(comparison),
    )


def _describe_choice(chosen: Trial | None, has_decays: bool) -> tuple[str, ...]:
    """Return the chosen learning rate, and where there was a choice the weight decay."""
    if chosen is None:
        return (NOTHING, NOTHING) if has_decays else (NOTHING,)
    return (show(chosen.lr), show(chosen.weight_decay)) if has_decays else (show(chosen.lr),)


def _describe_cost(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the mean time, the optimizer's mean share of a step, and the largest peak memory."""
    memory = [run.outcome.peak_memory for run in runs if run.outcome.status != "crashed"]
    return (
        show_seconds(mean_over(runs, lambda outcome: outcome.seconds)),
        show_share(mean_over(runs, lambda outcome: outcome.optimizer_share)),
        f"{max(memory):,.0f} MiB" if memory else NOTHING,
    )


def _count_failures(results: Results, name: str) -> str:
    runs = [run for run in results.runs if run.trial.contender == name]
    return f"{sum(run.has_failed for run in runs)} of {len(runs)}"


def _average_belief(runs: Sequence[Run], name: str) -> float:
    return mean_over(runs, lambda outcome: outcome.beliefs.get(name, math.nan))


def _explain_statistics(results: Results) -> str:
    """Explain how the differences were judged, for a reader who has met an average."""
    others = len(results.names) - 1
    adjusted = (
        f" Of {others} comparisons one is easily below that by chance, so p is adjusted (Holm): with no difference "
        f"anywhere, the chance of any verdict is at most {100 * LEVEL:.0f} %. A verdict can thus be more careful "
        "than an interval."
        if others > 1
        else ""
    )
    return (
        "The runs of a seed begin with the same weights and see the same data, so differences are taken seed by seed. "
        "The interval (Student's) holds the true difference in 95 of 100 such comparisons. p is the chance of a "
        "difference this large where there is none (paired t-test); below "
        f"{LEVEL:g}, the verdict is better or worse.{adjusted} Seeds to tell: how many it would take for a "
        f"{100 * POWER:.0f} % chance to tell a true difference as large as the one observed. Failed runs are counted "
        "over all stages; time, share and memory are those of the report."
    )


def _pick(pictures: Pictures, **captions: str) -> tuple[Picture, ...]:
    """Return the pictures that there are, with their captions."""
    return tuple(
        Picture(f"{name}.svg", pictures[name], caption) for name, caption in captions.items() if name in pictures
    )

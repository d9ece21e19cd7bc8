"""The answer in two sentences, and what must be known beside it."""

from __future__ import annotations

import math
from pathlib import Path

from lightning_adabelief.comparison.report.numbers import choose_digits, show_difference, show_mean
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.stages import REPORT
from lightning_adabelief.comparison.statistics import Comparison

MOST_SIZES = 2
"""The number of contenders that cannot be told apart up to which the answer has the size of each difference."""


def write_question(results: Results) -> str:
    """Return the question that the report answers, its title."""
    others = results.names[1:]
    subject = f"{others[0]} be" if len(others) == 1 else "another optimizer be"
    return f"{name_task(results)}: would {subject} better than {results.first}?"


def name_task(results: Results) -> str:
    """Return the name of the recipe, or of the user's file without its folder."""
    return Path(results.plan.config).name.removesuffix(".yaml").removesuffix(".yml")


def write_verdict(results: Results) -> list[str]:
    """Return two sentences: what the first contender reached, and whether another one would have been better.

    Before there are any runs of the report to compare it is one sentence, which says so.
    """
    if not results.has_verdict:
        return [f"There is no answer yet: no runs of the report with {results.first} and another can be compared."]
    values = list(results.find_values(results.metric)[results.first].values())
    better = "smaller" if results.plan.mode == "min" else "larger"
    over = f"mean ± standard deviation of {len(values)} seeds" if len(values) > 1 else "one seed"
    reached = (
        f"On {name_task(results)}, {results.first} reached a {results.metric} of {show_mean(values)} ({over}; {better} "
        "is better)."
    )
    compared = [comparison for comparison in results.comparisons.values() if comparison.seeds]
    answer = _answer_for_one(results, compared[0]) if len(results.names) == 2 else _answer_for_all(results, compared)
    return [reached, answer]


def write_warnings(results: Results) -> list[str]:
    """Return sentences on what limits the answer: runs that are missing, stand-ins, rates without effect."""
    return [
        *_list_missing(results),
        *_list_idle_rates(results),
        *_list_stand_ins(results),
        *_list_left_out(results),
    ]


def _answer_for_one(results: Results, comparison: Comparison) -> str:
    """Answer whether the only other contender would be better."""
    start = f"{comparison.contender}'s {results.metric}"
    seeds = _count(len(comparison.seeds), "seed")
    size = f"{_describe_change(comparison, comparison.mean)}{_describe_percent(results, comparison, ', or {}')}"
    if comparison.verdict != "cannot be told apart":
        answer = "Yes" if comparison.verdict == "better" else "No"
        return f"{answer}: {start} is {size}{_describe_interval(comparison, ' (95 % interval: {})')}."
    if comparison.interval is None:
        return f"That cannot be told with {seeds}: {start} is {size}, which may be chance."
    if comparison.interval[0] == comparison.interval[1]:
        return f"It makes no difference: {start} is the same for each of {seeds}."
    return (
        f"That cannot be told with {seeds}: {start} is {size}, and the true difference may be "
        f"anything from {_describe_interval(comparison, '{}')} (95 % interval)."
    )


def _answer_for_all(results: Results, compared: list[Comparison]) -> str:
    """Answer whether any other contender would be better, for all of them in one sentence."""
    clauses = []
    for verdict in ("better", "worse"):
        found = [comparison for comparison in compared if comparison.verdict == verdict]
        clauses += [f"{each.contender} is {verdict} by {_describe_size(results, each)}" for each in found]
    is_any_told = bool(clauses)
    open_ones = [comparison for comparison in compared if comparison.verdict == "cannot be told apart"]
    if open_ones:
        seeds = _count(min(len(comparison.seeds) for comparison in open_ones), "seed")
        is_short = len(open_ones) <= MOST_SIZES  # of more, the figure and the table below tell the sizes
        named = _join([f"{each.contender}{_describe_signed(each) if is_short else ''}" for each in open_ones])
        clauses.append(f"{named} cannot be told apart from {results.first} with {seeds}")
    if any(comparison.verdict == "better" for comparison in compared):
        start = "Yes"
    elif not open_ones:
        start = "No"
    else:
        start = "None is known to be" if is_any_told else "That is not known"
    return f"{start}: {'; '.join(clauses)}."


def _describe_size(results: Results, comparison: Comparison) -> str:
    """Describe a difference without its sign, as in ``0.0031 or 15 % (95 % interval: 0.0012 to 0.0050)``."""
    interval, write = "", choose_digits(comparison)
    if comparison.interval is not None:
        low, high = (write(abs(end)) for end in sorted(comparison.interval, key=abs))
        interval = f" (95 % interval: {low} to {high})"
    return f"{write(abs(comparison.mean))}{_describe_percent(results, comparison, ' or {}')}{interval}"


def _describe_signed(comparison: Comparison) -> str:
    """Describe a difference that was not told, as in `` (+0.0004, 95 % interval: -0.0010 to +0.0018)``."""
    if comparison.interval is not None and comparison.interval[0] == comparison.interval[1]:
        return " (the same for each seed)"
    return f" ({show_difference(comparison).replace(' (', ', 95 % interval: ').rstrip(')')})"


def _describe_change(comparison: Comparison, difference: float) -> str:
    """Describe a difference by its size and direction, as in ``0.0031 lower``."""
    return f"{choose_digits(comparison)(abs(difference))} {'lower' if difference < 0 else 'higher'}"


def _describe_interval(comparison: Comparison, pattern: str) -> str:
    """Describe the interval by sizes and directions, put into a pattern; an empty text if there is none."""
    if comparison.interval is None:
        return ""
    low, high = comparison.interval
    if low < 0 < high:
        return pattern.format(f"{_describe_change(comparison, low)} to {_describe_change(comparison, high)}")
    near, far = sorted((low, high), key=abs)
    return pattern.format(f"{choose_digits(comparison)(abs(near))} to {_describe_change(comparison, far)}")


def _describe_percent(results: Results, comparison: Comparison, pattern: str) -> str:
    """Describe the difference in percent of the first contender's mean, put into a pattern.

    The text is empty where a percentage says nothing: the mean is not positive, or the difference a multiple of it.
    """
    values = results.find_values(results.metric)[results.first]
    mean = sum(values[seed] for seed in comparison.seeds) / len(comparison.seeds)
    percent = 100 * abs(comparison.mean) / mean if mean > 0 else math.inf
    if not 0.01 <= percent < 200:
        return ""
    return pattern.format(f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %")


def _list_missing(results: Results) -> list[str]:
    """Say which runs are missing."""
    if results.is_complete:
        return []
    counts = [
        f"{len(trials) - results.left[stage]} of {len(trials)} runs of the stage “{stage}”"
        for stage, trials in results.stages.items()
    ]
    then = "" if REPORT in results.stages else "; the report's runs follow when the learning rates are chosen"
    ended = _join(counts) if counts else "no runs"
    return [f"This comparison is not finished: {ended} have ended{then}. Here is what there is so far."]


def _list_idle_rates(results: Results) -> list[str]:
    """Say whose runs of one seed are the same at each learning rate."""
    sentences = []
    for name in results.names:
        runs = [run for run in results.list_runs(name, in_report=False) if run.outcome.history]
        runs = [run for run in runs if run.trial.seed == runs[0].trial.seed]
        courses = {str([{**row, "seconds": 0} for row in run.outcome.history]) for run in runs}
        if len({run.trial.lr for run in runs}) > 1 and len(courses) == 1:
            sentences.append(
                f"{name}'s runs are the same at each learning rate, so that none was chosen: the module or its "
                "schedule sets another one."
            )
    return sentences


def _list_stand_ins(results: Results) -> list[str]:
    """Say which runs of the report are given the untrained model's value."""
    sentences = []
    for name in results.names:
        runs = [run for run in results.list_runs(name, in_report=True) if results.has_stand_in(run, results.metric)]
        seeds = [run.trial.seed for run in runs if results.find_value(run, results.metric) is not None]
        if seeds:
            sentences.append(
                f"{name}'s {_name_seeds(seeds)} ended without a finite {results.metric}: the "
                f"untrained model's {results.plan.metric} stands in for it."
            )
    return sentences


def _list_left_out(results: Results) -> list[str]:
    """Say which runs of the report are in no comparison."""
    sentences = []
    for name in results.names:
        runs = [r for r in results.list_runs(name, in_report=True) if results.find_value(r, results.metric) is None]
        crashed = [run.trial.seed for run in runs if run.outcome.status == "crashed"]
        without = [run.trial.seed for run in runs if run.outcome.status != "crashed"]
        if crashed:
            sentences.append(f"{name}'s {_name_seeds(crashed)} crashed, which is an error, and is left out.")
        if without:
            sentences.append(f"{name}'s {_name_seeds(without)} has no finite {results.metric}, and is left out.")
    return sentences


def _name_seeds(seeds: list[int]) -> str:
    return f"run of seed {seeds[0]}" if len(seeds) == 1 else f"runs of seeds {_join([str(seed) for seed in seeds])}"


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

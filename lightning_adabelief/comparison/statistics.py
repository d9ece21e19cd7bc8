"""Differences between optimizers over the same seeds: how large, how certain, and how many seeds would tell.

Only numbers and names: nothing here knows what was trained.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special, stats

Verdict = Literal["better", "worse", "cannot be told apart"]

LEVEL = 0.05
"""The probability of calling a difference where there is none; intervals hold with 1 less this."""

POWER = 0.8
"""The probability with which the number of seeds in :attr:`Comparison.seeds_needed` tells the difference."""

MOST_SEEDS = 1000
"""The largest number of seeds that is looked at for :attr:`Comparison.seeds_needed`."""

ROUNDING = 1e-6
"""Differences that vary by less than this, relative to the largest value, vary by rounding: metrics are float32."""


@dataclass(frozen=True)
class Comparison:
    """A contender against the first one, over the seeds that both have.

    Attributes:
        contender: The name of the contender.
        seeds: The seeds that both have a value for.
        differences: Of each of these seeds, the contender's value less the first one's.
        mean: Mean of the differences; NaN without any.
        interval: Student's interval of the mean; None with fewer than two seeds, and where all differences are
            the same but not 0, as their spread is then unknown.
        p: Of the paired t-test, two-sided; None with fewer than two seeds. Where all differences are the same but not
            0, the exact one of flipping their signs, ``2 ** (1 - n)``.
        adjusted_p: ``p`` after Holm's adjustment for the number of contenders.
        verdict: ``"better"`` or ``"worse"`` than the first contender if ``adjusted_p`` is below the level.
        seeds_needed: The number of seeds that would tell a true difference as large as the observed mean, with
            probability :data:`POWER`; ``math.inf`` if above :data:`MOST_SEEDS`. None where the verdict is one already,
            or the spread of the differences is unknown.
    """

    contender: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    adjusted_p: float | None = None
    verdict: Verdict = "cannot be told apart"
    seeds_needed: float | None = None


def compare_with_first(values: Mapping[str, Mapping[int, float]], mode: Literal["min", "max"]) -> list[Comparison]:
    """Compare each contender with the first one.

    Args:
        values: From each contender's name to its finite values by seed.
        mode: ``"min"`` if smaller values are better, ``"max"`` if larger ones are.

    Returns:
        A comparison for each contender but the first, in the order given.

    Example:
        >>> values = {"adabelief": {0: 0.91, 1: 0.95, 2: 0.93}, "sgd": {0: 0.80, 1: 0.85, 2: 0.83}}
        >>> (sgd,) = compare_with_first(values, "max")
        >>> sgd.verdict, round(sgd.mean, 4), round(sgd.p, 4)
        ('worse', -0.1033, 0.001)
    """
    (_, first), *others = values.items()
    measured = [_measure_difference(name, first, theirs) for name, theirs in others]
    adjusted = adjust_by_holm([each.p for each in measured])
    return [_judge(each, p, mode, len(measured)) for each, p in zip(measured, adjusted, strict=True)]


def adjust_by_holm(ps: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values, so that the probability of any false call among them stays below the level.

    Holm's step-down procedure (S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, 1979): the smallest of m is multiplied by m, the next one by m - 1, and so on, and none is
    below a smaller one's. A None counts as a comparison that was made, and stays.
    """
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted((i for i, p in enumerate(ps) if p is not None), key=lambda i: ps[i] or 0.0)):
        largest = max(largest, min(1.0, (ps[i] or 0.0) * (len(ps) - rank)))
        adjusted[i] = largest
    return adjusted


def seeds_to_tell(effect: float, level: float) -> float:
    """Return the least number of seeds with which a paired t-test tells a difference with probability :data:`POWER`.

    Args:
        effect: Mean of the differences over their standard deviation.
        level: Of the two-sided test.

    Returns:
        The number, or ``math.inf`` if it is above :data:`MOST_SEEDS`.
    """

    def is_enough(seeds: int) -> bool:
        threshold = special.stdtrit(seeds - 1, 1 - level / 2)
        return bool(special.nctdtr(seeds - 1, abs(effect) * seeds**0.5, threshold) <= 1 - POWER)

    counts = range(2, MOST_SEEDS + 1)
    position = bisect_left(counts, True, key=is_enough)
    return counts[position] if position < len(counts) else float("inf")


def _measure_difference(name: str, first: Mapping[int, float], theirs: Mapping[int, float]) -> Comparison:
    """Return the differences with their interval and p."""
    seeds = tuple(seed for seed in first if seed in theirs)
    a, b = np.array([theirs[seed] for seed in seeds]), np.array([first[seed] for seed in seeds])
    differences = a - b
    mean = float(differences.mean()) if seeds else float("nan")
    comparison = Comparison(name, seeds, tuple(differences.tolist()), mean)
    if len(seeds) < 2:
        return comparison
    rounding = ROUNDING * float(np.abs([a, b]).max())
    if np.ptp(differences) > rounding:
        test = stats.ttest_rel(a, b)
        low, high = test.confidence_interval(1 - LEVEL)
        return replace(comparison, interval=(float(low), float(high)), p=float(test.pvalue))
    if abs(mean) <= rounding:  # the runs are the same, as those of one optimizer under two names
        return replace(comparison, interval=(mean, mean), p=1.0)
    return replace(comparison, p=2.0 ** (1 - len(seeds)))


def _judge(measured: Comparison, adjusted_p: float | None, mode: str, comparisons: int) -> Comparison:
    """Return the comparison with its verdict, or with the number of seeds that would allow one."""
    judged = replace(measured, adjusted_p=adjusted_p)
    if adjusted_p is not None and adjusted_p < LEVEL:
        return replace(judged, verdict="better" if (judged.mean < 0) == (mode == "min") else "worse")
    if judged.interval is None or judged.interval[0] == judged.interval[1]:
        return judged
    effect = judged.mean / float(np.std(judged.differences, ddof=1))
    return replace(judged, seeds_needed=seeds_to_tell(effect, LEVEL / comparisons))

"""Differences between optimizers over the same seeds: intervals, Holm's adjustment, verdicts, seeds needed."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_adabelief.comparison.statistics import (
    LEVEL,
    MOST_SEEDS,
    POWER,
    adjust_by_holm,
    compare_with_first,
    seeds_to_tell,
)

SLEEP_DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
"""The data that Student published the paired test with (Biometrika, 1908); R's manual prints p and the interval."""


def by_seed(values):
    return dict(enumerate(values))


def compare_two(first, other, mode="min"):
    (comparison,) = compare_with_first({"adabelief": by_seed(first), "adamw": by_seed(other)}, mode)
    return comparison


def test_students_own_example_gives_his_result():
    comparison = compare_two(SLEEP_DRUG_2, SLEEP_DRUG_1)
    assert comparison.mean == pytest.approx(-1.58)
    assert comparison.p == pytest.approx(0.002833, abs=5e-7)
    assert comparison.interval == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert comparison.adjusted_p == comparison.p and comparison.seeds_needed is None


def test_p_and_interval_are_those_of_the_paired_t_test():
    generator = np.random.default_rng(0)
    for n in (2, 3, 5, 12):
        first, other = generator.normal(size=(2, n))
        comparison = compare_two(first, other)
        differences = other - first
        error = differences.std(ddof=1) / math.sqrt(n)
        half = stats.t.ppf(0.975, n - 1) * error
        assert comparison.p == pytest.approx(2 * stats.t.sf(abs(differences.mean()) / error, n - 1))
        assert comparison.p == pytest.approx(stats.ttest_rel(other, first).pvalue)
        assert comparison.interval == pytest.approx((differences.mean() - half, differences.mean() + half))


@pytest.mark.parametrize(("mode", "verdict"), [("min", "better"), ("max", "worse")])
def test_the_better_one_is_the_smaller_or_the_larger_by_the_mode(mode, verdict):
    assert compare_two([1.0, 2.0, 3.0], [0.5, 1.6, 2.4], mode).verdict == verdict
    other = {"better": "worse", "worse": "better"}[verdict]
    assert compare_two([0.5, 1.6, 2.4], [1.0, 2.0, 3.0], mode).verdict == other


@pytest.mark.parametrize(
    ("ps", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 3 * 0.01, 2 * 0.03 twice, 4 * 0.005
        ([0.02], [0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.01, None], [0.02, None]),
        ([], []),
    ],
)
def test_holm_multiplies_the_smallest_p_most_and_keeps_their_order(ps, adjusted):
    assert adjust_by_holm(ps) == [None if p is None else pytest.approx(p) for p in adjusted]


def test_a_difference_that_one_comparison_would_tell_may_be_lost_among_several():
    first, other = [1.0, 2.0, 3.0, 4.0], [0.6, 1.7, 2.9, 3.6]
    alone = compare_two(first, other)
    same = {f"again {i}": by_seed(first) for i in range(3)}
    among = compare_with_first({"adabelief": by_seed(first), "adamw": by_seed(other)} | same, "min")
    assert alone.verdict == "better" and alone.p > LEVEL / 4
    assert among[0].p == alone.p and among[0].interval == alone.interval
    assert among[0].adjusted_p == pytest.approx(4 * alone.p) and among[0].verdict == "cannot be told apart"


def test_seeds_needed_tell_the_difference_as_often_as_promised():
    effect, runs = 0.9, 20_000
    seeds = int(seeds_to_tell(effect, LEVEL))
    generator = np.random.default_rng(1)
    for n, is_enough in ((seeds, True), (seeds - 1, False)):
        differences = generator.normal(effect, 1.0, (runs, n))
        told = (stats.ttest_1samp(differences, 0.0, axis=1).pvalue < LEVEL).mean()
        assert bool(told >= POWER) == is_enough
    assert seeds_to_tell(1e-3, LEVEL) == math.inf
    assert seeds_to_tell(50.0, LEVEL) == 2
    assert seeds_to_tell(-effect, LEVEL) == seeds < seeds_to_tell(effect, LEVEL / 4) < MOST_SEEDS


def test_more_seeds_are_needed_than_there_were_where_they_did_not_suffice():
    generator = np.random.default_rng(2)
    for _ in range(200):
        first = generator.normal(size=4)
        values = {"adabelief": first, "adamw": first + generator.normal(size=4), "sgd": generator.normal(1, 1, 4)}
        for comparison in compare_with_first({name: by_seed(each) for name, each in values.items()}, "min"):
            if comparison.verdict == "cannot be told apart":
                assert comparison.seeds_needed > 4


def test_only_seeds_that_both_have_are_compared():
    values = {"adabelief": {0: 1.0, 1: 2.0, 2: 3.0}, "adamw": {2: 3.5, 1: 2.25, 9: 100.0}}
    (comparison,) = compare_with_first(values, "min")
    assert comparison.seeds == (1, 2) and comparison.differences == (0.25, 0.5)


def test_one_seed_gives_a_difference_without_an_interval():
    comparison = compare_two([1.0], [3.0])
    assert comparison.mean == 2.0 and comparison.verdict == "cannot be told apart"
    assert comparison.interval is comparison.p is comparison.adjusted_p is comparison.seeds_needed is None


def test_no_seed_in_common_gives_no_difference():
    (comparison,) = compare_with_first({"adabelief": {0: 1.0}, "adamw": {}}, "min")
    assert math.isnan(comparison.mean) and comparison.seeds == () and comparison.interval is None


def test_the_same_runs_are_no_difference_at_all():
    comparison = compare_two([0.1, 0.2, 0.3], [0.1, 0.2, 0.3 + 1e-9])
    assert comparison.p == 1.0 and comparison.interval == pytest.approx((0.0, 0.0), abs=1e-6)
    assert comparison.verdict == "cannot be told apart" and comparison.seeds_needed is None


def test_equal_differences_are_judged_by_their_signs_alone():
    """Two accuracies of 100 images easily differ by the same: a t-test would be sure of it."""
    few = compare_two(np.float32([0.97, 0.95]), np.float32([0.98, 0.96]), "max")
    assert few.p == 0.5 and few.interval is few.seeds_needed is None and few.verdict == "cannot be told apart"
    many = compare_two([0.0] * 6, [1.0] * 6, "max")
    assert many.p == 2 / 64 and many.verdict == "better"


def test_intervals_hold_the_true_difference_in_95_percent_of_comparisons():
    runs, truth = 1000, 0.3
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(runs):
        first = generator.normal(size=5)
        low, high = compare_two(first, first + generator.normal(truth, 1.0, 5)).interval
        held += low <= truth <= high
    low, high = stats.binomtest(held, runs).proportion_ci(0.999)
    assert low < 1 - LEVEL < high

"""Numbers as the report writes them."""

import math

import pytest

from lightning_adabelief.comparison.report.numbers import (
    show,
    show_difference,
    show_difference_shortly,
    show_mean,
    show_p,
    show_seconds,
    show_seeds_needed,
    show_share,
    sign,
)
from lightning_adabelief.comparison.statistics import Comparison


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0213456, "0.02135"),
        (123456.7, "123,457"),
        (3e-7, "3e-7"),
        (0.0, "0"),
        (None, "-"),
        (math.nan, "-"),
        (1e9, "1e+9"),
    ],
)
def test_a_number_has_four_digits(value, text):
    assert show(value) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.9961, 0.9946, 0.9976], "0.9961 ± 0.0015"),
        ([5.0, 6.0], "5.50 ± 0.71"),
        ([32.0, 92.0], "62 ± 42"),
        ([12000.0, 13000.0], "12,500 ± 707"),
        ([2e-6, 4e-6], "3e-06 ± 1.41e-06"),
        ([0.5, 0.5], "0.5000 ± 0.0000"),
        ([0.5, 0.5 + 1e-9], "0.5000 ± 7e-10"),
        ([0.25], "0.25"),
        ([], "-"),
    ],
)
def test_a_mean_has_the_digits_that_its_spread_leaves(values, text):
    assert show_mean(values) == text


@pytest.mark.parametrize(
    ("mean", "interval", "text", "short"),
    [
        (-0.0031, (-0.0050, -0.0012), "-0.0031 (-0.0050 to -0.0012)", "-0.0031 ± 0.0019"),
        (0.5, (-12.0, 13.0), "0 (-12 to +13)", "0 ± 12"),
        (0.0, (0.0, 0.0), "0", "0"),
        (0.25, None, "+0.25", "+0.25"),
    ],
)
def test_a_difference_has_a_sign_and_its_interval(mean, interval, text, short):
    comparison = Comparison("adamw", (0, 1), (mean, mean), mean, interval)
    assert (show_difference(comparison), show_difference_shortly(comparison)) == (text, short)


def test_no_difference_is_a_dash():
    assert show_difference(Comparison("adamw", (), (), math.nan)) == "-"


def test_signs_stand_on_what_is_not_0():
    assert [sign(number) for number in ("0.1", "-0.1", "0.00", "1,234", "-")] == ["+0.1", "-0.1", "0.00", "+1,234", "-"]


def test_p_time_and_shares_have_few_digits():
    assert [show_p(p) for p in (0.0001, 0.0123, 0.456, 1.0, None)] == ["< 0.001", "0.012", "0.46", "1.00", "-"]
    assert [show_seconds(s) for s in (1.24, 33.3, 260, 9000, math.nan)] == ["1.2 s", "33 s", "4.3 min", "2.5 h", "-"]
    assert [show_share(share) for share in (0.063, math.nan)] == ["6 %", "-"]


def test_seeds_that_would_tell_are_a_number_or_very_many():
    needed = [None, 63.0, math.inf]
    shown = [show_seeds_needed(Comparison("adamw", (0, 1), (1.0, 2.0), 1.5, seeds_needed=seeds)) for seeds in needed]
    assert shown == ["-", "63", "> 1,000"]

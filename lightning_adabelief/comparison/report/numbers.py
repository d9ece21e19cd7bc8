"""Numbers as the report writes them: four significant digits, a spread beside a mean, a sign on a difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lightning_adabelief.comparison.statistics import MOST_SEEDS, Comparison

NOTHING = "-"
"""In the place of a number that there is not."""


def show(value: float | None) -> str:
    """Return a number with four significant digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e+")


def show_mean(values: Sequence[float]) -> str:
    """Return the mean and the standard deviation, as in ``0.0213 ± 0.0012``; of one value, the value."""
    if len(values) < 2:
        return show(values[0] if values else None)
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    write = _choose_writing(mean, spread)
    written = write(spread)
    return f"{write(mean)} ± {written if spread == 0 or float(written.replace(',', '')) else f'{spread:.0e}'}"


def choose_digits(comparison: Comparison) -> Callable[[float], str]:
    """Return how to write a difference and the ends of its interval: with as many digits as are known of it."""
    if comparison.interval is None or comparison.interval[0] == comparison.interval[1]:
        return show
    low, high = comparison.interval
    return _choose_writing(comparison.mean, (high - low) / 2)


def show_difference(comparison: Comparison) -> str:
    """Return the mean difference with its sign and its interval, as in ``-0.0031 (-0.0050 to -0.0012)``."""
    if not comparison.seeds:
        return NOTHING
    write = choose_digits(comparison)
    mean = sign(write(comparison.mean))
    if comparison.interval is None or comparison.interval[0] == comparison.interval[1]:
        return mean
    low, high = comparison.interval
    return f"{mean} ({sign(write(low))} to {sign(write(high))})"


def show_difference_shortly(comparison: Comparison) -> str:
    """Return the mean difference and half the width of its interval, as in ``-0.0031 ± 0.0019``."""
    if comparison.interval is None or comparison.interval[0] == comparison.interval[1]:
        return show_difference(comparison)
    low, high = comparison.interval
    write = choose_digits(comparison)
    return f"{sign(write(comparison.mean))} ± {write((high - low) / 2)}"


def show_seeds_needed(comparison: Comparison) -> str:
    """Return the number of seeds that would tell a difference of the observed size."""
    if comparison.seeds_needed is None:
        return NOTHING
    return f"{comparison.seeds_needed:.0f}" if math.isfinite(comparison.seeds_needed) else f"> {MOST_SEEDS:,}"


def show_p(p: float | None) -> str:
    """Return a p-value."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def show_seconds(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def show_share(share: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * share:.0f} %" if math.isfinite(share) else NOTHING


def sign(number: str) -> str:
    """Return a written number with a plus sign, unless it is negative or 0."""
    return number if number.startswith("-") or number == NOTHING or not float(number.replace(",", "")) else f"+{number}"


def _choose_writing(value: float, spread: float) -> Callable[[float], str]:
    """Return how to write a number and its spread: with two digits of the spread, but at most four of the number."""
    largest = max(abs(value), spread)
    if not 1e-4 <= largest < 1e7:
        return lambda number: f"{number:.3g}"
    decimals = 3 - math.floor(math.log10(largest))
    if spread > 0:
        decimals = min(decimals, 1 - math.floor(math.log10(spread)))
    return lambda number: f"{number:,.{max(decimals, 0)}f}"

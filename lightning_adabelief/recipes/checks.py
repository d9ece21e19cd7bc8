"""Checks of the numbers that recipes' networks are made with."""

from __future__ import annotations


def check_counts(**counts: int | None) -> None:
    """Check numbers that are counted from 1: widths, sizes, classes.

    Args:
        **counts: The numbers by their arguments' names; None is let through.

    Raises:
        ValueError: If one is less than 1.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"Invalid {name}: {count}. Give 1 or more")


def check_probability(name: str, value: float) -> None:
    """Check a probability.

    Raises:
        ValueError: If it is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"Invalid {name}: {value}. Give a probability in [0, 1]")

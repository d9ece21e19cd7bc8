"""The look of an optimizer in every picture: told apart by line and marker where colours can't be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Style(NamedTuple):
    """Colour of Okabe and Ito's palette for the colour-blind, line style and marker."""

    color: str
    linestyle: Any
    marker: str


STYLES = (
    Style("#D55E00", "-", "o"),
    Style("#0072B2", (0, (5, 1.5)), "s"),
    Style("#000000", (0, (1.2, 1.2)), "^"),
    Style("#009E73", (0, (6, 1.5, 1, 1.5)), "D"),
    Style("#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "v"),
    Style("#E69F00", (0, (9, 2)), "P"),
    Style("#56B4E9", (0, (2, 2)), "X"),
    Style("#7F7F7F", (0, (8, 1.5, 1, 1.5, 1, 1.5)), "*"),
)
"""AdaBelief's, Adam's and SGD's, and those of any others in turn."""

FIXED = {"adabelief": STYLES[0], "adam": STYLES[1], "sgd": STYLES[2]}


def choose_styles(optimizers: Sequence[str]) -> dict[str, Style]:
    """Give each optimizer a style: those of the paper always the same, others in the order given.

    Args:
        optimizers: Names, in any case.
    """
    rest = [style for style in STYLES if style not in [FIXED.get(name.lower()) for name in optimizers]]
    others = [name for name in optimizers if name.lower() not in FIXED]
    return {name: FIXED.get(name.lower()) or rest[others.index(name) % len(rest)] for name in optimizers}


def list_line_widths(count: int) -> list[float]:
    """Return widths that decrease, so that lines drawn on top of each other all show."""
    return [3.0 - 1.4 * i / max(count - 1, 1) for i in range(count)]

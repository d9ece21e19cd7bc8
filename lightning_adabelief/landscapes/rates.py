"""The choice of an optimizer's learning rate: from a grid around its own default, by one criterion for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_adabelief.landscapes.descent import Descents, descend, steps_to_stay_below
from lightning_adabelief.landscapes.functions import Landscape
from lightning_adabelief.landscapes.optimizers import Contender

RELATIVE_RATES = tuple(2.0**k for k in range(-10, 14))
"""The learning rates tried, as multiples of the optimizer's default."""

NEARBY_STARTS = 10
NEARBY_DISTANCE = 0.5
"""The number of starts nearby on which a rate is chosen, and of those on which it is then judged; and how far from
the given start they are at most, in x and in y."""


@dataclass(frozen=True)
class Outcome:
    """The result of an optimizer on a landscape, at the learning rate chosen for it.

    Attributes:
        landscape: The function.
        optimizer: The optimizer's name.
        lr: The learning rate.
        is_at_edge: True if it is the smallest or largest tried, so that one beyond might be better.
        points: The path, float64, of shape (steps + 1, 2).
        excess: Loss above the least one known; float64, of shape (steps + 1,).
        reached: The step from which on ``excess`` is within the tolerance; infinite if it isn't at the end.
        reached_nearby: The same from starts nearby on which the rate was not chosen; sorted.
    """

    landscape: Landscape
    optimizer: str
    lr: float
    is_at_edge: bool
    points: Tensor
    excess: Tensor
    reached: float
    reached_nearby: list[float]


def compare_on(
    landscape: Landscape,
    contenders: Sequence[Contender],
    steps: int,
    tolerance: float,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Choose each optimizer's learning rate on a landscape, and judge it.

    Args:
        landscape: The function.
        contenders: The optimizers.
        steps: The number of steps.
        tolerance: Loss to reach, above the least one known.
        seed: Of the starts nearby.
        on_step: Called for each optimizer after each step, for a progress bar.

    Returns:
        An outcome for each optimizer. The least loss of a function whose minimum isn't known is the least
        that any path found.
    """
    starts = draw_starts(landscape, seed)
    searches = [
        descend(landscape, contender, starts, list_rates(contender), steps, on_step) for contender in contenders
    ]
    least = _find_least_loss(landscape, searches)
    return [
        _judge(landscape, contender, search, search.losses - least, tolerance)
        for contender, search in zip(contenders, searches, strict=True)
    ]


def draw_starts(landscape: Landscape, seed: int) -> Tensor:
    """Return a landscape's start, then twice :data:`NEARBY_STARTS` around it; float64, of shape (starts, 2)."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(2 * NEARBY_STARTS, 2, dtype=torch.float64, generator=generator)
    start = torch.tensor([landscape.start], dtype=torch.float64)
    return torch.cat([start, start + (2 * uniform - 1) * NEARBY_DISTANCE])


def describe_criterion(contenders: Sequence[Contender], tolerance: float) -> str:
    """Return a sentence on where the learning rates come from."""
    if all(contender.lr is not None for contender in contenders):
        return "Learning rates as given."
    least, largest = min(RELATIVE_RATES), max(RELATIVE_RATES)
    given = " unless it was given" if any(contender.lr is not None for contender in contenders) else ""
    return (
        f"The learning rate of each optimizer{given} is the best of {len(RELATIVE_RATES)}, a factor of 2 apart, from "
        f"1/{1 / least:.0f} to {largest:.0f} times its default: that with which the loss is soonest within "
        f"{tolerance:g} of the least and stays there, by the median over {NEARBY_STARTS} starts nearby. "
        "(*: the smallest or largest tried.)"
    )


def list_rates(contender: Contender) -> list[float]:
    """List the learning rates to try: the given one, or those around the default."""
    if contender.lr is not None:
        return [contender.lr]
    return [contender.default_lr * multiple for multiple in RELATIVE_RATES]


def choose_rate(excess: Tensor, tolerance: float) -> int:
    """Choose the learning rate that is within the tolerance for good the soonest, by the median over starts.

    Where several are, or none is, it is the one among them of the least loss over the last tenth of the run.

    Args:
        excess: Loss above the least one known, of shape (steps + 1, rates, starts).
        tolerance: The largest that counts as reached.

    Returns:
        The rate's index.
    """
    reached = _median(steps_to_stay_below(excess, tolerance))
    last_tenth = _median(excess[-math.ceil(len(excess) / 10) :].mean(0))
    return min(range(len(reached)), key=lambda rate: (reached[rate], last_tenth[rate]))


def _judge(landscape: Landscape, contender: Contender, search: Descents, excess: Tensor, tolerance: float) -> Outcome:
    """Choose a learning rate on half of the starts nearby, and report the given start and the other half."""
    rates = list_rates(contender)
    chosen = choose_rate(excess[..., 1 : 1 + NEARBY_STARTS], tolerance)
    reached = steps_to_stay_below(excess[:, chosen], tolerance).tolist()
    return Outcome(
        landscape,
        contender.name,
        rates[chosen],
        is_at_edge=contender.lr is None and chosen in (0, len(rates) - 1),
        points=search.points[:, chosen, 0],
        excess=excess[:, chosen, 0],
        reached=reached[0],
        reached_nearby=sorted(reached[1 + NEARBY_STARTS :]),
    )


def _median(values: Tensor) -> list[float]:
    """Return medians over the last dimension; the upper one of two, which is finite only if most are."""
    return values.sort(-1).values[..., values.shape[-1] // 2].tolist()


def _find_least_loss(landscape: Landscape, searches: Sequence[Descents]) -> float:
    if landscape.minimum is not None:
        return float(landscape.losses(torch.tensor(landscape.minimum, dtype=torch.float64)))
    return min(float(search.losses.min()) for search in searches)

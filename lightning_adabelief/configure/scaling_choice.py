"""Choose between rectification and a warmup by the length of the run, and judge the user's own choice."""

from __future__ import annotations

from typing import NamedTuple

from lightning_adabelief.lightning_tree import rank_zero_info, rank_zero_warn
from lightning_adabelief.optim.scaling import WARN_BELOW_MEAN_FACTOR, mean_step_factor

RECTIFY_FROM_MEAN_FACTOR = 0.9
"""Rectification is chosen where it lets through this fraction of lr, or more, on average over the run."""

DEFAULT_WARMUP = 0.05
"""The warmup that is chosen in place of rectification, as a fraction of the run."""


class Scaling(NamedTuple):
    """The two options that scale the learning rate step by step."""

    rectify: bool
    warmup: int | float


def choose_scaling(
    rectify: bool | None, warmup: int | float | None, *, total_steps: int | None, beta2: float
) -> Scaling:
    """Fill in what the user left open of ``rectify`` and ``warmup``.

    Args:
        rectify: The user's choice; None where there is none.
        warmup: The user's choice; None where there is none.
        total_steps: Length of the run in optimizer steps; None where it is unknown.
        beta2: Decay rate of s_t, on which rectification depends.

    Returns:
        Both options. A warmup that is given takes the place of rectification, and rectification that is
        given, on or off, that of a warmup. With neither given, rectification where the run is long
        enough for it, otherwise a warmup of 5 %; the original's defaults, ``rectify=True`` and no
        warmup, where the length is unknown.
    """
    if rectify is not None:
        return Scaling(rectify, warmup or 0)
    if warmup:
        return Scaling(False, warmup)
    if total_steps is None or mean_step_factor(total_steps, beta2=beta2) >= RECTIFY_FROM_MEAN_FACTOR:
        return Scaling(True, 0)
    return Scaling(False, DEFAULT_WARMUP if warmup is None else 0)


def report_scaling(scaling: Scaling, *, chosen_by_user: bool, total_steps: int, beta2: float) -> None:
    """Log a choice that was made for the user; warn of one of the user's that takes more than half of lr.

    Args:
        scaling: Both options.
        chosen_by_user: True if the user gave one of them.
        total_steps: Length of the run in optimizer steps.
        beta2: Decay rate of s_t.
    """
    rectify, warmup = scaling
    factor = mean_step_factor(total_steps, beta2=beta2, rectify=rectify, warmup=warmup)
    options = f"rectify={rectify} and warmup={warmup}"
    if not chosen_by_user:
        rank_zero_info(
            f"AdaBelief: {options} chosen for a run of {total_steps:,} steps: {factor:.2f} of lr acts on average"
        )
    elif factor < WARN_BELOW_MEAN_FACTOR:
        rank_zero_warn(
            f"AdaBelief: {options} let only {factor:.2f} of lr act on average over {total_steps:,} steps. Give "
            f"rectify=False and warmup={DEFAULT_WARMUP}"
        )

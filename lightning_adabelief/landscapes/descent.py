"""Paths down a landscape: an optimizer's, with several learning rates, and from several starts with each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_adabelief.landscapes.functions import Landscape
from lightning_adabelief.landscapes.optimizers import Contender


@dataclass(frozen=True)
class Descents:
    """Paths of one optimizer.

    Attributes:
        points: Float64, of shape (steps + 1, rates, starts, 2).
        losses: Float64, of shape (steps + 1, rates, starts); infinite where they are no finite number.
    """

    points: Tensor
    losses: Tensor


def descend(
    landscape: Landscape,
    contender: Contender,
    starts: Tensor,
    rates: Sequence[float],
    steps: int,
    on_step: Callable[[], None] = lambda: None,
) -> Descents:
    """Go down a landscape from each start with each learning rate.

    The losses of all paths are computed at once. So are the steps of an elementwise optimizer from all starts;
    any other has an optimizer of its own for each path.

    Args:
        landscape: The function.
        contender: The optimizer.
        starts: Float64, of shape (starts, 2).
        rates: The learning rates.
        steps: The number of steps.
        on_step: Called after each step, for a progress bar.

    Returns:
        The paths, starts included.
    """
    blocks = [starts] if contender.is_elementwise else list(starts)
    params = [block.clone().requires_grad_() for _ in rates for block in blocks]
    rate_of_each = [rate for rate in rates for _ in blocks]
    optimizers = [contender.make([param], lr=rate) for param, rate in zip(params, rate_of_each, strict=True)]
    points = torch.empty(steps + 1, len(rates), len(starts), 2, dtype=torch.float64)
    losses = torch.empty(steps + 1, len(rates), len(starts), dtype=torch.float64)
    for step in range(steps + 1):
        now = torch.stack(params).view(points.shape[1:])
        loss = landscape.losses(now)
        points[step], losses[step] = now.detach(), loss.detach()
        if step == steps:
            break
        for param, gradient in zip(params, torch.autograd.grad(loss.sum(), params), strict=True):
            param.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
        on_step()
    return Descents(points, losses.where(torch.isfinite(losses), torch.inf))


def steps_to_stay_below(losses: Tensor, limit: float) -> Tensor:
    """Return the step from which on each path's loss is at most a limit.

    To touch the limit once does not count: a path may pass through a minimum at speed.

    Args:
        losses: Of shape (steps + 1, ...).
        limit: The largest loss that counts.

    Returns:
        Float64, of shape (...); infinite where the last loss is above the limit.
    """
    is_above = ~(losses <= limit)
    steps_since = is_above.flip(0).int().argmax(0)  # from the end of the run back to the last loss above the limit
    reached = torch.where(is_above.any(0), len(losses) - steps_since, 0).double()
    return reached.where(reached < len(losses), torch.inf)

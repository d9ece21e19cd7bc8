"""One weight in three regions of a loss curve, and the step that each optimizer takes there.

After figure 1 of the AdaBelief paper, which says in words what is computed here: an ideal step is large in a flat
valley (1), small where a steep valley is narrow (2), and large on a long even slope (3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_adabelief.landscapes.optimizers import Contender

VALLEY_HALF_WIDTH = 0.4
VALLEY_CURVATURE = 20.0
PLATEAU_SLOPE = -0.05
EVEN_SLOPE = 0.5
"""The curve: from the left a nearly flat plateau, a narrow valley with its bottom at 0, and a long even slope up."""

NOISE = 0.05
"""Standard deviation of a gradient around the curve's slope, as that of mini-batches; the same in all regions."""

STEPS = 200
MEASURED_STEPS = 100
"""The steps that an optimizer takes in a region, and over how many of the last ones its step size is averaged."""


@dataclass(frozen=True)
class Region:
    """A region of the curve.

    Attributes:
        title: What is special about it.
        weight: Where the weight is; in the valley it bounces between this place and its mirror image.
        ideal_step: The size of the step to the bottom of the valley.
    """

    title: str
    weight: float

    @property
    def ideal_step(self) -> float:
        """Distance from the bottom of the valley."""
        return abs(self.weight)


REGIONS = (
    Region("flat: small, noisy gradients", -4.0),
    Region("narrow valley: flipping gradients", 0.2),
    Region("even slope: large, steady gradients", 16.0),
)


@dataclass(frozen=True)
class Steps:
    """The sizes of an optimizer's steps.

    Attributes:
        optimizer: The optimizer's name.
        lr: The learning rate at which its steps are the ideal ones on average.
        relative: The step in each region at that learning rate, as a multiple of the ideal one; 0 where it takes none.
    """

    optimizer: str
    lr: float
    relative: list[float]


def find_slope(weight: Tensor) -> Tensor:
    """Return the slope of the curve, of the shape of ``weight``."""
    valley = VALLEY_CURVATURE * weight
    sides = torch.where(weight < 0, PLATEAU_SLOPE, EVEN_SLOPE)
    return torch.where(weight.abs() <= VALLEY_HALF_WIDTH, valley, sides)


def find_loss(weight: Tensor) -> Tensor:
    """Return the height of the curve above the bottom of its valley, of the shape of ``weight``."""
    inside = weight.abs().clamp(max=VALLEY_HALF_WIDTH)
    beyond = weight.abs() - inside
    sides = torch.where(weight < 0, -PLATEAU_SLOPE, EVEN_SLOPE)
    return VALLEY_CURVATURE * inside**2 / 2 + sides * beyond


def draw_gradients(region: Region, seed: int) -> Tensor:
    """Draw the gradients that a weight sees in a region; float64, of shape (STEPS,)."""
    weights = torch.full((STEPS,), region.weight, dtype=torch.float64)
    if region.ideal_step <= VALLEY_HALF_WIDTH:
        weights[::2] *= -1
    generator = torch.Generator().manual_seed(seed)
    return find_slope(weights) + NOISE * torch.randn(STEPS, dtype=torch.float64, generator=generator)


def measure_steps(contender: Contender, seed: int) -> Steps:
    """Measure an optimizer's steps in all regions.

    Its learning rate is the one at which the geometric mean of its steps, as multiples of the ideal ones, is 1.
    It is found from the steps at the default one, to which they are taken to be proportional.

    Args:
        contender: The optimizer.
        seed: Of the gradients' noise, the same for each optimizer.
    """
    ratios = [_measure_step(contender, draw_gradients(region, seed)) / region.ideal_step for region in REGIONS]
    logarithms = [math.log(ratio) for ratio in ratios if 0 < ratio < math.inf]
    mean = math.exp(sum(logarithms) / max(len(logarithms), 1))
    return Steps(contender.name, contender.default_lr / mean, [ratio / mean for ratio in ratios])


def measure_all_steps(contenders: Sequence[Contender], seed: int) -> list[Steps]:
    """Measure the steps of several optimizers, as :func:`measure_steps` does."""
    return [measure_steps(contender, seed) for contender in contenders]


def _measure_step(contender: Contender, gradients: Tensor) -> float:
    """Return the root mean square of an optimizer's last steps, given gradients of shape (steps,)."""
    param = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = contender.make([param], lr=contender.default_lr)
    places = [0.0]
    for gradient in gradients:
        param.grad = gradient.expand(2).clone()
        optimizer.step()
        places.append(param[0].item())
    steps = torch.tensor(places).diff()[-MEASURED_STEPS:]
    return float(steps.square().mean().sqrt())

"""Warmup and rectification: pure functions of the step.

Everything that multiplies the learning rate at step ``t`` is computed here, once, for every
implementation of the step and for the statistics of :mod:`lightning_adabelief.beliefs.elementwise`.

The step is a number or a tensor of steps. From a tensor comes a tensor, whose entries are the
results for each step, and nothing waits for the device. Such a tensor should be float64, because
1 - beta**t is a difference of nearly equal numbers.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = Any
"""A float; or, where the step, the learning rate or the betas are tensors, a tensor."""

RHO_TRACTABLE = 5.0
"""The least rho_t at which the variance of 1 / sqrt(s_t) is taken to be finite."""


def to_float64(scalars: Tensor) -> Tensor:
    """Convert scalars of the step to float64, or to float32 on a device that has no float64.

    Args:
        scalars: Steps, learning rates or betas; any shape.

    Returns:
        A tensor of that shape.
    """
    return scalars.to(torch.float32 if scalars.device.type == "mps" else torch.float64)


def replace_where(where: Tensor, value: Scalar, replacement: float) -> Tensor:
    """Return a scalar of the step as a tensor, replaced by a number where a condition holds.

    Args:
        where: The condition, a 0-dim tensor of a bool.
        value: A number, or a tensor of any shape.
        replacement: The number.

    Returns:
        A tensor on the device of ``where``, which is not waited for.
    """
    if not isinstance(value, Tensor):
        value = to_float64(torch.full_like(where, value, dtype=torch.float64))
    return value.to(where.device, non_blocking=True).masked_fill(where, replacement)


def convert_tensor_scalar(value: Scalar) -> Scalar:
    """Return a 1-element tensor in float64 and without dimensions, a number as it is."""
    return to_float64(value).squeeze() if isinstance(value, Tensor) else value


def is_fraction(warmup: float) -> bool:
    """True if a warmup is a fraction of the run rather than a number of steps."""
    return not isinstance(warmup, Integral) and warmup > 0


def warmup_steps(warmup: float, total_steps: int | None) -> float:
    """Return the length of the warmup in steps.

    Args:
        warmup: An int is a number of steps; a float in (0, 1) a fraction of ``total_steps``.
        total_steps: Length of the run in optimizer steps; needed only for a fraction.

    Returns:
        The number of steps, not rounded; 0 for no warmup.
    """
    if not is_fraction(warmup):
        return warmup
    assert total_steps is not None, "AdaBelief.step checks it"
    return warmup * total_steps


def warmup_factor(step: Scalar, warmup: float, total_steps: int | None = None) -> Scalar:
    """Return the factor by which the warmup lowers the learning rate at ``step``: ``min(1, t / warmup)``.

    Args:
        step: The step being taken, t = 1, 2, ...
        warmup: See :func:`warmup_steps`.
        total_steps: See :func:`warmup_steps`.

    Returns:
        A number in (0, 1].
    """
    steps = warmup_steps(warmup, total_steps)
    if steps <= 0:
        return 1.0
    fraction = step / steps
    return fraction.clamp(max=1.0) if isinstance(fraction, Tensor) else min(1.0, fraction)


def rectification(step: Scalar, beta2: Scalar) -> Scalar:
    r"""Return r_t, by which RAdam tames 1 / sqrt(s_t) while s_t is an average of few terms.

    .. math::
        \rho_\infty = \frac{2}{1-\beta_2} - 1, \quad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1-\beta_2^t}, \quad
        r_t = \sqrt{\frac{(\rho_t-4)(\rho_t-2)\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\rho_t}}

    Args:
        step: The step being taken, t = 1, 2, ...
        beta2: Decay rate of s_t, in [0, 1).

    Returns:
        r_t in (0, 1), or 0 where rho_t < 5: there the variance has no finite estimate, and the
        optimizer takes a step of SGD with momentum, or none (``degenerated_to_sgd``).

    Source: Liu et al., On the variance of the adaptive learning rate and beyond (ICLR 2020),
    algorithm 2; the bound 5 is that of ``adabelief-pytorch`` 0.2.1.
    """
    beta2_t = beta2**step
    rho_inf = 2 / (1 - beta2) - 1
    rho_t = rho_inf - 2 * step * beta2_t / (1 - beta2_t)
    if not isinstance(rho_t, Tensor):
        return _tractable_rectification(rho_t, rho_inf) if rho_t >= RHO_TRACTABLE else 0.0
    tractable = rho_t >= RHO_TRACTABLE
    rho_inf = rho_inf if isinstance(rho_inf, Tensor) else torch.full_like(rho_t, rho_inf)
    # torch.where computes and differentiates both branches: where rho_t is too small, the formula gets any
    # rho in its domain, so that neither r_t nor its gradient is NaN.
    rho_t, rho_inf = (torch.where(tractable, rho, 1 + RHO_TRACTABLE) for rho in (rho_t, rho_inf))
    return torch.where(tractable, _tractable_rectification(rho_t, rho_inf), 0.0)


def _tractable_rectification(rho_t: Scalar, rho_inf: Scalar) -> Scalar:
    # Ratios one after another, for the products of numbers near rho_inf lose digits.
    return _sqrt((rho_t - 4) / (rho_inf - 4) * (rho_t - 2) / rho_t * rho_inf / (rho_inf - 2))


def _sqrt(x: Scalar) -> Scalar:
    return x.sqrt() if isinstance(x, Tensor) else math.sqrt(x)


MAX_SAMPLED_STEPS = 100_000
"""The most steps of a run that :func:`mean_step_factor` looks at; a longer one is sampled evenly."""


WARN_BELOW_MEAN_FACTOR = 0.5
"""A user's warmup and rectification that let less than this fraction of lr act on average are warned of."""


def mean_step_factor(total_steps: int, *, beta2: float = 0.999, rectify: bool = True, warmup: int | float = 0) -> float:
    """Return the mean, over a run, of the factor by which warmup and rectification scale the learning rate.

    A step on which r_t is undefined counts as 0, though the optimizer may take one of SGD there.

    Args:
        total_steps: Length of the run in optimizer steps, 1 or more.
        beta2: Decay rate of s_t, in [0, 1).
        rectify: Multiply by r_t (:func:`rectification`).
        warmup: An int is a number of steps; a float in (0, 1) a fraction of ``total_steps``.

    Returns:
        A number in [0, 1]: 1.0 where neither scales a step.

    Example:
        >>> round(mean_step_factor(1000), 2)
        0.44
    """
    steps = torch.linspace(1, total_steps, min(total_steps, MAX_SAMPLED_STEPS), dtype=torch.float64)
    factor = torch.ones_like(steps) * warmup_factor(steps, warmup, total_steps)
    if rectify:
        factor = factor * rectification(steps, beta2)
    return factor.mean().item()


class StepScale(NamedTuple):
    """The scalars of one step: ``param -= step_size * exp_avg / (sqrt(s) * root_scale + eps)``.

    Attributes:
        lr: The learning rate in force, warmup included.
        bias_correction1: ``1 - beta1**t``, by which ``exp_avg`` is divided to correct its bias.
        step_size: The factor of ``exp_avg``; 0 in a step that is skipped.
        root_scale: The factor of ``sqrt(s)``. In a step of SGD with momentum, whose denominator is 1,
            it is ``None``, or 0 as an entry of a tensor.
    """

    lr: Scalar
    bias_correction1: Scalar
    step_size: Scalar
    root_scale: Scalar

    def zero_where(self, skip: Tensor) -> StepScale:
        """Return the scalars of a step that moves nothing where ``skip``, a 0-dim tensor of a bool, is True."""
        lr, step_size = replace_where(skip, self.lr, 0.0), replace_where(skip, self.step_size, 0.0)
        return StepScale(lr, self.bias_correction1, step_size, self.root_scale)  # torch 2.6 compiles no _replace


def step_scale(
    step: Scalar,
    *,
    lr: Scalar,
    betas: tuple[Scalar, Scalar],
    rectify: bool,
    degenerated_to_sgd: bool,
    warmup: int | float = 0,
    total_steps: int | None = None,
) -> StepScale:
    """Compute the scalars of step t = ``step``; the options are AdaBelief's.

    Args:
        step: A number, or a float64 tensor of any shape.
        lr: A number or, if ``step`` is a tensor, also a tensor of one element and no dimension.
        betas: Like ``lr``, each.
        rectify: See :class:`~lightning_adabelief.AdaBelief` for this and the remaining options.
        degenerated_to_sgd: Take a step of SGD while r_t is undefined, rather than none.
        warmup: Length of the linear warmup.
        total_steps: Length of the run.

    Returns:
        The :class:`StepScale`: plain numbers, or, for a tensor of steps, ``bias_correction1``,
        ``step_size`` and ``root_scale`` of its shape (``lr`` too if there is a warmup).
    """
    beta1, beta2 = betas
    lr = lr * warmup_factor(step, warmup, total_steps)
    bias_correction1 = 1 - beta1**step
    root_correction2 = _sqrt(1 - beta2**step)
    if not rectify:
        return StepScale(lr, bias_correction1, lr / bias_correction1, 1 / root_correction2)
    r_t = rectification(step, beta2)
    # The original adds eps to the uncorrected root, so the correction stands outside.
    rectified = lr * root_correction2 * r_t / bias_correction1
    unrectified = lr / bias_correction1 if degenerated_to_sgd else 0.0
    if isinstance(r_t, Tensor):
        adaptive = r_t > 0
        return StepScale(lr, bias_correction1, torch.where(adaptive, rectified, unrectified), adaptive.to(r_t.dtype))
    if r_t > 0:
        return StepScale(lr, bias_correction1, rectified, 1.0)
    return StepScale(lr, bias_correction1, unrectified, None)

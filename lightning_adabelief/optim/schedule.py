"""Warmup and rectification: pure functions of the step.

Everything that multiplies the learning rate at step ``t`` is worked out here, once, for every
path of the optimizer and for the statistics of :mod:`lightning_adabelief.optim.belief`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

RHO_TRACTABLE = 5.0
"""From this length of the approximated moving average on, the variance of 1 / sqrt(s_t) is finite."""


def warmup_steps(warmup: float, total_steps: int | None) -> float:
    """Length of the warmup in steps.

    Args:
        warmup: An int is a number of steps; a float in (0, 1) a share of ``total_steps``.
        total_steps: Length of the run in optimizer steps; needed only for a share.

    Returns:
        The number of steps, not rounded; 0 for no warmup.
    """
    if isinstance(warmup, int) or warmup == 0:
        return warmup
    assert total_steps is not None, "checked when the options were given"
    return warmup * total_steps


def warmup_factor(step: float, warmup: float, total_steps: int | None = None) -> float:
    """Share of the learning rate in force at ``step``: ``min(1, t / warmup)``.

    Args:
        step: The step being taken, t = 1, 2, ...
        warmup: See :func:`warmup_steps`.
        total_steps: See :func:`warmup_steps`.

    Returns:
        A number in (0, 1].
    """
    steps = warmup_steps(warmup, total_steps)
    return min(1.0, step / steps) if steps > 0 else 1.0


def rectification(step: float, beta2: float) -> float:
    r"""The factor r_t by which RAdam tames 1 / sqrt(s_t) while s_t is an average of few terms.

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
    if rho_t < RHO_TRACTABLE:
        return 0.0
    return math.sqrt((rho_t - 4) / (rho_inf - 4) * (rho_t - 2) / rho_t * rho_inf / (rho_inf - 2))


class StepScale(NamedTuple):
    """The scalars of one step: ``param -= step_size * exp_avg / (sqrt(s) * root_scale + eps)``.

    Attributes:
        lr: The learning rate in force, warmup included.
        bias_correction1: ``1 - beta1**t``; ``exp_avg`` over this is the corrected momentum.
        step_size: What multiplies ``exp_avg``; 0 where the step is skipped.
        root_scale: What multiplies ``sqrt(s)``; ``None`` where the denominator is 1, that is
            where the step is one of SGD with momentum.
    """

    lr: float
    bias_correction1: float
    step_size: float
    root_scale: float | None


def step_scale(
    step: float,
    *,
    lr: float,
    betas: tuple[float, float],
    rectify: bool,
    degenerated_to_sgd: bool,
    warmup: int | float = 0,
    total_steps: int | None = None,
) -> StepScale:
    """Work out the scalars of step t = ``step``; the options are AdaBelief's.

    Returns:
        The :class:`StepScale`, plain numbers.
    """
    beta1, beta2 = betas
    lr = lr * warmup_factor(step, warmup, total_steps)
    bias_correction1 = 1 - beta1**step
    root_correction2 = math.sqrt(1 - beta2**step)
    if not rectify:
        return StepScale(lr, bias_correction1, lr / bias_correction1, 1 / root_correction2)
    r_t = rectification(step, beta2)
    if r_t > 0:
        # The original adds eps to the uncorrected root, so the correction stands outside.
        return StepScale(lr, bias_correction1, lr * root_correction2 * r_t / bias_correction1, 1.0)
    return StepScale(lr, bias_correction1, lr / bias_correction1 if degenerated_to_sgd else 0.0, None)

r"""Beliefs weight by weight: pure functions of the state that AdaBelief already holds.

Each works in the dtype of the state. With :math:`\hat m_t = m_t/(1-\beta_1^t)` and
:math:`\hat s_t = s_t/(1-\beta_2^t)`, where t is the state's own step (the number of steps taken), the
update of a weight is the product of two of them:

.. math:: \theta_t = \theta_{t-1} - \text{effective\_step\_size} \cdot \hat m_t

(weight decay aside). :mod:`lightning_adabelief.beliefs.layers` condenses a layer to a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lightning_adabelief.optim.averages import unpack_average
from lightning_adabelief.optim.migrate import estimate_exp_avg_var
from lightning_adabelief.optim.options import SCALE_OPTIONS, as_number
from lightning_adabelief.optim.scaling import rectification, step_scale, warmup_factor
from lightning_adabelief.optim.shards import full_tensor

Number: TypeAlias = Any
"""A number, or a tensor that broadcasts with the tensor it is applied to."""


class BeliefScale(NamedTuple):
    """The scalars that all weights of a parameter share.

    Attributes:
        bias_correction1: 1 - beta1^t; m_t over this is the gradient's trend.
        bias_correction2: 1 - beta2^t; s_t over this is the belief.
        lr: lr_t, the learning rate of the step, warmup and rectification included; 0 in a skipped step.
        root_scale: Factor of the root of the uncorrected s_t in the denominator; 0 in a step of SGD.
        denominator_eps: Added to that; 1 in a step of SGD.
        accumulated_eps: The part of the corrected s_t that is eps: eps / (1 - beta2).
        noise_scale: Factor from s_t to the variance of the gradient: 1 / beta1, or beta1 with
            ``residual="previous"``.
        decay: Fraction of the weight that decoupled weight decay takes away in the step.
        largest_update: The most that the step may move a weight, decay aside; inf without a bound.
    """

    bias_correction1: Number
    bias_correction2: Number
    lr: Number
    root_scale: Number
    denominator_eps: Number
    accumulated_eps: Number
    noise_scale: Number
    decay: Number
    largest_update: Number


class WeightBeliefs(NamedTuple):
    """The bias-corrected averages of some weights.

    Attributes:
        trend: m_t / (1 - beta1^t), any shape.
        belief: s_t / (1 - beta2^t), like ``trend``.
        denominator_var: The uncorrected s_t that the step is divided by, like ``trend``; under amsgrad
            the largest so far.
        scale: The scalars of the step; tensors broadcast with ``trend``.
        square: v_t / (1 - beta2^t), of an Adam; None of an AdaBelief.
    """

    trend: Tensor
    belief: Tensor
    denominator_var: Tensor
    scale: BeliefScale
    square: Tensor | None = None


def belief_scale(state: dict[str, Any], group: dict[str, Any]) -> BeliefScale:
    """Return the scalars that all weights of a parameter share.

    Args:
        state: The parameter's state in the optimizer, at least one step old. Reading its step waits for
            the device where that is not the CPU.
        group: Its param group.

    Returns:
        Plain numbers.
    """
    step = float(state["step"])
    beta1, beta2 = (as_number(beta) for beta in group["betas"])
    options = {name: group[name] for name in SCALE_OPTIONS} | {"lr": as_number(group["lr"]), "betas": (beta1, beta2)}
    scale = step_scale(step, **options)
    is_sgd_step = scale.root_scale is None
    return BeliefScale(
        bias_correction1=scale.bias_correction1,
        bias_correction2=1 - beta2**step,
        lr=scale.step_size * scale.bias_correction1,
        root_scale=0.0 if is_sgd_step else scale.root_scale,
        denominator_eps=1.0 if is_sgd_step else group["eps"],
        accumulated_eps=group["eps"] / (1 - beta2),
        noise_scale=1 / beta1 if group["residual"] == "updated" else beta1,
        decay=_decay_fraction(group, scale.lr),
        largest_update=math.inf if group.get("max_update_to_lr") is None else group["max_update_to_lr"] * scale.lr,
    )


def acting_lr(group: dict[str, Any], step: float) -> float:
    """Return the learning rate that acts in a step: lr times warmup times rectification.

    Args:
        group: A param group.
        step: The step that its parameters are at, 1 or more.

    Returns:
        lr times warmup alone in a step of SGD, and 0 in a skipped step.
    """
    lr = as_number(group["lr"]) * warmup_factor(step, group["warmup"], group["total_steps"])
    r_t = rectification(step, as_number(group["betas"][1])) if group["rectify"] else 1.0
    return lr * (r_t or float(group["degenerated_to_sgd"]))


def _decay_fraction(group: dict[str, Any], lr: float) -> float:
    """Return the fraction of the weight that decoupled decay takes away at this learning rate, warmup included."""
    if not group["weight_decouple"]:
        return 0.0
    return group["weight_decay"] * (1.0 if group["fixed_decay"] else lr)


def step_denominators(roots: list[Tensor], scales: Sequence[BeliefScale]) -> list[Tensor]:
    """Turn the roots of s_t into the denominators of the step: sqrt(s_t) + eps, both bias-corrected.

    Args:
        roots: The roots of the uncorrected s_t that the step is divided by, any shapes; overwritten.
        scales: The scalars of each.

    Returns:
        ``roots``.
    """
    if any(isinstance(scale.root_scale, Tensor) or scale.root_scale != 1 for scale in scales):
        torch._foreach_mul_(roots, [scale.root_scale for scale in scales])
    torch._foreach_add_(roots, [scale.denominator_eps for scale in scales])
    return roots


def effective_step_size(weights: WeightBeliefs) -> Tensor:
    """Return lr_t / (sqrt(s_t) + eps): how far each weight moves for a unit of bias-corrected momentum.

    It is lr_t alone in a step of SGD, and 0 in a skipped step. ``max_update_to_lr`` bounds what follows from it.

    Args:
        weights: The averages, any shape.

    Returns:
        A tensor of that shape, >= 0, in weights per unit of gradient.
    """
    (denominator,) = step_denominators([weights.denominator_var.sqrt()], [weights.scale])
    return weights.scale.lr / denominator


def step_gain_over_adam(weights: WeightBeliefs) -> Tensor:
    r"""Return sqrt(v_t / s_t): how much further than Adam's each weight's step is, at the same learning rate.

    s_t averages the square of g_t - m_t, which is beta1 (g_t - m_{t-1}), so on stationary gradients

    .. math:: E[g^2] = s / \beta_1 + m^2, \qquad \text{or } \beta_1 s + m^2 \text{ with residual="previous"},

    with s less its accumulated eps, stands for Adam's v_t. On pure noise the gain is sqrt((1 + beta1) / 2) / beta1:
    1.083 at beta1 = 0.9, 1.73 at 0.5. It is large where the gradient is large against its own scatter: region 3
    of the paper's figure 1. From an Adam's state v_t is known, and s_t is estimated.

    Args:
        weights: The averages, any shape.

    Returns:
        A tensor of that shape, >= 0; NaN where there has been no gradient, inf where s_t alone is 0.
    """
    square = square_gain_over_adam(weights)
    return square.where(square != 0, torch.nan).sqrt()


def square_gain_over_adam(weights: WeightBeliefs) -> Tensor:
    """Return v_t / s_t, the square of :func:`step_gain_over_adam`, but near 0 where there has been no gradient.

    Args:
        weights: The averages, any shape.
    """
    if weights.square is None:
        noise = weights.scale.noise_scale * (1 - eps_share(weights))
        # in this order, because m^2 underflows long before m becomes negligible
        return noise + weights.trend / weights.belief * weights.trend
    return weights.square / weights.belief


def eps_share(weights: WeightBeliefs) -> Tensor:
    """Return the fraction of each s_t that is accumulated eps rather than disagreement.

    eps is added into s_t at each step; bias-corrected, eps / (1 - beta2) has accumulated. Near 1 every
    weight has the same denominator: AdaBelief is running as SGD with momentum.

    Args:
        weights: The averages, any shape; eps is assumed to have been the same all along.

    Returns:
        A tensor of that shape, in [0, 1]; 0 for eps = 0.
    """
    smallest = torch.finfo(weights.belief.dtype).tiny  # in the place of 0, for 0 / 0
    return (weights.scale.accumulated_eps / weights.belief.clamp(min=smallest)).clamp(max=1)


def weight_beliefs(param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> WeightBeliefs:
    """Return the averages of one parameter, bias-corrected.

    Args:
        param: The parameter, any shape; a complex one is taken as pairs of real numbers.
        state: Its state in the optimizer, at least one step old.
        group: Its param group.

    Returns:
        Real tensors of one shape, and plain numbers.
    """
    exp_avg, exp_avg_var, denominator_var = moments(param, state, group)
    scale = belief_scale(state, group)
    square = read_square(param, state)
    return WeightBeliefs(
        exp_avg / scale.bias_correction1,
        exp_avg_var / scale.bias_correction2,
        denominator_var,
        scale,
        None if square is None else square / scale.bias_correction2,
    )


def read_square(param: Tensor, state: dict[str, Any]) -> Tensor | None:
    """Return v_t of a parameter whose state is an Adam's, uncorrected; None for an AdaBelief's.

    Args:
        param: The parameter; a complex one is taken as pairs of real numbers.
        state: Its state, as :func:`lightning_adabelief.beliefs.reading.read_state` returns it.
    """
    if "exp_avg_sq" not in state:
        return None
    square = full_tensor(state["exp_avg_sq"])
    return torch.view_as_real(square) if torch.is_complex(param) else square


def moments(param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the running averages of one parameter.

    Args:
        param: The parameter, any shape; a complex one is taken as pairs of real numbers.
        state: Its state in the optimizer; an Adam's, as :func:`lightning_adabelief.beliefs.reading.read_state`
            returns it.
        group: Its param group.

    Returns:
        m_t, s_t, and the s_t that the step is divided by, which under amsgrad is the largest so far.
        They are uncorrected, real and of one shape. A sharded parameter's are gathered, for which
        every rank must call.
    """
    if "exp_avg_var" not in state:
        averages = state["exp_avg"], state["exp_avg_sq"]
        state = {
            **state,
            "exp_avg_var": estimate_exp_avg_var(*averages, float(state["step"]), group["betas"], "updated"),
        }
    names = ("exp_avg", "exp_avg_var", "max_exp_avg_var" if group["amsgrad"] else "exp_avg_var")
    found = {}
    for name in dict.fromkeys(names):
        value = full_tensor(unpack_average(state[name], param, name))
        found[name] = torch.view_as_real(value) if torch.is_complex(param) else value
    return found[names[0]], found[names[1]], found[names[2]]

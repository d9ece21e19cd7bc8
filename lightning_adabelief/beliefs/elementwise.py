r"""What the optimizer believes: pure functions of the state that AdaBelief holds already.

Each is elementwise, in the dtype of the state. With :math:`\hat m_t = m_t/(1-\beta_1^t)` and
:math:`\hat s_t = s_t/(1-\beta_2^t)`, where t is the state's own step, the number of steps taken, the
update of a weight is the product of two of them:

.. math:: \theta_t = \theta_{t-1} - \text{effective\_step\_size} \cdot \hat m_t

(up to weight decay, which is no belief). :mod:`lightning_adabelief.beliefs.layers` condenses a
layer to numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_adabelief.optim.options import SCALE_OPTIONS, as_number
from lightning_adabelief.optim.scaling import step_scale

Number = float | Tensor
"""A number, or a tensor that broadcasts with what it is used on."""


class BeliefScale(NamedTuple):
    """What all weights of a parameter share.

    Attributes:
        bias_correction1: 1 - beta1^t: m_t over this is the gradient's trend.
        bias_correction2: 1 - beta2^t: s_t over this is the belief.
        lr: lr_t, the learning rate of the step: warmup and rectification included; 0 in a step not taken.
        root_scale: What multiplies the root of the uncorrected s_t in the denominator; 0 in a step of SGD.
        denominator_eps: What is added to that; 1 in a step of SGD.
        accumulated_eps: The part of the corrected s_t that is eps: eps / (1 - beta2).
    """

    bias_correction1: Number
    bias_correction2: Number
    lr: Number
    root_scale: Number
    denominator_eps: Number
    accumulated_eps: Number


def belief_scale(state: dict[str, Any], group: dict[str, Any]) -> BeliefScale:
    """Work out what all weights of a parameter share.

    Args:
        state: The parameter's state in the optimizer, at least one step old; reading its step
            waits for the device where that is not the CPU.
        group: Its param group.

    Returns:
        Plain numbers.
    """
    step = float(state["step"])
    beta1, beta2 = (as_number(beta) for beta in group["betas"])
    options = {name: group[name] for name in SCALE_OPTIONS} | {"lr": as_number(group["lr"]), "betas": (beta1, beta2)}
    scale = step_scale(step, **options)
    sgd = scale.root_scale is None
    return BeliefScale(
        bias_correction1=scale.bias_correction1,
        bias_correction2=1 - beta2**step,
        lr=scale.step_size * scale.bias_correction1,
        root_scale=0.0 if sgd else scale.root_scale,
        denominator_eps=1.0 if sgd else group["eps"],
        accumulated_eps=group["eps"] / (1 - beta2),
    )


def effective_step_size(denominator_var: Tensor, scale: BeliefScale) -> Tensor:
    """How far each weight moves for a unit of bias-corrected momentum: lr_t / (sqrt(s_t) + eps).

    lr_t alone in a step of SGD, 0 in a step not taken.

    Args:
        denominator_var: s_t, or the largest s_t so far under amsgrad, uncorrected; any shape.
        scale: What its weights share.

    Returns:
        A tensor like ``denominator_var``, >= 0, in weights per unit of gradient.
    """
    return scale.lr / (denominator_var.sqrt() * scale.root_scale + scale.denominator_eps)


def step_gain_over_adam(trend: Tensor, belief: Tensor) -> Tensor:
    """How much further than Adam's each weight's step is: sqrt(s_t + m_t^2) / sqrt(s_t).

    E[g^2] = Var[g] + E[g]^2, so s_t + m_t^2, both bias-corrected, stands for Adam's v_t. Large
    where the gradient is large against its own scatter: region 3 of the paper's figure 1.

    Args:
        trend: The bias-corrected m_t, any shape.
        belief: The bias-corrected s_t, like ``trend``.

    Returns:
        A tensor like ``trend``, >= 1; 1 where both are 0, inf where the belief alone is.
    """
    # hypot, for m^2 underflows long before m matters no more
    gain = torch.hypot(belief.sqrt(), trend) / belief.sqrt()
    return gain.where((belief != 0) | (trend != 0), 1.0)


def eps_share(belief: Tensor, scale: BeliefScale) -> Tensor:
    """The share of each s_t that is accumulated eps rather than disagreement.

    eps is added into s_t at each step; bias-corrected, what has accumulated is eps / (1 - beta2).
    Near 1 every weight has the same denominator: AdaBelief is running as SGD with momentum.

    Args:
        belief: The bias-corrected s_t, any shape.
        scale: What its weights share; eps is taken to have been the same all along.

    Returns:
        A tensor like ``belief``, in [0, 1]; 0 for eps = 0.
    """
    return (scale.accumulated_eps / belief).clamp(max=1).where(belief != 0, 0.0)


def elementwise(param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> dict[str, Tensor]:
    """The beliefs about one parameter, weight by weight.

    Args:
        param: The parameter, any shape; a complex one is taken as pairs of real numbers.
        state: Its state in the optimizer, at least one step old.
        group: Its param group.

    Returns:
        Real tensors of one shape: ``s_t``, ``effective_step_size``, ``step_gain_over_adam``,
        ``eps_share``, and ``update``, which is the step last taken without the weight decay.
    """
    exp_avg, exp_avg_var, denominator_var = moments(param, state, group)
    scale = belief_scale(state, group)
    trend, belief = exp_avg / scale.bias_correction1, exp_avg_var / scale.bias_correction2
    size = effective_step_size(denominator_var, scale)
    return {
        "s_t": belief,
        "effective_step_size": size,
        "step_gain_over_adam": step_gain_over_adam(trend, belief),
        "eps_share": eps_share(belief, scale),
        "update": size * trend,
    }


def moments(param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """The running averages of one parameter.

    Args:
        param: The parameter, any shape; a complex one is taken as pairs of real numbers.
        state: Its state in the optimizer.
        group: Its param group.

    Returns:
        m_t, s_t, and the s_t that the step is divided by, which under amsgrad is the largest so
        far; uncorrected, real, of one shape, and whole where the parameter is sharded (then every
        rank must call).
    """
    names = ("exp_avg", "exp_avg_var", "max_exp_avg_var" if group["amsgrad"] else "exp_avg_var")
    found = {}
    for name in dict.fromkeys(names):
        value = whole(state[name])
        found[name] = torch.view_as_real(value) if torch.is_complex(param) else value
    return found[names[0]], found[names[1]], found[names[2]]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded: a DTensor is gathered, for which every rank must call."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

r"""The AdaBelief rule for one tensor, in the paper's symbols. Read this file first.

At step t, with gradient g_t, momentum m_t and belief s_t, both 0 at the start:

.. math::
    \begin{aligned}
    d_t &= g_t - m_{t-1}                                  &&\text{disagreement with the trend} \\
    m_t &= m_{t-1} + (1-\beta_1)\, d_t                    &&= \beta_1 m_{t-1} + (1-\beta_1) g_t \\
    s_t &= \beta_2 s_{t-1} + (1-\beta_2)(g_t-m_t)^2 + \epsilon \\
    \hat m_t &= m_t / (1-\beta_1^t), \quad \hat s_t = s_t / (1-\beta_2^t) \\
    \theta_t &= \theta_{t-1} - \alpha_t\, \hat m_t / (\sqrt{\hat s_t} + \epsilon)
    \end{aligned}

Since g_t - m_t = beta1 * d_t, the residual of s_t is a multiple of d_t: one subtraction serves both
averages. eps is added into s_t and stays there: bias-corrected, eps / (1 - beta2) accumulates,
which is the floor of s_t. alpha_t is lr times warmup, and with
``rectify`` times r_t (:mod:`lightning_adabelief.optim.scaling`).

Source: Zhuang et al., AdaBelief Optimizer (NeurIPS 2020), algorithm 2; the order of the weight
decay and the places of eps are those of ``adabelief-pytorch`` 0.2.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adabelief.optim.averages import is_coded, read_average, write_average
from lightning_adabelief.optim.low_precision import MISSING_BITS, read_master, write_master
from lightning_adabelief.optim.packing import MAXIMUM, MOMENTUM, VARIANCE
from lightning_adabelief.optim.scaling import Scalar, StepScale, replace_where


def residual_scale(residual: str, beta1: Scalar) -> Scalar:
    """Return the factor by which d_t = g_t - m_{t-1} becomes the residual that s_t averages.

    Args:
        residual: ``"updated"`` for g_t - m_t (the paper), ``"previous"`` for g_t - m_{t-1}.
        beta1: Decay rate of m_t.

    Returns:
        ``beta1`` or 1.
    """
    return beta1 if residual == "updated" else 1.0


def single_tensor_adabelief(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_var: Tensor,
    max_exp_avg_var: Tensor | None,
    correction: Tensor | None,
    correction_low: Tensor | None,
    scale: StepScale,
    *,
    betas: tuple[Scalar, Scalar],
    eps: float,
    weight_decay: float,
    weight_decouple: bool,
    fixed_decay: bool,
    residual: str,
    maximize: bool,
    max_update_to_lr: float | None = None,
    differentiable: bool = False,
    skip: Tensor | None = None,
    rounding_key: Scalar = 0,
) -> None:
    """Take one step on one tensor, in place on ``param`` and its state.

    Args:
        param: theta, any shape. A complex tensor is taken as pairs of real numbers, one of 16 bits with its
            ``correction`` (:mod:`lightning_adabelief.optim.low_precision`).
        grad: g_t, of the shape of ``param``; left as it is.
        exp_avg: m_t, of the shape of ``param``. All arithmetic is in its dtype, float32 for a parameter of
            16 bits. Or m_t in 16 or 8 bits (:mod:`lightning_adabelief.optim.averages`), and the other averages too.
        exp_avg_var: s_t, like ``exp_avg``.
        max_exp_avg_var: The largest s_t so far, like ``exp_avg``; ``None`` without amsgrad.
        correction: That of a parameter of 16 bits; ``None`` for none.
        correction_low: Its last 8 bits; ``None`` for none.
        scale: The scalars of the step; its tensors have no dimension.
        betas: (beta1, beta2). See :class:`~lightning_adabelief.AdaBelief` for the options.
        eps: Added into s_t and to its root.
        weight_decay: Coefficient of the weight decay.
        weight_decouple: Decay the weight rather than the gradient.
        fixed_decay: Do not multiply the decoupled decay by lr.
        residual: ``"updated"`` or ``"previous"``.
        maximize: Ascend.
        max_update_to_lr: The most that a weight moves, decay aside, in multiples of lr; ``None`` for no bound.
        differentiable: Let autograd go through the step.
        skip: A bool in a 0-dim tensor, if it is not known here whether the step is skipped: if True, nothing
            changes. ``scale`` has its scalars in tensors then.
        rounding_key: The key of the step's stochastic rounding, where there is some.
    """
    beta1, beta2 = betas
    s_decay: Scalar = beta2
    s_addend: Scalar = eps
    if skip is not None:
        scale = scale.zero_where(skip)
        s_decay, s_addend = replace_where(skip, beta2, 1.0), replace_where(skip, eps, 0.0)
    if torch.is_complex(param):
        grad = grad.resolve_conj()  # of a lazily conjugated tensor there is no real view
        param, grad, exp_avg, exp_avg_var = map(torch.view_as_real, (param, grad, exp_avg, exp_avg_var))
        max_exp_avg_var = None if max_exp_avg_var is None else torch.view_as_real(max_exp_avg_var)

    is_narrow = param.dtype in MISSING_BITS
    theta = read_master(param, correction, correction_low) if is_narrow else param
    m, s = read_average(exp_avg, param.shape, MOMENTUM), read_average(exp_avg_var, param.shape, VARIANCE)
    s_max = None if max_exp_avg_var is None else read_average(max_exp_avg_var, param.shape, MAXIMUM)
    has_coded_state = is_coded(exp_avg)
    g = grad if grad.dtype == m.dtype else grad.to(m.dtype)
    if differentiable:  # autograd keeps these tensors, and the next step would overwrite them
        theta, m, s = theta.clone(), m.clone(), s.clone()
    if maximize:
        g = -g
    if weight_decay != 0:
        if weight_decouple:
            theta.mul_(1 - decoupled_decay(scale.lr, weight_decay, fixed_decay))
        else:
            g = g.add(theta, alpha=weight_decay)

    d = g - m if skip is None else (g - m).masked_fill(skip, 0.0)
    _add_multiple(m, d, 1 - beta1)
    c = residual_scale(residual, beta1)
    _add_square_multiple(_decay(s, s_decay), d, (1 - beta2) * c * c).add_(s_addend)
    if s_max is not None:
        candidate = s if skip is None else s.masked_fill(skip, 0.0)
        if differentiable:
            s_max = s_max.clone().maximum(candidate)
        elif has_coded_state:  # torch.compile breaks its graph at an ``out`` that it made itself
            s_max = s_max.maximum(candidate)
        else:
            torch.maximum(s_max, candidate, out=s_max)

    s_hat = s if s_max is None else s_max
    bound = None if max_update_to_lr is None else largest_update(scale.lr, max_update_to_lr, m.device)
    if isinstance(scale.step_size, Tensor):
        # An infinite s_t times a root_scale of 0, and an infinite m_t times a step_size of 0, would be NaN.
        scaled_root = s_hat.sqrt().mul(scale.root_scale).masked_fill(scale.root_scale == 0, 0.0)
        update = (m / scaled_root.add(denominator_shift(scale, eps))).mul(scale.step_size)
        update = update.masked_fill(scale.step_size == 0, 0.0)
        theta.sub_(update if bound is None else update.clamp(-bound, bound))
    elif scale.step_size == 0:
        pass
    elif bound is not None:
        denominator = 1.0 if scale.root_scale is None else s_hat.sqrt().mul_(scale.root_scale).add_(eps)
        theta.sub_((m / denominator).mul_(scale.step_size).clamp_(-bound, bound))
    elif scale.root_scale is not None:
        theta.addcdiv_(m, s_hat.sqrt().mul_(scale.root_scale).add_(eps), value=-scale.step_size)
    else:
        theta.add_(m, alpha=-scale.step_size)

    if is_narrow:
        write_master(param, correction, correction_low, theta, rounding_key)
    elif theta is not param:  # it ran on copies (differentiable)
        param.copy_(theta)
    averages = (MOMENTUM, exp_avg, m), (VARIANCE, exp_avg_var, s), (MAXIMUM, max_exp_avg_var, s_max)
    for name, stored, value in averages:
        if stored is None or value is None or stored is value:
            continue
        if has_coded_state:
            write_average(value, stored, name, rounding_key, skip)
        else:
            stored.copy_(value)


def decoupled_decay(lr: Scalar, weight_decay: float, fixed_decay: bool) -> Scalar:
    """Return the fraction of a weight that decoupled decay takes from it in a step.

    Args:
        lr: The learning rate in force.
        weight_decay: Coefficient of the weight decay.
        fixed_decay: Do not multiply it by lr.

    Returns:
        A number, or a tensor where ``lr`` is one. It is 0 at lr 0, for a fixed decay too: a step at lr 0
        moves nothing. (torch.distributed.checkpoint takes one, to make the state that it then loads.)
    """
    if not fixed_decay:
        return lr * weight_decay
    if isinstance(lr, Tensor):
        return torch.full_like(lr, weight_decay).where(lr != 0, 0.0)
    return weight_decay if lr != 0 else 0.0


def largest_update(lr: Scalar, max_update_to_lr: float, device: torch.device) -> Scalar:
    """Return the most that a step may move a weight, decay aside.

    Args:
        lr: The learning rate in force.
        max_update_to_lr: The bound in multiples of lr.
        device: The parameters' device.

    Returns:
        A number, or a tensor like ``lr`` on the device.
    """
    return max_update_to_lr * (lr.to(device) if isinstance(lr, Tensor) else lr)


def denominator_shift(scale: StepScale, eps: float) -> Tensor:
    """Return the number added to sqrt(s) * root_scale: eps, or 1 in a step of SGD, whose root_scale is 0.

    Args:
        scale: The scalars of a step in tensors.
        eps: The optimizer's eps.

    Returns:
        A tensor like ``scale.root_scale``.
    """
    return torch.full_like(scale.root_scale, eps).where(scale.root_scale > 0, 1.0)


def _decay(s: Tensor, beta2: Scalar) -> Tensor:
    """Multiply s_t by beta2 in place; by 0 an infinite one too, which would else be NaN ever after."""
    if isinstance(beta2, Tensor):
        return s.mul_(beta2).masked_fill_(beta2 == 0, 0.0)
    return s.mul_(beta2) if beta2 != 0 else s.zero_()


def _add_multiple(total: Tensor, value: Tensor, weight: Scalar) -> Tensor:
    """Add ``weight * value`` in place; the weight may be a tensor, which ``alpha`` may not."""
    if isinstance(weight, Tensor):
        return total.add_(value * weight)
    return total.add_(value, alpha=weight)


def _add_square_multiple(total: Tensor, value: Tensor, weight: Scalar) -> Tensor:
    """Add ``weight * value**2`` in place; the weight may be a tensor."""
    if isinstance(weight, Tensor):
        return total.addcmul_(value, value * weight)
    return total.addcmul_(value, value, value=weight)

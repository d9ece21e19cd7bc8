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

Since g_t - m_t = beta1 * d_t, the residual of s_t is d_t scaled: one subtraction serves both
averages. eps is added into s_t and stays there, so s_t never falls below about
eps / (1 - beta2) once bias-corrected: that is its floor. alpha_t is lr times warmup, and with
``rectify`` times r_t (:mod:`lightning_adabelief.optim.schedule`).

Source: Zhuang et al., AdaBelief Optimizer (NeurIPS 2020), algorithm 2; the order of the weight
decay and the places of eps are those of ``adabelief-pytorch`` 0.2.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adabelief.optim.schedule import step_scale


def residual_scale(residual: str, beta1: float) -> float:
    """What turns d_t = g_t - m_{t-1} into the residual that s_t averages.

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
    step: float,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    weight_decouple: bool,
    fixed_decay: bool,
    rectify: bool,
    degenerated_to_sgd: bool,
    warmup: float,
    total_steps: int | None,
    residual: str,
    maximize: bool,
) -> None:
    """Take step t = ``step`` on one tensor, in place on ``param`` and its state.

    Args:
        param: theta, any shape. A complex tensor is taken as pairs of real numbers.
        grad: g_t, of the shape of ``param``; left as it is.
        exp_avg: m_t, of the shape of ``param``. The arithmetic runs in its dtype, which may be
            wider than the parameter's.
        exp_avg_var: s_t, like ``exp_avg``.
        max_exp_avg_var: The largest s_t so far, like ``exp_avg``; ``None`` without amsgrad.
        step: t = 1, 2, ...
        lr: See :class:`~lightning_adabelief.AdaBelief` for this and the remaining options.
        betas: (beta1, beta2).
        eps: Added into s_t and to its root.
        weight_decay: Coefficient of the weight decay.
        weight_decouple: Decay the weight rather than the gradient.
        fixed_decay: Do not multiply the decoupled decay by lr.
        rectify: Multiply by r_t, as RAdam does.
        degenerated_to_sgd: Step with SGD where r_t is undefined.
        warmup: Length of the linear warmup.
        total_steps: Length of the run.
        residual: ``"updated"`` or ``"previous"``.
        maximize: Ascend.
    """
    beta1, beta2 = betas
    scale = step_scale(
        step,
        lr=lr,
        betas=betas,
        rectify=rectify,
        degenerated_to_sgd=degenerated_to_sgd,
        warmup=warmup,
        total_steps=total_steps,
    )
    if torch.is_complex(param):
        param, grad, exp_avg, exp_avg_var = map(torch.view_as_real, (param, grad, exp_avg, exp_avg_var))
        max_exp_avg_var = None if max_exp_avg_var is None else torch.view_as_real(max_exp_avg_var)

    theta, g, m, s = param.to(exp_avg.dtype), grad.to(exp_avg.dtype), exp_avg, exp_avg_var
    if maximize:
        g = -g
    if weight_decay != 0:
        if weight_decouple:
            theta.mul_(1 - (weight_decay if fixed_decay else scale.lr * weight_decay))
        else:
            g = g.add(theta, alpha=weight_decay)

    d = g - m
    m.add_(d, alpha=1 - beta1)
    c = residual_scale(residual, beta1)
    s.mul_(beta2).addcmul_(d, d, value=(1 - beta2) * c * c).add_(eps)
    if max_exp_avg_var is not None:
        s = torch.maximum(max_exp_avg_var, s, out=max_exp_avg_var)

    if scale.root_scale is not None:
        theta.addcdiv_(m, s.sqrt().mul_(scale.root_scale).add_(eps), value=-scale.step_size)
    elif scale.step_size != 0:
        theta.add_(m, alpha=-scale.step_size)
    if theta.dtype != param.dtype:
        param.copy_(theta)

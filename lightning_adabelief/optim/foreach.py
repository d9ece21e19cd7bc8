"""The rule of :mod:`lightning_adabelief.optim.rule` over lists of tensors, one kernel a list.

Besides the state it allocates one list as large as the parameters at a time: first the
disagreement ``d``, then the denominator.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.rule import residual_scale
from lightning_adabelief.optim.schedule import step_scale

TensorList = list[Tensor]


def _multi_tensor_adabelief(
    params: TensorList,
    grads: TensorList,
    exp_avgs: TensorList,
    exp_avg_vars: TensorList,
    max_exp_avg_vars: TensorList,
    steps: list[float],
    **options: Any,
) -> None:
    """Take one step on many tensors, in place.

    Args:
        params: Parameters of any shapes, dtypes and devices.
        grads: Their gradients; left as they are.
        exp_avgs: Their m_t.
        exp_avg_vars: Their s_t.
        max_exp_avg_vars: Their largest s_t so far; empty without amsgrad.
        steps: The step t each takes: tensors that got their first gradient later lag behind.
        **options: The options of :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief`.
    """
    # Tensors of one device, step and pair of dtypes share every scalar and every cast of the rule.
    alike: dict[tuple[torch.device, float, torch.dtype, torch.dtype], list[int]] = defaultdict(list)
    for i, (param, grad, step) in enumerate(zip(params, grads, steps, strict=True)):
        alike[param.device, step, param.dtype, grad.dtype].append(i)
    for (_, step, _, _), members in alike.items():
        _update(
            *([tensors[i] for i in members] for tensors in (params, grads, exp_avgs, exp_avg_vars)),
            max_exp_avg_vars=[max_exp_avg_vars[i] for i in members] if max_exp_avg_vars else [],
            step=step,
            **options,
        )


def _update(
    params: TensorList,
    grads: TensorList,
    exp_avgs: TensorList,
    exp_avg_vars: TensorList,
    *,
    max_exp_avg_vars: TensorList,
    step: float,
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
    """The rule for tensors of one device, dtype and step; line by line that of ``rule.py``."""
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
    if torch.is_complex(params[0]):
        params, grads, exp_avgs, exp_avg_vars, max_exp_avg_vars = (
            [torch.view_as_real(t) for t in tensors]
            for tensors in (params, grads, exp_avgs, exp_avg_vars, max_exp_avg_vars)
        )

    theta, g, m, s = _to(params, exp_avgs[0].dtype), _to(grads, exp_avgs[0].dtype), exp_avgs, exp_avg_vars
    if maximize:
        g = list(torch._foreach_neg(g))
    if weight_decay != 0:
        if weight_decouple:
            torch._foreach_mul_(theta, 1 - (weight_decay if fixed_decay else scale.lr * weight_decay))
        elif maximize:  # g is ours already
            torch._foreach_add_(g, theta, alpha=weight_decay)
        else:
            g = list(torch._foreach_add(g, theta, alpha=weight_decay))

    if g[0] is grads[0]:
        d = list(torch._foreach_sub(g, m))
    else:
        d = g
        torch._foreach_sub_(d, m)
    torch._foreach_add_(m, d, alpha=1 - beta1)
    c = residual_scale(residual, beta1)
    torch._foreach_mul_(s, beta2)
    torch._foreach_addcmul_(s, d, d, (1 - beta2) * c * c)
    torch._foreach_add_(s, eps)
    del g
    if max_exp_avg_vars:
        torch._foreach_maximum_(max_exp_avg_vars, s)
        s = max_exp_avg_vars

    if scale.root_scale is not None:
        if d[0].is_cpu:  # new memory costs more there than filling what is at hand
            torch._foreach_copy_(d, s)
            denominator = d
            torch._foreach_sqrt_(denominator)
        else:
            del d
            denominator = list(torch._foreach_sqrt(s))
        # m / (sqrt(s) * root_scale + eps), with one pass less
        torch._foreach_add_(denominator, eps / scale.root_scale)
        torch._foreach_addcdiv_(theta, m, denominator, -scale.step_size / scale.root_scale)
    elif scale.step_size != 0:
        torch._foreach_add_(theta, m, alpha=-scale.step_size)
    if theta[0].dtype != params[0].dtype:
        torch._foreach_copy_(params, theta)


def _to(tensors: TensorList, dtype: torch.dtype) -> TensorList:
    """The tensors in ``dtype``; the very same list where they have it already."""
    return tensors if tensors[0].dtype == dtype else [t.to(dtype) for t in tensors]

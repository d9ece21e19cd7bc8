"""The rule of :mod:`lightning_adabelief.optim.rule` over lists of tensors, one kernel a list.

Besides the state it allocates one list as large as the parameters at a time: first the
disagreement ``d``, then the denominator. With betas in tensors there is a second beside ``d``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.rule import denominator_shift, residual_scale
from lightning_adabelief.optim.scaling import Scalar, StepScale, step_scale, wide

TensorList = list[Tensor]


def _multi_tensor_adabelief(
    params: TensorList,
    grads: TensorList,
    exp_avgs: TensorList,
    exp_avg_vars: TensorList,
    max_exp_avg_vars: TensorList,
    steps: Sequence[Scalar],
    *,
    scale_options: dict[str, Any],
    **options: Any,
) -> None:
    """Take one step on many tensors, in place.

    Args:
        params: Parameters of any shapes, dtypes and devices.
        grads: Their gradients; left as they are.
        exp_avgs: Their m_t.
        exp_avg_vars: Their s_t.
        max_exp_avg_vars: Their largest s_t so far; empty without amsgrad.
        steps: The step t each takes, numbers or 0-dim tensors on the parameters' devices: tensors
            that got their first gradient later lag behind.
        scale_options: The options of :func:`~lightning_adabelief.optim.scaling.step_scale`.
        **options: The options of :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief`.
    """
    # Tensors of one device (or mesh of devices), pair of dtypes and step share every cast and scalar
    # of the rule. What a tensor of steps holds is not known here: there each has its own scalars.
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, (param, grad, step) in enumerate(zip(params, grads, steps, strict=True)):
        known = None if isinstance(step, Tensor) else step
        alike[param.device, getattr(param, "device_mesh", None), param.dtype, grad.dtype, known].append(i)
    for (*_, known), members in alike.items():
        step = known if known is not None else wide(torch.stack([steps[i] for i in members]))
        _update(
            *([tensors[i] for i in members] for tensors in (params, grads, exp_avgs, exp_avg_vars)),
            max_exp_avg_vars=[max_exp_avg_vars[i] for i in members] if max_exp_avg_vars else [],
            scale=step_scale(step, **scale_options),
            **options,
        )


def _update(
    params: TensorList,
    grads: TensorList,
    exp_avgs: TensorList,
    exp_avg_vars: TensorList,
    *,
    max_exp_avg_vars: TensorList,
    scale: StepScale,
    betas: tuple[Scalar, Scalar],
    eps: float,
    weight_decay: float,
    weight_decouple: bool,
    fixed_decay: bool,
    residual: str,
    maximize: bool,
) -> None:
    """The rule for tensors of one device and dtype; line by line that of ``rule.py``."""
    beta1, beta2 = betas
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
            torch._foreach_mul_(theta, _each(1 - (weight_decay if fixed_decay else scale.lr * weight_decay), theta))
        elif maximize:  # g is ours already
            torch._foreach_add_(g, theta, alpha=weight_decay)
        else:
            g = list(torch._foreach_add(g, theta, alpha=weight_decay))

    if g[0] is grads[0]:
        d = list(torch._foreach_sub(g, m))
    else:
        d = g
        torch._foreach_sub_(d, m)
    c = residual_scale(residual, beta1)
    torch._foreach_mul_(s, _each(beta2, s))
    if isinstance(beta1, Tensor):
        scaled_d = list(torch._foreach_mul(d, _each((1 - beta2) * c * c, d)))
        torch._foreach_addcmul_(s, scaled_d, d)
        del scaled_d
        torch._foreach_mul_(d, _each(1 - beta1, d))
        torch._foreach_add_(m, d)
    else:
        torch._foreach_add_(m, d, alpha=1 - beta1)
        torch._foreach_addcmul_(s, d, d, (1 - beta2) * c * c)
    torch._foreach_add_(s, eps)
    del g
    if max_exp_avg_vars:
        torch._foreach_maximum_(max_exp_avg_vars, s)
        s = max_exp_avg_vars

    if isinstance(scale.step_size, Tensor):
        # theta -= step_size * m / (sqrt(s) * root_scale + shift), divided through by -step_size so that
        # no second list is needed; where step_size is 0, so is 1 / the denominator.
        del d
        denominator = list(torch._foreach_sqrt(s))
        root_scale, shift = scale.root_scale, denominator_shift(scale, eps)
        root_scale, shift = (torch.where(x != 0, x / -scale.step_size, 0) for x in (root_scale, shift))
        torch._foreach_mul_(denominator, _each(root_scale, s))
        torch._foreach_add_(denominator, _each(shift, s))
        torch._foreach_addcdiv_(theta, m, denominator)
    elif scale.root_scale is not None:
        if d[0].is_cpu and type(d[0]) is Tensor:  # there new memory costs more than filling what is at hand
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


def _each(scalar: Scalar, tensors: TensorList) -> Scalar:
    """The scalar as foreach ops take it: a vector as a list of 0-dim tensors, all in the tensors' dtype."""
    if not isinstance(scalar, Tensor):
        return scalar
    scalar = scalar.to(tensors[0].dtype)
    return list(scalar.unbind()) if scalar.dim() else scalar


def _to(tensors: TensorList, dtype: torch.dtype) -> TensorList:
    """The tensors in ``dtype``; the very same list where they have it already."""
    return tensors if tensors[0].dtype == dtype else [t.to(dtype) for t in tensors]

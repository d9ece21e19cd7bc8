"""The rule of :mod:`lightning_adabelief.optim.rule` over lists of tensors, one kernel for a list.

Besides the state it allocates one list as large as the parameters at a time: first the
disagreement ``d``, then the denominator. With betas in tensors there is a second beside ``d``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.averages import is_coded, read_average, write_average
from lightning_adabelief.optim.low_precision import MISSING_BITS, make_keys, read_master, write_master
from lightning_adabelief.optim.packing import MAXIMUM, MOMENTUM, VARIANCE
from lightning_adabelief.optim.rule import decoupled_decay, denominator_shift, largest_update, residual_scale
from lightning_adabelief.optim.scaling import Scalar, StepScale, replace_where, step_scale, to_float64
from lightning_adabelief.optim.tensors import StepTensors

TensorList = list[Tensor]

DECODED_AT_ONCE = 1 << 24
"""The elements whose averages of 16 or 8 bits are floats at the same time: all at once would take the memory saved."""


def _multi_tensor_adabelief(
    tensors: StepTensors,
    steps: Sequence[Scalar],
    *,
    scale_options: dict[str, Any],
    skip: Tensor | None = None,
    **options: Any,
) -> None:
    """Take one step on many tensors, in place.

    Args:
        tensors: Parameters of any shapes, dtypes and devices, with their gradients and state. Their
            ``steps`` are neither read nor written.
        steps: The step t that each takes, numbers or 0-dim tensors on the parameters' devices. Those
            of parameters that got their first gradient later lag behind.
        scale_options: The options of :func:`~lightning_adabelief.optim.scaling.step_scale`.
        skip: See :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief`.
        **options: The options of :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief`.
    """
    # Tensors of one device (or mesh of devices), pair of dtypes and step share every cast and scalar of
    # the rule. The value of a step in a tensor is not known here: such tensors have scalars of their own.
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    decoded = 0
    for i, (param, grad, step) in enumerate(zip(tensors.params, tensors.grads, steps, strict=True)):
        known_step = None if isinstance(step, Tensor) else step
        mesh = getattr(param, "device_mesh", None)
        stretch = None
        if is_coded(tensors.exp_avgs[i]):
            stretch = decoded // DECODED_AT_ONCE
            decoded += param.numel()
        alike[param.device, mesh, param.dtype, grad.dtype, stretch, known_step].append(i)
    keys = make_keys(tensors.rounding_seeds, steps)
    for (*_, known_step), members in alike.items():
        step = known_step if known_step is not None else to_float64(torch.stack([steps[i] for i in members]))
        skip_here = None if skip is None else skip.to(tensors.params[members[0]].device)
        keys_here = [keys[i] for i in members]
        scale = step_scale(step, **scale_options)
        _update_tensors(tensors.select(members), scale, rounding_keys=keys_here, skip=skip_here, **options)


def _update_tensors(
    tensors: StepTensors,
    scale: StepScale,
    *,
    rounding_keys: list[Any],
    betas: tuple[Scalar, Scalar],
    eps: float,
    weight_decay: float,
    weight_decouple: bool,
    fixed_decay: bool,
    residual: str,
    maximize: bool,
    max_update_to_lr: float | None = None,
    skip: Tensor | None = None,
) -> None:
    """Apply the rule to tensors of one device and pair of dtypes; line by line that of ``rule.py``."""
    beta1, beta2 = betas
    s_decay: Scalar = beta2
    s_addend: Scalar = eps
    if skip is not None:
        scale = scale.zero_where(skip)
        s_decay = replace_where(skip, beta2, 1.0)
        # One for each tensor: foreach's addition would take a single one as a number, and wait for it.
        s_addend = replace_where(skip, eps, 0.0).expand(len(tensors.params))
    params, grads, m, s, maxima, *_ = tensors
    none = [None] * len(params)
    corrections = tensors.corrections or none, tensors.corrections_low or none
    if torch.is_complex(params[0]):
        grads = [grad.resolve_conj() for grad in grads]  # of a lazily conjugated tensor there is no real view
        params, grads, m, s, maxima = (
            [torch.view_as_real(t) for t in column] for column in (params, grads, m, s, maxima)
        )

    stored_averages = [(MOMENTUM, m), (VARIANCE, s), (MAXIMUM, maxima)]
    has_coded_state = is_coded(m[0])
    if has_coded_state:
        m, s, maxima = (
            [read_average(stored, param.shape, name) for stored, param in zip(column, params, strict=False)]
            for name, column in stored_averages
        )
    averages = m, s, maxima
    is_narrow = params[0].dtype in MISSING_BITS
    theta = list(map(read_master, params, *corrections)) if is_narrow else params
    g = _cast_tensors(grads, m[0].dtype)
    if maximize:
        g = list(torch._foreach_neg(g))
    if weight_decay != 0:
        if weight_decouple:
            decay = decoupled_decay(scale.lr, weight_decay, fixed_decay)
            torch._foreach_mul_(theta, _match_tensors(1 - decay, theta))
        elif maximize:  # g is a list of copies by now, and can be changed
            torch._foreach_add_(g, theta, alpha=weight_decay)
        else:
            g = list(torch._foreach_add(g, theta, alpha=weight_decay))

    if g[0] is grads[0]:  # the caller's gradients are left as they are
        d = list(torch._foreach_sub(g, m))
    else:
        d = g
        torch._foreach_sub_(d, m)
    if skip is not None:
        _fill_with_zeros(d, skip)
    c = residual_scale(residual, beta1)
    momentum_weight, residual_weight = 1 - beta1, (1 - beta2) * c * c
    torch._foreach_mul_(s, _match_tensors(s_decay, s))
    if isinstance(s_decay, Tensor) or s_decay == 0:  # an infinite s times 0 is NaN
        _fill_with_zeros(s, s_decay == 0)
    if isinstance(beta1, Tensor):  # foreach ops take no tensor for alpha or value: multiply first
        scaled_d = list(torch._foreach_mul(d, _match_tensors(residual_weight, d)))
        torch._foreach_addcmul_(s, scaled_d, d)
        del scaled_d
        torch._foreach_mul_(d, _match_tensors(momentum_weight, d))
        torch._foreach_add_(m, d)
    else:
        torch._foreach_add_(m, d, alpha=momentum_weight)
        torch._foreach_addcmul_(s, d, d, residual_weight)
    torch._foreach_add_(s, _match_tensors(s_addend, s))
    del g  # it may be the same list as d, whose memory is to be free before the denominator takes some
    if maxima:
        candidates = s if skip is None else [tensor.masked_fill(skip, 0.0) for tensor in s]
        torch._foreach_maximum_(maxima, candidates)
        s = maxima

    bound = None if max_update_to_lr is None else largest_update(scale.lr, max_update_to_lr, m[0].device)
    if isinstance(scale.step_size, Tensor):
        # theta -= step_size * m / (sqrt(s) * root_scale + shift), the update in the denominator's memory. An
        # infinite s times a root_scale of 0, and an infinite m times a step_size of 0, would be NaN.
        del d
        denominator = list(torch._foreach_sqrt(s))
        torch._foreach_mul_(denominator, _match_tensors(scale.root_scale, s))
        _fill_with_zeros(denominator, scale.root_scale == 0)
        torch._foreach_add_(denominator, _match_tensors(denominator_shift(scale, eps), s))
        update = denominator
        torch._foreach_reciprocal_(update)
        torch._foreach_mul_(update, m)
        torch._foreach_mul_(update, _match_tensors(scale.step_size, s))
        _fill_with_zeros(update, scale.step_size == 0)
        _clamp_tensors(update, bound)
        torch._foreach_sub_(theta, update)
    elif scale.step_size == 0:
        pass
    elif bound is not None:
        del d
        if scale.root_scale is None:
            update = list(torch._foreach_mul(m, scale.step_size))
        else:
            update = list(torch._foreach_sqrt(s))
            torch._foreach_mul_(update, scale.root_scale)
            torch._foreach_add_(update, eps)
            torch._foreach_reciprocal_(update)
            torch._foreach_mul_(update, m)
            torch._foreach_mul_(update, scale.step_size)
        _clamp_tensors(update, bound)
        torch._foreach_sub_(theta, update)
    elif scale.root_scale is not None:
        if d[0].is_cpu and type(d[0]) is Tensor:  # on the CPU, new memory costs more than filling d again
            torch._foreach_copy_(d, s)
            denominator = d
            torch._foreach_sqrt_(denominator)
        else:
            del d
            denominator = list(torch._foreach_sqrt(s))
        # step_size * m / (sqrt(s) * root_scale + eps), divided through by root_scale: one pass less.
        torch._foreach_add_(denominator, eps / scale.root_scale)
        torch._foreach_addcdiv_(theta, m, denominator, -scale.step_size / scale.root_scale)
    else:
        torch._foreach_add_(theta, m, alpha=-scale.step_size)
    if is_narrow:
        for row in zip(params, *corrections, theta, rounding_keys, strict=True):
            write_master(*row)
    if has_coded_state:
        for (name, column), values_of_column in zip(stored_averages, averages, strict=True):
            for stored, values, key in zip(column, values_of_column, rounding_keys, strict=False):
                write_average(values, stored, name, key, skip)


def _match_tensors(scalar: Scalar, tensors: TensorList) -> Scalar:
    """Return a scalar as foreach ops take it: a vector as a list of 0-dim tensors, all in the tensors' dtype."""
    if not isinstance(scalar, Tensor):
        return scalar
    scalar = scalar.to(tensors[0].dtype)
    return list(scalar.unbind()) if scalar.dim() else scalar


def _fill_with_zeros(tensors: TensorList, where: bool | Tensor) -> None:
    """Fill tensors with 0 in place, all of them or those for which a tensor of booleans says so."""
    masks = where.expand(len(tensors)).unbind() if isinstance(where, Tensor) else [where] * len(tensors)
    for tensor, mask in zip(tensors, masks, strict=True):
        tensor.masked_fill_(mask, 0.0) if isinstance(mask, Tensor) else tensor.zero_()


def _clamp_tensors(tensors: TensorList, bound: Scalar | None) -> None:
    """Clamp tensors to [-bound, bound] in place; the bound may be a tensor, of one number for each."""
    if isinstance(bound, Tensor):
        for tensor, own_bound in zip(tensors, bound.expand(len(tensors)).unbind(), strict=True):
            tensor.clamp_(-own_bound, own_bound)
    elif bound is not None:
        torch._foreach_clamp_max_(tensors, bound)
        torch._foreach_clamp_min_(tensors, -bound)


def _cast_tensors(tensors: TensorList, dtype: torch.dtype) -> TensorList:
    """Return the tensors in ``dtype``; the very same list where they have it already."""
    return tensors if tensors[0].dtype == dtype else [t.to(dtype) for t in tensors]

"""The rule of :mod:`lightning_adabelief.optim.rule` in one pass over CUDA memory, by Triton.

Two launches for all tensors of the same dtypes, whatever their number and sizes: ``schedule``
counts the steps and works out the scalars of each tensor, on the device, so that nothing waits for
the host; ``rule`` updates the elements. They are compiled once for a combination of dtypes (and of
amsgrad, rectify, gradient scaling, 16-byte alignment), never for a model, a size or a lr.

Memory traffic is the floor: of each element theta, g, m and s are read and theta, m and s written,
28 bytes in float32 (8 more with amsgrad). Beside the tensors, a step holds about 90 bytes a tensor
and 4 bytes a block of 1024 elements; only tensors of a parameter that are laid out differently, or
with gaps, are copied.

A step can be captured in a CUDA graph after an eager one, as ``torch.cuda.graph`` asks of any
warmup. A lr that is to change between replays must be a tensor on the device.

Checked by Triton's interpreter on the CPU, and compiled for CUDA; not yet run or timed on a GPU.
"""

from __future__ import annotations

import math
import struct
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lightning_adabelief.optim.rule import residual_scale
from lightning_adabelief.optim.scaling import RHO_TRACTABLE, warmup_steps

try:
    import triton.language as tl

    from lightning_adabelief.optim.fused.cuda_kernels import rule, schedule
    from lightning_adabelief.optim.fused.cuda_tables import BLOCK, Group, groups_of, laid_out_alike
except ImportError as error:
    raise ImportError(
        "AdaBelief(fused=True) on CUDA needs Triton, which could not be imported; pip install triton, or give "
        "fused=False (foreach=True is the fastest path without it)"
    ) from error

_TENSORS = 128
"""Tensors whose scalars a program of ``schedule`` works out."""


def fused_adabelief_cuda(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_vars: list[Tensor],
    max_exp_avg_vars: list[Tensor],
    step_tensors: list[Tensor],
    *,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    **options: Any,
) -> None:
    """Take one step on many tensors, in place, without waiting for the device.

    Args:
        params: Parameters of any shapes, of real floating-point dtypes, all on one device.
        grads: Their gradients; left as they are, unless ``grad_scale`` is given.
        exp_avgs: Their m_t. The arithmetic runs in their dtype, float32 or float64.
        exp_avg_vars: Their s_t, like ``exp_avgs``.
        max_exp_avg_vars: Their largest s_t so far, like ``exp_avgs``; empty without amsgrad.
        step_tensors: The steps they have taken, 0-dim float32 tensors on the device; each is
            increased by 1.
        grad_scale: 1-element tensor on the device; the gradients are divided by it, and written.
        found_inf: 1-element tensor on the device; where it is not 0, nothing at all changes.
        **options: The options of :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief`;
            lr may also be a 1-element tensor, which is read on the device if it is there.

    Raises:
        ImportError: On import of this module, where Triton is missing.
    """
    if not params:
        return
    device = params[0].device
    columns = [params, grads, exp_avgs, exp_avg_vars, *([max_exp_avg_vars] if max_exp_avg_vars else [])]
    columns, copied = laid_out_alike(columns)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for group in groups_of(columns, step_tensors):
            _launch(group, device, bool(max_exp_avg_vars), grad_scale, found_inf, **options)
    # What a kernel writes through an address, autograd does not see by itself.
    increment_version(params if grad_scale is None else [*params, *grads])
    for tensors, copies in copied:
        if grad_scale is None:  # then the gradient was not written
            del tensors[1], copies[1]
        torch._foreach_copy_(tensors, copies)


def _launch(
    group: Group,
    device: torch.device,
    amsgrad: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    *,
    lr: float | Tensor,
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
    """Launch both kernels for tensors of the same dtypes."""
    beta1, beta2 = betas
    dtypes, wide, table, owners, scales = group
    lr_tensor = lr if isinstance(lr, Tensor) and lr.device == device else None
    schedule[(-(-len(table) // _TENSORS),)](
        table,
        scales,
        len(table),
        found_inf,
        lr_tensor,
        _bits(float(lr) if lr_tensor is None else 0.0),
        log_beta1=_bits(math.log(beta1) if beta1 > 0 else -math.inf),
        log_beta2=_bits(math.log(beta2) if beta2 > 0 else -math.inf),
        rho_inf=_bits(2 / (1 - beta2) - 1),
        warmup_length=_bits(warmup_steps(warmup, total_steps) or 1.0),
        decay=_bits(weight_decay if weight_decouple and not fixed_decay else 0.0),
        fixed_decay=_bits(weight_decay if weight_decouple and fixed_decay else 0.0),
        RECTIFY=rectify,
        SGD=float(degenerated_to_sgd),
        RHO_TRACTABLE=RHO_TRACTABLE,
        TENSORS=_TENSORS,
        enable_fp_fusion=True,
    )
    if len(owners) == 0:
        return
    c = residual_scale(residual, beta1)
    param_dtype, grad_dtype, state_dtype = (getattr(tl, str(dtype).removeprefix("torch.")) for dtype in dtypes)
    rule[(len(owners),)](
        table,
        owners,
        scales,
        grad_scale,
        found_inf,
        sign=_bits(-1.0 if maximize else 1.0),
        decay=_bits(0.0 if weight_decouple else weight_decay),
        one_minus_beta1=_bits(1 - beta1),
        beta2=_bits(beta2),
        residual_weight=_bits((1 - beta2) * c * c),
        eps=_bits(eps),
        AMSGRAD=amsgrad,
        PARAM=param_dtype,
        GRAD=grad_dtype,
        STATE=state_dtype,
        WIDE=wide,
        BLOCK=BLOCK,
        enable_fp_fusion=True,
    )


def _bits(value: float) -> int:
    """The bits of a float64, as a signed integer."""
    return struct.unpack("q", struct.pack("d", value))[0]

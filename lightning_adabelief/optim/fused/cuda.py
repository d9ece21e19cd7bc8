"""The rule of :mod:`lightning_adabelief.optim.rule` in one pass over CUDA memory, by Triton.

Two launches for all tensors of the same dtypes, whatever their number and sizes: ``scale`` counts the
steps and computes the scalars of each tensor, on the device, so that the host waits for nothing;
``rule`` updates the elements, or ``packed_rule`` where their averages are packed in 8 bits. They are
compiled once for a combination of dtypes (and of amsgrad, rectify, gradient scaling, 16-byte alignment), never
for a model, a size or a learning rate.

A step costs its memory traffic: of each element theta, g, m and s are read and theta, m and s
written. Bytes of an element, a gradient of the weight's dtype and float32 scales of packed averages included::

    averages   float32 weight   16-bit weight, master_weight_bits=24   more with amsgrad
    32 bits    28               24                                     8
    16 bits    20               16                                     4
    8 bits     16.1             12.1                                   2.1

Beside the tensors, a step holds about 140 bytes for each tensor and 4 bytes for each block of 1024 elements,
and 56 more for each block where it takes its sums.
Tensors are copied only where those of a parameter differ in their layout, or have gaps, or beside packed averages
are not contiguous: those are stored in the logical order of the elements.

A step can be captured in a CUDA graph after an eager one, as ``torch.cuda.graph`` asks of any
warmup. A learning rate that is to change between replays must be a tensor on the device.

Checked by Triton's interpreter on the CPU, and compiled for CUDA; not yet run or timed on a GPU.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lightning_adabelief.optim.layout import align_layouts
from lightning_adabelief.optim.low_precision import MISSING_BITS
from lightning_adabelief.optim.packing import is_packed
from lightning_adabelief.optim.rule import residual_scale
from lightning_adabelief.optim.scaling import RHO_TRACTABLE, warmup_steps
from lightning_adabelief.optim.step_sums import StepSums
from lightning_adabelief.optim.tensors import StepTensors

try:
    import triton.language as tl

    from lightning_adabelief.optim.fused.cuda_kernels import rule, scale
    from lightning_adabelief.optim.fused.cuda_packed import packed_rule
    from lightning_adabelief.optim.fused.cuda_step_sums import add_up, make_program_sums
    from lightning_adabelief.optim.fused.cuda_tables import BLOCK, PACKED_BLOCKS, TensorGroup, group_tensors
except ImportError as error:
    raise ImportError(
        "AdaBelief(fused=True) on CUDA needs Triton, which could not be imported; pip install triton, or give "
        "fused=False (foreach=True is the fastest implementation without it)"
    ) from error

TENSORS_PER_PROGRAM = 128
"""The number of tensors whose scalars one program of ``scale`` computes."""


def fused_adabelief_cuda(
    tensors: StepTensors,
    *,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    sums: StepSums | None = None,
    **options: Any,
) -> None:
    """Take one step on many tensors, in place, without waiting for the device.

    Args:
        tensors: Parameters of any shapes, of real floating-point dtypes, all on one device; gradients,
            left as they are without ``grad_scale``; averages in float32 or float64, in which the
            arithmetic is done, in bfloat16 or packed; steps in float32, on the device.
        grad_scale: 1-element tensor on the device; the gradients are divided by it, and written.
        found_inf: 1-element tensor on the device; where it is not 0, nothing at all changes.
        sums: A dictionary to be given the sums of each parameter, on the device; not with ``found_inf``, for only
            the device knows then if there was a step.
        **options: The options of :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief` and of
            :func:`~lightning_adabelief.optim.scaling.step_scale`; lr may also be a 1-element tensor,
            which is read on the device if it is there.

    Raises:
        ImportError: On import of this module, where Triton is missing.
    """
    if not tensors.params:
        return
    kinds: dict[tuple[bool, bool], list[int]] = defaultdict(list)
    for i, exp_avg in enumerate(tensors.exp_avgs):
        has_correction = bool(tensors.corrections) and tensors.corrections[i] is not None
        kinds[has_correction, is_packed(exp_avg)].append(i)
    if len(kinds) > 1:
        for members in kinds.values():
            some = tensors.select(members)
            fused_adabelief_cuda(some, grad_scale=grad_scale, found_inf=found_inf, sums=sums, **options)
        return
    if found_inf is not None:
        sums = None
    device = tensors.params[0].device
    # Of parameters of one group either all have a correction, or its last bits, or none.
    parts = [part for part in (tensors.corrections, tensors.corrections_low) if part and part[0] is not None]
    corrections = cast(list[list[Tensor]], parts)
    params, grads, *averages = tensors.columns_in_param_shape()
    if is_packed(averages[0][0]):
        (params, grads, *corrections), copied = align_layouts([params, grads, *corrections], in_rows=True)
    else:
        aligned, copied = align_layouts([params, grads, *averages, *corrections])
        params, grads, *others = aligned
        averages, corrections = others[: len(averages)], others[len(averages) :]
    columns = [params, grads, *averages]
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for group in group_tensors(columns, tensors.steps, corrections, tensors.rounding_seeds):
            amsgrad, kept = bool(tensors.max_exp_avg_vars), 8 * len(corrections)
            program_sums = None if sums is None else make_program_sums(len(group.owners), device)
            _launch_kernels(group, device, amsgrad, kept, program_sums, grad_scale, found_inf, **options)
            if sums is not None and program_sums is not None:
                of_tensors = add_up(program_sums, first_programs=group.table[:, 7])
                sums.update(zip((tensors.params[i] for i in group.members), of_tensors, strict=True))
    # Autograd does not see what a kernel writes through an address.
    increment_version(tensors.params if grad_scale is None else [*tensors.params, *tensors.grads])
    for originals, copies in copied:
        if grad_scale is None:  # then the gradient was not written
            del originals[1], copies[1]
        torch._foreach_copy_(originals, copies)


def _launch_kernels(
    group: TensorGroup,
    device: torch.device,
    amsgrad: bool,
    kept: int,
    program_sums: Tensor | None,
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
    max_update_to_lr: float | None = None,
) -> None:
    """Launch both kernels for tensors of the same dtypes, and ``kept`` bits of correction."""
    beta1, beta2 = betas
    dtypes, aligned, table, owners, scales, _ = group
    # A lr on the device stays there, so that nothing waits for it and a captured step sees it change.
    lr_tensor = lr if isinstance(lr, Tensor) and lr.device == device else None
    host_lr = float(lr) if lr_tensor is None else 0.0
    # beta^t is exp(t log(beta)): Triton has no power of float64. exp(-inf) is the 0 of beta = 0.
    log_beta1, log_beta2 = (math.log(beta) if beta > 0 else -math.inf for beta in betas)
    warmup_length = warmup_steps(warmup, total_steps) or 1.0  # min(1, t / 1) is 1: no warmup
    # The weight is multiplied by 1 - fixed_shrink - lr_shrink * lr, with the lr in force.
    lr_shrink = weight_decay if weight_decouple and not fixed_decay else 0.0
    fixed_shrink = weight_decay if weight_decouple and fixed_decay else 0.0
    programs = -(-len(table) // TENSORS_PER_PROGRAM)
    scale[(programs,)](
        table,
        scales,
        len(table),
        found_inf,
        lr_tensor,
        _encode_float64(host_lr),
        log_beta1=_encode_float64(log_beta1),
        log_beta2=_encode_float64(log_beta2),
        rho_inf=_encode_float64(2 / (1 - beta2) - 1),
        warmup_length=_encode_float64(warmup_length),
        decay=_encode_float64(lr_shrink),
        fixed_decay=_encode_float64(fixed_shrink),
        max_update_to_lr=_encode_float64(max_update_to_lr or 0.0),
        BOUNDED=max_update_to_lr is not None,
        RECTIFY=rectify,
        SGD=float(degenerated_to_sgd),
        RHO_TRACTABLE=RHO_TRACTABLE,
        TENSORS=TENSORS_PER_PROGRAM,
        enable_fp_fusion=True,
    )
    if len(owners) == 0:  # all tensors are empty, and Triton refuses to launch no programs
        return
    c = residual_scale(residual, beta1)
    missing = MISSING_BITS.get(dtypes[0], 0)
    param_dtype, grad_dtype, average_dtype = (getattr(tl, str(dtype).removeprefix("torch.")) for dtype in dtypes)
    if average_dtype is tl.uint8:
        kernel, own_options = packed_rule, {"BLOCKS": PACKED_BLOCKS}
    else:
        average_dtype = tl.int16 if average_dtype is tl.bfloat16 else average_dtype
        kernel, own_options = rule, {"AVERAGE": average_dtype, "BLOCK": BLOCK}
    kernel[(len(owners),)](
        table,
        owners,
        scales,
        program_sums,
        grad_scale,
        found_inf,
        sign=_encode_float64(-1.0 if maximize else 1.0),
        decay=_encode_float64(0.0 if weight_decouple else weight_decay),
        one_minus_beta1=_encode_float64(1 - beta1),
        beta2=_encode_float64(beta2),
        residual_weight=_encode_float64((1 - beta2) * c * c),
        eps=_encode_float64(eps),
        AMSGRAD=amsgrad,
        BOUNDED=max_update_to_lr is not None,
        PARAM=tl.int16 if missing else param_dtype,
        GRAD=grad_dtype,
        MISSING=missing,
        KEPT=kept,
        ALIGNED=aligned,
        **own_options,
        enable_fp_fusion=kernel is rule,  # a code follows from each of its roundings
    )


def _encode_float64(value: float) -> int:
    """Return the bits of a float64 as a signed integer."""
    return struct.unpack("q", struct.pack("d", value))[0]

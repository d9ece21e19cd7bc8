"""The rule of :mod:`lightning_adabelief.optim.rule` in one pass over CUDA memory, by Triton.

Two launches a step, whatever the number of tensors and their sizes: ``schedule`` counts the steps
and works out the scalars of each tensor, on the device, so that nothing waits for the host;
``rule`` updates the elements. They are compiled once for a combination of dtypes (and of amsgrad,
rectify, gradient scaling, alignment), never for a model, a size or a learning rate.

Memory traffic is the floor: of each element theta, g, m and s are read and theta, m and s written,
28 bytes in float32 (8 more with amsgrad). Beside the tensors, a step holds about 90 bytes a tensor
and 4 bytes a block of 1024 elements.

The table of addresses stays on the device for as long as the addresses stay the same, and is sent
again where gradients were allocated anew. A CUDA graph sends it again at each replay, from pinned
memory which is kept for ever (64 bytes a tensor). The last step before a capture sets that memory
aside: take one, as ``torch.cuda.graph`` asks of any warmup.

Checked by Triton's interpreter on the CPU, and compiled for CUDA; not yet run or timed on a GPU.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lightning_adabelief.optim.rule import residual_scale
from lightning_adabelief.optim.schedule import RHO_TRACTABLE, warmup_steps

try:
    import triton.language as tl

    from lightning_adabelief.optim.fused.cuda_kernels import COLUMNS, rule, schedule
except ImportError as error:
    raise ImportError(
        "AdaBelief(fused=True) on CUDA needs Triton, which could not be imported; pip install triton, or give "
        "fused=False (foreach=True is the fastest path without it)"
    ) from error

BLOCK = 1024
"""Elements a program updates: with 4 warps, two loads of 16 bytes a thread and float32 tensor."""

CACHED_TABLES = 16
"""So many tables are kept: an allocator comes back to the same few addresses."""

_ROW = COLUMNS.value
_TENSORS = 128


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
    states = [exp_avgs, exp_avg_vars, max_exp_avg_vars] if max_exp_avg_vars else [exp_avgs, exp_avg_vars]
    groups: dict[tuple[torch.dtype, torch.dtype, torch.dtype, bool], list[int]] = defaultdict(list)
    copied: list[tuple[list[Tensor], list[Tensor]]] = []
    for step, *tensors in zip(step_tensors, params, grads, *states, strict=True):
        if not _laid_out_alike(tensors):
            copied.append((tensors, [tensor.contiguous() for tensor in tensors]))
            tensors = copied[-1][1]
        numel = tensors[0].numel()
        addresses = [tensor.data_ptr() for tensor in tensors]
        wide = numel % 8 == 0 and not any(address % 16 for address in addresses)
        rows = groups[tensors[0].dtype, tensors[1].dtype, tensors[2].dtype, wide]
        first_block = rows[-1] + _blocks(rows[-2]) if rows else 0
        rows += (*addresses, *(0,) * (5 - len(addresses)), step.data_ptr(), numel, first_block)

    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for (*dtypes, wide), rows in groups.items():
            _launch(rows, device, dtypes, wide, bool(max_exp_avg_vars), grad_scale, found_inf, **options)
    # What a kernel writes through an address, autograd does not see by itself.
    increment_version(params if grad_scale is None else [*params, *grads])
    for tensors, copies in copied:
        if grad_scale is None:  # then the gradient was not written
            del tensors[1], copies[1]
        torch._foreach_copy_(tensors, copies)


def _launch(
    rows: list[int],
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    wide: bool,
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
    """Launch both kernels for the tensors of ``rows``, alike in their dtypes."""
    beta1, beta2 = betas
    table, owners, scales = _tables(tuple(rows), device)
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


Tables = tuple[Tensor, Tensor, Tensor]
_cached: OrderedDict[tuple[int, ...], Tables] = OrderedDict()
_spare: dict[int, Tensor] = {}
_captured: list[Tensor] = []


def _tables(rows: tuple[int, ...], device: torch.device) -> Tables:
    """The rows on the device, the tensor each block belongs to, and room for the tensors' scales."""
    if device.type == "cpu":  # Triton's interpreter
        return _send(torch.tensor(rows), device)
    size = len(rows)
    if torch.cuda.is_current_stream_capturing():
        # Allocating pinned memory now is an error before torch 2.10: a spare was set aside.
        pinned = _spare.pop(size) if size in _spare else _pinned(size)
        _captured.append(pinned)  # replays read it
        return _send(pinned.copy_(torch.tensor(rows)), device)
    if size not in _spare:
        _spare[size] = _pinned(size)
    # The stream is in the key: on another one nothing would order the sending and the reading.
    key = (device.index, torch.cuda.current_stream(device).cuda_stream, *rows)
    if key not in _cached:
        _cached[key] = _send(_pinned(size).copy_(torch.tensor(rows)), device)
        if len(_cached) > CACHED_TABLES:
            _cached.popitem(last=False)
    _cached.move_to_end(key)
    return _cached[key]


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.int64, pin_memory=True)


def _send(rows: Tensor, device: torch.device) -> Tables:
    blocks = sum(map(_blocks, rows[6::_ROW].tolist()))
    table = rows.to(device, non_blocking=True).view(-1, _ROW)
    owners = torch.arange(len(table), dtype=torch.int32, device=device).repeat_interleave(
        (table[:, 6] + (BLOCK - 1)) // BLOCK, output_size=blocks
    )
    return table, owners, torch.empty(len(table), 3, dtype=torch.float64, device=device)


def _blocks(numel: int) -> int:
    return -(-numel // BLOCK)


def _bits(value: float) -> int:
    """The bits of a float64, as a signed integer."""
    return struct.unpack("q", struct.pack("d", value))[0]


def _laid_out_alike(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors keep their elements in the same order and without gaps."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return True
    strides = {tensor.stride() for tensor in tensors}
    return len(strides) == 1 and _is_dense(tensors[0].shape, strides.pop())


@lru_cache(maxsize=4096)
def _is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size != 1:
            if step != expected:
                return False
            expected *= size
    return True

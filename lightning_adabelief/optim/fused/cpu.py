"""The fused implementation on the CPU: tensors are gathered into packs, each updated by one kernel call.

The kernel (``cpu.cpp``) takes addresses and sizes. Tensors that it cannot read that way, such as a
gradient laid out in another order than its parameter, are updated one at a time by
:mod:`lightning_adabelief.optim.rule`.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from array import array
from collections import defaultdict
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lightning_adabelief.optim.fused.build import Kind, load_kernel
from lightning_adabelief.optim.layout import is_dense
from lightning_adabelief.optim.low_precision import MISSING_BITS, make_keys
from lightning_adabelief.optim.options import RULE_OPTIONS, SCALE_OPTIONS
from lightning_adabelief.optim.packing import count_blocks, count_row, is_packed
from lightning_adabelief.optim.rule import decoupled_decay, largest_update, residual_scale, single_tensor_adabelief
from lightning_adabelief.optim.scaling import step_scale
from lightning_adabelief.optim.step_sums import SUMS, StepSums
from lightning_adabelief.optim.tensors import Row, StepTensors

CHUNK = 1 << 16
"""Elements that a thread updates at a time; a pack with fewer is not worth a second thread."""

TYPES = {
    torch.float64: "double",
    torch.float32: "float",
    torch.bfloat16: "BFloat16",
    torch.float16: "Half",
    torch.uint8: "uint8_t",
}
"""The names of dtypes in ``cpu.cpp``; averages that are packed are in uint8."""


class _Scalars(ctypes.Structure):
    """The scalars that all elements of a call share; see ``cpu.cpp``."""

    _fields_ = [
        (name, ctypes.c_double)
        for name in (
            "sign",
            "grad_scale",
            "shrink",
            "decay",
            "beta1_complement",
            "beta2",
            "residual_weight",
            "eps",
            "step_size",
            "root_scale",
            "max_quotient",
        )
    ]


class _Pack(ctypes.Structure):
    """The tensors of a call; see ``cpu.cpp``."""

    _fields_ = [
        ("tensors", ctypes.c_int64),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "offsets",
                "row_lengths",
                "params",
                "grads",
                "exp_avgs",
                "exp_avg_vars",
                "maxima",
                "corrections",
                "corrections_low",
                "keys",
                "sums",
            )
        ),
    ]


def fused_adabelief_cpu(
    tensors: StepTensors,
    *,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    sums: StepSums | None = None,
    **options: Any,
) -> None:
    """Take one step on many tensors of the CPU, in place.

    See :func:`~lightning_adabelief.optim.fused.fused_adabelief` for the arguments. The kernel of a kind of tensors is
    compiled at first use, which takes seconds, and never again for another model, option or learning rate.
    A process that was forked after such a step takes its own on one thread, because OpenMP's threads do not
    survive a fork.

    Raises:
        RuntimeError: If the kernel cannot be had; nothing is changed then.
    """
    options["lr"], options["betas"] = float(options["lr"]), tuple(map(float, options["betas"]))
    rows = list(tensors.rows())
    dtypes = [_find_dtypes(*row) for row in rows]
    libraries = {some: load_kernel(_make_kind(*some)) for some in set(dtypes) if some}
    if found_inf is not None and found_inf.item():
        return
    scale = 0.0 if grad_scale is None else float(grad_scale)
    steps = _increment_steps(next(iter(libraries.values()), None), tensors.steps)
    keys = make_keys(tensors.rounding_seeds, steps)

    packs: dict[tuple[Any, float], list[int]] = defaultdict(list)
    for i, pack in enumerate(zip(dtypes, steps, strict=True)):
        packs[pack].append(i)
    for (dtypes_here, step), members in packs.items():
        rows_here, keys_here = [rows[i] for i in members], [keys[i] for i in members]
        if dtypes_here:
            scalars = _make_scalars(step, scale, **options)
            _run_kernel(libraries[dtypes_here], rows_here, keys_here, scalars, sums)
        else:
            _update_one_by_one(rows_here, keys_here, step, scale, options)


def _find_dtypes(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_var: Tensor,
    maximum: Tensor | None,
    correction: Tensor | None,
    correction_low: Tensor | None,
) -> tuple[torch.dtype, torch.dtype, torch.dtype, int] | None:
    """Return what a parameter's kernel depends on; None if no kernel can update it.

    Returns:
        The dtypes of parameter, gradient and averages, and the number of tensors that hold its correction.
    """
    states = (exp_avg, exp_avg_var) if maximum is None else (exp_avg, exp_avg_var, maximum)
    corrections: tuple[Tensor, ...] = ()
    if correction is not None:
        corrections = (correction,) if correction_low is None else (correction, correction_low)
    dtype, grad_dtype, average_dtype = param.dtype, grad.dtype, exp_avg.dtype
    if dtype not in TYPES or not (grad_dtype is dtype or (grad_dtype is torch.float32 and dtype in MISSING_BITS)):
        return None
    is_readable = _is_packed_readable if average_dtype is torch.uint8 else _is_readable
    if not is_readable(param, grad, states, corrections):
        return None
    return dtype, grad_dtype, average_dtype, len(corrections)


def _make_kind(param: torch.dtype, grad: torch.dtype, average: torch.dtype, corrections: int) -> Kind:
    return Kind(TYPES[param], TYPES[grad], TYPES[average], 8 * corrections)


def _update_one_by_one(rows: list[Row], keys: list[int], step: float, scale: float, options: dict[str, Any]) -> None:
    """Update the parameters that no kernel can, in the step that they take."""
    rule_options = {name: options[name] for name in RULE_OPTIONS}
    step_scalars = step_scale(step, **{name: options[name] for name in SCALE_OPTIONS})
    for row, key in zip(rows, keys, strict=True):
        if scale != 0:
            row[1].div_(scale)
        single_tensor_adabelief(*row, step_scalars, **rule_options, rounding_key=key)


def _increment_steps(library: ctypes.CDLL | None, step_tensors: list[Tensor]) -> list[float] | array[float]:
    """Add 1 to each step tensor, and return the new steps.

    A library does it, if there is one, because torch takes a microsecond for each tensor.
    """
    assert all(step.dtype is torch.float32 and step.is_cpu for step in step_tensors), "load_state_dict sees to it"
    if library is None:
        return [step.add_(1).item() for step in step_tensors]
    addresses = array("Q", [step.data_ptr() for step in step_tensors])
    steps = array("f", bytes(4 * len(step_tensors)))
    library.advance(ctypes.c_int64(len(steps)), _get_address(addresses), _get_address(steps))
    return steps


def _is_readable(param: Tensor, grad: Tensor, states: tuple[Tensor, ...], corrections: tuple[Tensor, ...] = ()) -> bool:
    """True if element i in memory is the same element in all of the tensors, and no two elements share memory.

    The first of the states is of the right dtype and shape: the optimizer has seen to it.
    """
    shape, strides = param.shape, None if param.is_contiguous() else param.stride()
    dtype = states[0].dtype
    for state in states[1:]:  # a loop, for it runs for every parameter at every step
        if state.dtype is not dtype or state.shape != shape:
            return False
    if grad.shape != shape:
        return False
    for part in corrections:
        if part.shape != shape:
            return False
    for tensor in (grad, *states, *corrections):
        if tensor.stride() != strides if strides else not tensor.is_contiguous():
            return False
    if strides is not None and not is_dense(shape, strides):
        return False
    return not grad.is_neg()  # a lazily negated view: its memory holds the opposite sign


def _is_packed_readable(
    param: Tensor, grad: Tensor, states: tuple[Tensor, ...], corrections: tuple[Tensor, ...] = ()
) -> bool:
    """True if the elements of a parameter whose averages are packed are in the order in which they are coded.

    Arguments as for :func:`_is_readable`.
    """
    packed_shape = states[0].shape
    return (
        all(state.dtype is torch.uint8 and state.shape == packed_shape and state.is_contiguous() for state in states)
        and all(tensor.shape == param.shape and tensor.is_contiguous() for tensor in (param, grad, *corrections))
        and not grad.is_neg()
    )


def _make_scalars(
    step: float,
    grad_scale: float,
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
    max_update_to_lr: float | None = None,
) -> _Scalars:
    """Compute the scalars that all elements of a call share; line by line those of ``rule.py``."""
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
    c = residual_scale(residual, beta1)
    max_quotient = math.inf
    if max_update_to_lr is not None and scale.step_size > 0:
        max_quotient = largest_update(scale.lr, max_update_to_lr, torch.device("cpu")) / scale.step_size
    return _Scalars(
        sign=-1 if maximize else 1,
        grad_scale=grad_scale,
        shrink=1 - decoupled_decay(scale.lr, weight_decay, fixed_decay) if weight_decouple else 1,
        decay=0 if weight_decouple else weight_decay,
        beta1_complement=1 - beta1,
        beta2=beta2,
        residual_weight=(1 - beta2) * c * c,
        eps=eps,
        step_size=scale.step_size,
        root_scale=-1 if scale.root_scale is None else scale.root_scale,  # negative: a step of SGD
        max_quotient=max_quotient,
    )


def _run_kernel(
    library: ctypes.CDLL, rows: list[Row], keys: list[int], scalars: _Scalars, sums: StepSums | None
) -> None:
    """Call the kernel on parameters of its kind and one step.

    Args:
        library: The kernel's.
        rows: Each parameter's tensors.
        keys: Those of their stochastic rounding.
        scalars: Those of the step.
        sums: The dictionary to be given their sums, if they are asked for.
    """
    params, grads, *states = zip(*rows, strict=True)
    has_packed_state = is_packed(states[0][0])
    sizes, row_lengths = (param.numel() for param in params), None
    if has_packed_state:
        sizes = (count_blocks(param.shape) for param in params)
        row_lengths = array("q", [count_row(param.shape) for param in params])
    offsets = array("q", accumulate(sizes, initial=0))
    columns = [
        None if column[0] is None else array("Q", [tensor.data_ptr() for tensor in column])
        for column in (params, grads, *states)
    ]
    arrays = (offsets, row_lengths, *columns, array("I", keys))
    pack = _Pack(len(params), *(numbers and _get_address(numbers) for numbers in arrays))
    if sums is not None:
        table = torch.empty(len(params), len(SUMS), dtype=torch.float64)
        pack.sums = table.data_ptr()
        sums.update(zip(params, table.unbind(), strict=True))
    library.take_step(
        ctypes.byref(pack),
        ctypes.byref(scalars),
        _find_thread_starter(),
        ctypes.c_uint(torch.get_num_threads()),
        ctypes.c_int64(CHUNK),
    )
    # Autograd cannot see these writes; told of them, it refuses a backward pass through overwritten values.
    for tensor in params if scalars.grad_scale == 0 else params + grads:
        increment_version(tensor)


def _get_address(numbers: array) -> ctypes.c_void_p:
    return ctypes.c_void_p(numbers.buffer_info()[0])


@functools.cache
def _find_thread_starter() -> ctypes.c_void_p:
    """Return the function that starts threads in torch's own OpenMP runtime; null, for one thread, if there is none."""
    starter = ctypes.c_void_p(None)
    libraries = Path(torch.__file__).with_name("lib")
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        with suppress(OSError, AttributeError):
            starter = ctypes.cast(ctypes.CDLL(str(libraries / name)).GOMP_parallel, ctypes.c_void_p)
    if hasattr(os, "register_at_fork"):
        # OpenMP's threads do not survive a fork, and a child that calls for them waits for ever.
        os.register_at_fork(after_in_child=lambda: setattr(starter, "value", None))
    return starter

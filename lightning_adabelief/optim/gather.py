"""Gather the tensors of a step: parameters with a gradient, and their state, made where there is none."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.averages import CODED_DTYPES, find_state_bits
from lightning_adabelief.optim.low_precision import CORRECTIONS, make_seed
from lightning_adabelief.optim.packing import find_packed_shape
from lightning_adabelief.optim.state import STATE_DTYPES, check_grad, prepare_state


def gather_tensors(
    param_groups: list[dict[str, Any]],
    group: dict[str, Any],
    states: MutableMapping[Tensor, Any],
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_vars: list[Tensor],
    max_exp_avg_vars: list[Tensor],
    steps: list[Tensor],
    corrections: list[Tensor | None],
    corrections_low: list[Tensor | None],
    rounding_seeds: list[int],
) -> None:
    """Fill the columns of a :class:`~lightning_adabelief.optim.tensors.StepTensors` for one param group.

    Args:
        param_groups: All of the optimizer's.
        group: The one whose parameters are gathered; those without a gradient are left out.
        states: The optimizer's state; what a parameter lacks is made.
        params: This column and those that follow are empty lists.
        grads: See :class:`~lightning_adabelief.optim.tensors.StepTensors` for each.
        exp_avgs: A column.
        exp_avg_vars: A column.
        max_exp_avg_vars: A column.
        steps: A column.
        corrections: A column.
        corrections_low: A column.
        rounding_seeds: A column.

    Raises:
        ValueError: As :meth:`lightning_adabelief.AdaBelief.step`.
        RuntimeError: If ``fused`` is given and cannot serve a parameter.
    """
    amsgrad, bits, strided = group["amsgrad"], group["master_weight_bits"], torch.strided  # at hand: this loop is hot
    state_bits, are_coded = group["state_bits"], False
    narrow = []
    for param in group["params"]:
        grad = param.grad
        if grad is None:
            continue
        state = states[param]
        exp_avg = state.get("exp_avg")
        state_dtype, average_dtype, average_shape = STATE_DTYPES.get(param.dtype), None, param.shape
        if state_bits < 32 and (own_bits := find_state_bits(param, state_bits)) < 32:
            average_dtype, are_coded = torch.bfloat16, True
            if own_bits == 8:
                average_dtype, average_shape = torch.uint8, find_packed_shape(param.shape)
        if (
            exp_avg is None
            or grad.layout is not strided
            or exp_avg.dtype is not (average_dtype or state_dtype)
            or exp_avg.shape != average_shape
            or exp_avg.device != param.device
            or (state_bits < 32 and param.dtype not in CODED_DTYPES)  # which prepare_state refuses
        ):
            check_grad(param, grad)
            prepare_state(state, param, group)
            exp_avg = state["exp_avg"]
        if amsgrad:
            if "max_exp_avg_var" not in state:  # switched on after the first step
                state["max_exp_avg_var"] = torch.zeros_like(exp_avg)  # bytes of 0 are zeros
            max_exp_avg_vars.append(state["max_exp_avg_var"])
        if state_dtype is not param.dtype:
            narrow.append(len(params))
        params.append(param)
        grads.append(grad)
        exp_avgs.append(exp_avg)
        exp_avg_vars.append(state["exp_avg_var"])
        steps.append(state["step"])
    if narrow:
        corrections += [None] * len(params)
        corrections_low += [None] * len(params)
        for index in narrow:
            parts = _prepare_correction(states[params[index]], params[index], bits)
            corrections[index], corrections_low[index] = parts
    if are_coded or (narrow and bits < 32):
        rounding_seeds += _make_group_seeds(param_groups, group, params)


def _prepare_correction(state: dict[str, Any], param: Tensor, bits: int) -> list[Tensor | None]:
    """Return both parts of the correction of a parameter of 16 bits, None for one that these bits do not need."""
    parts: list[Tensor | None] = []
    for name, (dtype, bits_with_it) in CORRECTIONS.items():
        if bits < bits_with_it:
            state.pop(name, None)
        elif name not in state:
            state[name] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
        elif state[name].device != param.device:
            state[name] = state[name].to(param.device)
        parts.append(state.get(name))
    return parts


def _make_group_seeds(param_groups: list[dict[str, Any]], group: dict[str, Any], params: list[Tensor]) -> list[int]:
    """Return the seeds of some of a group's parameters, by their positions among all of the optimizer's."""
    first = 0
    for other in param_groups:
        if other is group:
            break
        first += len(other["params"])
    positions = {param: first + index for index, param in enumerate(group["params"])}
    return [make_seed(group["rounding_seed"], positions[param]) for param in params]

"""Gradients that are not finite: found before a step, on all ranks, so that it is skipped or an error."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from lightning_adabelief.optim.averages import find_dtype, is_coded, unpack_average, write_average
from lightning_adabelief.optim.names import shorten_names
from lightning_adabelief.optim.shards import to_local
from lightning_adabelief.optim.state import make_step
from lightning_adabelief.optim.tensors import StepTensors

AVERAGES = ("exp_avg", "exp_avg_var", "max_exp_avg_var")

Gathered = Sequence[tuple[dict[str, Any], StepTensors]]
"""The param groups of a step, each with the tensors of its parameters that have a gradient."""


def largest_norm(dtype: torch.dtype) -> float:
    """Return the norm up to which a parameter's gradient counts as finite: no square in s_t overflows then.

    s_t averages squares of the difference of a gradient and an average of others, so of up to twice the norm;
    the rest of the factor of 4 is for rounding.

    Args:
        dtype: Of s_t.

    Returns:
        4.6e18 for float32.
    """
    return math.sqrt(torch.finfo(dtype).max) / 4


def find_step_to_skip(gathered: Gathered, grad_scale: Tensor | None) -> Tensor | None:
    """Find out if the step is to be skipped, because a gradient is not finite.

    Nothing waits for the device, unless a group has ``nonfinite="raise"``. Where torch.distributed is
    initialized all ranks find the same, and each must call.

    Args:
        gathered: All param groups.
        grad_scale: The factor by which the gradients are scaled, one number.

    Returns:
        A 0-dim tensor of a bool; None if all groups have ``nonfinite="propagate"``.

    Raises:
        RuntimeError: If a group has ``nonfinite="raise"`` and the step would be skipped, or its state is not
            finite.
    """
    checked = [(group, tensors) for group, tensors in gathered if group["nonfinite"] != "propagate"]
    if not checked:
        return None
    raising = [(group, tensors) for group, tensors in checked if group["nonfinite"] == "raise"]
    device = _choose_device(checked)
    found = _find_large_gradients([tensors for _, tensors in checked], device, grad_scale)
    if raising:
        found |= _find_nonfinite_state([tensors for _, tensors in raising], device)
    found = _reduce_over_ranks(found)
    if raising and found.item():
        raise RuntimeError(_describe_nonfinite(raising, grad_scale))
    return found


def make_skip_count(group: dict[str, Any]) -> None:
    """Make the ``skipped_steps`` of a group with ``nonfinite="skip"``, or take it to the parameters' device.

    A 0-dim int64 tensor. torch.compile sees no key of a group that is first made during a step.
    """
    if group["nonfinite"] == "skip" and group["params"]:
        count = group.get("skipped_steps", 0)
        group["skipped_steps"] = torch.as_tensor(count, dtype=torch.int64, device=group["params"][0].device)


def prepare_skip(group: dict[str, Any], tensors: StepTensors, states: MutableMapping[Tensor, Any]) -> None:
    """Have all that a step may have to leave as it is on the device, so that nothing waits for it.

    Args:
        group: A group with ``nonfinite="skip"``.
        tensors: Its tensors; steps that are elsewhere than their parameters, because the option was set
            later, are replaced.
        states: The optimizer's state.
    """
    make_skip_count(group)
    for i, (param, step) in enumerate(zip(tensors.params, tensors.steps, strict=True)):
        if step.device != param.device:
            states[param]["step"] = tensors.steps[i] = make_step(step, param, group)


def reset_nonfinite_state(optimizer: Optimizer) -> int:
    """Reset the moments that are not finite; see :meth:`lightning_adabelief.AdaBelief.reset_nonfinite_state`."""
    reset = 0
    for param, state in optimizer.state.items():
        stored = {key: state[key] for key in AVERAGES if key in state}
        unpacked = {key: unpack_average(value, param, key) for key, value in stored.items()}
        averages = list(map(_view_as_real, unpacked.values()))
        if not averages:
            continue
        broken = ~torch.stack([average.isfinite() for average in averages]).all(0)
        momentum, *squares = averages
        momentum.masked_fill_(broken, 0.0)
        for average in squares:
            finite = average[~broken].double()  # the sum of many large ones may exceed float32
            average.masked_fill_(broken, finite.mean().item() if finite.numel() else 0.0)
        if broken.numel() and broken.all():  # nothing is known of this tensor's belief
            state["step"].zero_()
        for key, value in stored.items():
            if is_coded(value) and broken.any():
                write_average(to_local(unpacked[key]), to_local(value), key)
        reset += int(broken.sum())
    return reset


def _find_large_gradients(columns: list[StepTensors], device: torch.device, scale: Tensor | None) -> Tensor:
    """Return True, as a tensor on a device, if the norm of a gradient is NaN or larger than it may be."""
    alike: dict[tuple[torch.device, torch.dtype, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensors in columns:
        for grad, exp_avg in zip(tensors.grads, tensors.exp_avgs, strict=True):
            local = _view_as_real(grad)
            alike[local.device, local.dtype, find_dtype(exp_avg)].append(local)
    found = torch.zeros((), dtype=torch.bool, device=device)
    for (_, dtype, state_dtype), grads in alike.items():
        norms = torch._foreach_norm(grads, 2, dtype=torch.promote_types(dtype, torch.float32))
        largest = torch.stack(norms).max().to(device)  # NaN if there is one
        if scale is not None:
            largest = largest / scale.to(device)
        found = found | ~(largest <= largest_norm(state_dtype))
    return found


def _find_nonfinite_state(columns: list[StepTensors], device: torch.device) -> Tensor:
    """Return True, as a tensor on a device, if an average is not finite somewhere."""
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for average in (average for tensors in columns for average in _read_averages(tensors)):
        alike[average.device, average.dtype].extend(average.aminmax())
    found = torch.zeros((), dtype=torch.bool, device=device)
    for extremes in alike.values():
        found = found | ~torch.stack(extremes).isfinite().all().to(device)
    return found


def _read_averages(tensors: StepTensors) -> Iterator[Tensor]:
    """Iterate over what this process holds of m_t, s_t and its largest, as real numbers, without empty tensors."""
    columns = zip(AVERAGES, (tensors.exp_avgs, tensors.exp_avg_vars, tensors.max_exp_avg_vars), strict=True)
    for name, column in columns:
        for average, param in zip(column, tensors.params, strict=False):  # without amsgrad a column is empty
            local = _view_as_real(unpack_average(average, param, name))
            if local.numel():
                yield local


def _reduce_over_ranks(found: Tensor) -> Tensor:
    """Return True, as a tensor, if a rank found something; the ranks' own parts of sharded gradients differ."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return found
    # NCCL takes no tensors of the CPU, where gradients are that are offloaded.
    device = "cuda" if distributed.get_backend() == "nccl" else found.device
    count = found.to(device, torch.float32)
    distributed.all_reduce(count, distributed.ReduceOp.MAX)
    return count.to(found.device) > 0


def _choose_device(groups: Gathered) -> torch.device:
    """Return the device of the first parameter that is not on the CPU, where nothing need wait; else the CPU."""
    for group, _ in groups:
        for param in group["params"]:  # a loop, because torch 2.6 does not compile next() with a default
            if param.device.type != "cpu":
                return param.device
    return torch.device("cpu")


def _describe_nonfinite(groups: Gathered, grad_scale: Tensor | None) -> str:
    """Return the message of ``nonfinite="raise"``: which parameters, how much of them, and the remedy."""
    scale = 1.0 if grad_scale is None else float(grad_scale)
    gradients, states = [], []
    for number, (group, tensors) in enumerate(groups):
        known_names = group.get("param_names") or [
            f"parameter {i} of group {number}" for i in range(len(group["params"]))
        ]
        names = dict(zip(group["params"], known_names, strict=True))
        for i, param in enumerate(tensors.params):
            grad, averages = _view_as_real(tensors.grads[i]), list(_read_averages(tensors.select([i])))
            norm = torch.linalg.vector_norm(grad.double()).item() / scale
            if not norm <= largest_norm(find_dtype(tensors.exp_avgs[i])):
                gradients.append(f"{names[param]} (norm {norm:.3g})")
            broken = int((~torch.stack(averages).isfinite()).any(0).sum()) if averages else 0
            if broken:
                states.append(f"{names[param]} ({broken} of {averages[0].numel()} elements)")
    message = ""
    if gradients:
        message = f"Gradients are not finite, or too large to be squared, in {shorten_names(gradients)}. "
    if states:
        message += f"The state is not finite, and moves its weights no more, in {shorten_names(states)}. "
    message = message or "A gradient or the state is not finite on another rank. "
    remedies = []
    if gradients or not states:
        remedies += ["lower lr, clip gradients by norm, or give nonfinite='skip' to pass over such steps"]
    if states or not gradients:
        remedies += ["call optimizer.reset_nonfinite_state(), or load an earlier checkpoint"]
    return f"{message}This step changed nothing: {'; '.join(remedies)}"


def _view_as_real(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, a complex one as pairs of real numbers."""
    local = to_local(tensor).detach()
    return torch.view_as_real(local.resolve_conj()) if local.is_complex() else local

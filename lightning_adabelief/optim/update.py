"""The step of one param group: which implementation takes it, with what numbers or tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import _default_to_fused_or_foreach

from lightning_adabelief.optim.averages import is_coded
from lightning_adabelief.optim.foreach import _multi_tensor_adabelief
from lightning_adabelief.optim.fused import fused_adabelief
from lightning_adabelief.optim.low_precision import make_keys
from lightning_adabelief.optim.options import RULE_OPTIONS, SCALE_OPTIONS, as_number
from lightning_adabelief.optim.rule import single_tensor_adabelief
from lightning_adabelief.optim.scaling import Scalar, convert_tensor_scalar, step_scale, to_float64
from lightning_adabelief.optim.shards import unwrap_shards
from lightning_adabelief.optim.state import increment_steps
from lightning_adabelief.optim.step_sums import StepSums
from lightning_adabelief.optim.tensors import StepTensors


def update_group(
    group: dict[str, Any],
    tensors: StepTensors,
    *,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    skip: Tensor | None,
    sums: StepSums | None = None,
) -> None:
    """Take a step on one group, by the implementation that its options choose.

    Args:
        group: A param group.
        tensors: The tensors of its parameters that have a gradient, at least one, checked.
        grad_scale: The factor by which a gradient scaler has scaled the gradients, for ``fused``.
        found_inf: One number of the scaler's; if it is not 0, ``fused`` changes nothing.
        skip: A bool in a 0-dim tensor; if it is True, a group with ``nonfinite="skip"`` changes and counts
            nothing but the skipped step.
        sums: A dictionary for the sums that ``fused`` takes on the way.
    """
    options = {name: group[name] for name in RULE_OPTIONS}
    scale_options = {name: group[name] for name in SCALE_OPTIONS}
    implementation = choose_implementation(group, tensors.params)
    scales_gradients = grad_scale is not None or found_inf is not None
    if group["nonfinite"] != "skip":
        skip = None
    if skip is not None:
        group["skipped_steps"].add_(skip.to(group["skipped_steps"].device))
    if implementation == "fused" and (scales_gradients or not torch.compiler.is_compiling()):
        if skip is not None:
            found_inf = skip.float() if found_inf is None else found_inf.to(skip.device) + skip
        fused_adabelief(tensors, grad_scale=grad_scale, found_inf=found_inf, sums=sums, **options | scale_options)
        return
    # Numbers are fast; tensors neither wait for the device nor hide from autograd and the compiler.
    in_tensors = group["capturable"] or group["differentiable"] or torch.compiler.is_compiling()
    if skip is not None and not in_tensors:
        if skip.is_cpu:  # no device need be waited for
            if skip:
                return
            skip = None
        else:
            in_tensors = True
    convert = convert_tensor_scalar if in_tensors else as_number
    options["betas"] = scale_options["betas"] = tuple(convert(beta) for beta in group["betas"])
    scale_options["lr"] = convert(group["lr"])
    step_tensors = increment_steps(tensors.steps, skip)
    if tensors.corrections or any(map(is_coded, tensors.exp_avgs)):  # bits, which a DTensor does not show
        tensors = unwrap_shards(tensors)
    steps: Sequence[Scalar] = step_tensors if in_tensors else [step.item() for step in step_tensors]

    if implementation != "forloop":  # compiling, "fused" is foreach, which the compiler fuses
        _multi_tensor_adabelief(tensors, steps, scale_options=scale_options, skip=skip, **options)
        return
    if in_tensors:  # of a copy: autograd may keep it, and the next step adds to the tensor in place
        scales = [step_scale(to_float64(step.clone()), **scale_options) for step in steps]
    else:  # nearly always all parameters are at one step
        scale_at = {step: step_scale(step, **scale_options) for step in set(steps)}
        scales = [scale_at[step] for step in steps]
    keys = make_keys(tensors.rounding_seeds, steps)
    options["differentiable"] = group["differentiable"]
    for row, scale, key in zip(tensors.rows(), scales, keys, strict=True):
        own_skip = None if skip is None else skip.to(row[0].device)
        single_tensor_adabelief(*row, scale, **options, skip=own_skip, rounding_key=key)


def choose_implementation(group: dict[str, Any], params: list[Tensor]) -> Literal["forloop", "foreach", "fused"]:
    """Return the implementation that a group's options ask for; by default torch's choice, but never fused.

    Args:
        group: A param group.
        params: Its parameters, or those that have a gradient.
    """
    if group["fused"]:
        return "fused"
    foreach = group["foreach"]
    if foreach is None:
        _, foreach = _default_to_fused_or_foreach(params, group["differentiable"], use_fused=False)
    return "foreach" if foreach else "forloop"

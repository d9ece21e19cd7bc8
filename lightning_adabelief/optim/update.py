"""The step of one param group: which implementation takes it, with what numbers or tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import _default_to_fused_or_foreach

from lightning_adabelief.optim.foreach import _multi_tensor_adabelief
from lightning_adabelief.optim.fused import fused_adabelief
from lightning_adabelief.optim.options import RULE_OPTIONS, SCALE_OPTIONS, as_number
from lightning_adabelief.optim.rule import single_tensor_adabelief
from lightning_adabelief.optim.scaling import Scalar, convert_tensor_scalar, step_scale, to_float64
from lightning_adabelief.optim.tensors import StepTensors


def update_group(
    group: dict[str, Any], tensors: StepTensors, *, grad_scale: Tensor | None, found_inf: Tensor | None
) -> None:
    """Take a step on one group, by the implementation that its options choose.

    Args:
        group: A param group.
        tensors: The tensors of its parameters that have a gradient, at least one, checked.
        grad_scale: The factor by which a gradient scaler has scaled the gradients, for ``fused``.
        found_inf: One number of the scaler's; if it is not 0, ``fused`` changes nothing.
    """
    options = {name: group[name] for name in RULE_OPTIONS}
    scale_options = {name: group[name] for name in SCALE_OPTIONS}
    implementation = choose_implementation(group, tensors.params)
    scales_gradients = grad_scale is not None or found_inf is not None
    if implementation == "fused" and (scales_gradients or not torch.compiler.is_compiling()):
        fused_adabelief(tensors, grad_scale=grad_scale, found_inf=found_inf, **options | scale_options)
        return
    # Numbers are fast; tensors neither wait for the device nor hide from autograd and the compiler.
    in_tensors = group["capturable"] or group["differentiable"] or torch.compiler.is_compiling()
    convert = convert_tensor_scalar if in_tensors else as_number
    options["betas"] = scale_options["betas"] = tuple(convert(beta) for beta in group["betas"])
    scale_options["lr"] = convert(group["lr"])
    torch._foreach_add_(tensors.steps, 1)
    steps: Sequence[Scalar] = tensors.steps if in_tensors else [step.item() for step in tensors.steps]

    if implementation != "forloop":  # compiling, "fused" is foreach, which the compiler fuses
        _multi_tensor_adabelief(tensors, steps, scale_options=scale_options, **options)
        return
    if in_tensors:  # of a copy: autograd may keep it, and the next step adds to the tensor in place
        scales = [step_scale(to_float64(step.clone()), **scale_options) for step in steps]
    else:  # nearly always all parameters are at one step
        scale_at = {step: step_scale(step, **scale_options) for step in set(steps)}
        scales = [scale_at[step] for step in steps]
    for row, scale in zip(tensors.rows(), scales, strict=True):
        single_tensor_adabelief(*row, scale, **options, differentiable=group["differentiable"])


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

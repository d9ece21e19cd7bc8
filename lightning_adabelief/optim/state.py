"""The optimizer's state: its dtypes and devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _get_capturable_supported_devices, _get_scalar_dtype

from lightning_adabelief.optim.averages import CODED_DTYPES, convert_average, find_state_bits, fits, make_average
from lightning_adabelief.optim.fused import check_fused, load_implementation
from lightning_adabelief.optim.low_precision import MISSING_BITS
from lightning_adabelief.optim.packing import is_packed
from lightning_adabelief.optim.tensors import StepTensors

DTYPES = torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128
STATE_DTYPES = {dtype: torch.promote_types(dtype, torch.float32) for dtype in DTYPES}
"""The dtype of the averages by that of the parameter, to be looked up for each parameter at each step."""


# torch's warning about capturable and graphs, by its present name and the one it had in torch 2.6
_GRAPH_CAPTURE_CHECKS = "_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"
_GRAPH_CAPTURE_CHECK = next(name for name in _GRAPH_CAPTURE_CHECKS if hasattr(Optimizer, name))


def state_dtype(param: Tensor) -> torch.dtype:
    """Return float32, or the parameter's dtype where that is wider (complex for complex)."""
    return torch.promote_types(param.dtype, torch.float32)


def increment_steps(steps: list[Tensor], skip: Tensor | None) -> list[Tensor]:
    """Add 1 to each step count, in place.

    Args:
        steps: The step counts of some parameters, 0-dim tensors.
        skip: A bool in a 0-dim tensor; if True nothing is added. ``None`` for False.

    Returns:
        The step t that each takes, or would take if it were not skipped.
    """
    if skip is None:
        torch._foreach_add_(steps, 1)
        return steps
    due = list(torch._foreach_add(steps, 1))
    for step in steps:
        step.add_(~skip.to(step.device))
    return due


def make_step(step: float | Tensor, param: Tensor, group: dict[str, Any]) -> Tensor:
    """Return a step count as the state holds it: 0-dim, on the CPU unless the device must not be waited for.

    Args:
        step: The number of steps taken.
        param: The parameter it belongs to.
        group: The parameter's group, whose ``fused``, ``capturable`` and ``nonfinite`` decide the dtype and
            the device.
    """
    dtype = _get_scalar_dtype(group["fused"])
    on_device = group["capturable"] or group["fused"] or group["nonfinite"] == "skip"
    device = param.device if on_device else "cpu"
    if isinstance(step, Tensor):
        return step.to(device, dtype)
    return torch.full((), step, dtype=dtype, device=device)


def check_param(param: Tensor, group: dict[str, Any]) -> None:
    """Check, before a parameter's first step, that it can be updated in place, and by the fused implementation.

    Args:
        param: Of any shape.
        group: Its group.

    Raises:
        ValueError: If it is a lazily conjugated or negated view, several of its elements are one in memory,
            it was made in inference mode, it is of complex numbers of 16 bits, or of float64 or complex
            numbers with ``state_bits`` below 32.
        RuntimeError: If ``fused`` is given and cannot serve it, or its kernel can't be had.
    """
    remedy = f"; make it of a copy: torch.nn.Parameter(value.clone()) (it is of shape {tuple(param.shape)})"
    if param.dtype == torch.complex32:
        raise ValueError(
            f"A parameter of shape {tuple(param.shape)} is in torch.complex32, whose 16-bit parts lose most steps to "
            "rounding, and for which AdaBelief keeps no master weight: make it torch.complex64"
        )
    if param.is_conj() or param.is_neg():
        raise ValueError(f"A parameter is a lazily conjugated or negated view, which no step can write to{remedy}")
    if any(stride == 0 and size > 1 for stride, size in zip(param.stride(), param.shape, strict=True)):
        raise ValueError(f"A parameter is an expanded view, several of whose elements are one in memory{remedy}")
    if param.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(f"A parameter was made in inference mode, and can't be written to outside of it{remedy}")
    if group["state_bits"] < 32 and param.dtype not in CODED_DTYPES:
        raise ValueError(
            f"A parameter of shape {tuple(param.shape)} is in {param.dtype}, for which AdaBelief keeps no state of "
            f"{group['state_bits']} bits: give it a param group with state_bits=32"
        )
    if group["fused"]:
        check_fused(param)
        load_implementation(param.device)


def check_grad(param: Tensor, grad: Tensor) -> None:
    """Check that a gradient can be used for a step.

    Args:
        param: The parameter.
        grad: Its gradient.

    Raises:
        ValueError: If it is sparse, or of another shape or on another device than the parameter, whose data
            was replaced.
    """
    if grad.layout is not torch.strided:
        raise ValueError(
            f"AdaBelief does not support sparse gradients, got one of layout {grad.layout} "
            f"for a parameter of shape {tuple(param.shape)}; give the embedding sparse=False, or "
            "its parameters to torch.optim.SparseAdam"
        )
    if grad.shape != param.shape or grad.device != param.device:
        raise ValueError(
            f"A parameter of shape {tuple(param.shape)} on {param.device} has a gradient of shape {tuple(grad.shape)} "
            f"on {grad.device}: its data was replaced after the backward pass; call zero_grad() and run that again"
        )


def prepare_state(state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
    """Make a parameter's state, or bring it to the parameter's device and dtype after the module was moved or cast.

    Args:
        state: The parameter's state, to be changed; empty before the first step.
        param: The parameter.
        group: Its group.

    Raises:
        ValueError: If the parameter can't be updated in place, or has another shape than its state; nothing
            is changed then.
        RuntimeError: If ``fused`` is given and cannot serve it.
    """
    check_param(param, group)
    if not state:
        state["step"] = make_step(0.0, param, group)
        for key in ("exp_avg", "exp_avg_var"):
            state[key] = make_average(param, find_state_bits(param, group["state_bits"]), state_dtype(param))
        return
    averages = {key: state[key] for key in ("exp_avg", "exp_avg_var", "max_exp_avg_var") if key in state}
    for key, value in averages.items():
        if not fits(value, param):
            shape = f"{'packed in bytes ' if is_packed(value) else ''}of shape {tuple(value.shape)}"
            raise ValueError(
                f"A parameter of shape {tuple(param.shape)} has a state whose {key} is {shape}: "
                "its data was replaced. Make a new optimizer, or forget its state: optimizer.state.pop(param)"
            )
    dtype = state_dtype(param)
    for key, value in averages.items():
        state[key] = convert_average(value, param, group["state_bits"], key, dtype)
    state["step"] = make_step(state["step"], param, group)


def check_differentiable(group: dict[str, Any], tensors: StepTensors) -> None:
    """Check that autograd can go through the step of a ``differentiable`` group.

    Args:
        group: A param group.
        tensors: Its tensors.

    Raises:
        ValueError: If a parameter is a leaf that requires grad, which autograd allows no change of, or is of
            16 bits, through whose rounding autograd can't go.
    """
    if not group["differentiable"]:
        return
    narrow = {param.dtype for param in tensors.params} & MISSING_BITS.keys()
    if narrow:
        raise ValueError(
            f"With differentiable=True a parameter is in {narrow.pop()}, through whose rounding autograd can't go: "
            "give the optimizer parameters in float32, or leave differentiable out"
        )
    if not torch.is_grad_enabled():
        return
    if any(param.is_leaf and param.requires_grad for param in tensors.params):
        raise ValueError(
            "With differentiable=True a parameter is a leaf that requires grad, and autograd can't go through its "
            "change in place. Give the optimizer a copy that is no leaf, param.clone(), or leave differentiable out"
        )


def check_graph_capture(optimizer: Optimizer) -> None:
    """Warn, as torch's optimizers do, of a step without ``capturable`` while a CUDA graph is captured."""
    getattr(optimizer, _GRAPH_CAPTURE_CHECK)()


def check_capturable(group: dict[str, Any], tensors: StepTensors) -> None:
    """Check that a ``capturable`` group can be captured: its parameters and their steps share such a device.

    Args:
        group: A param group.
        tensors: Its tensors.

    Raises:
        AssertionError: If not, as torch's optimizers do.
    """
    if not group["capturable"] or torch.compiler.is_compiling():  # the compiler knows what it can capture
        return
    supported = _get_capturable_supported_devices()
    for param, step in zip(tensors.params, tensors.steps, strict=True):
        if param.device.type not in supported or step.device.type != param.device.type:
            raise AssertionError(
                f"If capturable=True, params and state_steps must be on supported devices: {supported}, got a "
                f"parameter on {param.device} and its step on {step.device}; leave capturable out, or switch "
                "it on in the constructor or by load_state_dict"
            )

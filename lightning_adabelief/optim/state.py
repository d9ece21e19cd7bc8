"""The optimizer's state: its dtypes and devices, and the checks of what is loaded into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _get_capturable_supported_devices, _get_scalar_dtype

from lightning_adabelief.optim.tensors import StepTensors


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


def restore_state(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Put the tensors of a state dict into the optimizer again, in the dtypes that the state has here.

    torch casts loaded state to the parameter's dtype, which for s_t in float16 means 0.

    Args:
        optimizer: An optimizer that has just loaded ``saved``.
        saved: The state dict, as it was before torch cast it.
    """
    for loaded, group in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        for id_, param in zip(loaded["params"], group["params"], strict=True):
            for key, value in saved["state"].get(id_, {}).items():
                if key == "step":
                    optimizer.state[param][key] = make_step(value, param, group)
                else:
                    optimizer.state[param][key] = value.to(param.device, state_dtype(param))


def check_group_sizes(saved: list[dict[str, Any]], own: list[dict[str, Any]]) -> None:
    """Check that a checkpoint has as many param groups as the optimizer, of the same sizes.

    Args:
        saved: The checkpoint's param groups.
        own: The optimizer's.

    Raises:
        ValueError: If not; it lists both.
    """
    if [len(group["params"]) for group in saved] == [len(group["params"]) for group in own]:
        return
    in_checkpoint, here = (
        ", ".join(f"{group.get('name', 'unnamed')} ({len(group['params'])} parameters)" for group in groups)
        for groups in (saved, own)
    )
    raise ValueError(
        f"The checkpoint's param groups are not this optimizer's: {in_checkpoint} in the checkpoint, {here} here. "
        "configure_adabelief groups by weight_decay (0, or more), decay_embeddings, layers and layer_decay, and leaves "
        "out what is frozen: give these as the checkpoint's run had them"
    )


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

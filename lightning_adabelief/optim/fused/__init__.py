"""The rule in one pass over memory: each number of the state is read once and written once.

``cpu.py`` calls a C++ kernel that is compiled once on a machine, ``cuda.py`` two Triton kernels. Both
take the arguments of :func:`fused_adabelief`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_adabelief.optim.fused.build import FLOAT32, load_kernel
from lightning_adabelief.optim.fused.cpu import fused_adabelief_cpu
from lightning_adabelief.optim.shards import ORDINARY_TENSORS, unwrap_shards
from lightning_adabelief.optim.step_sums import StepSums
from lightning_adabelief.optim.tensors import StepTensors

FUSED_DEVICES = ("cpu", "cuda")
"""The types of device that have a fused implementation."""


def check_fused(param: Tensor) -> None:
    """Check that the fused implementation can serve a parameter.

    Args:
        param: Of any shape.

    Raises:
        RuntimeError: If it is not of a floating-point dtype on one of :data:`FUSED_DEVICES`.
    """
    if not (param.device.type in FUSED_DEVICES and param.is_floating_point()):
        raise RuntimeError(
            "`fused=True` requires all the params to be floating point Tensors of supported devices: "
            f"{list(FUSED_DEVICES)} but {param.dtype} and {param.device.type}; give these parameters a param "
            "group with fused=False"
        )


def load_implementation(device: torch.device) -> None:
    """Load the fused implementation for a device, once a process.

    Args:
        device: Of one of :data:`FUSED_DEVICES`.

    Raises:
        RuntimeError: If the kernel for the CPU can't be had: compiled, or loaded from its cache.
        ImportError: If Triton, which that for CUDA needs, is missing.
    """
    if device.type == "cpu":
        load_kernel(FLOAT32)
    else:
        import lightning_adabelief.optim.fused.cuda  # noqa: F401


def can_fuse(params: Iterable[Tensor]) -> bool:
    """True if the fused implementation can serve all of these parameters on this machine.

    On the CPU this compiles the kernel, for some seconds, where the machine's cache does not hold it.

    Args:
        params: Of any shapes.
    """
    params = list(params)
    if not are_fusable(params):
        return False
    try:
        for device in {param.device for param in params}:
            load_implementation(device)
    except (ImportError, RuntimeError):
        return False
    return True


def are_fusable(params: Iterable[Tensor]) -> bool:
    """True if all of these parameters are of types, dtypes and devices that have a fused implementation.

    Args:
        params: Of any shapes.
    """
    for param in params:
        if not (type(param) in ORDINARY_TENSORS or hasattr(param, "to_local")):
            return False
        try:
            check_fused(param)
        except RuntimeError:
            return False
    return True


@torch._disable_dynamo
def fused_adabelief(
    tensors: StepTensors,
    *,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    sums: StepSums | None = None,
    **options: Any,
) -> None:
    """Take one step on many tensors, in place.

    Args:
        tensors: Parameters of any shapes and floating-point dtypes, on devices with a fused
            implementation; gradients, left as they are without ``grad_scale``; averages, in float32, in
            the parameter's dtype where that is wider, or in 16 or 8 bits; steps, in float32 on the
            parameter's device.
        grad_scale: The factor by which the gradients were scaled, one number: they are divided by it,
            in place.
        found_inf: One number; if it is not 0 nothing is changed, the steps included.
        sums: A dictionary to be given the sums of each parameter that a kernel serves; not of shards of a
            parameter, nor on CUDA in a step with ``found_inf``.
        **options: The options of :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief` and of
            :func:`~lightning_adabelief.optim.scaling.step_scale`.

    Raises:
        RuntimeError: If a parameter is on a device without a fused implementation, or the kernel cannot be
            had; nothing is changed then.
    """
    by_device: dict[torch.device, list[int]] = defaultdict(list)
    for i, param in enumerate(tensors.params):
        by_device[param.device].append(i)
    for device, members in by_device.items():
        check_fused(tensors.params[members[0]])
        on_device = tensors if len(by_device) == 1 else tensors.select(members)
        local = unwrap_shards(on_device)
        on_device_options = {
            "grad_scale": None if grad_scale is None else grad_scale.to(device),
            "found_inf": None if found_inf is None else found_inf.to(device),
            **options,
        }
        own_sums = sums if local is on_device else None
        if device.type == "cpu":
            fused_adabelief_cpu(local, sums=own_sums, **on_device_options)
        else:  # imported here, for it imports Triton
            from lightning_adabelief.optim.fused.cuda import fused_adabelief_cuda

            fused_adabelief_cuda(local, sums=own_sums, **on_device_options)

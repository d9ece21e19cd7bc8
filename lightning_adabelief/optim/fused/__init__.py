"""The rule in one pass over memory: each number of the state is read once and written once.

``cpu.py`` calls a C++ kernel compiled once a machine; ``cuda.py`` a Triton kernel. Both take the
arguments of :func:`fused_adabelief`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

FUSED_DEVICES = ("cpu", "cuda")
"""The types of device that have a fused path."""

PLAIN = (Tensor, torch.nn.Parameter)
"""The types of tensor that are not made of others, as a DTensor is."""


def check_fused(param: Tensor) -> None:
    """Check that the fused path can serve a parameter.

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


def can_fuse(params: Iterable[Tensor]) -> bool:
    """Whether the fused path can serve all of these parameters on this machine.

    On the CPU this compiles the kernel, for some seconds, where the machine's cache does not hold it.

    Args:
        params: Of any shapes.
    """
    devices = set()
    for param in params:
        if not (type(param) in PLAIN or hasattr(param, "to_local")):
            return False
        try:
            check_fused(param)
        except RuntimeError:
            return False
        devices.add(param.device.type)
    try:
        for device in devices:
            path = import_module(f"lightning_adabelief.optim.fused.{device}")
            if device == "cpu":
                path.load_kernel()
    except (ImportError, RuntimeError):
        return False
    return True


@torch._disable_dynamo
def fused_adabelief(
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
    """Take one step on many tensors, in place.

    Args:
        params: Parameters of any shapes and floating-point dtypes, on devices with a fused path.
        grads: Their gradients; left as they are without ``grad_scale``.
        exp_avgs: Their m_t, in float32 or the parameter's dtype where that is wider.
        exp_avg_vars: Their s_t, like ``exp_avgs``.
        max_exp_avg_vars: Their largest s_t so far; empty without amsgrad.
        step_tensors: The steps each has taken, 0-dim float32, on the parameter's device; 1 is added.
        grad_scale: What the gradients were multiplied by, one number: they are divided by it, in place.
        found_inf: One number; if it is not 0 nothing is changed, the steps included.
        **options: Those of :func:`~lightning_adabelief.optim.rule.single_tensor_adabelief`.

    Raises:
        RuntimeError: If a parameter is on a device without a fused path, or the kernel cannot be
            compiled; nothing is changed then.
    """
    by_device: dict[torch.device, list[int]] = defaultdict(list)
    for i, param in enumerate(params):
        by_device[param.device].append(i)
    lists = (params, grads, exp_avgs, exp_avg_vars, max_exp_avg_vars, step_tensors)
    for device, members in by_device.items():
        check_fused(params[members[0]])
        alike = lists if len(by_device) == 1 else tuple([ts[i] for i in members] if ts else [] for ts in lists)
        kind = device.type
        path = getattr(import_module(f"lightning_adabelief.optim.fused.{kind}"), f"fused_adabelief_{kind}")
        path(
            *_local(alike),
            grad_scale=None if grad_scale is None else grad_scale.to(device),
            found_inf=None if found_inf is None else found_inf.to(device),
            **options,
        )


def _local(lists: tuple[list[Tensor], ...]) -> tuple[list[Tensor], ...]:
    """What this process holds of each tensor: of a DTensor its shard, else the tensor itself.

    The rule is elementwise, so shards of parameter, gradient and state are all that it needs.
    """
    params, grads, *others = lists
    if all(type(param) in PLAIN for param in params):
        return lists
    grads = [
        cast(Any, grad).redistribute(placements=param.placements) if hasattr(param, "placements") else grad
        for param, grad in zip(params, grads, strict=True)
    ]
    return tuple(
        [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
        for tensors in (params, grads, *others)
    )

"""Tensors that may be sharded over ranks (DTensors): a rank's own part, or all of one."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from lightning_adabelief.optim.tensors import StepTensors

ORDINARY_TENSORS = (Tensor, torch.nn.Parameter)
"""The types of tensor that hold their elements themselves; a DTensor holds another tensor."""


def to_local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a DTensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor that may be sharded; a DTensor is gathered, for which every rank must call."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def unwrap_shards(tensors: StepTensors) -> StepTensors:
    """Return the part of each tensor that this process holds: the shard of a DTensor, else the tensor itself.

    The rule is elementwise, so shards of parameter, gradient and state are all that it needs.
    """
    params, grads, *others = tensors
    if all(type(param) in ORDINARY_TENSORS for param in params):
        return tensors
    grads = [
        cast(Any, grad).redistribute(placements=param.placements) if hasattr(param, "placements") else grad
        for param, grad in zip(params, grads, strict=True)
    ]
    columns = [[to_local(cast(Any, entry)) for entry in column] for column in (params, grads, *others)]
    return StepTensors(*cast(Any, columns))

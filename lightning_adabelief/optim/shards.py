"""Tensors that may be sharded over ranks (DTensors): a rank's own part, or all of one."""

from __future__ import annotations

from torch import Tensor


def to_local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a DTensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor that may be sharded; a DTensor is gathered, for which every rank must call."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

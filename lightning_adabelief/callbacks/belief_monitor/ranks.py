"""Tensors of several ranks: a rank's own part, and one value for all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a DTensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def reduce_over_ranks(value: Tensor, operation: Any) -> Tensor:
    """Return the reduction of a value over all ranks, each of which must call.

    Args:
        value: Any shape; left as it is.
        operation: Of ``torch.distributed.ReduceOp``, such as ``MAX``.
    """
    value = value.clone()
    torch.distributed.all_reduce(value, op=operation)
    return value

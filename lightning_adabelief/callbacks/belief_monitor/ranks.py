"""Values of several ranks reduced to one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def reduce_over_ranks(value: Tensor, operation: Any) -> Tensor:
    """Return the reduction of a value over all ranks, each of which must call.

    Args:
        value: Any shape; left as it is.
        operation: Of ``torch.distributed.ReduceOp``, such as ``MAX``.
    """
    value = value.clone()
    torch.distributed.all_reduce(value, op=operation)
    return value

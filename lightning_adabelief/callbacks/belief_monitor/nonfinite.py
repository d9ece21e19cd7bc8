"""Count the steps whose gradient is not finite, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adabelief.beliefs.layers import norms
from lightning_adabelief.callbacks.belief_monitor.ranks import reduce_over_ranks
from lightning_adabelief.optim.shards import to_local

ENTRIES_LOOKED_AT = 1 << 12
"""The number of entries of each gradient that are looked at; reading all took 1 % of a training step on a CPU."""

# The first occurrence is one integer, so that its minimum over ranks is one reduction: step * MAX_PARAMETERS + index.
MAX_PARAMETERS = 1 << 32
NO_OCCURRENCE = (1 << 63) - 1


class NonfiniteGradients:
    """Counts, on the device, the steps whose gradient has a NaN or an infinity.

    The first rows of each gradient are looked at, about :data:`ENTRIES_LOOKED_AT` entries, and all of it where a fused
    step has taken its sum of squares: what is not finite spreads to all layers below in the same step. Gradients count
    as finite if their Euclidean norm is; a norm beyond 2e19 in float32 makes s_t infinite as well.

    Args:
        count: Steps counted before.
    """

    def __init__(self, count: int = 0) -> None:
        self._count = torch.tensor(count)
        self._first_index = self._first_step = torch.tensor(-1)

    def check_step(self, params: list[Tensor], step: int) -> None:
        """Look at the gradients of a step.

        Args:
            params: All parameters, some of which may have no gradient.
            step: The number of this step.
        """
        grads = [param.grad for param in params if param.grad is not None]
        if not grads:
            return
        grad_norms = measure_first_rows(grads)
        if len(grads) < len(params):  # a 0 in the place of each that is missing, so that positions are indices
            present = iter(grad_norms.unbind())
            zero = torch.zeros_like(grad_norms[0])
            grad_norms = torch.stack([zero if param.grad is None else next(present) for param in params])
        self.check_norms(grad_norms, step)

    def check_norms(self, grad_norms: Tensor, step: int) -> None:
        """Look at the norms of a step's gradients, or at their squares.

        Args:
            grad_norms: Those of all parameters, whole or of their first rows (:func:`measure_first_rows`); 0 without a
                gradient.
            step: The number of this step.
        """
        device = grad_norms.device
        is_nonfinite = ~grad_norms.isfinite()
        self._count, self._first_index, self._first_step = (
            value.to(device) for value in (self._count, self._first_index, self._first_step)
        )
        # The masks keep the very first occurrence without a branch, which would wait for the device.
        is_any = is_nonfinite.any()
        is_first = is_any & (self._first_step < 0)
        self._first_index = torch.where(is_first, is_nonfinite.int().argmax(), self._first_index)
        self._first_step = self._first_step.masked_fill(is_first, step)
        self._count = self._count + is_any

    def count(self, sharded: bool) -> int:
        """Return the number of such steps; of shards, the most that any rank saw (every rank must call)."""
        return int(reduce_over_ranks(self._count, torch.distributed.ReduceOp.MAX) if sharded else self._count)

    def first(self, sharded: bool) -> tuple[int, int] | None:
        """Return the parameter's index and the step at the first such gradient; of shards, on any rank."""
        step, index = self._first_step, self._first_index
        occurrence = torch.where(step < 0, NO_OCCURRENCE, step * MAX_PARAMETERS + index)
        earliest = int(reduce_over_ranks(occurrence, torch.distributed.ReduceOp.MIN) if sharded else occurrence)
        return None if earliest == NO_OCCURRENCE else (earliest % MAX_PARAMETERS, earliest // MAX_PARAMETERS)


def measure_first_rows(grads: list[Tensor]) -> Tensor:
    """Return the norms of the first rows of one or more gradients, on the device of the first."""
    rows = [_first_rows(to_local(grad)) for grad in grads]
    device = rows[0].device
    same_device = all(grad.device == device for grad in rows)
    return norms(rows) if same_device else torch.cat([norms([grad]).to(device) for grad in rows])


def _first_rows(grad: Tensor) -> Tensor:
    """Return the first rows of a gradient, whatever its layout: slicing copies nothing."""
    size = grad.numel()
    return grad if size <= ENTRIES_LOOKED_AT else grad[: 1 + ENTRIES_LOOKED_AT * grad.shape[0] // size]

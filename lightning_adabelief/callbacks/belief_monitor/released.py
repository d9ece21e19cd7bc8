"""Measurements of gradients that are dropped within the backward pass (``release_gradients``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_adabelief.beliefs.layers import Columns, Layer
from lightning_adabelief.beliefs.measure import measure_columns_of
from lightning_adabelief.callbacks.belief_monitor.nonfinite import measure_first_rows


class ReleasedGradients:
    """Measures each gradient while it is there, and keeps the figures until the step is over.

    Args:
        optimizer: The AdaBelief whose gradients are released.
        is_due: True in a step that is to be measured.
    """

    def __init__(self, optimizer: Optimizer, is_due: Callable[[], bool]) -> None:
        self._optimizer = optimizer
        self._is_due = is_due
        self._layers: dict[Tensor, Layer] = {}
        self._columns: dict[Tensor, Columns] = {}
        self._norms: dict[Tensor, Tensor] = {}

    def measure(self, param: Tensor, group: dict[str, Any]) -> None:
        """Measure a parameter that has been stepped and still has its gradient; waits for the device if it is due."""
        if param.numel() == 0:
            return
        assert param.grad is not None
        self._norms[param] = measure_first_rows([param.grad])[0]
        if self._is_due():
            self._layers[param] = (param, self._optimizer.state[param], group)
            self._columns[param] = measure_columns_of(self._optimizer, [self._layers[param]])

    def take_norms(self, params: Sequence[Tensor]) -> Tensor | None:
        """Return the norms of the first rows of the step's gradients, and forget them; None if there were none.

        Args:
            params: All parameters; the norm of one without a gradient is 0.
        """
        norms_of, self._norms = self._norms, {}
        if not norms_of:
            return None
        zero = torch.zeros_like(next(iter(norms_of.values())))
        return torch.stack([norms_of.get(param, zero).to(zero.device) for param in params])

    def take_layers(self, params: Sequence[Tensor]) -> tuple[list[Layer], Columns]:
        """Return the layers that were measured in the step, with their columns, and forget them.

        Args:
            params: The parameters to return, in order; those that were not measured are left out.
        """
        measured = [param for param in params if param in self._columns]
        layers = [self._layers[param] for param in measured]
        columns = [self._columns[param] for param in measured]
        self._layers, self._columns = {}, {}
        if not columns:
            return [], {}
        return layers, {name: torch.cat([of_layer[name] for of_layer in columns]) for name in columns[0]}

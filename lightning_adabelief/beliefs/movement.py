"""The movement of weights in a step, by comparison with copies: for optimizers whose rule is not known here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_adabelief.beliefs.layers import Columns, Layer, norms
from lightning_adabelief.beliefs.reading import is_plain
from lightning_adabelief.optim.shards import full_tensor

MOMENTUM_NAMES = ("exp_avg", "momentum_buffer", "momentum")
"""The names under which optimizers keep a momentum; the first that a state has is taken."""


class Movement:
    """Copies of an optimizer's weights and momenta from before a step.

    They take as much memory as the parameters and their momenta, until the step has been measured.

    Args:
        optimizer: Any, before its step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        params = [param for group in optimizer.param_groups for param in group["params"]]
        self._weights = {param: param.detach().clone() for param in params}
        self._momenta: dict[Tensor, Tensor] = {}
        for param in params:
            momentum = find_momentum(param, optimizer.state.get(param, {}))
            if momentum is not None:
                self._momenta[param] = momentum.detach().clone()

    def sum_updates(self, layers: Sequence[Layer]) -> Columns:
        """Return ``update_square``, and the sums for the cosine of gradient and momentum where there is one.

        Args:
            layers: Parameters after the step, with their gradients still in place. Where they are sharded,
                every rank must call.

        Returns:
            As :func:`~lightning_adabelief.beliefs.sums.sum_grads_and_momentum` has them, for the momentum
            before the step and the gradient as it is, negated under ``maximize``.
        """
        params = [param for param, *_ in layers]
        updates = {param: self._weights[param].sub_(param.detach()) for param in params}
        columns = {"update_square": _squared_norms(updates, params)}
        if any(find_momentum(param, state) is not None for param, state, _ in layers):
            columns |= self._sum_grads_and_momentum(layers)
        return columns

    def _sum_grads_and_momentum(self, layers: Sequence[Layer]) -> Columns:
        moving = [(param, group) for param, _, group in layers if param in self._momenta and param.grad is not None]
        grads = {param: _as_real(param.grad.detach()) for param, _ in moving if param.grad is not None}
        momenta = {param: _as_real(self._momenta[param]).to(grads[param].dtype) for param, _ in moving}
        products = {}
        for param, group in moving:
            product = full_tensor((grads[param] * momenta[param]).sum(dtype=torch.float32))
            products[param] = -product if group.get("maximize") else product
        params = [param for param, *_ in layers]
        return {
            "grad_momentum": torch.tensor([float(products.get(param, 0.0)) for param in params], dtype=torch.float64),
            "momentum_square": _squared_norms(momenta, params),
            "used_grad_square": _squared_norms(grads, params),
        }


def find_momentum(param: Tensor, state: Mapping[str, Any]) -> Tensor | None:
    """Return the momentum among a parameter's state, or None.

    Args:
        param: The parameter.
        state: Its state, of any optimizer.
    """
    for name in MOMENTUM_NAMES:
        momentum = state.get(name)
        if isinstance(momentum, Tensor) and momentum.shape == param.shape and is_plain(momentum):
            return momentum
    return None


def _squared_norms(tensors: Mapping[Tensor, Tensor], params: Sequence[Tensor]) -> Tensor:
    """Return the squared norms, in float64 on the CPU, of each parameter's tensor; 0 where it has none."""
    squares: dict[Tensor, float] = {}
    for device in {tensor.device for tensor in tensors.values()}:
        on_device = [param for param, tensor in tensors.items() if tensor.device == device]
        found = norms([tensors[param] for param in on_device]).cpu().double().square()
        squares |= dict(zip(on_device, found.tolist(), strict=True))
    return torch.tensor([squares.get(param, 0.0) for param in params], dtype=torch.float64)


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if torch.is_complex(tensor) else tensor

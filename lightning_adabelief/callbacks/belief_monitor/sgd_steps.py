"""The steps of SGD with which a rectified AdaBelief begins: how far they move the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adabelief.beliefs.layers import norms
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.averages import unpack_average
from lightning_adabelief.optim.options import as_number
from lightning_adabelief.optim.scaling import rectification, warmup_factor


class SgdSteps:
    """Keeps the longest of the steps that an optimizer takes while r_t is undefined, relative to its weights.

    Such a step is lr times the momentum, at full lr unless there is a warmup, and in proportion to the gradient: on
    inputs that are not scaled it can be as long as the weights themselves.

    Attributes:
        are_over: True once no param group takes such steps any more.
    """

    def __init__(self) -> None:
        self.are_over = False
        self._longest: Tensor | None = None

    @property
    def longest(self) -> float:
        """Norm of the update over norm of the weights, of all parameters together; 0 without such steps."""
        return 0.0 if self._longest is None else float(self._longest)

    def check_step(self, optimizer: AdaBelief) -> None:
        """Look at the step just taken; this does not wait for the device unless the step counts are there.

        Args:
            optimizer: After its step. Where its parameters are sharded, every rank must call.
        """
        if self.are_over:
            return
        update_norms, weight_norms = [], []
        for group in optimizer.param_groups:
            stepped = [param for param in group["params"] if optimizer.state.get(param) and param.numel() > 0]
            if not stepped or not group["rectify"] or not group["degenerated_to_sgd"]:
                continue
            step = float(optimizer.state[stepped[0]]["step"])
            beta1, beta2 = (as_number(beta) for beta in group["betas"])
            if rectification(step, beta2) > 0:
                continue
            lr = as_number(group["lr"]) * warmup_factor(step, group["warmup"], group["total_steps"])
            momenta = norms([unpack_average(optimizer.state[param]["exp_avg"], param, "exp_avg") for param in stepped])
            updates = momenta * (lr / (1 - beta1**step))
            if group["max_update_to_lr"] is not None:
                largest = [lr * group["max_update_to_lr"] * param.numel() ** 0.5 for param in stepped]
                updates = updates.minimum(updates.new_tensor(largest))
            update_norms.append(updates.norm())
            weight_norms.append(norms(stepped).norm())
        if not update_norms:
            self.are_over = bool(optimizer.state)
            return
        device = update_norms[0].device
        update_norm, weight_norm = (
            torch.stack([norm.to(device) for norm in of_groups]).norm() for of_groups in (update_norms, weight_norms)
        )
        ratio = update_norm / weight_norm
        self._longest = ratio if self._longest is None else torch.maximum(self._longest, ratio)

"""The callback that gives every optimizer of a comparison the same warmup."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from lightning_adabelief.beliefs.reading import find_optimizers
from lightning_adabelief.configure.run_length import steps_needed
from lightning_adabelief.lightning_tree import Callback, LightningModule
from lightning_adabelief.optim.options import check_values
from lightning_adabelief.optim.scaling import is_fraction, warmup_factor


class Warmup(Callback):
    """Multiply the learning rate of each of the Trainer's optimizers by ``min(1, t / warmup)`` in its step t.

    The steps are those that AdaBelief takes with its own ``warmup``. The factor is there only within a step, so that
    a schedule finds the rate that it has set.

    Args:
        warmup: An int is a number of steps; a float in (0, 1) a fraction of the run, in each optimizer's own steps; 0
            is no warmup.

    Raises:
        ValueError: If it is none of these; and at the start of training, if it is a fraction and the length of the run
            can't be known.
    """

    def __init__(self, warmup: int | float) -> None:
        check_values({"warmup": warmup})
        self.warmup = warmup
        self._steps: dict[Optimizer, int] = {}
        self._rates: list[Any] = []
        self._batches = self._length = 0
        self._handles: list[Any] = []

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Register the hooks around each step."""
        self._is_automatic = pl_module.automatic_optimization
        if is_fraction(self.warmup):
            steps_per_batch = None if self._is_automatic else 1
            self._length = steps_needed(f"warmup={self.warmup}", trainer, steps_per_batch, None)
        self._batches = 0
        self._steps = {inner: 0 for optimizer in trainer.optimizers for inner in find_optimizers(optimizer)}
        for optimizer in self._steps if self.warmup else ():
            self._handles.append(optimizer.register_step_pre_hook(self._lower_rates))
            self._handles.append(optimizer.register_step_post_hook(self._restore_rates))

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the batches."""
        self._batches += 1

    def on_train_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _lower_rates(self, optimizer: Optimizer, *_: Any) -> None:
        self._steps[optimizer] += 1
        step = self._steps[optimizer]
        factor = warmup_factor(step, self.warmup, self._count_steps(step))
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def _restore_rates(self, optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate

    def _count_steps(self, step: int) -> int:
        """Count the steps of the optimizer that takes its t-th."""
        if self._is_automatic:
            return self._length
        # How often it steps, only the module knows: as often as it has until now. Rounded up, but for 1/3 * 3.
        return math.ceil(round(step / self._batches * self._length, 6))

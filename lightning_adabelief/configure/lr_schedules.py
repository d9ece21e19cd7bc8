"""Schedules that hold the learning rate while AdaBelief warms up, and then lower it to the end of the run.

AdaBelief multiplies lr by its warmup inside the step; these set lr. So lr is held for the warmup and
then follows torch's own scheduler, in its chainable form, which also carries param groups that
come late.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from lightning_adabelief.lightning_tree import rank_zero_warn

SCHEDULES = ("cosine", "linear", "step")
INTERVALS = ("step", "epoch")
STEP_AT, STEP_BY = 0.75, 0.1
"""The paper's schedule on CIFAR: a tenth of lr from epoch 150 of 200."""


class _Held:
    """Holds lr before a torch scheduler's first step, and after its last."""

    hold: int
    length: int
    last_epoch: int
    optimizer: torch.optim.Optimizer

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, and warn where the state is that of a shorter run: its length is taken."""
        total_steps = self.hold + self.length
        super().load_state_dict(state_dict)  # type: ignore[misc]
        if (loaded := self.hold + self.length) < total_steps:
            rank_zero_warn(
                f"total_steps is {loaded} in the checkpoint and {total_steps} in this run: lr stays 0 from step "
                f"{loaded} on, for a schedule goes on as it began. To train for {total_steps} steps, give total_steps="
                f"{total_steps} to the first run, or begin a new run from the checkpoint's weights "
                "(load_from_checkpoint, without ckpt_path)"
            )

    def get_lr(self) -> list[Any]:
        """As torch's scheduler would, had it begun after ``hold`` steps."""
        if not self.hold < self.last_epoch <= self.hold + self.length:
            return [group["lr"] for group in self.optimizer.param_groups]
        self.last_epoch -= self.hold
        try:
            return super().get_lr()  # type: ignore[misc]
        finally:
            self.last_epoch += self.hold


class CosineAfterWarmup(_Held, CosineAnnealingLR):
    """Hold lr for ``hold`` steps, then lower it to 0 over ``length`` steps, as half a cosine.

    Args:
        optimizer: The optimizer.
        hold: Steps of the warmup.
        length: Steps after it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hold: int, length: int) -> None:
        self.hold, self.length = hold, length
        super().__init__(optimizer, T_max=length)


class LinearAfterWarmup(_Held, LinearLR):
    """Hold lr for ``hold`` steps, then lower it to 0 over ``length`` steps, along a line.

    Args:
        optimizer: The optimizer.
        hold: Steps of the warmup.
        length: Steps after it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hold: int, length: int) -> None:
        self.hold, self.length = hold, length
        super().__init__(optimizer, start_factor=1.0, end_factor=0.0, total_iters=length)


def make_schedule(name: str, optimizer: torch.optim.Optimizer, warmup_steps: float, total_steps: int) -> LRScheduler:
    """Make one of :data:`SCHEDULES`, which counts optimizer steps.

    Args:
        name: ``"cosine"`` or ``"linear"``, to 0 at the end of the run; ``"step"``, to a tenth when three
            quarters of the run are over.
        optimizer: The optimizer.
        warmup_steps: Steps of its longest warmup, during which lr is held.
        total_steps: Steps of the run.
    """
    hold = min(math.ceil(warmup_steps), total_steps - 1)
    if name == "step":
        return MultiStepLR(optimizer, milestones=[round(STEP_AT * total_steps)], gamma=STEP_BY)
    if name == "cosine":
        return CosineAfterWarmup(optimizer, hold, total_steps - hold)
    if name == "linear":
        return LinearAfterWarmup(optimizer, hold, total_steps - hold)
    raise AssertionError(name)


def check_schedule(schedule: Any, interval: Any) -> None:
    """Check what ``configure_adabelief`` was given as a schedule and its interval.

    Raises:
        ValueError: If there is no such schedule or interval.
    """
    if interval not in INTERVALS:
        raise ValueError(f"Unknown schedule_interval: {interval!r}. Give one of {', '.join(INTERVALS)}")
    if schedule is None or callable(schedule) or schedule in SCHEDULES:
        return
    near = difflib.get_close_matches(str(schedule), SCHEDULES, n=1)
    did_you_mean = f"Did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"Unknown schedule: {schedule!r}. {did_you_mean}Give one of {', '.join(SCHEDULES)}, or a function from the "
        "optimizer to a scheduler of torch.optim.lr_scheduler"
    )

"""Learning-rate schedules that hold lr while AdaBelief warms up, and then lower it to the end of the run.

AdaBelief multiplies lr by its warmup inside the step; these set lr. So lr is held for the warmup and
then follows torch's own scheduler, in its chainable form, which also carries param groups that
come late.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from lightning_adabelief.lightning_tree import rank_zero_warn
from lightning_adabelief.suggest import suggest

SCHEDULES = ("cosine", "linear", "step")
INTERVALS = ("step", "epoch")
STEP_AT_FRACTION, STEP_FACTOR = 0.75, 0.1
"""The paper's schedule on CIFAR: a tenth of lr from epoch 150 of 200."""


class _AfterWarmup:
    """Holds lr before a torch scheduler's first step, and after its last."""

    hold: int
    length: int
    last_epoch: int
    optimizer: torch.optim.Optimizer

    length_attribute: str
    """The attribute in which torch's scheduler keeps its length."""

    follows_run = False
    """True if the length is checked against the Trainer as the run goes on (:func:`set_total_steps`)."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, without what belongs to this run and not to the schedule."""
        state = super().state_dict()  # type: ignore[misc]
        state.pop("follows_run", None)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state, and warn if it is that of a shorter run whose length then stays."""
        total_steps = self.hold + self.length
        super().load_state_dict(state_dict)  # type: ignore[misc]
        loaded = self.hold + self.length
        if loaded < total_steps and not self.follows_run:
            rank_zero_warn(
                f"total_steps is {loaded} in the checkpoint and {total_steps} in this run: lr stays 0 from step "
                f"{loaded} on, for a schedule goes on as it began. To train for {total_steps} steps, give total_steps="
                f"{total_steps} to the first run, or begin a new run from the checkpoint's weights "
                "(load_from_checkpoint, without ckpt_path)"
            )

    def get_lr(self) -> list[Any]:
        """Return what torch's scheduler would, had it begun after ``hold`` steps."""
        if not self.hold < self.last_epoch <= self.hold + self.length:
            return [group["lr"] for group in self.optimizer.param_groups]
        self.last_epoch -= self.hold
        try:
            return super().get_lr()  # type: ignore[misc]
        finally:
            self.last_epoch += self.hold


class CosineAfterWarmup(_AfterWarmup, CosineAnnealingLR):
    """Hold lr for ``hold`` steps, then lower it to 0 over ``length`` steps, as half a cosine.

    Args:
        optimizer: The optimizer.
        hold: Steps of the warmup.
        length: Steps after it.
    """

    length_attribute = "T_max"

    def __init__(self, optimizer: torch.optim.Optimizer, hold: int, length: int) -> None:
        self.hold, self.length = hold, length
        super().__init__(optimizer, T_max=length)


class LinearAfterWarmup(_AfterWarmup, LinearLR):
    """Hold lr for ``hold`` steps, then lower it to 0 over ``length`` steps, along a line.

    Args:
        optimizer: The optimizer.
        hold: Steps of the warmup.
        length: Steps after it.
    """

    length_attribute = "total_iters"

    def __init__(self, optimizer: torch.optim.Optimizer, hold: int, length: int) -> None:
        self.hold, self.length = hold, length
        super().__init__(optimizer, start_factor=1.0, end_factor=0.0, total_iters=length)


def make_schedule(
    name: str, optimizer: torch.optim.Optimizer, warmup_steps: float, total_steps: int, follows_run: bool = False
) -> LRScheduler:
    """Make one of :data:`SCHEDULES`, which counts optimizer steps.

    Args:
        name: ``"cosine"`` or ``"linear"``, to 0 at the end of the run; ``"step"``, to a tenth when three
            quarters of the run are over.
        optimizer: The optimizer.
        warmup_steps: Steps of its longest warmup, during which lr is held.
        total_steps: Steps of the run.
        follows_run: The length is checked against the Trainer as the run goes on, so that a checkpoint of a
            shorter run need not be warned of.
    """
    hold = _hold_for(warmup_steps, total_steps)
    if name == "step":
        return MultiStepLR(optimizer, milestones=[round(STEP_AT_FRACTION * total_steps)], gamma=STEP_FACTOR)
    after_warmup = {"cosine": CosineAfterWarmup, "linear": LinearAfterWarmup}[name]
    scheduler: Any = after_warmup(optimizer, hold, total_steps - hold)
    scheduler.follows_run = follows_run
    return scheduler


def set_total_steps(scheduler: Any, total_steps: int, warmup_steps: float | None = None, tolerance: int = 0) -> bool:
    """Make a schedule by name end with a run of another length.

    lr goes on from where it stands, without a jump: torch's chainable form multiplies it from step to
    step, and does so to 0 at the new end.

    Args:
        scheduler: From :func:`make_schedule`.
        total_steps: Steps of the run, those taken included.
        warmup_steps: Steps of the longest warmup, before the first step; None leaves the warmup as it is.
        tolerance: A difference of so many steps is let be.

    Returns:
        True if the length was another.
    """
    if isinstance(scheduler, _AfterWarmup):
        hold = scheduler.hold if warmup_steps is None else _hold_for(warmup_steps, total_steps)
        difference = total_steps - scheduler.hold - scheduler.length
        if abs(difference) <= tolerance and hold == scheduler.hold:
            return False
        # One step at least, for the schedule divides by its length.
        scheduler.hold, scheduler.length = hold, max(total_steps - hold, 1)
        setattr(scheduler, scheduler.length_attribute, scheduler.length)
        return True
    (milestone,) = scheduler.milestones
    # It acts on reaching the milestone exactly: where that has passed in the new run, at the next step.
    new = max(round(STEP_AT_FRACTION * total_steps), scheduler.last_epoch + 1)
    if milestone <= scheduler.last_epoch or abs(new - milestone) <= tolerance:
        return False
    scheduler.milestones = Counter([new])
    return True


def _hold_for(warmup_steps: float, total_steps: int) -> int:
    """Return for how many steps to hold lr, so that one step is left to lower it."""
    return min(math.ceil(warmup_steps), total_steps - 1)


def check_schedule(schedule: Any, interval: Any) -> None:
    """Check what ``configure_adabelief`` was given as a schedule and its interval.

    Raises:
        ValueError: If there is no such schedule or interval.
    """
    if interval not in INTERVALS:
        raise ValueError(f"Unknown schedule_interval: {interval!r}. Give one of {', '.join(INTERVALS)}")
    if schedule is None or callable(schedule) or schedule in SCHEDULES:
        return
    raise ValueError(
        f"Unknown schedule: {schedule!r}. {suggest(str(schedule), SCHEDULES)} Give one of these, or a function from "
        "the optimizer to a scheduler of torch.optim.lr_scheduler"
    )

"""Keep an AdaBelief true to the run that its Trainer makes, however that changes after it was built."""

from __future__ import annotations

from typing import Any

from lightning_adabelief.configure.lr_schedules import set_total_steps
from lightning_adabelief.configure.run_length import remaining_steps
from lightning_adabelief.lightning_tree import is_a, rank_zero_info
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.scaling import is_fraction, warmup_steps

SEARCHED_SCALING = {"warmup": 0, "rectify": False}
"""The options that let the learning rate act as it is, for as long as it is searched for."""


def is_searching_lr(trainer: Any) -> bool:
    """Return True while Lightning's learning-rate finder trains; it puts its own callback in place of all others."""
    return any(is_a(callback, "_LRCallback") for callback in trainer.callbacks)


class RunFollower:
    """A hook before each step of an AdaBelief, which looks at the Trainer.

    - While a learning rate is searched for, neither warmup nor rectification scales the rate tried.
    - At the first step of a fit and of each epoch, the length of the run is counted again. Before the
      first step of all, ``total_steps`` is corrected, and with it a warmup that is a fraction. Later a
      warmup stays as it began, and a schedule by name goes on from where lr stands to the run's true end.

    Args:
        optimizer: The AdaBelief.
        trainer: Its Trainer.
        scheduler: Its schedule, if ``configure_adabelief`` made one by name.
        counts_steps: False leaves the length of the run as the user gave it.
        steps_per_batch: See :func:`~lightning_adabelief.configure.run_length.optimizer_steps`.
        trainer_steps_per_batch: Likewise.
        reports_scaling: True if the user was told how much of lr acts on average.
    """

    def __init__(
        self,
        optimizer: AdaBelief,
        trainer: Any,
        *,
        scheduler: Any = None,
        counts_steps: bool = True,
        steps_per_batch: float | None = None,
        trainer_steps_per_batch: float | None = None,
        reports_scaling: bool = False,
    ) -> None:
        self.reports_scaling = reports_scaling
        self.trainer = trainer
        self.scheduler = scheduler
        self.counts_steps = counts_steps
        self.steps_per_batch = steps_per_batch
        self.trainer_steps_per_batch = trainer_steps_per_batch
        self._finds_batch_size = any(is_a(callback, "BatchSizeFinder") for callback in trainer.callbacks)
        self._checked_epoch: int | None = None
        self._configured: list[dict[str, Any]] = []
        previous = getattr(optimizer, "run_follower", None)
        if previous is not None:  # an optimizer that another Trainer had before
            previous.hook.remove()
        self.hook = optimizer.register_step_pre_hook(self)
        optimizer.run_follower = self  # type: ignore[attr-defined]

    def __call__(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Look at the Trainer, before the optimizer takes a step."""
        if is_searching_lr(self.trainer):
            self._let_lr_act(optimizer)
            return
        if self._configured:
            self._restore_scaling(optimizer)
        if self.counts_steps and self.trainer.current_epoch != self._checked_epoch and not self._is_searching_batch():
            self._checked_epoch = self.trainer.current_epoch
            self._check_length(optimizer)

    def _let_lr_act(self, optimizer: AdaBelief) -> None:
        """Leave warmup and rectification out of the steps of a learning-rate search."""
        if self._configured:
            return
        self._configured = [{name: group[name] for name in SEARCHED_SCALING} for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group.update(SEARCHED_SCALING)
        if any(options != SEARCHED_SCALING for options in self._configured):
            rank_zero_info(
                "AdaBelief: during the learning-rate search neither warmup nor rectification scales lr, so that the "
                "rate tried is the rate that acts"
            )

    def _restore_scaling(self, optimizer: AdaBelief) -> None:
        """Put warmup and rectification back, as they were before the search."""
        for group, options in zip(optimizer.param_groups, self._configured, strict=False):
            group.update(options)
        self._configured = []

    def _is_searching_batch(self) -> bool:
        """Return True while Lightning's batch-size finder trains: it takes away all callbacks, and so itself."""
        return self._finds_batch_size and not self.trainer.callbacks

    def _check_length(self, optimizer: AdaBelief) -> None:
        """Count the run's steps again, and correct what was made for another number of them."""
        remaining = remaining_steps(self.trainer, self.steps_per_batch, self.trainer_steps_per_batch)
        if remaining is None or remaining < 1:
            return
        if not optimizer.state:
            changed = self._set_length_before_first_step(optimizer, remaining)
            total_steps = remaining
        elif self.scheduler is not None:
            # The schedule's own count of steps, for the optimizer's leaves out those that a gradient scaler skips.
            total_steps = self.scheduler.last_epoch + remaining
            # Under manual optimization a step in every n-th batch leaves the count uncertain by one.
            tolerance = 0 if self.steps_per_batch is None else 1
            changed = set_total_steps(self.scheduler, total_steps, tolerance=tolerance)
        else:
            changed = False
        if changed:
            rank_zero_info(
                f"AdaBelief: the length of the run changed since it was counted; its warmup and schedule are laid over "
                f"{total_steps:,} steps"
            )

    def _set_length_before_first_step(self, optimizer: AdaBelief, total_steps: int) -> bool:
        """Set the length of the run in an optimizer that has taken no step, and in its schedule."""
        changed = False
        for group in optimizer.param_groups:
            if is_fraction(group["warmup"]) and group["total_steps"] != total_steps:
                changed = group["total_steps"] is not None
                group["total_steps"] = total_steps
        if self.scheduler is not None:
            longest = max(warmup_steps(group["warmup"], group["total_steps"]) for group in optimizer.param_groups)
            changed |= set_total_steps(self.scheduler, total_steps, longest)
        return changed

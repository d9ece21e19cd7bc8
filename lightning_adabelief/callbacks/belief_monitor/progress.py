"""The Trainer's progress: the step that loggers are given, and the steps that are measured."""

from __future__ import annotations

from typing import Any

from lightning_adabelief.callbacks.belief_monitor.tracker import OptimizerTracker


def logged_step(trainer: Any) -> int:
    """Return the number of batches that stepped and are over: the step that loggers are given."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def is_due(tracker: OptimizerTracker, trainer: Any, interval: int) -> bool:
    """Return True if the step just taken is to be measured: an interval has ended since the last measurement.

    In the plain case these are the batches in which the Trainer logs; an optimizer that did not step in such a
    batch is measured at its next step. A run shorter than the interval is measured in its last batch.

    Args:
        tracker: The optimizer that stepped.
        trainer: The Trainer, in a batch.
        interval: Batches from one measurement to the next; 0 for none at all.
    """
    if interval == 0:
        return False
    batch = logged_step(trainer) + 1  # counted when it is over
    has_ended = batch // interval > tracker.measured_at // interval
    is_only_chance = not tracker.layers and _is_last_batch(trainer)
    return has_ended or batch == tracker.measured_at or is_only_chance or trainer.fast_dev_run


def _is_last_batch(trainer: Any) -> bool:
    """Return True in the last batch of the last epoch, or with the step that reaches ``max_steps``."""
    is_end_of_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    is_last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    return (is_end_of_epoch and is_last_epoch) or 0 < trainer.max_steps <= trainer.global_step + 1

"""Count the steps that an optimizer will take in a run of the Trainer."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from lightning_adabelief.lightning_tree import is_a


def optimizer_steps(
    trainer: Any, steps_per_batch: float | None = None, trainer_steps_per_batch: float | None = None
) -> int:
    """Count the steps that an optimizer will take in the Trainer's whole run, epochs before a resume included.

    Epochs of an earlier ``fit`` of the same Trainer are not: a second one makes a new optimizer.

    Under automatic optimization it is the Trainer's own estimate, which knows accumulation, devices,
    ``max_epochs`` and ``max_steps``. Under manual optimization the Trainer does not know when an
    optimizer steps, and counts all optimizers' steps together.

    Args:
        trainer: A Trainer that fits, as in ``configure_optimizers``.
        steps_per_batch: Under manual optimization, how often this optimizer steps a batch: 1/5 for every
            fifth batch.
        trainer_steps_per_batch: Under manual optimization with ``max_steps``, which counts the steps of
            all optimizers: how many these take a batch, together.

    Returns:
        The number of steps, rounded up. A run that ``max_time`` or early stopping ends is shorter.

    Raises:
        ValueError: If ``trainer`` is no Trainer that fits, the length can't be known, or ``steps_per_batch`` is given
            under automatic optimization.

    Example::

        # a GAN whose critic steps with each batch, and its generator with every fifth
        optimizer_steps(self.trainer, steps_per_batch=1 / 5, trainer_steps_per_batch=1 + 1 / 5)
    """
    module = getattr(trainer, "lightning_module", None)
    if module is None:
        raise ValueError(
            f"optimizer_steps was given a {type(trainer).__name__}, and counts the steps of a Trainer that fits: give "
            "it self.trainer, in configure_optimizers"
        )
    if module.automatic_optimization and steps_per_batch is not None:
        raise ValueError(
            f"steps_per_batch={steps_per_batch} under automatic optimization: there the Trainer knows when the "
            "optimizer steps. Leave it out"
        )
    # A second fit of one Trainer goes on from its epochs and steps, but with a new optimizer, which starts at 0;
    # with a checkpoint the optimizer's steps are loaded too, and those of the whole run count.
    resumed = trainer.ckpt_path is not None
    steps = _count_steps(
        trainer,
        steps_per_batch,
        trainer_steps_per_batch,
        first_epoch=0 if resumed else trainer.current_epoch,
        steps_before=0 if resumed else trainer.global_step,
    )
    return _round_up(_check_finite(trainer, steps))


def remaining_steps(trainer: Any, steps_per_batch: float | None, trainer_steps_per_batch: float | None) -> int | None:
    """Count the steps that an optimizer has yet to take, called while the Trainer trains on a batch.

    Args:
        trainer: The Trainer.
        steps_per_batch: See :func:`optimizer_steps`.
        trainer_steps_per_batch: See :func:`optimizer_steps`.

    Returns:
        The number of steps, with that of this batch; None where it can't be known.
    """
    epoch, batch = trainer.current_epoch, trainer.fit_loop.batch_idx
    steps = _count_steps(
        trainer,
        steps_per_batch,
        trainer_steps_per_batch,
        first_epoch=epoch,
        batches_before=batch,
        steps_before=trainer.global_step,
    )
    return _round_up(steps) if math.isfinite(steps) else None


def trainer_of(module: nn.Module) -> Any:
    """Return the Trainer of a LightningModule; None for any other module, and outside of a Trainer."""
    try:
        return module.trainer
    except (AttributeError, RuntimeError):
        return None


def steps_needed(
    needed_for: str, trainer: Any, steps_per_batch: float | None, trainer_steps_per_batch: float | None
) -> int:
    """Count the run's steps, 1 for a run of none; raise a ValueError that says what they are needed for."""
    if trainer is None:
        raise ValueError(
            f"{needed_for} needs the length of the run, and there is no Trainer to know it. Call this in "
            "configure_optimizers, give trainer=self.trainer where the module is a part of your LightningModule, or "
            "give total_steps"
        )
    try:
        return max(optimizer_steps(trainer, steps_per_batch, trainer_steps_per_batch), 1)
    except ValueError as error:
        raise ValueError(f"{needed_for}: {error}") from None


def _count_steps(
    trainer: Any,
    steps_per_batch: float | None,
    trainer_steps_per_batch: float | None,
    *,
    first_epoch: int,
    batches_before: int = 0,
    steps_before: int = 0,
) -> float:
    """Count an optimizer's steps from a batch of an epoch on; infinite where the end is not known."""
    if trainer.lightning_module.automatic_optimization:
        of_epochs = _steps_of_epochs(trainer, first_epoch, batches_before)
        return of_epochs if trainer.max_steps == -1 else min(of_epochs, trainer.max_steps - steps_before)
    if steps_per_batch is None:
        raise ValueError(
            "The length of the run is needed under manual optimization, where the Trainer can't know how often this "
            "optimizer steps. Give steps_per_batch (1/5 for every fifth batch), or total_steps, or give warmup as a "
            "number of steps"
        )
    batches = _steps_of_epochs(trainer, first_epoch, batches_before)
    if trainer.max_steps != -1 and not trainer.fast_dev_run:  # which sets it to its number of batches
        if trainer_steps_per_batch is None:
            raise ValueError(
                f"max_steps={trainer.max_steps} counts the steps of all optimizers together under manual "
                "optimization. Give trainer_steps_per_batch, how many they take a batch, or set max_epochs in its "
                "place"
            )
        batches = min(batches, (trainer.max_steps - steps_before) / trainer_steps_per_batch)
    return batches * steps_per_batch


def _steps_of_epochs(trainer: Any, first_epoch: int, batches_before: int) -> float:
    """Count the steps from a batch of an epoch on; infinite where the number of epochs or batches is not known."""
    if trainer.max_epochs in (None, -1):
        return math.inf
    if trainer.limit_train_batches == 0:  # the Trainer then doesn't look at the data
        return 0
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    if not math.isfinite(batches):
        return math.inf
    accumulated = [_accumulated_batches(trainer, epoch) for epoch in range(first_epoch, trainer.max_epochs)]
    steps = sum(math.ceil(batches / of_epoch) for of_epoch in accumulated)
    return steps - (batches_before // accumulated[0] if accumulated else 0)


def _accumulated_batches(trainer: Any, epoch: int) -> int:
    """Return how many batches make one step in an epoch."""
    for callback in trainer.callbacks:
        if is_a(callback, "GradientAccumulationScheduler"):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches


def _round_up(steps: float) -> int:
    """Round up, except for what multiplying by a fraction such as 1/3 added."""
    return math.ceil(round(steps, 6))


def _check_finite(trainer: Any, steps: float) -> float:
    if math.isfinite(steps):
        return steps
    if trainer.max_epochs not in (None, -1):
        why = "the training data don't know their length, and there is no max_steps"
    elif any(is_a(callback, "Timer") for callback in trainer.callbacks):
        why = "max_time alone says nothing of steps"
    else:
        why = "the Trainer has neither max_steps nor max_epochs"
    raise ValueError(
        f"The length of the run is needed, and can't be known: {why}. Set max_steps, or give total_steps, or give "
        "warmup as a number of steps"
    )

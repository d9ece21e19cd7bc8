"""Optimizers that a config or a caller describes (``OptimizerCallable``), built with the run's length at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from lightning_adabelief.configure.build import warn_of_clipping_by_value
from lightning_adabelief.configure.configured import ConfiguredAdaBelief
from lightning_adabelief.configure.groups import named_parameters
from lightning_adabelief.configure.run_follower import RunFollower
from lightning_adabelief.configure.run_length import steps_needed, trainer_of
from lightning_adabelief.optim.adabelief import AdaBelief
from lightning_adabelief.optim.scaling import is_fraction

if TYPE_CHECKING:
    from lightning_adabelief.lightning_tree import OptimizerLRSchedulerConfig


def build_optimizer(
    optimizer: Callable[..., Optimizer],
    module: nn.Module,
    *,
    trainer: Any = None,
    steps_per_batch: float | None = None,
    trainer_steps_per_batch: float | None = None,
) -> Optimizer | OptimizerLRSchedulerConfig:
    """Call an ``OptimizerCallable`` on a module's parameters, so that AdaBelief's warmup may be a fraction of the run.

    What a config says is built as it says: the parameters are one group, biases and norms with it. They
    are named, except where some are frozen: torch's optimizers then take those unfrozen later, which
    Lightning's BaseFinetuning adds without names.

    Args:
        optimizer: From parameters to an optimizer, of any kind.
        module: The LightningModule, or the part of it that this optimizer trains.
        trainer: The Trainer, where ``module`` is a part.
        steps_per_batch: Under manual optimization, how often this optimizer steps a batch: 1/5 for
            every fifth (see :func:`optimizer_steps`).
        trainer_steps_per_batch: Under manual optimization with ``max_steps``, how often all optimizers
            together step a batch.

    Returns:
        The optimizer; of a :class:`ConfiguredAdaBelief` with a schedule, Lightning's dictionary of both.

    Raises:
        ValueError: If AdaBelief's warmup is a fraction and the length of the run can't be known.

    Example::

        def __init__(self, critic_optimizer: OptimizerCallable = AdaBelief, ...):  # from a config
            ...

        def configure_optimizers(self):
            critic = build_optimizer(self.critic_optimizer, self.critic, trainer=self.trainer, steps_per_batch=1)
    """
    trainer = trainer or trainer_of(module)
    trained, frozen = named_parameters(module)
    params = [param for _, param in trained] if frozen else trained
    built = optimizer(params)
    if isinstance(built, ConfiguredAdaBelief):
        counting = {"steps_per_batch": steps_per_batch, "trainer_steps_per_batch": trainer_steps_per_batch}
        return built.configure(module, trainer, **counting)
    if isinstance(built, AdaBelief):
        counted = fill_total_steps(built, trainer, steps_per_batch, trainer_steps_per_batch)
        warn_of_clipping_by_value(trainer)
        if trainer is not None:
            RunFollower(
                built,
                trainer,
                counts_steps=counted,
                steps_per_batch=steps_per_batch,
                trainer_steps_per_batch=trainer_steps_per_batch,
            )
    return built


def fill_total_steps(
    optimizer: AdaBelief, trainer: Any, steps_per_batch: float | None, trainer_steps_per_batch: float | None
) -> bool:
    """Give the run's length to the groups that wait for it, and to those added later.

    Args:
        optimizer: One whose warmup may be a fraction of the run.
        trainer: Its Trainer.
        steps_per_batch: See :func:`~lightning_adabelief.configure.run_length.optimizer_steps`.
        trainer_steps_per_batch: Likewise.

    Returns:
        True if there were any.

    Raises:
        ValueError: If the length of the run can't be known.
    """
    waiting = [
        options
        for options in (optimizer.defaults, *optimizer.param_groups)
        if is_fraction(options["warmup"]) and options["total_steps"] is None
    ]
    if waiting:
        needed_for = f"warmup={waiting[0]['warmup']}"
        total_steps = steps_needed(needed_for, trainer, steps_per_batch, trainer_steps_per_batch)
        for options in waiting:
            options["total_steps"] = total_steps
    return bool(waiting)

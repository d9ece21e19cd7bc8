"""The optimizers of generator and critic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from lightning_adabelief.configure import build_optimizer
from lightning_adabelief.lightning_tree import OptimizerCallable

if TYPE_CHECKING:
    from lightning_adabelief.recipes.gan.module import GAN


def make_optimizer(gan: GAN, name: str, optimizer: OptimizerCallable, steps_per_batch: float) -> Optimizer:
    """Make the optimizer of one of a GAN's networks, with named parameters and groups.

    Args:
        gan: The GAN, in a Trainer.
        name: ``"generator"`` or ``"critic"``.
        optimizer: A function from named parameters to an optimizer.
        steps_per_batch: Its steps per batch.

    Raises:
        ValueError: If the optimizer comes with a learning-rate schedule.
    """
    made = build_optimizer(
        optimizer,
        nn.ModuleDict({name: getattr(gan, name)}),
        trainer=gan.trainer,
        steps_per_batch=steps_per_batch,
        trainer_steps_per_batch=1 + 1 / gan.n_critic,
    )
    if isinstance(made, dict):
        raise ValueError(
            f"The {name}'s optimizer has a learning-rate schedule, which a GAN does not step: its optimization is "
            "manual. Leave schedule out"
        )
    for group in made.param_groups:  # BeliefMonitor tags the optimizer's statistics with the name
        group["name"] = f"{name}/{group['name']}" if "name" in group else name
    return made

"""Serve AdaBeliefs that a Trainer got without ``configure_adabelief``, as a config makes them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lightning_adabelief.configure.callables import fill_total_steps
from lightning_adabelief.configure.configured import ConfiguredAdaBelief
from lightning_adabelief.configure.group_report import log_master_weights, log_state_bits
from lightning_adabelief.configure.run_follower import RunFollower
from lightning_adabelief.optim.adabelief import AdaBelief


def follow_run(trainer: Any, module: Any) -> None:
    """Complete a Trainer's AdaBeliefs before training begins.

    A :class:`ConfiguredAdaBelief` is replaced by what it stands for; one whose warmup is a fraction
    of the run and that has no ``total_steps`` gets them; all follow the run from there
    (:class:`~lightning_adabelief.configure.run_follower.RunFollower`), and log the bits of weights and state.

    Args:
        trainer: The Trainer, its optimizers made.
        module: The LightningModule.

    Raises:
        ValueError: If the length of the run is needed and can't be known.
    """
    if any(isinstance(optimizer, ConfiguredAdaBelief) for optimizer in trainer.optimizers):
        _replace_configured(trainer, module)
    for optimizer in trainer.optimizers:
        if not isinstance(optimizer, AdaBelief):
            continue
        follower = getattr(optimizer, "run_follower", None)
        if follower is not None and follower.trainer is trainer:
            continue
        log_master_weights(optimizer)
        log_state_bits(optimizer)
        counted = fill_total_steps(optimizer, trainer, None, None)
        RunFollower(optimizer, trainer, counts_steps=counted)


def _replace_configured(trainer: Any, module: Any) -> None:
    """Put what ``configure_adabelief`` makes in the place of an optimizer that only holds its options."""
    if len(trainer.optimizers) > 1:
        raise ValueError(
            f"ConfiguredAdaBelief is one of {len(trainer.optimizers)} optimizers, and can't know its part of the "
            "module. Call build_optimizer(optimizer, part, trainer=self.trainer) in configure_optimizers"
        )
    (held,) = trainer.optimizers
    made = held.configure(module, trainer)
    if not isinstance(made, dict):
        trainer.strategy.optimizers = [made]
        return
    config_type = _lr_scheduler_config_type(trainer)
    trainer.strategy.optimizers = [made["optimizer"]]
    trainer.strategy.lr_scheduler_configs = [config_type(**made["lr_scheduler"])]


def _lr_scheduler_config_type(trainer: Any) -> Any:
    """Return the class in which the Trainer's Lightning keeps a learning-rate scheduler."""
    tree = type(trainer).__module__.partition(".trainer")[0]
    return import_module(f"{tree}.utilities.types").LRSchedulerConfig

"""The optimizer of a recipe, and its learning-rate scheduler."""

from __future__ import annotations

from typing import Any, Literal

import torch

from lightning_adabelief.configure import build_optimizer
from lightning_adabelief.lightning_tree import LightningModule, LRSchedulerCallable, OptimizerCallable


def make_optimizers(
    module: LightningModule,
    optimizer: OptimizerCallable,
    lr_scheduler: LRSchedulerCallable | None,
    interval: Literal["epoch", "step"],
    monitor: str,
) -> Any:
    """Make what ``configure_optimizers`` returns.

    Args:
        module: The module whose trainable parameters are optimized.
        optimizer: A function from named parameters to an optimizer.
        lr_scheduler: A function from the optimizer to a learning-rate scheduler; None for none.
        interval: How often the scheduler steps.
        monitor: The metric of a scheduler that waits for a plateau and names none.

    Raises:
        ValueError: If the optimizer comes with a learning-rate schedule and ``lr_scheduler`` is another.
    """
    made = build_optimizer(optimizer, module)
    if lr_scheduler is None:
        return made
    if isinstance(made, dict):
        raise ValueError("The optimizer has a schedule, and lr_scheduler is given too. Leave one of them out")
    scheduler = lr_scheduler(made)
    config: dict[str, Any] = {"scheduler": scheduler, "interval": interval}
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        config["monitor"] = getattr(scheduler, "monitor", monitor)
    return {"optimizer": made, "lr_scheduler": config}

"""What a recipe's ``configure_optimizers`` returns."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_adabelief.configure import build_optimizer
from lightning_adabelief.lightning_tree import LightningModule, LRSchedulerCallable, OptimizerCallable


def make_optimizer(
    module: LightningModule, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None, interval: str
) -> Any:
    """Make the optimizer of a module's trainable parameters, and its learning-rate scheduler if there is one.

    Args:
        module: The module.
        optimizer: A function from named parameters to an optimizer.
        lr_scheduler: A function from the optimizer to a learning-rate scheduler; None for none.
        interval: ``"epoch"`` or ``"step"``: how often the scheduler steps.

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
    if isinstance(scheduler, ReduceLROnPlateau):
        config["monitor"] = getattr(scheduler, "monitor", "val/loss")
    return {"optimizer": made, "lr_scheduler": config}

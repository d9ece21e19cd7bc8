"""A callback for every Trainer, by Lightning's entry points for installed packages (``callbacks_factory``).

Lightning loads this module whenever a Trainer is made, so it imports nothing but Lightning, which is
there already. Where the process has not imported AdaBelief, no callback is added.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

MIXED_OPTIMIZERS = (
    "Of several configure_adabelief, give each a schedule and return the list of them; or, where a has a schedule and "
    "b has none, return [a['optimizer'], b], [a['lr_scheduler']]"
)

OPTIMIZER_MODULE = "lightning_adabelief.optim.adabelief"


def make_callbacks_of_pytorch_lightning() -> list[Any]:
    """Return the callbacks for a Trainer of ``pytorch_lightning``: one if AdaBelief is imported, or none."""
    return _make_callbacks("pytorch_lightning")


def make_callbacks_of_lightning() -> list[Any]:
    """Return the callbacks for a Trainer of ``lightning.pytorch``: one if AdaBelief is imported, or none."""
    return _make_callbacks("lightning.pytorch")


def _make_callbacks(tree: str) -> list[Any]:
    return [_make_callback(tree)] if OPTIMIZER_MODULE in sys.modules else []


def _make_callback(tree: str) -> Any:
    return _callback_class(tree)()


@cache
def _callback_class(tree: str) -> type:
    """Return the callback's class for one of Lightning's class trees; a Trainer refuses that of the other."""
    callback = import_module(f"{tree}.callbacks").Callback
    return type("AdaBeliefInTrainer", (_AdaBeliefInTrainer, callback), {"tree": tree})


class _AdaBeliefInTrainer:
    """Tells AdaBeliefs that were made without a Trainer of its run, and keeps its checkpoints plain data."""

    tree: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, which strategies that spawn processes do, by the tree: the class is made on demand."""
        return _make_callback, (self.tree,)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Come before Lightning's finders, which train in ``on_fit_start``."""
        if stage == "fit" and trainer.callbacks[0] is not self:
            trainer.callbacks = [self, *(callback for callback in trainer.callbacks if callback is not self)]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Let the AdaBeliefs among the Trainer's optimizers follow its run."""
        if any(_is_ours(optimizer) for optimizer in trainer.optimizers):
            import_module("lightning_adabelief.configure.in_trainer").follow_run(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse what can't go together with ``release_gradients``, before the epoch's first batch."""
        if any(_is_ours(optimizer) for optimizer in trainer.optimizers):
            import_module("lightning_adabelief.configure.release_check").check_release(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Say how to return several optimizers of which one has a schedule, where Lightning refuses them."""
        if "Unknown configuration for model optimizers" in str(exception):
            exception.args = (f"{exception}\n{MIXED_OPTIMIZERS}",)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep optimizer callables among the hyperparameters as plain data."""
        if "hyper_parameters" in checkpoint:
            plain_callables = import_module("lightning_adabelief.configure.plain_callables")
            plain_callables.make_plain(checkpoint["hyper_parameters"], self.tree)


def _is_ours(optimizer: Any) -> bool:
    """Return True for an optimizer of a class of this package, or of one derived from it."""
    return any(of.__module__.partition(".")[0] == "lightning_adabelief" for of in type(optimizer).__mro__)

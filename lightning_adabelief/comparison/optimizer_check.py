"""The check that a module trains with the optimizer that its config gives."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from torch.optim import Optimizer

from lightning_adabelief.beliefs.reading import find_optimizers
from lightning_adabelief.configure import ConfiguredAdaBelief
from lightning_adabelief.lightning_tree import LightningModule, MisconfigurationException
from lightning_adabelief.optim import AdaBelief
from lightning_adabelief.suggest import join_names


def check_optimizers(made: Sequence[Optimizer], class_paths: Sequence[str], module: LightningModule) -> None:
    """Check that the optimizers that a config gives are among those of the Trainer.

    Args:
        made: The Trainer's optimizers; one in a wrapper may be of either's class.
        class_paths: The classes that the config gives.
        module: The module that made them.

    Raises:
        MisconfigurationException: If they are not; it says how the module can take its optimizer from a config.
    """
    kinds = [[type(each) for each in (optimizer, *find_optimizers(optimizer))] for optimizer in made]
    given = [_import_class(path) for path in class_paths]
    if not all(any(issubclass(kind, each) for of_one in kinds for kind in of_one) for each in given):
        names = join_names(dict.fromkeys(of_one[0].__name__ for of_one in kinds), "and") if kinds else "no optimizer"
        raise MisconfigurationException(
            f"{type(module).__name__} trains with {names}, and its config gives {join_names(class_paths, 'and')}: its "
            "configure_optimizers makes an optimizer of its own. Let the module take an argument 'optimizer: "
            "OptimizerCallable', and return self.optimizer(self.parameters()) from configure_optimizers"
        )


def _import_class(path: str) -> type:
    """Import an optimizer's class; in place of ConfiguredAdaBelief, the AdaBelief that replaces it."""
    module, _, name = path.rpartition(".")
    of_path = getattr(import_module(module), name)
    return AdaBelief if of_path is ConfiguredAdaBelief else of_path

"""Lightning, from the one of its two class trees that this process uses.

``pytorch_lightning`` and ``lightning`` ship the same classes twice, and neither takes the other's
for its own. Everything here imports Lightning through this module, which takes the tree that the
process imported first, or ``pytorch_lightning`` where it has imported neither.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

TREES = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}
"""From a distribution's top-level package to where its classes are."""

__all__ = [
    "BasePredictionWriter",
    "Callback",
    "LRSchedulerCallable",
    "LightningCLI",
    "LightningDataModule",
    "LightningModule",
    "MisconfigurationException",
    "OptimizerCallable",
    "OptimizerLRSchedulerConfig",
    "ProgressBar",
    "RichProgressBar",
    "SaveConfigCallback",
    "TensorBoardLogger",
    "TorchCheckpointIO",
    "Trainer",
    "given_hyperparameters",
    "is_a",
    "isolate_rng",
    "is_overridden",
    "rank_zero_info",
    "rank_zero_warn",
    "seed_everything",
]


def tree() -> str:
    """Return the package that Lightning's classes come from here.

    Returns:
        ``"pytorch_lightning"`` or ``"lightning.pytorch"``.
    """
    imported = [name for name in sys.modules if name in TREES]  # in the order of their import
    return TREES[imported[0]] if imported else "pytorch_lightning"


def is_a(thing: Any, *names: str) -> bool:
    """Return True if an object is of one of Lightning's classes of these names, in either of its class trees.

    A process may have both: where ours is imported before the user's Lightning, it may be the other.
    """
    return any(kind.__name__ in names for kind in type(thing).__mro__)


if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
    from pytorch_lightning.callbacks import BasePredictionWriter, ProgressBar, RichProgressBar
    from pytorch_lightning.cli import LightningCLI, LRSchedulerCallable, OptimizerCallable, SaveConfigCallback
    from pytorch_lightning.core.mixins.hparams_mixin import _given_hyperparameters as given_hyperparameters
    from pytorch_lightning.loggers import TensorBoardLogger
    from pytorch_lightning.plugins.io import TorchCheckpointIO
    from pytorch_lightning.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.utilities.model_helpers import is_overridden
    from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
    from pytorch_lightning.utilities.seed import isolate_rng
    from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
else:
    _NAMES = {
        "": ["Callback", "LightningDataModule", "LightningModule", "Trainer", "seed_everything"],
        ".callbacks": ["BasePredictionWriter", "ProgressBar", "RichProgressBar"],
        ".cli": ["LRSchedulerCallable", "LightningCLI", "OptimizerCallable", "SaveConfigCallback"],
        ".loggers": ["TensorBoardLogger"],
        ".plugins.io": ["TorchCheckpointIO"],
        ".utilities.exceptions": ["MisconfigurationException"],
        ".utilities.model_helpers": ["is_overridden"],
        ".utilities.rank_zero": ["rank_zero_info", "rank_zero_warn"],
        ".utilities.seed": ["isolate_rng"],
        ".utilities.types": ["OptimizerLRSchedulerConfig"],
    }
    _tree = tree()
    for _submodule, _members in _NAMES.items():
        _module = import_module(_tree + _submodule)
        globals().update({_name: getattr(_module, _name) for _name in _members})
    given_hyperparameters = import_module(f"{_tree}.core.mixins.hparams_mixin")._given_hyperparameters

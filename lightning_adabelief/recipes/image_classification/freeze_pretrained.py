"""Pretrained layers that are frozen while the new ones learn to use them."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adabelief.lightning_tree import Callback, is_a, rank_zero_info


class FreezePretrained(Callback):
    """Freeze a network's pretrained layers for the first epochs.

    Their weights have no gradients then, and the statistics of batch normalization stay. The optimizer holds them
    from the start, each with its own learning rate and count of steps: AdaBelief's warmup and rectification of a
    weight begin with its first step.

    Args:
        epochs: Number of epochs.

    Raises:
        ValueError: If ``epochs`` is less than 0.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        if epochs < 0:
            raise ValueError(f"Invalid freeze_epochs: {epochs}. Give a number of epochs, or 0 to freeze none")
        self.epochs = epochs
        self._layers: list[nn.Module] | None = None  # while they are frozen
        self._weights: list[nn.Parameter] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse networks and strategies that it can't work with.

        Raises:
            ValueError: If the network does not know its pretrained layers, or the strategy needs a gradient of every
                weight.
        """
        if stage != "fit":
            return
        if not hasattr(pl_module.network, "pretrained_layers"):
            raise ValueError(
                f"freeze_epochs {self.epochs}: {type(pl_module.network).__name__} has no pretrained_layers. Give a "
                "PretrainedNetwork, or freeze_epochs 0"
            )
        strategy = trainer.strategy
        finds_unused = is_a(strategy, "DDPStrategy") and strategy._ddp_kwargs.get("find_unused_parameters")
        if not is_a(strategy, "SingleDeviceStrategy") and not finds_unused:
            raise ValueError(
                f"freeze_epochs {self.epochs}: {type(strategy).__name__} needs a gradient of every weight. Give "
                "--trainer.strategy ddp_find_unused_parameters_true, or freeze_epochs 0"
            )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Freeze the layers, or unfreeze them; at the first batch, as a resumed run may begin amid an epoch."""
        if trainer.current_epoch < self.epochs:
            if self._layers is None:
                self._freeze(pl_module.network.pretrained_layers)
        else:
            self._unfreeze()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Unfreeze the layers: another training's optimizer would leave frozen ones out."""
        self._unfreeze()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Unfreeze the layers."""
        self._unfreeze()

    def _freeze(self, layers: list[nn.Module]) -> None:
        weights = [param for layer in layers for param in layer.parameters(recurse=False)]
        self._layers, self._weights = layers, [param for param in weights if param.requires_grad]
        for param in self._weights:
            param.requires_grad_(False)
            param.grad = None
        for norm in _find_batch_norms(layers):
            norm.eval()
        count = sum(param.numel() for param in self._weights)
        rank_zero_info(f"Frozen in the first epochs (freeze_epochs {self.epochs}): {count:,} pretrained weights")

    def _unfreeze(self) -> None:
        for param in self._weights:
            param.requires_grad_(True)
        for norm in _find_batch_norms(self._layers or []):
            norm.train()
        self._layers, self._weights = None, []


def _find_batch_norms(layers: list[nn.Module]) -> list[nn.Module]:
    return [layer for layer in layers if isinstance(layer, _BatchNorm)]

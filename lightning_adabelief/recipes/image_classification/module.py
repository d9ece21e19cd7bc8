"""A LightningModule that classifies images with any network and any optimizer."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_adabelief.configure import build_optimizer
from lightning_adabelief.lightning_tree import LightningModule, LRSchedulerCallable, OptimizerCallable
from lightning_adabelief.optim import AdaBelief

Batch = tuple[Tensor, Tensor]


class ImageClassifier(LightningModule):
    """Train a network on images and class labels by cross-entropy.

    Logs ``<stage>/loss`` and ``<stage>/accuracy`` (top-1, over all images) for the stages train, val
    and test, once an epoch, and ``train/loss_step``.

    Args:
        network: From images (N, C, H, W) to logits (N, num_classes).
        num_classes: Number of classes.
        optimizer: From named parameters to an optimizer; AdaBelief's warmup may be a share of the run.
        lr_scheduler: From an optimizer to a schedule of its learning rate; None for none.
        lr_scheduler_interval: Whether the schedule counts epochs or steps.

    Example:
        >>> from torch import nn
        >>> from lightning_adabelief import AdaBelief
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> module = ImageClassifier(network, optimizer=lambda params: AdaBelief(params, lr=1e-3))
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int = 10,
        optimizer: OptimizerCallable = AdaBelief,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        metrics = MetricCollection(
            {"accuracy": MulticlassAccuracy(num_classes, average="micro"), "loss": MeanMetric()},
            compute_groups=False,
        )
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, num_classes)."""
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the batch's mean loss."""
        loss = self._evaluate(batch, self.train_metrics)
        self.log("train/loss_step", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Take a batch into the validation metrics."""
        self._evaluate(batch, self.val_metrics, prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take a batch into the test metrics."""
        self._evaluate(batch, self.test_metrics)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the probabilities (N, num_classes) of a batch of images, with labels or without."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).softmax(dim=-1)

    def configure_optimizers(self) -> Any:
        """Make the optimizer over the trained parameters, and its schedule."""
        optimizer = build_optimizer(self.optimizer, self)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self.lr_scheduler_interval}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            config["monitor"] = getattr(scheduler, "monitor", "val/loss")
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _evaluate(self, batch: Batch, metrics: MetricCollection, prog_bar: bool = False) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = nn.functional.cross_entropy(logits, labels)
        metrics.update(preds=logits, target=labels, value=loss.detach(), weight=len(labels))
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=prog_bar, batch_size=len(labels))
        return loss

"""A LightningModule that classifies images with any network and any optimizer."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision.transforms import v2

from lightning_adabelief.configure import build_optimizer
from lightning_adabelief.lightning_tree import (
    LightningModule,
    LRSchedulerCallable,
    OptimizerCallable,
    TensorBoardLogger,
)
from lightning_adabelief.optim import AdaBelief
from lightning_adabelief.recipes.image_classification.confusion import MOST_CLASSES, draw_confusion
from lightning_adabelief.recipes.image_classification.metrics import make_metrics
from lightning_adabelief.recipes.image_classification.mixing import make_mixing
from lightning_adabelief.recipes.image_classification.networks import NetworkFromData
from lightning_adabelief.recipes.image_classification.shapes import (
    agreed,
    channels_taken,
    check_batch,
    check_logits,
    find_channels,
    find_classes,
)

Batch = tuple[Tensor, Tensor]

SHAPE = "image_classifier"
"""The key of a checkpoint under which the channels and classes are."""

UNKNOWN = (
    "The number of classes, or the network's channels and classes, are not known. Train with a DataModule, load a "
    "checkpoint, or give ImageClassifier num_classes and the network in_channels and num_classes"
)


class ImageClassifier(LightningModule):
    """Train a network on images and class labels by cross-entropy.

    Logs ``<stage>/loss`` and ``<stage>/accuracy`` (top-1, over all images) for the stages train, val
    and test, once an epoch, and ``train/loss_step``. For val and test also ``<stage>/calibration_error``
    (expected, 15 bins), with more than 5 classes ``<stage>/accuracy_top5``, and with up to 100, to
    TensorBoard, the figure ``<stage>/confusion_matrix``: at the first, second, fourth, eighth, ...
    validation and at each test.

    Channels and classes that the network or ``num_classes`` leave open are the data's: the
    DataModule's attributes ``in_channels`` and ``num_classes``, or what its training data show.

    Args:
        network: From images (N, C, H, W) to logits (N, num_classes).
        num_classes: Number of classes; None for the network's or the data's.
        optimizer: From named parameters to an optimizer; AdaBelief's warmup may be a share of the run.
        lr_scheduler: From an optimizer to a schedule of its learning rate; None for none.
        lr_scheduler_interval: Whether the schedule counts epochs or steps.
        label_smoothing: In training, the share of a label that is spread over all classes.
        mixup: In training, mix pairs of images with shares from Beta(mixup, mixup); 0 for no mixing.
            Training accuracy is then by the label of the larger share.
        cutmix: In training, paste a part of another image, as large as Beta(cutmix, cutmix) says; 0 for
            no pasting. With both, each batch has one of the two.
        channels_last: Lay out weights and images with the channels last, which tensor cores prefer.
        compile: Compile the network with ``torch.compile``.

    Raises:
        ValueError: If the data, the network and ``num_classes`` disagree; it names both numbers.

    Example:
        >>> from torch import nn
        >>> from lightning_adabelief import AdaBelief
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> module = ImageClassifier(network, optimizer=lambda params: AdaBelief(params, lr=1e-3))
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = AdaBelief,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"Invalid label_smoothing: {label_smoothing}. Give a share in [0, 1), such as 0.1")
        for name, value in {"mixup": mixup, "cutmix": cutmix}.items():
            if value < 0:
                raise ValueError(f"Invalid {name}: {value}. Give 0 for none, or more, such as 0.2")
        self.network = network
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.cutmix = cutmix
        self.channels_last = channels_last
        self.compile_network = compile
        self.confusion: MulticlassConfusionMatrix | None = None
        self._mixing: v2.Transform | None = None
        self._is_complete = False
        self._validations = 0

    def configure_model(self) -> None:
        """Make what depends on the data's channels and classes, once they are known.

        Raises:
            ValueError: If they are not known when the training begins.
        """
        if self._is_complete:
            return
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        classes = agreed("num_classes", self.network, data, self.num_classes)
        channels = agreed("in_channels", self.network, data)
        fitting = trainer is not None and trainer.state.fn == "fit"
        if fitting and data is not None:  # a test is of a checkpoint, which tells
            classes = classes or find_classes(data)
            channels = channels or (None if self._has_layers else find_channels(data))
        if classes is not None and (channels is not None or self._has_layers):
            self._complete(classes, channels)
        elif fitting:
            raise ValueError(UNKNOWN)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, num_classes)."""
        if not self._has_layers:
            raise ValueError(UNKNOWN)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the batch's mean loss."""
        images, labels = batch
        self._check(images, labels, batch_idx)
        targets = labels
        if self._mixing is not None:
            images, targets = self._mixing(images, labels)
            labels = targets.argmax(dim=1)
        logits = self._logits(images)
        loss = nn.functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        self._measure(self.train_metrics, logits, labels, loss)
        self.log("train/loss_step", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Take a batch into the validation metrics."""
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take a batch into the test metrics."""
        self._evaluate(batch, batch_idx, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the probabilities (N, num_classes) of a batch of images, with labels or without."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).softmax(dim=-1)

    def on_validation_epoch_end(self) -> None:
        """Draw the confusion matrix: ever more seldom, for a figure takes longer than a small validation."""
        if self.confusion is None:
            return
        if not self.trainer.sanity_checking:
            self._validations += 1
            if self._validations & (self._validations - 1) == 0:
                self._log_confusion(self.confusion, "val")
        self.confusion.reset()

    def on_test_epoch_end(self) -> None:
        """Draw the confusion matrix."""
        if self.confusion is not None:
            self._log_confusion(self.confusion, "test")
            self.confusion.reset()

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the channels and classes, so that the checkpoint can be loaded without the data."""
        checkpoint[SHAPE] = {"num_classes": self.num_classes, "in_channels": channels_taken(self.network)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the network for the checkpoint's channels and classes, if the data have not told them.

        Raises:
            ValueError: If the checkpoint is of another number of classes.
        """
        shape = checkpoint.get(SHAPE)
        if shape is None:
            return
        if not self._is_complete:
            self._complete(**shape)
        elif shape["num_classes"] != self.num_classes:
            raise ValueError(
                f"The checkpoint is of {shape['num_classes']} classes, and the data or the config have "
                f"{self.num_classes}"
            )

    @property
    def _has_layers(self) -> bool:
        return not isinstance(self.network, NetworkFromData) or self.network.is_complete

    def _complete(self, num_classes: int, in_channels: int | None) -> None:
        """Make the network's layers and the metrics; from one seed come the same weights on every device."""
        self.num_classes = num_classes
        with torch.device("cpu"):
            if isinstance(self.network, NetworkFromData):
                self.network.complete(in_channels, num_classes)
            self.train_metrics, self.val_metrics, self.test_metrics = (
                make_metrics(num_classes, stage) for stage in ("train", "val", "test")
            )
            if num_classes <= MOST_CLASSES:
                self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self._mixing = make_mixing(self.mixup, self.cutmix, num_classes)
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if self.compile_network:
            self.network.compile()
        self._is_complete = True

    def _check(self, images: Tensor, labels: Tensor, batch_idx: int) -> None:
        if self.num_classes is None:
            raise ValueError(UNKNOWN)
        waits = batch_idx > 0 and labels.device.type != "cpu"
        check_batch(images, None if waits else labels, channels_taken(self.network), self.num_classes)

    def _logits(self, images: Tensor) -> Tensor:
        logits = self(images)
        check_logits(logits, self.num_classes)
        return logits

    def _evaluate(self, batch: Batch, batch_idx: int, stage: str) -> None:
        images, labels = batch
        self._check(images, labels, batch_idx)
        logits = self._logits(images)
        self._measure(getattr(self, f"{stage}_metrics"), logits, labels, nn.functional.cross_entropy(logits, labels))
        if self.confusion is not None:
            self.confusion.update(logits, labels)

    def _measure(self, metrics: MetricCollection, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        size = len(labels)
        metrics.update(preds=logits.float().softmax(dim=-1), target=labels, value=loss.detach(), weight=size)
        for name, metric in metrics.items(copy_state=False):
            on_bar = name in ("val/accuracy", "val/loss")
            self.log(name, metric, on_step=False, on_epoch=True, prog_bar=on_bar, batch_size=size)

    def _log_confusion(self, confusion: MulticlassConfusionMatrix, stage: str) -> None:
        counts = confusion.compute()  # in every process, for each has a part of it
        for logger in self.loggers if self.trainer.is_global_zero else []:
            if isinstance(logger, TensorBoardLogger):
                figure = draw_confusion(counts, getattr(getattr(self.trainer, "datamodule", None), "class_names", None))
                logger.experiment.add_figure(f"{stage}/confusion_matrix", figure, self.global_step)

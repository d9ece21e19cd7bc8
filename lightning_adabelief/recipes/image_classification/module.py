"""A LightningModule that classifies images with any network and any optimizer."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_adabelief.lightning_tree import (
    Callback,
    LRSchedulerCallable,
    OptimizerCallable,
    TensorBoardLogger,
)
from lightning_adabelief.optim import AdaBelief
from lightning_adabelief.recipes.image_classification.channels_and_classes import (
    check_batch,
    check_logits,
    find_numbers,
    get_input_channels,
)
from lightning_adabelief.recipes.image_classification.confusion_matrix import (
    MAX_CLASSES,
    log_confusion_matrix,
)
from lightning_adabelief.recipes.image_classification.freeze_pretrained import FreezePretrained
from lightning_adabelief.recipes.image_classification.image_sets import MarkedImages
from lightning_adabelief.recipes.image_classification.metrics import make_metrics
from lightning_adabelief.recipes.image_classification.networks import NetworkFromData
from lightning_adabelief.recipes.image_classification.preprocessing import Preprocessing
from lightning_adabelief.recipes.image_classification.pretrained import PretrainedNetwork
from lightning_adabelief.recipes.image_classification.training_images import TrainingImages
from lightning_adabelief.recipes.image_classification.training_loss import ClassWeights, TrainingLoss
from lightning_adabelief.recipes.optimizers import make_optimizers
from lightning_adabelief.recipes.recipe_module import RecipeModule

Batch = tuple[Tensor, Tensor]

CHECKPOINT_KEY = "image_classifier"
"""The checkpoint's key of the numbers of channels and classes, and of the images that were trained on."""

UNKNOWN_NUMBERS = (
    "The number of classes, or the network's channels and classes, are not known. Train with a DataModule, load a "
    "checkpoint, or give ImageClassifier num_classes and the network in_channels and num_classes"
)


class ImageClassifier(RecipeModule):
    """Train a network on images and class labels by cross-entropy.

    Logs ``<stage>/loss`` and ``<stage>/accuracy`` (top-1, over all images) once an epoch for the stages
    train, val and test, and ``train/loss_step``. For val and test it also logs
    ``<stage>/calibration_error`` (expected, 15 bins), with more than 5 classes ``<stage>/accuracy_top5``,
    and with up to 100 classes, to TensorBoard, the figure ``<stage>/confusion_matrix``: after the first,
    second, fourth, eighth, ... validation and after each test. Where the figure has the classes' numbers instead of
    their names (more than 20, or letters that no installed font has), the text ``class_names`` lists them.

    Numbers of channels and classes that neither the network nor ``num_classes`` gives come from the data:
    from the DataModule's attributes ``in_channels`` and ``num_classes``, or else from its training set.

    Args:
        network: A network from images (N, C, H, W) to logits (N, num_classes).
        num_classes: Number of classes; None for the network's or the data's.
        optimizer: A function from named parameters to an optimizer. AdaBelief's warmup may be a fraction
            of the run.
        lr_scheduler: A function from the optimizer to a learning-rate scheduler; None for none.
        lr_scheduler_interval: ``"epoch"`` or ``"step"``: how often the scheduler steps.
        label_smoothing: Fraction of a label, in [0, 1), that is spread over all classes in training.
        mixup: In training, blend pairs of images with weights drawn from Beta(mixup, mixup); 0 for none.
            Training accuracy then counts the label of the larger weight.
        cutmix: In training, paste a rectangle of another image that covers a fraction of the area drawn from
            Beta(cutmix, cutmix); 0 for none. If both are on, each batch has one of the two.
        class_weights: In training, factor of the loss of each class's images: a list in the order of the labels, or
            ``"balanced"`` for factors in inverse proportion to the numbers of training images, which the
            DataModule's attribute ``class_counts`` gives; None for the same.
        freeze_epochs: Number of epochs in which the pretrained layers of a
            :class:`~lightning_adabelief.recipes.image_classification.PretrainedNetwork` are frozen.
        macro_metrics: Log ``<stage>/accuracy_macro``, ``f1_macro`` and ``auroc_macro`` for val and test, in which
            each class counts the same.
        channels_last: Store weights and images with the channels last, which is faster on tensor cores.
        compile: Compile the network with ``torch.compile``.

    Raises:
        ValueError: If an option is out of its range. Later, at training or testing: if the data, the
            network and ``num_classes`` have different numbers, or none of them has one.

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
        class_weights: ClassWeights = None,
        freeze_epochs: int = 0,
        macro_metrics: bool = False,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.keep_hyperparameters(locals())
        self.network = network
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.training_loss = TrainingLoss(label_smoothing, mixup, cutmix, class_weights)
        self.freezing = FreezePretrained(freeze_epochs)
        self.macro_metrics = macro_metrics
        self.channels_last = channels_last
        self.compile_network = compile
        self.training_images = TrainingImages()
        self.confusion: MulticlassConfusionMatrix | None = None
        self._is_complete = False
        self._validations = 0

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes that were trained on, in the order of the labels; None if they are not known."""
        return self.training_images.class_names

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Preparation of an image file for the network, as in training; None if it is not known."""
        return self.training_images.preprocessing

    def setup(self, stage: str) -> None:
        """Note the classes and the preprocessing of the DataModule to train on."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None:
            self.training_images = TrainingImages.from_data(data)

    def configure_model(self) -> None:
        """Make the network's layers and the metrics, once the numbers of channels and classes are known.

        Raises:
            ValueError: If the data, the network and ``num_classes`` have different numbers, or training
                begins and none of them has one, there is one class only, or ``class_weights`` do not fit.
        """
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        fitting = trainer is not None and trainer.state.fn == "fit"
        if not self._is_complete:
            classes, channels = find_numbers(self.network, data, self.num_classes, fitting)
            if classes is not None and (channels is not None or self._has_layers):
                self._make_parts(classes, channels)
            elif fitting:
                raise ValueError(UNKNOWN_NUMBERS)
        if fitting:
            self.training_loss.balance(data)

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that freezes pretrained layers, where some are to be frozen."""
        is_needed = self.freezing.epochs > 0 and self.freezing not in self.trainer.callbacks  # type: ignore[attr-defined]
        return [self.freezing] if is_needed else []

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, num_classes).

        Raises:
            ValueError: If the network has no layers yet, as its numbers of channels and classes are unknown.
        """
        if not self._has_layers:
            raise ValueError(UNKNOWN_NUMBERS)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the batch's mean loss, a scalar."""
        images, labels = batch
        self._check_batch(images, labels, batch_idx)
        self.training_images.shape = tuple(images.shape[1:])
        images, targets = self.training_loss.mix(images, labels)
        if targets is not labels:
            labels = targets.argmax(dim=1)
        logits = self._compute_logits(images)
        loss = self.training_loss(logits, targets)
        self._log_metrics(self.train_metrics, logits, labels, loss)
        self.log("train/loss_step", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Update the validation metrics, and return the logits (N, num_classes) for callbacks."""
        return self._evaluate_batch(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Update the test metrics, and return the logits (N, num_classes) for callbacks."""
        return self._evaluate_batch(batch, batch_idx, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the probabilities (N, num_classes) of a batch of images, with labels or without.

        Those of :class:`MarkedImages` that could not be read are NaN.
        """
        images = batch if isinstance(batch, Tensor) else batch[0]
        probabilities = self(images).float().softmax(dim=-1)  # bfloat16 has three digits
        if isinstance(batch, MarkedImages):
            probabilities = probabilities.masked_fill(~batch.are_read[:, None], float("nan"))
        return probabilities

    def on_validation_epoch_start(self) -> None:
        """Begin anew: what a test or a validation alone has left is of inference mode, and can't be added to."""
        for metrics in (self.val_metrics, self.test_metrics, self.confusion) if self._is_complete else ():
            if metrics is not None:
                metrics.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Draw the confusion matrix after validations 1, 2, 4, 8, ...: a figure may take longer than a validation."""
        if self.confusion is not None and not self.trainer.sanity_checking:
            self._validations += 1
            is_power_of_2 = self._validations & (self._validations - 1) == 0
            if is_power_of_2:
                self._log_confusion_matrix(self.confusion, "val")

    def on_test_epoch_end(self) -> None:
        """Draw the confusion matrix."""
        if self.confusion is not None:
            self._log_confusion_matrix(self.confusion, "test")

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the trainable parameters, and its learning-rate scheduler if there is one.

        Before that, load the network's pretrained weights, unless a checkpoint has been loaded. By now that is known,
        and callbacks that try a few steps, such as BatchSizeFinder, have not begun.

        Raises:
            ValueError: If the optimizer comes with a learning-rate schedule and ``lr_scheduler`` is another, or the
                weights can't be downloaded or read, or are of another network.
        """
        if isinstance(self.network, PretrainedNetwork):
            self.network.load_weights()
        return make_optimizers(self, self.optimizer, self.lr_scheduler, self.lr_scheduler_interval, "val/loss")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the classes and the images' format, so that the checkpoint can be used without the data."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] = {
            "num_classes": self.num_classes,
            "in_channels": get_input_channels(self.network),
            "validations": self._validations,
            **self.training_images.to_plain(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the checkpoint's classes and images' format, and make the network for them if it is not made yet.

        Raises:
            ValueError: If the checkpoint has other classes than the data.
        """
        entry = checkpoint.get(CHECKPOINT_KEY)
        if entry is None:
            return
        self._validations = entry.get("validations", 0)
        if not self._is_complete:
            self._make_parts(entry["num_classes"], entry["in_channels"])
        elif entry["num_classes"] != self.num_classes:
            raise ValueError(
                f"The checkpoint is of {entry['num_classes']} classes, and the data or the config have "
                f"{self.num_classes}. Give the data that it was trained on, or train anew"
            )
        of_checkpoint = TrainingImages.from_plain(entry)
        data = getattr(self._trainer, "datamodule", None)
        of_checkpoint.check_class_names(getattr(data, "class_names", None))
        of_checkpoint.warn_of_other_split(data)
        if data is None or self.trainer.state.fn != "fit":  # a training that goes on has the data's
            self.training_images = of_checkpoint

    @property
    def _has_layers(self) -> bool:
        return not isinstance(self.network, NetworkFromData) or self.network.is_complete

    def _make_parts(self, num_classes: int, in_channels: int | None) -> None:
        """Make the network's layers and the metrics, on the CPU: a seed gives the same weights on every device."""
        self.num_classes = num_classes
        with torch.device("cpu"):
            if isinstance(self.network, NetworkFromData):
                self.network.complete(in_channels, num_classes)
            self.train_metrics, self.val_metrics, self.test_metrics = (
                make_metrics(num_classes, stage, self.macro_metrics) for stage in ("train", "val", "test")
            )
            self.training_loss.prepare(num_classes)
            if num_classes <= MAX_CLASSES:
                self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if self.compile_network:
            self.network.compile()
        self._is_complete = True

    def _check_batch(self, images: Tensor, labels: Tensor, batch_idx: int) -> None:
        if self.num_classes is None:
            raise ValueError(UNKNOWN_NUMBERS)
        would_wait = batch_idx > 0 and labels.device.type != "cpu"  # labels on a GPU are checked once, in batch 0
        check_batch(images, None if would_wait else labels, get_input_channels(self.network), self.num_classes)

    def _compute_logits(self, images: Tensor) -> Tensor:
        logits = self(images)
        check_logits(logits, self.num_classes)
        return logits

    def _evaluate_batch(self, batch: Batch, batch_idx: int, stage: str) -> Tensor:
        images, labels = batch
        self._check_batch(images, labels, batch_idx)
        logits = self._compute_logits(images)
        self._log_metrics(
            getattr(self, f"{stage}_metrics"), logits, labels, nn.functional.cross_entropy(logits, labels)
        )
        if self.confusion is not None:
            self.confusion.update(logits, labels)
        return logits

    def _log_metrics(self, metrics: MetricCollection, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        size = len(labels)
        metrics.update(preds=logits.float().softmax(dim=-1), target=labels, value=loss.detach(), weight=size)
        for name, metric in metrics.items(copy_state=False):
            on_bar = name in ("val/accuracy", "val/loss")
            self.log(name, metric, on_step=False, on_epoch=True, prog_bar=on_bar, batch_size=size)

    def _log_confusion_matrix(self, confusion: MulticlassConfusionMatrix, stage: str) -> None:
        counts = confusion.compute()  # a sum over all processes, so each of them must call it
        class_names = getattr(getattr(self.trainer, "datamodule", None), "class_names", None)
        for logger in self.loggers if self.trainer.is_global_zero else []:
            if isinstance(logger, TensorBoardLogger):
                log_confusion_matrix(logger.experiment, stage, counts, class_names, self.global_step)

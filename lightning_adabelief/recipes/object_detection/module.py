"""A LightningModule that detects objects."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from lightning_adabelief.lightning_tree import LRSchedulerCallable, OptimizerCallable
from lightning_adabelief.optim import AdaBelief
from lightning_adabelief.recipes.image_classification.channels_and_classes import agree_on
from lightning_adabelief.recipes.object_detection.detection_data import Batch, Target
from lightning_adabelief.recipes.object_detection.networks import Detections, Detector
from lightning_adabelief.recipes.optimizers import make_optimizers
from lightning_adabelief.recipes.recipe_module import RecipeModule

CHECKPOINT_KEY = "object_detector"
"""The checkpoint's key of the classes' number and names."""

METRICS = ("map", "map_50", "map_75", "mar_100")
"""The figures of torchmetrics that are logged."""

UNKNOWN_CLASSES = (
    "The number of classes is not known. Train with a DataModule that has num_classes, load a checkpoint, or give the "
    "network num_classes"
)


class ObjectDetector(RecipeModule):
    """Train a network that detects objects, such as Faster R-CNN.

    Logs each of the network's losses as ``train/<loss>`` and their sum as ``train/loss``, and for the stages
    val and test COCO's mean average precision: ``<stage>/map_50`` where a box is right that overlaps an
    object of its class by half (intersection over union), ``<stage>/map_75`` by three quarters,
    ``<stage>/map`` the mean over 0.5, 0.55, ..., 0.95, and ``<stage>/mar_100`` the mean recall of up to 100
    boxes an image. Without an object among the images they are -1.

    Args:
        network: A :class:`Detector`, or any network with the interface of torchvision's: in training from
            images and targets to a dict of losses, otherwise from images to a list of detections.
        optimizer: A function from named parameters to an optimizer. AdaBelief's warmup may be a fraction
            of the run.
        lr_scheduler: A function from the optimizer to a learning-rate scheduler; None for none.
        lr_scheduler_interval: ``"epoch"`` or ``"step"``: how often the scheduler steps.

    Raises:
        ValueError: If faster-coco-eval is not installed. Later, at training or testing: if the data and the
            network have different numbers of classes or neither has one, or an image's boxes or labels can't
            be trained on.

    Example:
        >>> from lightning_adabelief import AdaBelief
        >>> from lightning_adabelief.recipes.object_detection import SmallFasterRCNN
        >>> module = ObjectDetector(SmallFasterRCNN(), optimizer=lambda params: AdaBelief(params, lr=2e-3))
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable = AdaBelief,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.keep_hyperparameters(locals())
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.num_classes: int | None = None
        self.class_names: list[str] | None = None
        self._has_weights = False
        self.val_metric, self.test_metric = _make_metric(), _make_metric()

    def configure_model(self) -> None:
        """Make the network's layers, once the number of classes is known.

        Raises:
            ValueError: If the data and the network have different numbers of classes, or training begins and
                neither has one.
        """
        if self.num_classes is not None:
            return
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        self.num_classes = agree_on("num_classes", self.network, data)
        self.class_names = getattr(data, "class_names", None)
        if isinstance(self.network, Detector):
            self.network.complete(num_classes=self.num_classes)
            if not self.network.is_complete and trainer is not None and trainer.state.fn == "fit":
                raise ValueError(UNKNOWN_CLASSES)

    def on_fit_start(self) -> None:
        """Load the weights that the network begins with, unless the module has those of a checkpoint.

        Raises:
            FileNotFoundError: As the network's ``load_pretrained``.
            ValueError: As the network's ``load_pretrained``.
        """
        if isinstance(self.network, Detector) and not self._has_weights:
            self.network.load_pretrained()
        self._has_weights = True

    def forward(self, images: list[Tensor]) -> list[Detections]:
        """Detect the objects in images (3, H, W) in [0, 1]; only in evaluation mode."""
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of the batch's losses, a scalar."""
        images, targets = batch
        trained = [_leave_out_crowds(target) for target in targets]
        for target in trained:
            _check_target(target, self.num_classes)
        losses: dict[str, Tensor] = self.network(images, trained)
        loss = sum(losses.values(), start=images[0].new_zeros(()))
        named = {f"train/{name.removeprefix('loss_')}": value.detach() for name, value in losses.items()}
        self.log_dict(named, batch_size=len(images))
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Detections]]:
        """Update the validation metric; return the ``detections``."""
        return self._evaluate_batch(batch, self.val_metric)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Detections]]:
        """Update the test metric; return the ``detections``."""
        return self._evaluate_batch(batch, self.test_metric)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:
        """Return the detections in each image, and its ``file``."""
        images, targets = batch
        return [
            {"file": target["file"], **detections} for detections, target in zip(self(images), targets, strict=True)
        ]

    def on_validation_epoch_end(self) -> None:
        """Log the mean average precision."""
        self._log_metric(self.val_metric, "val")

    def on_test_epoch_end(self) -> None:
        """Log the mean average precision."""
        self._log_metric(self.test_metric, "test")

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the trainable parameters, and its learning-rate scheduler if there is one.

        Raises:
            ValueError: If the optimizer comes with a learning-rate schedule and ``lr_scheduler`` is another.
        """
        return make_optimizers(self, self.optimizer, self.lr_scheduler, self.lr_scheduler_interval, "val/map")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the classes, so that the checkpoint can be loaded without the data."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] = {"num_classes": self.num_classes, "class_names": self.class_names}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the network for the checkpoint's classes, if it is not made yet.

        Raises:
            ValueError: If the checkpoint has other classes than the data.
        """
        self._has_weights = True
        saved = checkpoint.get(CHECKPOINT_KEY)
        if saved is None:
            return
        for name, ours in {"num_classes": self.num_classes, "class_names": self.class_names}.items():
            if ours is not None and saved[name] is not None and ours != saved[name]:
                raise ValueError(
                    f"The checkpoint's {name} is {saved[name]} and the data's is {ours}. Give the data that it was "
                    "trained on, or train anew"
                )
        self.num_classes, self.class_names = saved["num_classes"], saved["class_names"]
        if isinstance(self.network, Detector):
            self.network.complete(num_classes=self.num_classes)

    def _evaluate_batch(self, batch: Batch, metric: MeanAveragePrecision) -> dict[str, list[Detections]]:
        images, targets = batch
        detections = self(images)
        metric.update(detections, targets)  # type: ignore[arg-type]  # it leaves the file's name alone
        return {"detections": detections}

    def _log_metric(self, metric: MeanAveragePrecision, stage: str) -> None:
        values = metric.compute()
        metric.reset()
        self.log_dict({f"{stage}/{name}": values[name] for name in METRICS}, prog_bar=stage == "val", sync_dist=True)


def _make_metric() -> MeanAveragePrecision:
    if find_spec("faster_coco_eval") is None:
        raise ValueError(
            "Mean average precision needs the package faster-coco-eval: pip install 'lightning-adabelief[detection]'"
        )
    # 100 detections count, as in COCO; the two before it are needed, though only their recall is of them.
    return MeanAveragePrecision(backend="faster_coco_eval", max_detection_thresholds=[1, 10, 100])


def _leave_out_crowds(target: Target) -> Target:
    kept = target["iscrowd"] == 0 if "iscrowd" in target else slice(None)
    return {**target, "boxes": target["boxes"][kept], "labels": target["labels"][kept]}


def _check_target(target: Target, num_classes: int | None) -> None:
    """Raise if an image's boxes or labels can't be trained on; the message names its file."""
    boxes, labels, file = target["boxes"], target["labels"], target.get("file", "an image")
    if not len(boxes):
        return
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if not has_area.all():
        raise ValueError(
            f"The box {boxes[~has_area][0].tolist()} in {file} has no area. Give left < right and top < bottom, and "
            "leave out boxes without an area"
        )
    if num_classes is not None and not 1 <= int(labels.min()) <= int(labels.max()) <= num_classes:
        raise ValueError(
            f"The labels in {file} are {int(labels.min())} to {int(labels.max())}. Give labels from 1 to num_classes, "
            f"{num_classes}: 0 is the background"
        )

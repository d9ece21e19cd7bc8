"""The base of the DataModules: loaders of three sets of images and the objects in them."""

from __future__ import annotations

from typing import Any, TypedDict

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class Target(TypedDict):
    """The objects in an image.

    Attributes:
        boxes: Left, top, right and bottom of each (N, 4), float32, in pixels; (0, 4) where there are none.
        labels: Their classes (N,), int64, counted from 1: 0 is the background.
        iscrowd: 1 for what is neither trained on nor counted as a mistake, otherwise 0 (N,), int64.
        file: The image's file, named in predictions and messages.
    """

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    file: str


Batch = tuple[list[Tensor], list[Target]]


class DetectionDataModule(ImageDataModule):
    """Batches of images and their objects from ``train_set``, ``val_set`` and ``test_set``, which ``setup`` makes.

    A batch is a list of images (3, H, W), which may differ in size, and a list of :class:`Target`. Images
    are moved to the device as uint8, and are float32 in [0, 1] from there on.

    Args:
        batch_size: Images per batch.
        num_workers: Processes that load data; None for one per CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` is less than 1 or ``num_workers`` less than 0.

    Attributes:
        class_names: Names of the classes 1, 2, ...; the background, 0, has none. None where images are
            predicted whose classes only a checkpoint knows.
        predict_set: The images to predict.
    """

    in_channels = 3
    predict_set: Dataset

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """Number of classes, without the background; None if they are not known."""
        return None if self.class_names is None else len(self.class_names)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training set; detectors can be trained on a single image."""
        return self._make_loader(self.train_set, shuffle=True)

    def predict_dataloader(self) -> DataLoader:
        """Return batches of the images to predict."""
        return self._make_loader(self.predict_set)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn images that are uint8 into float32 in [0, 1], on the device."""
        images, targets = batch
        return [self._normalize(image) for image in images], targets

    def _make_loader(self, dataset: Dataset, shuffle: bool = False, **options: Any) -> DataLoader:
        return super()._make_loader(dataset, shuffle, collate_fn=collate_lists, **options)


def collate_lists(items: list[tuple[Tensor, Target]]) -> Batch:
    """Make a batch of images of any sizes: a list of the images, and one of their targets."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)

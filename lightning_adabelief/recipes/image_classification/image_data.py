"""The base of the DataModules: loaders of three sets, and normalization on the device."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_adabelief.lightning_tree import LightningDataModule
from lightning_adabelief.recipes.image_classification.data_table import make_data_table
from lightning_adabelief.recipes.image_classification.found_images import FoundImages
from lightning_adabelief.recipes.image_classification.image_sets import MarkedImages

MAX_WORKERS = 16
"""More processes than this seldom load faster, and each takes memory."""


class ImageDataModule(LightningDataModule):
    """Batches of images and labels from ``train_set``, ``val_set`` and ``test_set``, which ``setup`` makes.

    Images that are uint8 are moved to the device as uint8, a quarter of float32's bytes, and normalized there.

    Args:
        batch_size: Images per batch.
        num_workers: Processes that load data; None for one per CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` is less than 1 or ``num_workers`` less than 0.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        class_names: Names of the classes, for the confusion matrix; None for their numbers.
        mean: Mean of each channel, of images in [0, 1].
        std: Standard deviation of each channel.
        train_set: The images to train on.
        val_set: The images to validate on; None for no validation.
        test_set: The images to test on and to predict.

    Shape:
        Images (N, in_channels, H, W), labels (N,).
    """

    in_channels: int
    num_classes: int
    class_names: list[str] | None = None
    mean: ClassVar[tuple[float, ...]] = (0.0,)
    std: ClassVar[tuple[float, ...]] = (1.0,)

    train_set: Dataset
    val_set: Dataset | None
    test_set: Dataset

    def __init__(self, batch_size: int, num_workers: int | None) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"Invalid batch_size: {batch_size}. Give 1 or more")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"Invalid num_workers: {num_workers}. Give 0 or more, or null for one per CPU core")
        self.batch_size = batch_size
        self.num_workers = min(_count_cores(), MAX_WORKERS) if num_workers is None else num_workers
        self._printed: set[str] = set()
        self._normalize: Callable[[Tensor], Tensor] = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.mean, self.std)]
        )

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training set, without the last one if it is a single image.

        Batch normalization can't be trained on a single image. In each epoch it is another that is left out.
        """
        return self._make_loader(self.train_set, shuffle=True, drop_last=self._ends_in_single_image())

    def val_dataloader(self) -> DataLoader:
        """Return batches of the validation set."""
        assert self.val_set is not None, "without a validation set, setup turns validation off"
        return self._make_loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Return batches of the test set."""
        return self._make_loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """Return batches of the test set."""
        return self._make_loader(self.test_set)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalize images that are uint8, with labels or without, on the device; leave others unchanged.

        They become floats of the Trainer's precision, as others are by then.
        """
        if isinstance(batch, MarkedImages):
            return batch._replace(images=self.on_after_batch_transfer(batch.images, dataloader_idx))
        if not isinstance(batch, Tensor):
            images, labels = batch
            return self.on_after_batch_transfer(images, dataloader_idx), labels
        if batch.dtype != torch.uint8:
            return batch
        images = self._normalize(batch)
        return images if self.trainer is None else self.trainer.precision_plugin.convert_input(images)

    def _print_table(self, title: str, parts: Mapping[str, FoundImages], notes: Iterable[str] = ()) -> None:
        """Print what was found in a folder or by a CSV file, once and by one process."""
        if title not in self._printed and (self.trainer is None or self.trainer.is_global_zero):
            Console().print(make_data_table(title, parts, notes))
        self._printed.add(title)

    def _ends_in_single_image(self) -> bool:
        ranks = 1 if self.trainer is None else self.trainer.world_size
        images = math.ceil(len(self.train_set) / ranks)  # type: ignore[arg-type]
        return images > self.batch_size and images % self.batch_size == 1

    def _make_loader(self, dataset: Dataset, shuffle: bool = False, **options: Any) -> DataLoader:
        is_drawn = shuffle or "sampler" in options  # and then a resumed run must draw its workers' augmentation again
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0 and not is_drawn,
            prefetch_factor=4 if self.num_workers > 0 else None,  # batches in reserve bridge a slow one
            pin_memory=torch.cuda.is_available(),  # so that copies to the device overlap with its work
            shuffle=shuffle,
            **options,
        )


def _count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

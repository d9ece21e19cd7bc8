"""What the DataModules here share: loaders over three sets, and normalization on the device."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_adabelief.lightning_tree import LightningDataModule


class ImageDataModule(LightningDataModule):
    """Batches of images and labels from ``train_set``, ``val_set`` and ``test_set``, which ``setup`` makes.

    Images that are uint8 reach the device as uint8, a quarter of the bytes, and are normalized there.

    Args:
        batch_size: Images a batch.
        num_workers: Processes that load data; None for one a CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` is less than 1 or ``num_workers`` less than 0.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        class_names: Their names, for the confusion matrix; None for their numbers.
        mean: The mean of each channel in [0, 1].
        std: The standard deviation of each channel.
        train_set: What to train on.
        val_set: What to validate on; None for nothing.
        test_set: What to test on and to predict.
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
            raise ValueError(f"Invalid num_workers: {num_workers}. Give 0 or more, or null for one a CPU core")
        self.batch_size = batch_size
        self.num_workers = min(_cores(), 16) if num_workers is None else num_workers
        self._normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.mean, self.std)])

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training set."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation set."""
        assert self.val_set is not None, "where there is no validation set, the Trainer is told so"
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Batches of the test set."""
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """Batches of the test set."""
        return self._loader(self.test_set)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalize uint8 images, on the device that they are on now; others stay as they are."""
        images, labels = batch
        return (self._normalize(images) if images.dtype == torch.uint8 else images), labels

    def _loader(self, dataset: Dataset, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            prefetch_factor=4 if self.num_workers > 0 else None,  # batches: a slow one need not be waited for
            pin_memory=torch.cuda.is_available(),  # copied to the device while it computes
            shuffle=shuffle,
            drop_last=drop_last,
        )


def _cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

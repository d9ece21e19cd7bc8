"""Digits: real data that need no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class DigitsDataModule(ImageDataModule):
    """scikit-learn's handwritten digits: 1,797 real images of 8x8, in 10 classes; no download.

    The split is fixed and stratified by class: 1,077 images to train, 360 to validate, 360 to test.
    Images are float32 of shape (1, 8, 8) in [0, 1]; labels are int64.

    Args:
        batch_size: Images a batch.
        num_workers: Processes that load data; 0 is fastest for data this small.
    """

    SPLIT_SEED = 0

    in_channels = 1
    num_classes = 10

    train_set: Subset
    val_set: Subset
    test_set: Subset

    def __init__(self, batch_size: int = 64, num_workers: int = 0) -> None:
        super().__init__(batch_size, num_workers)

    def setup(self, stage: str) -> None:
        """Load the images and split them, the same way each time."""
        digits = load_digits()
        images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
        labels = torch.from_numpy(digits.target).long()
        dataset = TensorDataset(images, labels)

        def split(indices: list[int], size: float) -> tuple[list[int], list[int]]:
            return train_test_split(indices, test_size=size, random_state=self.SPLIT_SEED, stratify=labels[indices])

        rest, test = split(list(range(len(labels))), 0.2)
        train, val = split(rest, 0.25)
        self.train_set, self.val_set, self.test_set = (Subset(dataset, indices) for indices in (train, val, test))

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training set; a last, smaller one is left out."""
        return self._loader(self.train_set, shuffle=True, drop_last=len(self.train_set) > self.batch_size)

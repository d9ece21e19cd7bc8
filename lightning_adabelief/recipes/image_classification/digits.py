"""scikit-learn's digits: real images that need no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class DigitsDataModule(ImageDataModule):
    """scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels in 10 classes, without a download.

    The split is fixed and stratified by class: 1,077 images to train, 360 to validate, 360 to test.
    Images are float32 of shape (1, 8, 8) in [0, 1]; labels are int64.

    Args:
        batch_size: Images per batch.
        num_workers: Processes that load data; 0 is fastest for data this small.

    Raises:
        ValueError: If ``batch_size`` is less than 1 or ``num_workers`` less than 0.
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
        images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16  # pixels are counts from 0 to 16
        labels = torch.from_numpy(digits.target).long()
        dataset = TensorDataset(images, labels)

        def split(indices: list[int], size: float) -> tuple[list[int], list[int]]:
            return train_test_split(indices, test_size=size, random_state=self.SPLIT_SEED, stratify=labels[indices])

        train_and_val, test = split(list(range(len(labels))), 0.2)
        train, val = split(train_and_val, 0.25)
        self.train_set, self.val_set, self.test_set = (Subset(dataset, indices) for indices in (train, val, test))

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training set, without the last one if it is smaller."""
        return self._make_loader(self.train_set, shuffle=True, drop_last=len(self.train_set) > self.batch_size)

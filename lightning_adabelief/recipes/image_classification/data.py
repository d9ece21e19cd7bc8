"""Data for image classification."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from lightning_adabelief.lightning_tree import LightningDataModule


class DigitsDataModule(LightningDataModule):
    """scikit-learn's handwritten digits: 1,797 real images of 8x8, in 10 classes; no download.

    The split is fixed and stratified by class: 1,077 images to train, 360 to validate, 360 to test.
    Images are float32 of shape (1, 8, 8) in [0, 1]; labels are int64.

    Args:
        batch_size: Images a batch.
        num_workers: Processes that load data; 0 is fastest for data this small.
    """

    SPLIT_SEED = 0

    def __init__(self, batch_size: int = 64, num_workers: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"Invalid batch_size: {batch_size}. Give 1 or more")
        self.batch_size = batch_size
        self.num_workers = num_workers

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

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation set."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Batches of the test set."""
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """Batches of the test set."""
        return self._loader(self.test_set)

    def _loader(self, dataset: Dataset, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            shuffle=shuffle,
            drop_last=drop_last,
        )

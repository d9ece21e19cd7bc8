"""CIFAR-10 for GANs: images in [0, 1], neither augmented nor normalized."""

from __future__ import annotations

from pathlib import Path

from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification import CIFAR10DataModule


class CIFAR10Images(CIFAR10DataModule):
    """CIFAR-10 without augmentation or normalization: images (N, 3, 32, 32) in [0, 1], and their labels.

    The GAN trains on all 50,000 training images, as in the paper. It is validated against 10,000 of
    them, stratified by class and the same ones each time, so that no checkpoint is chosen by the test
    set; it is tested against the 10,000 images of the test set.

    Args:
        root: The folder that holds the files, or to download them into.
        batch_size: Images per batch.
        num_workers: Processes that load data; None for one per CPU core, at most 16.
        download: Download the files if they are missing.

    Raises:
        ValueError: If ``batch_size`` is less than 1 or ``num_workers`` less than 0.
    """

    VAL_SHARE = 0.2

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(
        self, root: str | Path = "data", batch_size: int = 64, num_workers: int | None = None, download: bool = True
    ) -> None:
        super().__init__(root, batch_size, num_workers=num_workers, download=download)

    train_set: CIFAR10

    def setup(self, stage: str) -> None:
        """Read the files, and choose the training images to validate against."""
        to_tensor = v2.PILToTensor()
        self.train_set = train_set = self._read_files(train=True, transform=to_tensor)
        self.test_set = self._read_files(train=False, transform=to_tensor)
        self.class_names = train_set.classes
        _, val = train_test_split(
            range(len(train_set)), test_size=self.VAL_SHARE, random_state=self.SPLIT_SEED, stratify=train_set.targets
        )
        self.val_set = Subset(train_set, val)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training set, without the last one if it is smaller."""
        return self._make_loader(self.train_set, shuffle=True, drop_last=len(self.train_set) > self.batch_size)

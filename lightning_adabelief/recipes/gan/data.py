"""Data for GANs: images in [0, 1], as they are."""

from __future__ import annotations

from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification import CIFAR10DataModule


class CIFAR10Images(CIFAR10DataModule):
    """CIFAR-10's images as they are, neither normalized nor varied: 3x32x32 in [0, 1], and their labels.

    All 50,000 are trained on, as in the paper. Validation is against 10,000 of them, stratified by class, the
    same ones each time, so that no checkpoint is chosen by the test set; the test is against the 10,000 of
    the test set.

    Args:
        root: The folder with the files, or to download them into.
        batch_size: Images a batch.
        num_workers: Processes that load data; None for one a CPU core, at most 16.
        download: Download the files if they are missing.
    """

    VAL_SHARE = 0.2

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(
        self, root: str = "data", batch_size: int = 64, num_workers: int | None = None, download: bool = True
    ) -> None:
        super().__init__(root, batch_size, num_workers=num_workers, download=download)

    train_set: CIFAR10

    def setup(self, stage: str) -> None:
        """Read the files."""
        plain = v2.PILToTensor()
        self.train_set = train_set = self._read(train=True, transform=plain)
        self.test_set = self._read(train=False, transform=plain)
        _, val = train_test_split(
            range(len(train_set)), test_size=self.VAL_SHARE, random_state=self.SPLIT_SEED, stratify=train_set.targets
        )
        self.val_set = Subset(train_set, val)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training set; a last, smaller one is left out."""
        return self._loader(self.train_set, shuffle=True, drop_last=len(self.train_set) > self.batch_size)

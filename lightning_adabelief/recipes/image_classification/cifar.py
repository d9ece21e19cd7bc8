"""CIFAR-10 and CIFAR-100, read by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from sklearn.model_selection import train_test_split
from torch.utils.data import Subset
from torchvision import datasets
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10: 60,000 images of 3x32x32 in 10 classes, 50,000 to train and 10,000 to test.

    As in the paper, all 50,000 are trained on by default. There is no validation then, and no checkpoint is
    chosen by the test set either: the last epoch's weights are tested. ``val_share`` sets a part of the
    50,000 apart for validation, stratified by class, the same images each time. Training images are
    shifted by up to 4 pixels and flipped, as in the paper.

    Args:
        root: The folder that holds the files, or to download them into.
        batch_size: Images per batch.
        val_share: Fraction of the 50,000 images, in [0, 1), to validate on and not to train on.
        num_workers: Processes that load data; None for one per CPU core, at most 16.
        download: Download the files if they are missing.

    Raises:
        ValueError: If ``val_share`` is not in [0, 1), ``batch_size`` is less than 1 or ``num_workers``
            less than 0.
    """

    SPLIT_SEED = 0

    in_channels = 3
    num_classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)

    dataset: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10
    archive_megabytes: ClassVar[int] = 170

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 128,
        val_share: float = 0.0,
        num_workers: int | None = None,
        download: bool = True,
    ) -> None:
        super().__init__(batch_size, num_workers)
        if not 0 <= val_share < 1:
            raise ValueError(
                f"Invalid val_share: {val_share}. Give a fraction of the training images in [0, 1), such as 0.1"
            )
        self.root = root
        self.val_share = val_share
        self.download = download

    def prepare_data(self) -> None:
        """Download and unpack the files if they are missing.

        Raises:
            FileNotFoundError: If they are missing or broken and can't be downloaded; the message says which
                file to put where.
        """
        try:
            self.dataset(self.root, download=self.download)
        except (OSError, RuntimeError) as error:
            name, url, megabytes = self.dataset.filename, self.dataset.url, self.archive_megabytes
            reason = f"could not be downloaded ({error})" if self.download else "are not to be downloaded"
            raise FileNotFoundError(
                f"There are no {self.dataset.__name__} files in {self.root}/{self.dataset.base_folder}, and they "
                f"{reason}. Put {name} ({megabytes} MB, from {url}) into {self.root}/ and leave data.download on: "
                "it is checked and unpacked there"
            ) from error

    def setup(self, stage: str) -> None:
        """Read the files, and set the validation images apart.

        Raises:
            ValueError: If ``stage`` is ``"validate"`` and there are no validation images.
        """
        to_tensor = v2.PILToTensor()
        augmented = v2.Compose([to_tensor, v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
        all_train = self._read_files(train=True, transform=augmented)
        self.class_names = all_train.classes
        self.test_set = self._read_files(train=False, transform=to_tensor)
        self.train_set, self.val_set = all_train, None
        if self.val_share:
            train, val = train_test_split(
                range(len(all_train)),
                test_size=self.val_share,
                random_state=self.SPLIT_SEED,
                stratify=all_train.targets,
            )
            self.train_set = Subset(all_train, train)
            self.val_set = Subset(self._read_files(train=True, transform=to_tensor), val)
        elif stage == "validate":
            raise ValueError("With val_share 0 there is nothing to validate on. Give 0.1, or test instead")
        elif self.trainer is not None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty loader

    def _read_files(self, **options: Any) -> datasets.CIFAR10:
        return self.dataset(self.root, **options)


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100: 60,000 images of 3x32x32 in 100 classes; otherwise like :class:`CIFAR10DataModule`."""

    num_classes = 100
    dataset = datasets.CIFAR100
    archive_megabytes = 169

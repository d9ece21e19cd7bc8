"""CIFAR-10 and CIFAR-100, from torchvision."""

from __future__ import annotations

from typing import Any, ClassVar

from sklearn.model_selection import train_test_split
from torch.utils.data import Subset
from torchvision import datasets
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10: 60,000 images of 3x32x32 in 10 classes, 50,000 to train and 10,000 to test.

    The paper trains on all 50,000; then there is nothing to validate on, and nothing is chosen by the
    test set either: the last epoch's weights are tested. ``val_share`` sets images apart for
    validation, stratified by class, the same ones each time. Training images are shifted by up to 4
    pixels and flipped, as in the paper.

    Args:
        root: The folder with the files, or to download them into.
        batch_size: Images a batch.
        val_share: The share of the 50,000 to validate on rather than to train on.
        num_workers: Processes that load data; None for one a CPU core, at most 16.
        download: Download the files if they are missing.

    Raises:
        ValueError: If ``val_share`` is not in [0, 1) or ``batch_size`` is less than 1.
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
        root: str = "data",
        batch_size: int = 128,
        val_share: float = 0.0,
        num_workers: int | None = None,
        download: bool = True,
    ) -> None:
        super().__init__(batch_size, num_workers)
        if not 0 <= val_share < 1:
            raise ValueError(f"Invalid val_share: {val_share}. Give a share of the training images, such as 0.1, or 0")
        self.root = root
        self.val_share = val_share
        self.download = download

    def prepare_data(self) -> None:
        """Download the files if need be.

        Raises:
            FileNotFoundError: If they are missing or broken and can't be had; it says what goes where.
        """
        try:
            self.dataset(self.root, download=self.download)
        except (OSError, RuntimeError) as error:
            name, url, megabytes = self.dataset.filename, self.dataset.url, self.archive_megabytes
            tried = f"could not be downloaded ({error})" if self.download else "are not to be downloaded"
            raise FileNotFoundError(
                f"There are no {self.dataset.__name__} files in {self.root}/{self.dataset.base_folder}, and they "
                f"{tried}. Put {name} ({megabytes} MB, from {url}) into {self.root}/ and leave data.download on: "
                "it is checked and unpacked there"
            ) from error

    def setup(self, stage: str) -> None:
        """Read the files, and set the validation images apart.

        Raises:
            ValueError: If the validation images are asked for, and there are none.
        """
        plain = v2.PILToTensor()
        varied = v2.Compose([plain, v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
        all_train = self._read(train=True, transform=varied)
        self.class_names = all_train.classes
        self.test_set = self._read(train=False, transform=plain)
        self.train_set, self.val_set = all_train, None
        if self.val_share:
            train, val = train_test_split(
                range(len(all_train)),
                test_size=self.val_share,
                random_state=self.SPLIT_SEED,
                stratify=all_train.targets,
            )
            self.train_set = Subset(all_train, train)
            self.val_set = Subset(self._read(train=True, transform=plain), val)
        elif stage == "validate":
            raise ValueError("With val_share 0 there is nothing to validate on. Give 0.1, or test instead")
        elif self.trainer is not None:
            self.trainer.limit_val_batches = 0  # of an empty loader, Lightning would warn

    def _read(self, **options: Any) -> datasets.CIFAR10:
        return self.dataset(self.root, **options)


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100: 60,000 images of 3x32x32 in 100 classes; otherwise as :class:`CIFAR10DataModule`."""

    num_classes = 100
    dataset = datasets.CIFAR100
    archive_megabytes = 169

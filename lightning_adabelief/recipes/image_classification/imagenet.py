"""ImageNet, from its unpacked folders."""

from __future__ import annotations

from pathlib import Path

from lightning_adabelief.recipes.image_classification.image_folder import ImageFolderDataModule
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET


class ImageNetDataModule(ImageFolderDataModule):
    """ImageNet (ILSVRC 2012): 1.28 million images to train and 50,000 to validate, in 1,000 classes.

    The labels of its test images are not public; as in the paper, the validation images are tested on.

    Args:
        root: The folder that holds ``train`` and ``val``, with one folder per class in each.
        batch_size: Images per batch.
        size: Height and width of the cropped images, in pixels.
        num_workers: Processes that load data; None for one per CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` or ``size`` is less than 1, or ``num_workers`` less than 0.
    """

    def __init__(
        self, root: str = "data/imagenet", batch_size: int = 256, size: int = 224, num_workers: int | None = None
    ) -> None:
        super().__init__(root, batch_size, size, IMAGENET.mean, IMAGENET.std, num_workers)

    def missing(self, folder: Path) -> str:
        """Return the error message for a folder that does not exist: the files need an account to be downloaded."""
        return (
            f"There is no folder {folder}. Get ILSVRC2012_img_train.tar (148 GB) and ILSVRC2012_img_val.tar (6.7 GB) "
            f"from image-net.org, and unpack them into {folder.with_name('train')} and {folder.with_name('val')}, "
            "with one folder per class; torchvision.datasets.ImageNet does that"
        )

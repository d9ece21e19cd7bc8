"""ImageNet, from its unpacked folders."""

from __future__ import annotations

from pathlib import Path

from lightning_adabelief.recipes.image_classification.image_folder import ImageFolderDataModule
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET


class ImageNetDataModule(ImageFolderDataModule):
    """ImageNet (ILSVRC 2012): 1.28 million images to train and 50,000 to validate, in 1,000 classes.

    The labels of its test images are not public; as in the paper, the validation images are tested on. Training images
    are cropped at random and flipped.

    Args:
        root: The folder that holds ``train`` and ``val``, with one folder per class in each.
        batch_size: Images per batch.
        size: Height and width of the cropped images, in pixels.
        num_workers: Processes that load data; None for one per CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` or ``size`` is less than 1, or ``num_workers`` less than 0.
    """

    def __init__(
        self, root: str | Path = "data/imagenet", batch_size: int = 256, size: int = 224, num_workers: int | None = None
    ) -> None:
        super().__init__(root, batch_size, size, num_workers, IMAGENET.mean, IMAGENET.std)

    def setup(self, stage: str) -> None:
        """List the files, and print how many there are, and what is left out.

        Raises:
            FileNotFoundError: If there is no folder ``train`` or ``val``, or it has no images; the message says where
                to get them, which takes an account.
        """
        assert self.root is not None
        for part in ("train", "val"):
            folder = Path(self.root) / part
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"There is no folder {folder}. Get ILSVRC2012_img_train.tar (148 GB) and ILSVRC2012_img_val.tar "
                    f"(6.7 GB) from image-net.org, and unpack them into {folder.with_name('train')} and "
                    f"{folder.with_name('val')}, with one folder per class; torchvision.datasets.ImageNet does that"
                )
        super().setup(stage)

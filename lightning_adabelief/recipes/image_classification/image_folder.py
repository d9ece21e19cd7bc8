"""Images in folders, one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class ImageFolderDataModule(ImageDataModule):
    """Images in the folders ``train/CLASS/``, ``val/CLASS/`` and, if there is one, ``test/CLASS/``.

    Without a ``test`` folder, the images of ``val`` are tested on too. Training images are cropped at
    random and flipped, the others resized and cropped at the centre. Images stay uint8 in the worker
    processes and are normalized on the device.

    Args:
        root: The folder that holds ``train`` and ``val``.
        batch_size: Images per batch.
        size: Height and width of the cropped images, in pixels.
        num_workers: Processes that load data; None for one per CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` or ``size`` is less than 1, or ``num_workers`` less than 0.

    Shape:
        Images (N, 3, size, size); grayscale files become RGB.
    """

    in_channels = 3
    mean = (0.485, 0.456, 0.406)  # of ImageNet
    std = (0.229, 0.224, 0.225)

    def __init__(self, root: str, batch_size: int = 256, size: int = 224, num_workers: int | None = None) -> None:
        super().__init__(batch_size, num_workers)
        if size < 1:
            raise ValueError(f"Invalid size: {size}. Give 1 or more")
        self.root = root
        self.size = size

    def setup(self, stage: str) -> None:
        """List the files.

        Raises:
            FileNotFoundError: If there is no folder ``train`` or ``val``, or it has no classes, or one without images.
            ValueError: If their classes differ.
        """
        augmented = v2.Compose([v2.RandomResizedCrop(self.size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        centred = v2.Compose([v2.Resize(round(self.size / 0.875)), v2.CenterCrop(self.size), v2.PILToTensor()])
        self.train_set = train_set = self._list_images("train", augmented)
        self.val_set = self._list_images("val", centred, train_set.classes)
        has_test = (Path(self.root) / "test").is_dir()
        self.test_set = self._list_images("test", centred, train_set.classes) if has_test else self.val_set
        self.class_names = train_set.classes
        self.num_classes = len(train_set.classes)

    def missing(self, folder: Path) -> str:
        """Return the error message for a folder that does not exist."""
        return f"There is no folder {folder}. Make it, and in it one folder per class that holds the class's images"

    def _list_images(self, part: str, transform: v2.Transform, classes: list[str] | None = None) -> ImageFolder:
        folder = Path(self.root) / part
        if not folder.is_dir():
            raise FileNotFoundError(self.missing(folder))
        try:
            images = ImageFolder(str(folder), transform=transform, loader=_load_image)
        except FileNotFoundError as error:  # of torchvision, which does not name the folder
            raise FileNotFoundError(
                f"{folder} must hold one folder per class, and each some images. {error}"
            ) from error
        if classes is not None and images.classes != classes:
            differing = sorted(set(images.classes) ^ set(classes))
            raise ValueError(
                f"{folder} has {len(images.classes)} classes and {folder.with_name('train')} has {len(classes)}; "
                f"{', '.join(differing[:3])} {'is' if len(differing) == 1 else 'are'} in one of "
                "them only. Give both the same folders"
            )
        return images


def _load_image(path: str) -> Any:
    """Load an image; one that is damaged is named."""
    try:
        return default_loader(path)
    except OSError as error:
        raise ValueError(f"{path} is not an image that can be read. Mend it, or take it out of the folder") from error

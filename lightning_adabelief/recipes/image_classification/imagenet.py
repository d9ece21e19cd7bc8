"""ImageNet, and any images that lie in one folder a class."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class ImageFolderDataModule(ImageDataModule):
    """Your own images: files in folders ``train/CLASS/`` and ``val/CLASS/``, and ``test/CLASS/`` if you like.

    Workers decode and crop; images stay uint8 until they are normalized on the device. Training
    images are cropped at random and flipped, the others resized and cropped at the centre. Where
    there is no ``test``, the images of ``val`` are tested on too.

    Args:
        root: The folder with ``train`` and ``val``.
        batch_size: Images a batch.
        size: Height and width of the images after the crop, in pixels.
        num_workers: Processes that load data; None for one a CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` or ``size`` is less than 1.

    Shape:
        Images (N, 3, size, size), whatever the files have: grayscale becomes RGB.
    """

    in_channels = 3
    mean = (0.485, 0.456, 0.406)  # ImageNet's
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
            FileNotFoundError: If there is no ``train`` or ``val``.
            ValueError: If they have different classes.
        """
        varied = v2.Compose([v2.RandomResizedCrop(self.size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        centred = v2.Compose([v2.Resize(round(self.size / 0.875)), v2.CenterCrop(self.size), v2.PILToTensor()])
        self.train_set = train_set = self._list("train", varied)
        self.val_set = self._list("val", centred, train_set.classes)
        has_test = (Path(self.root) / "test").is_dir()
        self.test_set = self._list("test", centred, train_set.classes) if has_test else self.val_set
        self.class_names = train_set.classes
        self.num_classes = len(train_set.classes)

    def missing(self, folder: Path) -> str:
        """What to say of a folder that is not there."""
        return f"There is no folder {folder}. Make it, with a folder a class in it and the class's images there"

    def _list(self, part: str, transform: v2.Transform, classes: list[str] | None = None) -> ImageFolder:
        folder = Path(self.root) / part
        if not folder.is_dir():
            raise FileNotFoundError(self.missing(folder))
        images = ImageFolder(str(folder), transform=transform)
        if classes is not None and images.classes != classes:
            odd = sorted(set(images.classes) ^ set(classes))
            raise ValueError(
                f"{folder} has {len(images.classes)} classes and {folder.with_name('train')} has {len(classes)}; "
                f"{', '.join(odd[:3])} {'is' if len(odd) == 1 else 'are'} in one of them only"
            )
        return images


class ImageNetDataModule(ImageFolderDataModule):
    """ImageNet (ILSVRC 2012): 1.28 million images to train and 50,000 to validate, in 1,000 classes.

    The labels of its test images are not public; as in the paper, the validation images are tested on.

    Args:
        root: The folder with ``train`` and ``val``, a folder a class in each.
        batch_size: Images a batch.
        size: Height and width of the images after the crop, in pixels.
        num_workers: Processes that load data; None for one a CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` or ``size`` is less than 1.
    """

    def __init__(
        self, root: str = "data/imagenet", batch_size: int = 256, size: int = 224, num_workers: int | None = None
    ) -> None:
        super().__init__(root, batch_size, size, num_workers)

    def missing(self, folder: Path) -> str:
        """What to say of a folder that is not there: ImageNet can't be downloaded without an account."""
        return (
            f"There is no folder {folder}. Get ILSVRC2012_img_train.tar (148 GB) and ILSVRC2012_img_val.tar (6.7 GB) "
            f"from image-net.org, and unpack them into {folder.with_name('train')} and {folder.with_name('val')}, "
            "a folder a class; torchvision.datasets.ImageNet does that"
        )

"""Images in folders, one folder per class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification.class_folders import FoundImages, LabelledImages, find_images
from lightning_adabelief.recipes.image_classification.data_table import make_data_table
from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET, Preprocessing
from lightning_adabelief.suggest import suggest


class ImageFolderDataModule(ImageDataModule):
    """Images in the folders ``train/CLASS/``, ``val/CLASS/`` and, if there is one, ``test/CLASS/``.

    Without a ``test`` folder, the images of ``val`` are tested on too. Training images are cropped at
    random and flipped, the others resized and cropped at the centre. Images stay uint8 in the worker
    processes and are normalized on the device.

    The first ``setup`` prints how many images each class has, and which files are left out: hidden ones, those of
    other kinds than torchvision's ``IMG_EXTENSIONS``, those beside the class folders, and class folders without
    an image. How files are read is described at
    :func:`~lightning_adabelief.recipes.image_classification.image_file.read_rgb`.

    Args:
        root: The folder that holds ``train`` and ``val``.
        batch_size: Images per batch.
        size: Height and width of the cropped images, in pixels; None for the network's, or else 224.
        mean: Mean of red, green and blue, of images in [0, 1]; None for the network's, or else ImageNet's.
        std: Standard deviation of red, green and blue; None for the network's, or else ImageNet's.
        num_workers: Processes that load data; None for one per CPU core, at most 16.

    Raises:
        ValueError: If ``batch_size`` or ``size`` is less than 1, ``num_workers`` less than 0, or ``mean`` or ``std``
            has not three numbers.

    Attributes:
        preprocessing: The size and the normalization of the images, which ``setup`` finds.

    Shape:
        Images (N, 3, size, size); grayscale files become RGB.
    """

    in_channels = 3

    preprocessing: Preprocessing

    def __init__(
        self,
        root: str,
        batch_size: int = 256,
        size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers)
        self.root = root
        given = {"size": size, "mean": mean, "std": std}
        self.given_preprocessing: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        replace(IMAGENET, **self.given_preprocessing)  # which checks the values
        self._has_printed = False

    def setup(self, stage: str) -> None:
        """List the files, and print how many there are, and what is left out.

        Raises:
            FileNotFoundError: If there is no folder ``train`` or ``val``, or it has no images.
            ValueError: If there are images of one class only to train on, or of a class that is not trained on.
        """
        parts = {"train": self._find_images("train"), "val": self._find_images("val")}
        if (Path(self.root) / "test").is_dir():
            parts["test"] = self._find_images("test")
        self._print_table(parts)
        self.class_names = sorted(set(parts["train"].classes))
        self.num_classes = len(self.class_names)
        self._check_classes(parts)
        self._set_preprocessing()
        size, mode = self.preprocessing.size, self.preprocessing.interpolation_mode
        crop = v2.RandomResizedCrop(size, interpolation=mode)
        augmented = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])
        centred = self.preprocessing.make_transform()
        self.train_set = self._make_set(parts["train"], augmented)
        self.val_set = self._make_set(parts["val"], centred)
        self.test_set = self._make_set(parts["test"], centred) if "test" in parts else self.val_set

    def missing(self, folder: Path) -> str:
        """Return the error message for a folder that does not exist."""
        return f"There is no folder {folder}. Make it, and in it one folder per class that holds the class's images"

    def _set_preprocessing(self) -> None:
        """Take the network's own preprocessing, or ImageNet's, with the values that were given."""
        network = None if self.trainer is None else getattr(self.trainer.lightning_module, "network", None)
        of_network = getattr(network, "preprocessing", None)
        self.preprocessing = replace(of_network or IMAGENET, **self.given_preprocessing)
        self._normalize = self.preprocessing.normalize

    def _find_images(self, part: str) -> FoundImages:
        folder = Path(self.root) / part
        if not folder.is_dir():
            raise FileNotFoundError(self.missing(folder))
        found = find_images(folder)
        if not found.files:
            others = ", ".join(f"{reason} ({len(paths)})" for reason, paths in found.left_out.items()) or "nothing"
            raise FileNotFoundError(
                f"{folder} has no images. It has {others}. Put the images of each class into a folder of its own "
                "there, as .jpg, .png, .tif or another kind of torchvision's IMG_EXTENSIONS"
            )
        return found

    def _check_classes(self, parts: dict[str, FoundImages]) -> None:
        assert self.class_names is not None
        if len(self.class_names) == 1:
            raise ValueError(
                f"{Path(self.root) / 'train'} has images of one class only, {self.class_names[0]}. Give a folder for "
                "each of two classes or more"
            )
        for part, found in parts.items():
            for name in sorted(set(found.classes) - set(self.class_names)):
                raise ValueError(
                    f"{Path(self.root) / part} has images of the class {name!r}, and {Path(self.root) / 'train'} has "
                    f"none of it. {suggest(name, self.class_names)}"
                )

    def _print_table(self, parts: dict[str, FoundImages]) -> None:
        if not self._has_printed and (self.trainer is None or self.trainer.is_global_zero):
            Console().print(make_data_table(self.root, parts))
        self._has_printed = True

    def _make_set(self, found: FoundImages, transform: v2.Transform) -> LabelledImages:
        assert self.class_names is not None
        labels = {name: label for label, name in enumerate(self.class_names)}
        return LabelledImages(found.files, [labels[name] for name in found.classes], self.class_names, transform)

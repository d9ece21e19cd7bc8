"""Data sets of images in files, with labels and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_adabelief.recipes.image_classification.image_file import read_rgb


class UnlabelledImages(Dataset):
    """Images in files.

    Args:
        files: The images.
        transform: A function from the image, of mode ``RGB``, to what is put into batches.
    """

    def __init__(self, files: list[str], transform: Callable[[Any], Any]) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        """Read an image, and return it transformed.

        Raises:
            ValueError: If the file can't be read as an image; the message names it.
        """
        return self.transform(read_rgb(self.files[index]))


class LabelledImages(UnlabelledImages):
    """Images in files, and their labels.

    Args:
        files: The images.
        labels: The label of each, an index into ``classes``.
        classes: Names of all classes.
        transform: A function from the image, of mode ``RGB``, to what is put into batches.
    """

    def __init__(
        self, files: list[str], labels: list[int], classes: list[str], transform: Callable[[Any], Any]
    ) -> None:
        super().__init__(files, transform)
        self.labels = labels
        self.classes = classes

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Read an image, and return it transformed, with its label.

        Raises:
            ValueError: If the file can't be read as an image; the message names it.
        """
        return super().__getitem__(index), self.labels[index]


class MarkedImages(NamedTuple):
    """An image or a batch of images, and whether they could be read.

    Attributes:
        images: The images, (C, H, W) or (N, C, H, W), black where they could not be read.
        are_read: True where they could be read; of a batch, a tensor (N,).
    """

    images: Tensor
    are_read: Any


class ReadableImages(Dataset):
    """Images in files, with a black image in the place of one that can't be read.

    Args:
        images: The images.
        shape: Shape of the black image, (C, H, W).
    """

    def __init__(self, images: UnlabelledImages, shape: tuple[int, int, int]) -> None:
        self.images = images
        self.files = images.files
        self.shape = shape

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> MarkedImages:
        """Return an image and its mark."""
        try:
            return MarkedImages(self.images[index], True)
        except ValueError:
            return MarkedImages(torch.zeros(self.shape, dtype=torch.uint8), False)

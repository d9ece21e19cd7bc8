"""The real images that are drawn beside generated ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adabelief.recipes.gan.drawing import MAX_CLASSES, SAMPLES, count_columns


class RealImages:
    """The first images that are added; for a GAN with classes, the first of each class.

    Args:
        num_classes: Number of classes; None for a GAN without.
    """

    def __init__(self, num_classes: int | None) -> None:
        self._images: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._has_classes = num_classes is not None
        self._missing = [SAMPLES]  # of each class
        if num_classes is not None:
            self._missing = [count_columns(num_classes)] * min(num_classes, MAX_CLASSES)

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Keep those images (N, C, H, W) that are still missing, and their labels (N,)."""
        if not any(self._missing):
            return
        kept = []
        for number, label in enumerate(labels.tolist()):
            group = label if self._has_classes else 0
            if group < len(self._missing) and self._missing[group] > 0:
                self._missing[group] -= 1
                kept.append(number)
        self._images.append(images[kept].float())
        self._labels.append(labels[kept])

    def collect(self) -> tuple[Tensor, Tensor | None]:
        """Return the images, and the labels of a GAN with classes."""
        images, labels = torch.cat(self._images), torch.cat(self._labels)
        return images, labels if self._has_classes else None

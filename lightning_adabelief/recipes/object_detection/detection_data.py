"""The base of the DataModules: loaders of three sets of images and boxes."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors

from lightning_adabelief.lightning_tree import LightningDataModule


class Target(TypedDict):
    """What an image shows.

    Attributes:
        boxes: Corners (N, 4), float32, in pixels: left, top, right, bottom.
        labels: Classes (N,), int64, from 1; 0 is the background.
        file: The image's file, for predictions and messages.
    """

    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    file: str


class DetectionDataModule(LightningDataModule):
    class_names: list[str]

    def __init__(self, batch_size, num_workers):
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers

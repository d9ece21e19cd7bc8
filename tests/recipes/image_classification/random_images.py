"""A DataModule of a few random colour images."""

import torch
from torch.utils.data import TensorDataset

from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule


class RandomImages(ImageDataModule):
    """8 images of 32x32 in 3 classes, to train, validate and test on."""

    in_channels = 3
    num_classes = 3
    class_counts = [4, 2, 2]

    def __init__(self, batch_size=4):
        super().__init__(batch_size, num_workers=0)

    def setup(self, stage):
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.train_set = self.val_set = self.test_set = TensorDataset(images, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))

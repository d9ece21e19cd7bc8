"""CIFAR-10 for GANs."""

import pytest
import torch

from lightning_adabelief.recipes.gan import (
    CIFAR10Images,
)


def test_cifar10s_images_are_as_they_are_and_all_are_trained_on(paper_data):
    data = CIFAR10Images(num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_set) == 5 * len(data.test_set) == 5 * len(data.val_set)
    images, labels = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert images.dtype == torch.float32 and images.min() >= 0 and 0.9 < images.max() <= 1
    assert torch.equal(images, data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)[0])


def test_without_cifar10s_files_the_error_names_them_their_size_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python.tar.gz \(170 MB"):
        CIFAR10Images(str(tmp_path / "none"), download=False).prepare_data()

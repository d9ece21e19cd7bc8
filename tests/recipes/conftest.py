"""Small files of the paper's data sets."""

import pytest
from torchvision import datasets

from tests.recipes.image_files import write_cifar, write_image_folder


@pytest.fixture
def paper_data(tmp_path, monkeypatch):
    """This folder has a few images of each data set, where the recipes look for them."""
    monkeypatch.chdir(tmp_path)
    for dataset in (datasets.CIFAR10, datasets.CIFAR100):
        write_cifar("data", monkeypatch, dataset)
    write_image_folder("data/imagenet", classes=1000, images=1)

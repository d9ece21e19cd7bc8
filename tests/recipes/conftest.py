"""Small files of the paper's data sets."""

from pathlib import Path

import pytest
from torchvision import datasets

from tests.recipes.image_files import write_cifar, write_image_folder
from tests.recipes.language_modeling.texts import write_penn_treebank


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """A folder with an image of each of ImageNet's classes: two thousand files, written once."""
    root = tmp_path_factory.mktemp("imagenet")
    write_image_folder(root, classes=1000, images=1)
    return root


@pytest.fixture
def paper_data(tmp_path, monkeypatch, imagenet):
    """This folder has a few images of each data set, where the recipes look for them."""
    monkeypatch.chdir(tmp_path)
    for dataset in (datasets.CIFAR10, datasets.CIFAR100):
        write_cifar("data", monkeypatch, dataset)
    Path("data/imagenet").symlink_to(imagenet)
    write_penn_treebank("data/penn")

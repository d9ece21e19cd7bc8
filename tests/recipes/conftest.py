"""Small files of the paper's data sets."""

from pathlib import Path

import pytest
import torch
from torchvision import datasets
from torchvision.models import mobilenet_v3_small, resnet18, resnet50

from tests.recipes.box_files import write_pascal_voc
from tests.recipes.image_classification.digits_folder import write_digits
from tests.recipes.image_files import write_cifar, write_image_folder
from tests.recipes.language_modeling.texts import write_penn_treebank


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """A folder with an image of each of ImageNet's classes: two thousand files, written once."""
    root = tmp_path_factory.mktemp("imagenet")
    write_image_folder(root, classes=1000, images=1)
    return root


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory):
    """A folder with weights of networks where torchvision looks for those that it has downloaded."""
    home = tmp_path_factory.mktemp("torch")
    (home / "hub/checkpoints").mkdir(parents=True)
    torch.save(resnet50().state_dict(), home / "hub/checkpoints/resnet50-0676ba61.pth")
    torch.save(resnet18().state_dict(), home / "hub/checkpoints/resnet18-f37072fd.pth")
    torch.save(mobilenet_v3_small().state_dict(), home / "hub/checkpoints/mobilenet_v3_small-047dcff4.pth")
    return home


@pytest.fixture
def paper_data(tmp_path, monkeypatch, imagenet, torch_home):
    """This folder has a few images of each data set, where the recipes look for them."""
    monkeypatch.chdir(tmp_path)
    for dataset in (datasets.CIFAR10, datasets.CIFAR100):
        write_cifar("data", monkeypatch, dataset)
    Path("data/imagenet").symlink_to(imagenet)
    write_penn_treebank("data/penn")
    write_pascal_voc("data/voc")
    write_digits("photos", per_class=8)
    Path("new_photos").symlink_to("photos/two")
    monkeypatch.setenv("TORCH_HOME", str(torch_home))

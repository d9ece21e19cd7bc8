"""Images in one folder per class, ImageNet among them."""

import pytest
import torch

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.image_classification import (
    ImageFolderDataModule,
)
from tests.recipes.image_files import write_image_folder

FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def set_up(data):
    data.prepare_data()
    data.setup("fit")
    return data


@FORKS
def test_images_in_folders_become_rgb_of_one_size_by_several_workers():
    write_image_folder("photos", classes=3)
    data = set_up(ImageFolderDataModule("photos", batch_size=6, size=24, num_workers=2))
    assert data.num_classes == 3 and data.class_names == ["n00000000", "n00000001", "n00000002"]
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images, labels = next(iter(loader))
        assert images.shape == (6, 3, 24, 24) and images.dtype == torch.uint8
        assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]


def test_a_test_folder_is_tested_on_where_there_is_one():
    write_image_folder("photos", classes=2)
    data = set_up(ImageFolderDataModule("photos", num_workers=0))
    assert data.test_set is data.val_set
    write_image_folder("photos", classes=2, parts=["test"], images=1)
    assert len(set_up(ImageFolderDataModule("photos", num_workers=0)).test_set) == 2


def test_missing_folders_and_other_classes_are_named(capsys):
    assert main(["fit", "--config", "imagenet-resnet18", "--data.root=mine"]) == 1
    error = capsys.readouterr().err
    assert "no folder mine/train" in error and "ILSVRC2012_img_train.tar (148 GB)" in error
    write_image_folder("photos", classes=3, parts=["train"])
    write_image_folder("photos", classes=2, parts=["val"])
    with pytest.raises(ValueError, match="photos/val has 2 classes and photos/train has 3; n00000002 is in one"):
        set_up(ImageFolderDataModule("photos"))

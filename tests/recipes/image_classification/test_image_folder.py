"""Images in one folder per class, ImageNet among them."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_adabelief.cli.main import main
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageFolderDataModule
from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule
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
    write_image_folder("photos", classes=2, parts=["train"])
    write_image_folder("photos", classes=3, parts=["val"])
    with pytest.raises(ValueError, match=r"photos/val has images of the class 'n00000002', and photos/train has none"):
        set_up(ImageFolderDataModule("photos"))


def test_what_is_found_and_left_out_is_printed_once_with_names_and_counts(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write_image_folder("photos", classes=3)
    for name in ("train/n00000000/one.gif", "train/n00000001/two.GIF", "val/n00000000/x.heic", "train/notes.txt"):
        Path("photos", name).write_bytes(b"")
    for name in ("train/.ipynb_checkpoints", "train/n00000000/.ipynb_checkpoints", "train/to do"):
        Path("photos", name).mkdir()
    Path("photos/train/n00000000/.ipynb_checkpoints/0.jpg").write_bytes(b"no image")
    shutil.rmtree("photos/val/n00000002")
    data = set_up(ImageFolderDataModule("photos", num_workers=0))
    rows = [re.split(r" *\u2502 *", line.strip("\u2502 ")) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["photos: 10 images in 3 classes"]
    assert ["n00000001", "2", "2", ""] in [[*row, ""][:4] for row in rows] and ["n00000002", "2", "0"] in rows
    assert ["all", "6", "4"] in rows
    assert ["left out: .gif files", "2", "", "train/n00000000/one.gif, train/n00000001/two.GIF"] in rows
    assert ["left out: .heic files", "", "1", "val/n00000000/x.heic"] in rows
    assert ["left out: hidden", "2", "", "train/.ipynb_checkpoints, train/n00000000/.ipynb_checkpoints"] in rows
    assert ["left out: in no class folder", "1", "", "train/notes.txt"] in rows
    assert ["left out: empty class folders", "1", "", "train/to do"] in rows
    assert data.class_names == ["n00000000", "n00000001", "n00000002"]
    assert [data.val_set[i][1] for i in range(len(data.val_set))] == [0, 0, 1, 1]
    data.setup("test")
    assert not capsys.readouterr().out


def test_of_many_classes_the_largest_and_the_smallest_are_printed(capsys):
    write_image_folder("photos", classes=30)
    write_image_folder("photos", classes=8, parts=["test"], images=1)
    shutil.rmtree("photos/test/n00000003")
    Path("photos/val/n00000009/0.JPEG").unlink()
    shutil.copytree("photos/train/n00000003", "photos/val/n00000003/more")
    set_up(ImageFolderDataModule("photos", num_workers=0))
    out = capsys.readouterr().out
    assert re.search(r"n00000003 +│ +2 │ +4 │ +0 │ the largest", out)
    assert re.search(r"n00000009 +│ +2 │ +1 │ +0 │ the smallest", out)
    assert "n00000004" not in out


def test_one_class_alone_is_refused():
    write_image_folder("photos", classes=1)
    with pytest.raises(ValueError, match="photos/train has images of one class only, n00000000"):
        set_up(ImageFolderDataModule("photos"))


def test_a_folder_without_images_says_what_it_has():
    Path("photos/train/cats").mkdir(parents=True)
    Path("photos/train/cats/1.gif").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"photos/train has no images. It has .gif files \(1\), empty class"):
        set_up(ImageFolderDataModule("photos"))


@FORKS
def test_a_damaged_image_ends_a_run_with_its_name_in_one_line(capsys):
    """It is read in another process, whose traceback would be the message."""
    write_image_folder("photos", classes=2)
    Path("photos/train/n00000001/0.JPEG").write_bytes(b"no image")
    words = ["fit", "--config", "imagenet-resnet18", "--data.root=photos", "--data.num_workers=1", "--data.size=32"]
    network = ["--model.network=SmallCNN", "--trainer.accelerator=cpu"]
    assert main([*words, *network, "--trainer.num_sanity_val_steps=0"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: photos/train/n00000001/0.JPEG can't be read as an image: cannot identify")


@pytest.mark.parametrize(("images", "batches"), [(5, [4]), (6, [4, 2]), (4, [4]), (1, [1])])
def test_a_last_training_batch_of_a_single_image_is_left_out(images, batches):
    data = DigitsDataModule(batch_size=4)
    data.val_set = data.train_set = TensorDataset(torch.rand(images, 1, 8, 8), torch.zeros(images))
    assert [len(labels) for _, labels in ImageDataModule.train_dataloader(data)] == batches
    assert sum(len(labels) for _, labels in data.val_dataloader()) == images
    data.batch_size = 1
    assert len(ImageDataModule.train_dataloader(data)) == images

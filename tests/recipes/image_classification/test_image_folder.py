"""One's own images, and ImageNet."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.transforms.v2 import PILToTensor

from lightning_adabelief.callbacks import ExactResume
from lightning_adabelief.cli.lightning import AdaBeliefCLI
from lightning_adabelief.cli.main import main
from lightning_adabelief.lightning_tree import LightningModule, Trainer
from lightning_adabelief.recipes.image_classification import DigitsDataModule, ImageFolderDataModule
from lightning_adabelief.recipes.image_classification.augmentation import Augmentation
from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule
from lightning_adabelief.recipes.image_classification.image_file import read_rgb
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET, Preprocessing
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
    strays = ["train/n00000000/one.gif", "train/n00000001/two.GIF", "val/n00000000/x.heic", "train/notes.txt"]
    for name in (*strays, "labels.csv"):
        Path("photos", name).write_bytes(b"")
    for name in ("train/.ipynb_checkpoints", "train/n00000000/.ipynb_checkpoints", "train/to do"):
        Path("photos", name).mkdir()
    Path("photos/train/n00000000/.ipynb_checkpoints/0.jpg").write_bytes(b"no image")
    shutil.rmtree("photos/val/n00000002")
    data = set_up(ImageFolderDataModule("photos", num_workers=0))
    rows = [re.split(r" *\u2502 *", line.strip("\u2502 ")) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["photos: 10 images in 3 classes"]
    assert ["n00000001", "2", "2", "4"] in rows and ["n00000002", "2", "0", "2"] in rows
    assert ["all", "6", "4", "10"] in rows
    assert ["left out: .gif files", "", "", "2", "train/n00000000/one.gif, train/n00000001/two.GIF"] in rows
    assert ["left out: .heic files", "", "", "1", "val/n00000000/x.heic"] in rows
    assert ["left out: hidden", "", "", "2", "train/.ipynb_checkpoints, train/n00000000/.ipynb_checkpoints"] in rows
    assert ["left out: files in no class folder", "", "", "1", "train/notes.txt"] in rows
    assert ["left out: empty class folders", "", "", "1", "train/to do"] in rows
    assert ["left out: beside the folder of training images", "", "", "1", "labels.csv"] in rows
    assert any("The part val has no image of 'n00000002' (2 to train on)." in row[0] for row in rows)
    assert any("No images of their own to test on: those of val are." in row[0] for row in rows)
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
    assert re.search(r"n00000003 +│ +2 │ +4 │ +0 │ +6 │ the largest", out)
    assert re.search(r"n00000009 +│ +2 │ +1 │ +0 │ +3 │ the smallest", out)
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
    cut_off = Path("photos/train/n00000001/0.JPEG")
    cut_off.write_bytes(cut_off.read_bytes()[:-200])
    words = ["fit", "--config", "imagenet-resnet18", "--data.root=photos", "--data.num_workers=1", "--data.size=32"]
    network = ["--model.network=SmallCNN", "--trainer.accelerator=cpu"]
    assert main([*words, *network, "--trainer.num_sanity_val_steps=0"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: photos/train/n00000001/0.JPEG can't be read as an image: image file is truncated")


def test_files_that_are_no_images_inside_are_left_out_and_named(capsys, monkeypatch):
    write_image_folder("photos", classes=2, parts=["train"], images=20)
    Path("photos/train/n00000000/0.JPEG").write_bytes(b"no image")
    Path("photos/train/n00000001/1.JPEG").write_bytes(b"")
    Image.new("F", (8, 8)).save("photos/train/n00000001/2.tif")
    Image.new("1", (300, 300)).save("photos/train/n00000001/large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    data = ImageFolderDataModule("photos", num_workers=0)
    set_up(data)
    files = [file for images in (data.train_set, data.val_set, data.test_set) for file in images.files]
    assert len(files) == 38
    for images in (data.train_set, data.val_set, data.test_set):
        assert all(images[index][0].shape == (3, 224, 224) for index in range(len(images)))
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"left out: can't be read .*2 │ train/n00000000/0.JPEG", out)
    for reason in ("left out: pixels of floats", "left out: more than 60,000"):
        assert reason in out


@pytest.mark.parametrize(("images", "batches"), [(5, [4]), (6, [4, 2]), (4, [4]), (1, [1])])
def test_a_last_training_batch_of_a_single_image_is_left_out(images, batches):
    data = DigitsDataModule(batch_size=4)
    data.val_set = data.train_set = TensorDataset(torch.rand(images, 1, 8, 8), torch.zeros(images))
    assert [len(labels) for _, labels in ImageDataModule.train_dataloader(data)] == batches
    assert sum(len(labels) for _, labels in data.val_dataloader()) == images
    data.batch_size = 1
    assert len(ImageDataModule.train_dataloader(data)) == images


class Recorder(LightningModule):
    """Train on nothing, and keep the batches."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return self.weight * batch[0].mean()

    def validation_step(self, batch, batch_idx):
        self.evaluated = batch[0]

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        self.evaluated = batch[0]
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(**options):
    return Trainer(**{"accelerator": "cpu", "enable_progress_bar": False, "logger": False} | options)


def write_unequal_classes():
    """Write 16 and 4 images into two class folders."""
    write_image_folder("photos", classes=2, parts=[""], images=16)
    for number in range(4, 16):
        Path(f"photos/n00000001/{number}.JPEG").unlink()


def test_balanced_batches_have_each_class_equally_often():
    write_unequal_classes()
    data = set_up(ImageFolderDataModule("photos", size=8, batch_size=4, num_workers=0, balanced=True))
    assert data.class_counts == [12, 2] and len(data.train_set) == 14
    torch.manual_seed(0)
    loader = data.train_dataloader()
    labels = torch.cat([labels for _ in range(30) for _, labels in loader])
    assert len(labels) == 30 * 14, "an epoch stays as long as it was"
    assert labels.float().mean() == pytest.approx(0.5, abs=0.08)
    assert not set_up(ImageFolderDataModule("photos", num_workers=0)).balanced, "it is asked for"


def test_balanced_batches_are_divided_among_processes():
    write_unequal_classes()
    data = set_up(ImageFolderDataModule("photos", size=8, batch_size=4, num_workers=0, balanced=True))
    labels = []
    for rank in range(2):
        torch.manual_seed(0)  # as seed_everything does in each process
        sampler = DistributedSamplerWrapper(data.train_dataloader().sampler, num_replicas=2, rank=rank)
        labels.append([data.train_set.labels[index] for _ in range(40) for index in sampler])
    assert [len(of_rank) for of_rank in labels] == [40 * 7, 40 * 7]
    assert labels[0] != labels[1]
    assert [sum(of_rank) / len(of_rank) for of_rank in labels] == pytest.approx([0.5, 0.5], abs=0.1)


@FORKS
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_draws_the_same_balanced_and_augmented_images(num_workers):
    write_unequal_classes()

    def fit(seed, ckpt_path=None):
        augmentation = Augmentation(rand_augment=9, erasing=0.5)
        options = {"size": 8, "batch_size": 4, "num_workers": num_workers}
        data = ImageFolderDataModule("photos", **options, augmentation=augmentation, balanced=True)
        saving = ModelCheckpoint(".", "step{step}", save_top_k=-1, every_n_train_steps=6, auto_insert_metric_name=False)
        torch.manual_seed(seed)
        module = Recorder()
        make_trainer(max_epochs=3, callbacks=[ExactResume(), saving]).fit(module, data, ckpt_path=ckpt_path)
        return module.batches

    whole = fit(seed=0)
    rest = fit(seed=1, ckpt_path="step6.ckpt")
    assert len(whole) == 12 and len(rest) == 6
    for batch, expected in zip(rest, whole[6:], strict=True):
        assert torch.equal(batch[0], expected[0]) and torch.equal(batch[1], expected[1])


def test_images_without_labels_are_predicted_as_the_checkpoint_was_trained(capsys):
    write_image_folder("new/deep/er", classes=2, parts=["here"], images=1)
    Path("new/.hidden.jpg").touch()
    Path("new/notes.txt").touch()
    module = Recorder()
    data = ImageFolderDataModule(predict="new", num_workers=0)
    module.preprocessing = Preprocessing(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    ((images, are_read),) = make_trainer().predict(module, data)
    assert images.shape == (2, 3, 8, 8) and are_read.all()
    assert data.predict_set.files == [f"new/deep/er/here/n0000000{label}/0.JPEG" for label in range(2)]
    torch.testing.assert_close(images[1], module.preprocessing.normalize(data.predict_set[1]))
    out = capsys.readouterr().out
    assert "new: 2 images\n" in re.sub(" +", " ", out).replace(" \n", "\n") and "left out: .txt files" in out


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_labelled_images_are_prepared_as_the_checkpoints_were(command):
    write_image_folder("photos", classes=2)
    module = Recorder()
    module.preprocessing = Preprocessing(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    data = ImageFolderDataModule("photos", num_workers=0)
    getattr(make_trainer(), command)(module, data)
    assert module.evaluated.shape == (4, 3, 8, 8)
    image = PILToTensor()(module.preprocessing.make_crop()(read_rgb(data.val_set.files[0])))
    torch.testing.assert_close(module.evaluated[0], module.preprocessing.normalize(image))


def test_a_training_that_goes_on_prepares_images_as_its_data_say():
    write_image_folder("photos", classes=2)
    module = Recorder()
    module.preprocessing = Preprocessing(8, IMAGENET.mean, IMAGENET.std)
    data = ImageFolderDataModule("photos", size=16, num_workers=0)
    make_trainer(max_epochs=1).fit(module, data)
    assert module.batches[0][0].shape[2:] == module.evaluated.shape[2:] == (16, 16)


def test_a_size_that_is_not_the_checkpoints_is_warned_of():
    write_image_folder("new", classes=1, parts=[""], images=1)
    module = Recorder()
    module.preprocessing = Preprocessing(8, IMAGENET.mean, IMAGENET.std)
    with pytest.warns(UserWarning, match="The data's size is 16, and that of the checkpoint's training 8"):
        data = ImageFolderDataModule(predict="new", size=16, num_workers=0)
        ((images, _),) = make_trainer().predict(module, data)
    assert images.shape == (1, 3, 8, 8)


def test_a_single_file_is_predicted_and_one_that_is_no_image_or_missing_is_named():
    write_image_folder("new", classes=1, parts=[""], images=1)
    data = ImageFolderDataModule(predict="new/n00000000/0.JPEG", num_workers=0)
    data.setup("predict")
    assert data.predict_set.files == ["new/n00000000/0.JPEG"] and data.predict_set[0].shape == (3, 224, 224)
    Path("a.gif").touch()
    for path, message in (("a.gif", r"a.gif has no images. It has .gif files \(1\)"), ("none", "There is no none.")):
        with pytest.raises(FileNotFoundError, match=message):
            ImageFolderDataModule(predict=path).setup("predict")


def test_without_images_to_predict_those_that_are_tested_on_are():
    write_unequal_classes()
    data = ImageFolderDataModule("photos", size=8, num_workers=0)
    ((images, labels),) = make_trainer().predict(Recorder(), data)
    assert data.predict_set.files == data.test_set.files and len(images) == len(labels) == 3


def test_training_without_images_is_an_error():
    with pytest.raises(ValueError, match="There are no images. Give data.root, a folder, or data.csv"):
        set_up(ImageFolderDataModule(predict="new"))


def test_every_option_can_be_given_on_the_command_line(monkeypatch):
    write_unequal_classes()
    made = []
    monkeypatch.setattr(AdaBeliefCLI, "before_fit", lambda self: made.append(self.datamodule), raising=False)
    data = "--data=lightning_adabelief.recipes.image_classification.ImageFolderDataModule"
    words = ["--data.root=photos", "--data.size=8", "--data.mean=[0.5,0.5,0.5]", "--data.num_workers=0"]
    words += ["--data.augmentation.flip", "0.0", "--data.augmentation.rand_augment=9", "--data.balanced=true"]
    words += ["--data.groups=/([0-9]+)", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    assert main(["fit", "--config", "digits-cnn", data, *words]) == 0
    assert made[0].augmentation == Augmentation(flip=0.0, rand_augment=9) and made[0].balanced
    assert made[0].preprocessing.mean == (0.5, 0.5, 0.5)

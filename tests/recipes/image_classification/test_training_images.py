"""A classifier's checkpoint remembers the images that it was trained on."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from lightning_adabelief.recipes.image_classification import (
    DigitsDataModule,
    ImageClassifier,
    ImageFolderDataModule,
    SmallCNN,
)
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET, Preprocessing
from lightning_adabelief.recipes.image_classification.training_images import TrainingImages

OWN = Preprocessing(16, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop=1.0, interpolation="bicubic")


def make_trainer(**options):
    options = {"max_steps": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False} | options
    return pl.Trainer(limit_val_batches=0, enable_checkpointing=False, enable_model_summary=False, **options)


def write_folders(root, names):
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in names:
            (root / part / name).mkdir(parents=True)
            for number in range(2):
                pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return ImageFolderDataModule(str(root), batch_size=4, num_workers=0)


def train(data, network, path):
    trainer = make_trainer()
    trainer.fit(ImageClassifier(network), data)
    trainer.save_checkpoint(path)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a network that has a preprocessing of its own, trained on cats and dogs."""
    network = SmallCNN(width=4)
    network.preprocessing = OWN
    train(write_folders(tmp_path / "photos", ["cats", "dogs"]), network, tmp_path / "saved.ckpt")
    return tmp_path / "saved.ckpt"


def test_a_loaded_classifier_knows_its_classes_and_how_images_are_prepared(checkpoint):
    torch.load(checkpoint, weights_only=True)
    loaded = ImageClassifier.load_from_checkpoint(checkpoint, network=SmallCNN(width=4))
    assert loaded.class_names == ["cats", "dogs"] and loaded.preprocessing == OWN
    assert loaded.training_images.shape == (3, 16, 16)
    assert loaded.training_images.std == [0.4, 0.5, 0.6]


def test_of_images_that_are_no_files_the_shape_and_the_normalization_are_known(tmp_path):
    train(DigitsDataModule(), SmallCNN(width=4), tmp_path / "saved.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "saved.ckpt", network=SmallCNN(width=4))
    assert loaded.training_images == TrainingImages(shape=(1, 8, 8), mean=[0.0], std=[1.0])


def test_classes_of_other_names_are_not_taken_for_those_of_the_checkpoint(checkpoint, tmp_path):
    others = write_folders(tmp_path / "others", ["cats", "horses"])
    with pytest.raises(ValueError, match="The checkpoint's class 1 is 'dogs', and the data's is 'horses'"):
        make_trainer().test(ImageClassifier(SmallCNN(width=4)), others, ckpt_path=checkpoint)


def test_an_older_checkpoint_knows_nothing_of_its_images_until_its_training_goes_on(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["image_classifier"] = {"num_classes": 2, "in_channels": 3}
    torch.save(content, tmp_path / "old.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "old.ckpt", network=SmallCNN(width=4))
    assert loaded.training_images == TrainingImages()
    data = ImageFolderDataModule(str(tmp_path / "photos"), size=16, batch_size=4, num_workers=0)
    trainer = make_trainer(max_steps=3)
    trainer.fit(loaded, data, ckpt_path=tmp_path / "old.ckpt")
    assert loaded.class_names == ["cats", "dogs"] and loaded.preprocessing == data.preprocessing


@pytest.mark.parametrize("command", ["test", "validate", "fit"])
def test_images_that_are_split_otherwise_than_for_the_training_are_warned_of(tmp_path, command):
    folder = write_folders(tmp_path / "photos", ["cats", "dogs", "horses"]).root

    def run(command, **options):
        data = ImageFolderDataModule(f"{folder}/train", size=16, batch_size=2, num_workers=0, **options)
        trainer = make_trainer(max_steps=-1, max_epochs=1)
        getattr(trainer, command)(ImageClassifier(SmallCNN(width=4)), data, ckpt_path=path)
        return trainer

    path = None
    trainer = run("fit", val_fraction=0.2, test_fraction=0)
    path = tmp_path / "saved.ckpt"
    trainer.save_checkpoint(path)
    run(command, val_fraction=0.2, test_fraction=0)  # without a warning, which is an error here
    with pytest.warns(UserWarning, match="split as they were .*: split_seed is 1 and was 0, groups is .* and was None"):
        run(command, val_fraction=0.2, test_fraction=0, split_seed=1, groups="(/.*)")


def test_attributes_of_data_that_mean_something_else_are_not_kept():
    class Data:
        class_names = "none"
        preprocessing = "gray"

        def mean(self):
            return 0

    assert TrainingImages.from_data(Data()) == TrainingImages()
    assert TrainingImages.from_plain(TrainingImages(preprocessing=IMAGENET).to_plain()).preprocessing == IMAGENET

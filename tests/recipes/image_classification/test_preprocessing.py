"""The size of images, and their normalization."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from lightning_adabelief.lightning_tree import LightningModule, Trainer
from lightning_adabelief.recipes.image_classification import ImageFolderDataModule
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET, Preprocessing
from tests.recipes.image_files import write_image_folder

OWN = Preprocessing(16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0), crop=1.0, interpolation="nearest")


def test_an_image_of_any_shape_is_cropped_at_its_centre():
    image = Image.new("RGB", (80, 40))
    image.paste("red", (20, 0, 60, 40))
    assert torch.equal(OWN.make_transform()(image)[:, 0, 0], torch.tensor([255, 0, 0], dtype=torch.uint8))
    halved = replace(OWN, crop=0.5).make_transform()(image)
    assert halved.shape == (3, 16, 16) and halved[0].min() == 255, "the half in the middle is red"
    assert IMAGENET.make_transform()(image).shape == (3, 224, 224)


@pytest.mark.parametrize("size", [(1_000_000, 1), (2, 400_000)])
def test_the_ends_of_an_image_that_is_far_too_long_are_cut_off_before_it_is_resized(size):
    image = Image.new("RGB", size)
    middle = [max(0, side // 2 - 50) for side in size]
    image.paste("red", (*middle, *(start + 100 for start in middle)))
    assert (IMAGENET.make_transform()(image)[0] == 255).all(), "resized whole, it would have billions of pixels"


def test_integers_and_floats_are_normalized_alike():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    normalized = OWN.normalize(images)
    assert normalized.dtype == torch.float32
    torch.testing.assert_close(normalized, OWN.normalize(images / 255))
    torch.testing.assert_close(normalized[:, 1], (images[:, 1] / 255 - 0.5) / 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "Invalid size: 0"),
        ({"mean": (0.5,)}, r"Invalid mean: \[0.5\]. Give three numbers"),
        ({"std": (1.0, 1.0, 0.0)}, "Invalid std: .* greater than 0"),
        ({"crop": 0.0}, "Invalid crop: 0.0"),
        ({"interpolation": "cubic"}, "Unknown interpolation: 'cubic'. Did you mean 'bicubic'"),
    ],
)
def test_values_out_of_range_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        replace(IMAGENET, **change)


class Recorder(LightningModule):
    """Keep the batches that are predicted; ``preprocessing`` is that of the network."""

    def __init__(self, preprocessing=None):
        super().__init__()
        self.network = nn.Identity()
        self.network.preprocessing = preprocessing

    def predict_step(self, batch, batch_idx):
        return batch[0]


def predict(data, module):
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", inference_mode=False)
    return trainer.predict(module, data)[0]


def test_data_take_the_networks_preprocessing_but_for_what_is_given(tmp_path):
    write_image_folder(tmp_path, classes=2)
    root = str(tmp_path)
    for given, of_network, expected in (
        ({}, None, IMAGENET),
        ({}, OWN, OWN),
        ({"size": 8, "std": [1.0, 1.0, 1.0]}, OWN, replace(OWN, size=8, std=[1.0, 1.0, 1.0])),
    ):
        data = ImageFolderDataModule(root, num_workers=0, **given)
        images = predict(data, Recorder(of_network))
        assert data.preprocessing == expected
        assert images.shape[1:] == (3, expected.size, expected.size)
        torch.testing.assert_close(images[1], expected.normalize(data.test_set[1][0]))

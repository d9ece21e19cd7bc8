"""Changes of the images that are trained on."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from lightning_adabelief.recipes.image_classification.augmentation import Augmentation
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET, Preprocessing

SMALL = Preprocessing(24, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0), crop=1.0, interpolation="bicubic")
NONE = {"flip": 0.0, "crop": 1.0}


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def apply(photo, seed=0, **options):
    transform = Augmentation(**options).make_transform(SMALL)
    torch.manual_seed(seed)
    return transform(photo)


def test_the_defaults_are_those_of_imagenet(photo):
    usual = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    for seed in range(3):
        torch.manual_seed(seed)
        expected = usual(photo)
        torch.manual_seed(seed)
        assert torch.equal(Augmentation().make_transform(IMAGENET)(photo), expected)


def test_without_augmentation_images_are_those_of_validation(photo):
    assert torch.equal(apply(photo, **NONE), SMALL.make_transform()(photo))


def test_a_flip_exchanges_left_and_right(photo):
    assert torch.equal(apply(photo, flip=1.0, crop=1.0), SMALL.make_transform()(photo).flip(-1))


def test_a_crop_has_at_least_its_share_of_the_area():
    corners = Image.new("RGB", (64, 64))
    corners.paste("white", (0, 0, 8, 8))
    seen = [
        sum(int(apply(corners, seed, flip=0.0, crop=crop).max() > 0) for seed in range(60)) for crop in (0.95, 0.08)
    ]
    assert seen[0] == 60 and seen[1] < 60, "a crop of 95 % has at least a part of the corner"


def test_rand_augment_changes_images_the_more_the_larger_its_magnitude(photo):
    plain = apply(photo, **NONE).float()
    changes = [
        sum((apply(photo, seed, rand_augment=magnitude, **NONE).float() - plain).abs().mean() for seed in range(20))
        for magnitude in (1, 25)
    ]
    assert 0 < changes[0] < changes[1]


def test_what_is_erased_is_near_zero_when_it_is_normalized(photo):
    plain, erased = apply(photo, **NONE), apply(photo, erasing=1.0, **NONE)
    is_erased = (plain != erased).any(dim=0)
    assert erased.dtype == torch.uint8 and 0.02 < is_erased.float().mean() < 0.4
    assert SMALL.normalize(erased)[:, is_erased].abs().max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    "options",
    [{"flip": 1.1}, {"crop": 0.0}, {"rand_augment": 31}, {"rand_augment_operations": 0}, {"erasing": -0.1}],
)
def test_values_out_of_range_are_errors(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Invalid {name}: {options[name]}"):
        Augmentation(**options)

"""Grids of images, with a row for each class."""

import pytest
import torch

from lightning_adabelief.recipes.gan.drawing import draw_beside_real, draw_samples
from lightning_adabelief.recipes.gan.grids import MAX_ROWS, TITLE_HEIGHT, draw_classes, draw_grid
from lightning_adabelief.recipes.gan.real_images import RealImages
from tests.recipes.gan.small_gan import make_gan

CELL = 64 + 8


def draw_constants(labels, columns, names=None):
    """Draw images of 64 pixels that are as bright as their class."""
    labels = torch.tensor(labels)
    return draw_classes((labels / 10).view(-1, 1, 1, 1).expand(-1, 1, 64, 64), labels, columns, names)


def test_each_class_has_a_row_whatever_the_order_of_the_images():
    picture = draw_constants([7, 0, 7, 3, 0], columns=2)
    margin = picture.shape[2] - (2 * CELL + 8)
    assert picture.shape[1] == 3 * CELL + 8 and margin > 0
    first, second = (
        [picture[0, 8 + CELL * row + 32, margin + 8 + CELL * k + 32].item() for row in range(3)] for k in (0, 1)
    )
    assert first == [0, round(0.3 * 255), round(0.7 * 255)]
    assert second == [0, 64, round(0.7 * 255)], "a class with fewer images leaves its place empty"


def test_a_class_of_many_images_has_several_rows_and_its_name_in_the_first():
    picture = draw_constants([0] * 5 + [1], columns=2, names=["cat", "dog"])
    assert picture.shape[1] == 4 * CELL + 8
    margin = picture[0, :, : picture.shape[2] - (2 * CELL + 8)]
    assert [bool((row > 200).any()) for row in margin[8:].split(CELL)][:4] == [True, False, False, True]


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_samples_of_few_and_of_many_classes_have_a_row_each_and_no_picture_is_a_ribbon(classes):
    picture = draw_samples(make_gan(num_classes=classes).eval(), 0)
    _, height, width = picture.shape
    assert height == min(classes, MAX_ROWS) * CELL + 8
    assert width > 0.7 * height


@pytest.mark.parametrize(("names", "are_drawn"), [(["cat", "dog"], True), (["\U0010fffd", "\U0010fffe"], False)])
def test_names_that_no_font_has_are_drawn_as_numbers(names, are_drawn):
    assert torch.equal(draw_constants([0, 1], 1, names), draw_constants([0, 1], 1)) is not are_drawn


def test_long_names_are_shortened():
    width = draw_constants([0], 1, ["a" * 18]).shape[2]
    assert draw_constants([0], 1, ["a" * 500]).shape[2] <= width


def test_real_images_are_kept_of_each_class_though_the_data_are_in_the_order_of_the_classes():
    real = RealImages(3)
    for label in (0, 0, 1, 2):
        real.add(torch.full((6, 1, 8, 8), label / 2), torch.full((6,), label))
    images, labels = real.collect()
    assert labels.tolist() == [0] * 8 + [1] * 6 + [2] * 6
    assert torch.equal(images[:, 0, 0, 0], labels / 2)
    without_classes = RealImages(None)
    for _ in range(3):
        without_classes.add(torch.rand(30, 1, 8, 8), torch.zeros(30))
    images, labels = without_classes.collect()
    assert len(images) == 64 and labels is None


def test_beside_real_images_of_classes_are_generated_ones_of_the_same_classes():
    gan = make_gan(num_classes=3).eval()
    gan.class_names = ["one", "two", "three"]
    labels = torch.tensor([0, 0, 2])
    real = torch.rand(3, 1, 8, 8)
    picture = draw_beside_real(gan, 0, real, labels)[:, TITLE_HEIGHT:]
    generated, drawn_real = picture.chunk(2, dim=2)
    assert torch.equal(drawn_real, draw_classes(real, labels, 2, gan.class_names))
    assert generated.shape == drawn_real.shape and picture.shape[1] == 2 * CELL + 8


def test_images_without_classes_make_a_square():
    assert draw_grid(torch.rand(9, 1, 8, 8)).shape == (3, 3 * CELL + 8, 3 * CELL + 8)

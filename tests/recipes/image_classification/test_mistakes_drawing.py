"""Drawing of images that are classified wrongly."""

import pytest
import torch

from lightning_adabelief.recipes.image_classification import mistakes_drawing
from lightning_adabelief.recipes.image_classification.mistakes_drawing import Mistake, draw_mistakes
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET


def make(image, **options):
    return Mistake(
        **{"number": 0, "image": image, "label": 0, "prediction": 1, "probability": 0.9, "loss": 2} | options
    )


@pytest.fixture
def texts(monkeypatch):
    """What is written, in the order of the lines."""
    written = []

    class Draw(mistakes_drawing.ImageDraw.ImageDraw):
        def text(self, place, text, *args, **options):
            written.append(text)
            super().text(place, text, *args, **options)

    monkeypatch.setattr(mistakes_drawing.ImageDraw, "Draw", Draw)
    return written


def test_an_images_colours_are_those_before_its_normalization():
    red = torch.zeros(3, 64, 64, dtype=torch.uint8)
    red[0] = 200
    picture = draw_mistakes("", [make(IMAGENET.normalize(red))], ["x"], mean=IMAGENET.mean, std=IMAGENET.std)
    assert picture[:, 100, 100].tolist() == [200, 0, 0]


def test_images_of_any_size_and_one_channel_fit_their_place():
    images = [torch.rand(1, 8, 8), torch.rand(3, 900, 300), torch.zeros(3, 30, 400)]
    picture = draw_mistakes("", [make(image) for image in images], ["x"] * 3)
    assert picture.shape == draw_mistakes("", [make(torch.rand(3, 224, 224))] * 3, ["x"] * 3).shape


def test_names_too_long_are_shortened_and_those_without_a_font_replaced(texts):
    long, hieroglyphs = "IMG_20231224_183012_and_much_more_than_fits.jpg", "\U00013000\U00013001.png"
    images = [make(torch.rand(3, 8, 8)), make(torch.rand(3, 8, 8), label=1, prediction=0)]
    draw_mistakes("title", images, [long, hieroglyphs], ["cat", "\U00013000"])
    assert texts[0] == "title"
    assert texts[1].startswith("IMG_2023") and texts[1].endswith("fits.jpg") and "..." in texts[1]
    assert texts[2:] == ["is cat", "taken for class 1 0.90", "??.png", "is class 1", "taken for cat 0.90"]

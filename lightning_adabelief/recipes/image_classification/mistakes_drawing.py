"""Drawing of images that are classified wrongly, with what they are and what they were taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from lightning_adabelief.recipes.fonts import find_font

COLUMNS = 4
IMAGE_SIZE = 224
"""Pixels of an image's longer side in the picture."""

MARGIN = 12
FONT_SIZE = 15
LINE_HEIGHT = 21
TITLE_HEIGHT = 40

FILE, TRUE, PREDICTED = "#555555", "#0072B2", "#D55E00"
"""Colours of the three lines below an image: distinct to the colour-blind."""

ELLIPSIS = "..."


@dataclass(frozen=True)
class Mistake:
    """An image that is classified wrongly.

    Attributes:
        number: Place of the image among those that its process was given.
        image: The image (C, H, W) as the network is given it.
        label: Its class.
        prediction: The class with the highest probability.
        probability: The probability of that class.
        loss: The cross-entropy.
    """

    number: int
    image: Tensor
    label: int
    prediction: int
    probability: float
    loss: float


def draw_mistakes(
    title: str,
    mistakes: Sequence[Mistake],
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """Draw images in rows of four, below each the name of its file, its class, and the predicted one.

    Names that are too long are shortened in their middle. For letters that no installed font has, a class has its
    number and a file's name question marks.

    Args:
        title: The title.
        mistakes: The mistakes.
        names: A name for each, such as its file's.
        class_names: Names of the classes; None for their numbers.
        mean: Mean of each channel that the images were normalized by, which is undone; None to scale each image from
            its least to its largest value.
        std: Standard deviation of each channel, likewise.

    Returns:
        A picture (3, height, width), uint8.
    """
    columns = COLUMNS if len(mistakes) > COLUMNS else max(2, len(mistakes))
    width, height = IMAGE_SIZE + MARGIN, IMAGE_SIZE + 3 * LINE_HEIGHT + MARGIN
    rows = ceil(len(mistakes) / columns)
    picture = Image.new("RGB", (columns * width + MARGIN, TITLE_HEIGHT + rows * height + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    _write(draw, (MARGIN, MARGIN), title, "black", picture.width - 2 * MARGIN)
    for place, (mistake, name) in enumerate(zip(mistakes, names, strict=True)):
        left = MARGIN + place % columns * width
        top = TITLE_HEIGHT + place // columns * height
        image = _make_image(mistake.image, mean, std)
        picture.paste(image, (left + (IMAGE_SIZE - image.width) // 2, top + (IMAGE_SIZE - image.height) // 2))
        lines = {
            FILE: ("", name, ""),
            TRUE: ("is ", _name_class(mistake.label, class_names), ""),
            PREDICTED: ("taken for ", _name_class(mistake.prediction, class_names), f" {mistake.probability:.2f}"),
        }
        for line, (colour, (before, text, after)) in enumerate(lines.items()):
            place_of_line = (left, top + IMAGE_SIZE + 2 + line * LINE_HEIGHT)
            _write(draw, place_of_line, text, colour, IMAGE_SIZE, before, after)
    return pil_to_tensor(picture)


def _make_image(image: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Image.Image:
    """Turn an image as the network is given it into one to look at."""
    if mean is not None and std is not None:
        image = image * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    else:
        image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
    pixels = (image.clamp(0, 1) * 255).round().byte()
    shown = to_pil_image(pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1))
    scale = IMAGE_SIZE / max(shown.size)
    kind = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS  # few pixels are seen best as they are
    return shown.resize((round(shown.width * scale), round(shown.height * scale)), kind)


def _name_class(label: int, class_names: Sequence[str] | None) -> str:
    name = None if class_names is None else class_names[label]
    return name if name is not None and find_font(name) else f"class {label}"


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    colour: str,
    width: int,
    before: str = "",
    after: str = "",
) -> None:
    """Write a text into a width, shortened in its middle as far as it has to be."""
    font_file = find_font(before + text + after)
    if font_file is None:
        text = text.encode("ascii", "replace").decode()
        font_file = find_font(before + text + after)
    assert font_file is not None, "matplotlib's own font has the letters of English"
    font = ImageFont.truetype(font_file, FONT_SIZE)
    whole, kept = text, len(text)
    while kept > 1 and font.getlength(before + text + after) > width:
        kept -= 1
        text = whole[: ceil(kept / 2)] + ELLIPSIS + whole[len(whole) - kept // 2 :]
    draw.text(place, before + text + after, colour, font)

"""Arranging of images in grids, with titles and the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import torch
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import pad, pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from lightning_adabelief.recipes.fonts import find_font

MIN_IMAGE_SIZE = 64
"""Pixels per side below which images are enlarged, so that they can be seen."""

PAD_VALUE = 0.25
"""The grey between images, in [0, 1]."""

TITLE_HEIGHT = 36
"""Pixels of the bar above a grid that has a title."""

FONT_SIZE = 20
"""Pixels of the names of classes."""

MAX_ROWS = 25
"""Rows of classes that are drawn below each other; further ones are drawn to their right."""

MAX_NAME_LENGTH = 18
"""Characters of a class's name that are drawn."""


def draw_grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Draw images in a grid, small ones enlarged, with padding between them.

    Args:
        images: Images (N, C, H, W) in [0, 1].
        columns: Images per row; None for a square grid.

    Returns:
        A picture (3, height, width), uint8, on the CPU.
    """
    enlarged = interpolate(images, scale_factor=max(1, MIN_IMAGE_SIZE // images.shape[-1]))
    padding = max(2, enlarged.shape[-1] // 8)
    grid = make_grid(enlarged, nrow=columns or ceil(sqrt(len(images))), padding=padding, pad_value=PAD_VALUE)
    return (grid * 255).round().byte().cpu()


def draw_classes(images: Tensor, labels: Tensor, columns: int, class_names: Sequence[str] | None = None) -> Tensor:
    """Draw images in a grid with a row for each class, and the class's name to its left.

    Args:
        images: Images (N, C, H, W) in [0, 1].
        labels: Their classes (N,). A class without an image has no row.
        columns: Images per row; a class with more of them has several rows.
        class_names: Names of the classes; None for their numbers, which also stand for names with letters that no
            installed font has.

    Returns:
        A picture (3, height, width), uint8, on the CPU.
    """
    font, class_names = _choose_font(class_names)
    rows, names = [], []
    for label in labels.unique().tolist():
        of_class = _fill_up(images[labels == label], columns).split(columns)
        rows += of_class
        name = str(label) if class_names is None else _shorten(class_names[label])
        names += [name] + [""] * (len(of_class) - 1)
    margin = ceil(max(font.getlength(name) for name in names)) + FONT_SIZE // 2
    height = ceil(len(rows) / ceil(len(rows) / MAX_ROWS))  # of equally high columns of rows
    pictures = []
    for start in range(0, len(rows), height):
        part = slice(start, start + height)
        grid = draw_grid(_fill_up(torch.cat(rows[part]), height * columns), columns)
        pictures.append(_add_names(grid, names[part], height, margin, font))
    return torch.cat(pictures, dim=2)


def draw_side_by_side(grids: dict[str, Tensor]) -> Tensor:
    """Draw grids (3, height, width) of one height beside each other, each under its title."""
    return torch.cat([_add_title(grid, title) for title, grid in grids.items()], dim=2)


def _choose_font(names: Sequence[str] | None) -> tuple[ImageFont.FreeTypeFont, Sequence[str] | None]:
    """Return a font for names, and the names; if no font has their letters, one for numbers, and None."""
    path = find_font("".join(names or ()))
    if path is None:
        return _choose_font(None)
    return ImageFont.truetype(path, FONT_SIZE), names


def _fill_up(images: Tensor, multiple: int) -> Tensor:
    """Append images in the colour of the padding up to a multiple of a number of images."""
    missing = -len(images) % multiple
    return torch.cat([images, images.new_full((missing, *images.shape[1:]), PAD_VALUE)])


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 3]}..."


def _add_names(grid: Tensor, names: list[str], rows: int, margin: int, font: ImageFont.FreeTypeFont) -> Tensor:
    """Add a margin to the left of a grid, with the name of each row."""
    picture = to_pil_image(pad(grid, [margin, 0, 0, 0], fill=round(255 * PAD_VALUE)))
    draw = ImageDraw.Draw(picture)
    for number, name in enumerate(names):
        middle = (number + 0.5) * picture.height / rows
        draw.text((margin, middle), name, fill="white", font=font, anchor="rm")
    return pil_to_tensor(picture)


def _add_title(grid: Tensor, title: str) -> Tensor:
    """Add a bar with a title above a grid, in the colour of its padding."""
    picture = to_pil_image(pad(grid, [0, TITLE_HEIGHT, 0, 0], fill=round(255 * PAD_VALUE)))
    font = ImageFont.load_default(TITLE_HEIGHT * 2 // 3)
    ImageDraw.Draw(picture).text((TITLE_HEIGHT // 3, TITLE_HEIGHT // 6), title, fill="white", font=font)
    return pil_to_tensor(picture)

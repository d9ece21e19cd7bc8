"""Drawing of boxes on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms.functional import center_crop, pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from lightning_adabelief.recipes.fonts import find_font

PICTURE_SIZE = 384
"""Pixels of a picture's longer side: smaller images are enlarged, so that labels can be read."""

FONT_SIZE = 15

RIGHT, WRONG, MISSED = "#56B4E9", "#E69F00", "#FFFFFF"
"""Colours of boxes that find an object, of others, and of objects that none finds: distinct to the colour-blind."""

MIN_OVERLAP = 0.5
"""Intersection over union from which a box of an object's class finds it, as in ``map_50``."""


def draw_detections(
    image: Tensor,
    detections: Mapping[str, Tensor],
    class_names: Sequence[str] | None = None,
    target: Mapping[str, Tensor] | None = None,
    min_score: float = 0.5,
) -> Tensor:
    """Draw the boxes detected in an image, each with its class and score.

    Boxes are blue; where the objects are known, those that find none are orange, and objects that no box
    finds are outlined in white, with their class and a question mark.

    Args:
        image: The image (3, H, W), in [0, 1].
        detections: ``boxes`` (N, 4), ``labels`` (N,) from 1, and ``scores`` (N,).
        class_names: Names of the classes 1, 2, ...; None for their numbers, which also stand for names with letters
            that no installed font has.
        target: The objects' ``boxes`` (M, 4) and ``labels`` (M,); None where they are not known.
        min_score: The least score of a box that is drawn.

    Returns:
        A picture (3, height, width), uint8, whose longer side has 384 pixels.
    """
    scale = PICTURE_SIZE / max(image.shape[-2:])
    picture = to_pil_image((image.float().clamp(0, 1) * 255).round().byte().cpu())
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    drawn = detections["scores"] >= min_score
    boxes, labels, scores = (detections[name][drawn].cpu() for name in ("boxes", "labels", "scores"))
    is_right = torch.ones(len(boxes), dtype=torch.bool)
    missed: list[tuple[Tensor, int]] = []
    if target is not None:
        objects, classes = target["boxes"].cpu(), target["labels"].cpu()
        found, is_right = match_boxes(boxes, labels, objects, classes)
        missed = list(zip(objects[~found] * scale, classes[~found].tolist(), strict=True))
    colours = [RIGHT if right else WRONG for right in is_right.tolist()]
    draw = ImageDraw.Draw(picture)
    font_file = find_font("".join(class_names or ()))
    draw.font = ImageFont.truetype(font_file, FONT_SIZE) if font_file else ImageFont.load_default(FONT_SIZE)
    class_names = class_names if font_file else None
    for box, _ in missed:
        _draw_box(draw, box, MISSED)
    for box, colour in zip(boxes * scale, colours, strict=True):
        _draw_box(draw, box, colour)
    # After all boxes, so that none crosses a label; a missed object's is below, as above may be that of a wrong box.
    for box, label in missed:
        _draw_label(draw, box, f"{_name_class(label, class_names)}?", MISSED, is_below=True)
    for box, label, score, colour in zip(boxes * scale, labels.tolist(), scores.tolist(), colours, strict=True):
        _draw_label(draw, box, f"{_name_class(label, class_names)} {score:.2f}", colour)
    return pil_to_tensor(picture)


def match_boxes(boxes: Tensor, labels: Tensor, objects: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Assign boxes, best first, to objects of their class that they overlap by half.

    Args:
        boxes: Boxes (N, 4), by falling score.
        labels: Their classes (N,).
        objects: The objects' boxes (M, 4).
        classes: Their classes (M,).

    Returns:
        True for each object that a box finds (M,), and for each box that finds an object (N,); of several
        boxes on the same object only the first does.
    """
    overlap = box_iou(boxes, objects) * (labels[:, None] == classes)
    found = torch.zeros(len(objects), dtype=torch.bool)
    is_right = torch.zeros(len(boxes), dtype=torch.bool)
    for number, row in enumerate(overlap):
        free = row * ~found
        if len(objects) and free.max() >= MIN_OVERLAP:
            found[free.argmax()] = is_right[number] = True
    return found, is_right


def draw_grid(pictures: Sequence[Tensor], columns: int = 4) -> Tensor:
    """Draw pictures (3, height, width) of up to 384 pixels a side in a grid; smaller ones get a black margin."""
    cells = [center_crop(picture, [PICTURE_SIZE, PICTURE_SIZE]) for picture in pictures]
    return make_grid(cells, nrow=columns, padding=4)


def _name_class(label: int, class_names: Sequence[str] | None) -> str:
    return str(label) if class_names is None else class_names[label - 1]


def _draw_box(draw: ImageDraw.ImageDraw, box: Tensor, colour: str) -> None:
    left, top, right, bottom = box.tolist()
    # A dark line around the coloured one is seen on light and on dark ground.
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=4)
    draw.rectangle((left, top, right, bottom), outline=colour, width=2)


def _draw_label(draw: ImageDraw.ImageDraw, box: Tensor, text: str, colour: str, is_below: bool = False) -> None:
    """Draw the text of a box above it, or below, as far as the picture goes: within, it would cover a small object."""
    left, top, _, bottom = box.tolist()
    _, _, text_width, text_height = draw.textbbox((0, 0), text)
    width, height = text_width + 4, text_height + 4
    picture_width, picture_height = draw.im.size
    x = max(0, min(left, picture_width - width))
    y = max(0, min(bottom if is_below else top - height, picture_height - height))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2, y + 1), text, fill="black")

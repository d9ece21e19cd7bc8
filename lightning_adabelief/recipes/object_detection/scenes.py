"""Scenes made of real digits, which need no download."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms.functional import pil_to_tensor

from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.recipes.image_classification import DigitsDataModule
from lightning_adabelief.recipes.object_detection.detection_data import DetectionDataModule, Target

MAX_DIGITS = 5

MIN_HEIGHT, MAX_HEIGHT = 12, 40
"""Pixels of a digit's 8x8 image in a scene, before it is rotated."""

MAX_ROTATION = 20
"""Degrees, to either side: a 6 and a 9 can still be told apart."""

MAX_COVERED = 0.5
"""The largest share of a digit's box, or of the box of one below, that two digits may have in common."""

PLACEMENTS = 20
"""Attempts to find a place for a digit, before the scene does without it."""

INK = 96
"""The least opacity, of 255, of what a box is drawn around: a digit's blurred edge is not in it."""


class ScenesDataModule(DetectionDataModule):
    """Scenes of 1 to 5 of scikit-learn's digits, of random size, colour, rotation and overlap, on clutter.

    Digits and clutter of the training scenes are cut from the 1,077 digits that :class:`DigitsDataModule`
    trains on, those of the validation and test scenes from its 360 validation and 360 test digits: no digit
    is in two parts. Scene ``i`` of a part is drawn from the seed, the part and ``i`` alone, so it is the
    same whenever it is asked for.

    Args:
        batch_size: Scenes per batch.
        train_scenes: Number of scenes to train on.
        val_scenes: Number of scenes to validate on.
        test_scenes: Number of scenes to test on.
        size: Height and width of a scene, in pixels.
        seed: Seed of the scenes.
        num_workers: Processes that draw scenes.

    Raises:
        ValueError: If a number of scenes or ``batch_size`` is less than 1, ``num_workers`` is less than 0, or
            ``size`` is too small for the largest digit.
    """

    class_names = [str(digit) for digit in range(10)]

    def __init__(
        self,
        batch_size: int = 8,
        train_scenes: int = 4000,
        val_scenes: int = 200,
        test_scenes: int = 500,
        size: int = 96,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers)
        check_counts(train_scenes=train_scenes, val_scenes=val_scenes, test_scenes=test_scenes)
        if size < 2 * MAX_HEIGHT:
            raise ValueError(
                f"Invalid size: {size}. Give {2 * MAX_HEIGHT} pixels or more: digits are up to {MAX_HEIGHT} high"
            )
        self.counts = (train_scenes, val_scenes, test_scenes)
        self.size = size
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Divide the digits among the three parts, the same way each time."""
        digits = DigitsDataModule()
        digits.setup(stage)
        parts = {"train": digits.train_set, "val": digits.val_set, "test": digits.test_set}
        self.train_set, self.val_set, self.test_set = (
            Scenes(part, count, self.size, (self.seed, number), name)
            for number, ((name, part), count) in enumerate(zip(parts.items(), self.counts, strict=True))
        )
        self.predict_set = self.test_set


class Scenes(Dataset):
    """Scenes of digits, each drawn when it is asked for.

    Args:
        digits: Images (1, 8, 8) in [0, 1] and their labels.
        count: Number of scenes.
        size: Height and width of a scene, in pixels.
        seed: Numbers that the scenes are drawn from.
        name: First part of the scenes' names.
    """

    def __init__(self, digits: Subset, count: int, size: int, seed: tuple[int, ...], name: str) -> None:
        self.images = [Image.fromarray((image[0] * 255).byte().numpy()) for image, _ in digits]
        self.labels = [int(label) for _, label in digits]
        self.count = count
        self.size = size
        self.seed = seed
        self.name = name

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Draw a scene: its image (3, size, size), uint8, and its digits' boxes and labels."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([*self.seed, index])
        canvas = self._draw_background(rng)
        boxes: list[tuple[int, int, int, int]] = []
        labels = []
        for _ in range(rng.integers(1, MAX_DIGITS + 1)):
            digit = int(rng.integers(len(self.images)))
            box = self._place_digit(canvas, self.images[digit], boxes, rng)
            if box is not None:
                boxes.append(box)
                labels.append(self.labels[digit] + 1)  # 0 is the background
        self._draw_strokes(canvas, rng)  # over the digits
        noise = rng.normal(0, rng.uniform(2, 20), (self.size, self.size, 3))
        pixels = (np.asarray(canvas) + noise).clip(0, 255).astype(np.uint8)
        target: Target = {
            "boxes": torch.tensor(boxes, dtype=torch.float32),
            "labels": torch.tensor(labels),
            "iscrowd": torch.zeros(len(boxes), dtype=torch.int64),
            "file": f"{self.name}-{index:05}.png",
        }
        return pil_to_tensor(Image.fromarray(pixels)), target

    def _draw_background(self, rng: np.random.Generator) -> Image.Image:
        """Draw shades that run into each other, and clutter: strokes, and pieces of digits that are none."""
        shades = rng.integers(50, 206, 3) + rng.integers(-40, 41, (3, 3, 3))
        canvas = Image.fromarray(shades.astype(np.uint8)).resize((self.size, self.size), Image.Resampling.BICUBIC)
        self._draw_strokes(canvas, rng)
        for _ in range(rng.integers(2, 6)):
            digit = self.images[rng.integers(len(self.images))]
            left, top = rng.integers(0, 5, 2).tolist()
            piece = digit.crop((left, top, left + 4, top + 4))
            mask = _enlarge(piece, int(rng.integers(MIN_HEIGHT // 2, MAX_HEIGHT // 2)), rng.uniform(-180, 180))
            corner = rng.integers(0, self.size - mask.width, 2)
            canvas.paste(_draw_colour(canvas, corner, rng), tuple(corner.tolist()), mask)
        return canvas

    def _draw_strokes(self, canvas: Image.Image, rng: np.random.Generator) -> None:
        draw = ImageDraw.Draw(canvas)
        for _ in range(rng.integers(1, 4)):
            moves = rng.integers(-18, 19, (rng.integers(2, 5), 2))
            points = rng.integers(0, self.size, 2) + np.cumsum(moves, axis=0)
            colour = _draw_colour(canvas, points[0], rng)
            draw.line([tuple(point) for point in points.tolist()], colour, int(rng.integers(1, 4)))

    def _place_digit(
        self,
        canvas: Image.Image,
        digit: Image.Image,
        boxes: list[tuple[int, int, int, int]],
        rng: np.random.Generator,
    ) -> tuple[int, int, int, int] | None:
        """Draw a digit where it covers the others little enough, and return its box; None if there is no such place."""
        height = round(
            float(np.exp(rng.uniform(np.log(MIN_HEIGHT), np.log(MAX_HEIGHT))))
        )  # as many small as large ones
        mask = _enlarge(digit, height, rng.uniform(-MAX_ROTATION, MAX_ROTATION))
        inked = mask.point(lambda opacity: 255 * (opacity >= INK)).getbbox()
        assert inked is not None, "every digit has ink"
        mask = mask.crop(inked)
        for _ in range(PLACEMENTS):
            left, top = (int(rng.integers(0, self.size - side + 1)) for side in mask.size)
            box = (left, top, left + mask.width, top + mask.height)
            if all(_measure_covered(box, other) <= MAX_COVERED for other in boxes):
                centre = np.array([left + mask.width // 2, top + mask.height // 2])
                canvas.paste(_draw_colour(canvas, centre, rng), (left, top), mask)
                return box
        return None


def _enlarge(image: Image.Image, height: int, degrees: float) -> Image.Image:
    """Enlarge and rotate an image, so that it is the mask of what is drawn."""
    enlarged = image.resize((height, height), Image.Resampling.BICUBIC)
    return enlarged.rotate(degrees, Image.Resampling.BICUBIC, expand=True)


def _draw_colour(canvas: Image.Image, place: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a colour that is darker or lighter than the canvas at a place."""
    x, y = (int(coordinate) for coordinate in place.clip(0, canvas.width - 1))
    ground = np.array(canvas.getpixel((x, y)))
    sign = -1 if ground.mean() > 128 else 1
    return tuple((ground + sign * rng.uniform(25, 100) + rng.integers(-30, 31, 3)).clip(0, 255).astype(int).tolist())


def _measure_covered(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the area that two boxes have in common as a share of the smaller box's."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((right - left) * (bottom - top) for left, top, right, bottom in (box, other))
    return max(width, 0) * max(height, 0) / smaller

"""The size of the images that a network takes, and the numbers that their colours are normalized by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.suggest import suggest

INTERPOLATIONS = tuple(mode.value for mode in v2.InterpolationMode if mode.value != "nearest-exact")
"""Names of the kinds of interpolation that Pillow has."""


MAX_RATIO = 10
"""The ratio of an image's sides to which a longer one is cut before it is resized."""


@dataclass(frozen=True)
class Preprocessing:
    """The size of a network's images, and the numbers that their colours are normalized by.

    Attributes:
        size: Height and width, in pixels.
        mean: Mean of red, green and blue, of images in [0, 1].
        std: Standard deviation of red, green and blue.
        crop: Share, in (0, 1], of the resized image's shorter side that the crop at its centre keeps.
        interpolation: Kind of interpolation to resize by: one of :data:`INTERPOLATIONS`.

    Raises:
        ValueError: If a number is out of its range, ``mean`` or ``std`` has not three numbers, or the interpolation
            is unknown.

    Example:
        >>> import torch
        >>> IMAGENET.normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))[0, :, 0, 0]
        tensor([2.2489, 2.4286, 2.6400])
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the numbers and the name; lists, as a config or a checkpoint has them, become tuples."""
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        check_counts(size=self.size)
        for name, values in {"mean": self.mean, "std": self.std}.items():
            if len(values) != 3:
                raise ValueError(f"Invalid {name}: {list(values)}. Give three numbers, for red, green and blue")
        if min(self.std) <= 0:
            raise ValueError(f"Invalid std: {list(self.std)}. Give numbers greater than 0")
        if not 0 < self.crop <= 1:
            raise ValueError(f"Invalid crop: {self.crop}. Give a share in (0, 1], such as 0.875")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"Unknown interpolation: {self.interpolation!r}. {suggest(self.interpolation, INTERPOLATIONS)}"
            )

    @property
    def interpolation_mode(self) -> v2.InterpolationMode:
        """The interpolation as torchvision's transforms take it."""
        return v2.InterpolationMode(self.interpolation)

    def make_crop(self) -> v2.Transform:
        """Make the transform that resizes an image, its sides in proportion, and crops it at the centre.

        Of an image that is far longer than it is wide, or the reverse, the ends are cut off before.
        """
        resize = v2.Resize(round(self.size / self.crop), self.interpolation_mode)
        return v2.Compose([_cut_ends, resize, v2.CenterCrop(self.size)])

    def make_transform(self) -> v2.Transform:
        """Make the transform from a Pillow image of mode ``RGB`` to a uint8 tensor (3, size, size)."""
        return v2.Compose([self.make_crop(), v2.PILToTensor()])

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize images (..., 3, H, W), uint8 or floats in [0, 1], to float32 of the same shape."""
        scaled = v2.functional.to_dtype(images, torch.float32, scale=True)
        return v2.functional.normalize(scaled, list(self.mean), list(self.std))


def _cut_ends(image: Image.Image) -> Image.Image:
    """Return the middle of an image whose sides are in a ratio of more than 10: resized, it could fill the memory."""
    longest = MAX_RATIO * min(image.size)
    kept = [min(side, longest + (side - longest) % 2) for side in (image.height, image.width)]  # as much at each end
    return v2.functional.center_crop(image, kept)


IMAGENET = Preprocessing(224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The usual preprocessing of networks that were trained on ImageNet."""

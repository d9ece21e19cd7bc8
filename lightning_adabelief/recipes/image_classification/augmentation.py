"""Changes of the images that are trained on, drawn anew each time."""

from __future__ import annotations

from dataclasses import dataclass

from torchvision.transforms import v2

from lightning_adabelief.recipes.checks import check_counts, check_probability
from lightning_adabelief.recipes.image_classification.preprocessing import Preprocessing

MAX_MAGNITUDE = 30
"""RandAugment's largest magnitude."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the images that are trained on.

    The defaults are the usual ones for ImageNet. Mixup and cutmix, which change whole batches, are options of
    :class:`~lightning_adabelief.recipes.image_classification.ImageClassifier`.

    Args:
        flip: Probability with which left and right are exchanged.
        crop: Least share, in (0, 1], of the image's area that a crop at random has, of proportions from 3:4 to 4:3; 1
            for the crop at the centre that other images have.
        rand_augment: Magnitude, from 0 to 30, of RandAugment's rotations, shears and changes of colour; 9 is usual, 0
            is none.
        rand_augment_operations: RandAugment's operations per image.
        erasing: Probability with which a rectangle is filled with the mean colour.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> from PIL import Image
        >>> from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET
        >>> augment = Augmentation(rand_augment=9, erasing=0.25).make_transform(IMAGENET)
        >>> augment(Image.new("RGB", (320, 240))).shape
        torch.Size([3, 224, 224])
    """

    flip: float = 0.5
    crop: float = 0.08
    rand_augment: int = 0
    rand_augment_operations: int = 2
    erasing: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        check_probability("flip", self.flip)
        check_probability("erasing", self.erasing)
        check_counts(rand_augment_operations=self.rand_augment_operations)
        if not 0 < self.crop <= 1:
            raise ValueError(f"Invalid crop: {self.crop}. Give a share of the area in (0, 1], such as 0.08")
        if not 0 <= self.rand_augment <= MAX_MAGNITUDE:
            raise ValueError(f"Invalid rand_augment: {self.rand_augment}. Give a magnitude from 0 to {MAX_MAGNITUDE}")

    def make_transform(self, preprocessing: Preprocessing) -> v2.Transform:
        """Make the transform from a Pillow image of mode ``RGB`` to a uint8 tensor (3, size, size)."""
        mean_colour = [round(255 * mean) for mean in preprocessing.mean]  # which is 0 when it is normalized
        size, mode = preprocessing.size, preprocessing.interpolation_mode
        steps: list[v2.Transform] = [
            v2.RandomResizedCrop(size, scale=(self.crop, 1), interpolation=mode)
            if self.crop < 1
            else preprocessing.make_crop()
        ]
        if self.flip:
            steps += [v2.RandomHorizontalFlip(self.flip)]
        if self.rand_augment:
            bilinear = v2.InterpolationMode.BILINEAR  # Pillow can't rotate by all kinds that it can resize by
            operations = self.rand_augment_operations
            steps += [v2.RandAugment(operations, self.rand_augment, interpolation=bilinear, fill=mean_colour)]
        steps += [v2.PILToTensor()]
        if self.erasing:
            steps += [v2.RandomErasing(self.erasing, value=mean_colour)]
        return v2.Compose(steps)

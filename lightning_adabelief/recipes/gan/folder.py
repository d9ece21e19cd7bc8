"""A folder of one's own images for GANs: square, in [0, 1], neither normalized nor cropped at random."""

from __future__ import annotations

import random
from pathlib import Path

from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms import v2

from lightning_adabelief.recipes.checks import check_counts
from lightning_adabelief.recipes.image_classification.augmentation import Augmentation
from lightning_adabelief.recipes.image_classification.found_images import (
    FoundImages,
    check_any_images,
    find_images,
)
from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule
from lightning_adabelief.recipes.image_classification.image_parts import (
    ImageParts,
    SplitOptions,
    check_classes,
    find_parts,
)
from lightning_adabelief.recipes.image_classification.image_sets import LabelledImages
from lightning_adabelief.recipes.image_classification.preprocessing import Preprocessing
from lightning_adabelief.recipes.image_classification.splitting import split_images


class FolderImages(ImageDataModule):
    """A folder of one's own images: (N, 3, size, size) in [0, 1], and their labels.

    The images lie in ``root`` itself, with folders of any depth beside them, and have no classes; or in one folder per
    class, or in ``train``, ``val`` and ``test`` as
    :class:`~lightning_adabelief.recipes.image_classification.ImageFolderDataModule` takes them. Images of any size are
    resized until their shorter side has ``size`` pixels, and cropped to a square at the centre. Some are held out to
    validate and to test on.

    The first ``setup`` prints how many images there are, how they were split, and which files are left out.

    Args:
        root: The folder of images.
        batch_size: Images per batch.
        size: Height and width of the images, in pixels.
        flip: Exchange left and right of every second image to train on, at random.
        batches_per_epoch: Length of an epoch, for folders of any size: images are drawn as often as that takes, all of
            them once before any is drawn again. None for each image once. Several processes always draw each image
            once.
        val_fraction: Fraction of the images, in (0, 1), to split off to validate on.
        test_fraction: Fraction of the images, in [0, 1), to split off to test on; 0 to test on those to validate on.
        split_seed: Another seed makes another split.
        num_workers: Processes that load data; None for one per CPU core, at most 16.

    Raises:
        ValueError: If a value is out of its range.
    """

    in_channels = 3
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    train_set: LabelledImages

    def __init__(
        self,
        root: str | Path,
        batch_size: int = 64,
        size: int = 32,
        flip: bool = False,
        batches_per_epoch: int | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers)
        check_counts(size=size, batches_per_epoch=batches_per_epoch)
        self.root = root
        self.size = size
        self.flip = flip
        self.batches_per_epoch = batches_per_epoch
        self.split_options = SplitOptions(val_fraction, test_fraction, split_seed)

    def setup(self, stage: str) -> None:
        """List the files, split them, and print how many there are, and what is left out.

        Raises:
            FileNotFoundError: If there is no such folder, or it has no images.
            ValueError: If there are too few images to split some off, or fewer to train on than a batch has.
        """
        parts = self._find_parts()
        images = parts.images
        self._print_table(str(self.root), images, parts.notes)
        if len(images["train"].files) < self.batch_size:
            raise ValueError(
                f"{self.root} has {len(images['train'].files):,} images to train on, fewer than a batch of "
                f"{self.batch_size}. Give more images, or data.batch_size {len(images['train'].files)} or less"
            )
        self.class_names = parts.class_names or None
        self.num_classes = len(parts.class_names) or 1
        preprocessing = Preprocessing(self.size, self.mean, self.std, crop=1.0)
        others = preprocessing.make_transform()
        flips = Augmentation(flip=0.5 if self.flip else 0.0, crop=1.0)
        self.train_set = self._make_set(images["train"], flips.make_transform(preprocessing))
        self.val_set = self._make_set(_shuffle(images["val"]), others)
        self.test_set = self._make_set(_shuffle(images["test"]), others) if "test" in images else self.val_set

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training set, all of the same size."""
        if self.batches_per_epoch is None:
            return self._make_loader(self.train_set, shuffle=True, drop_last=True)
        sampler = RandomSampler(self.train_set, num_samples=self.batches_per_epoch * self.batch_size)
        return self._make_loader(self.train_set, sampler=sampler)

    def _find_parts(self) -> ImageParts:
        """Find the images of each part: with classes, unless images lie beside the folders in ``root``."""
        found = find_images(self.root)
        if all(len(Path(name).parts) > 1 for name in found.names):
            parts = find_parts(self.root, None, self.split_options)
            if len(parts.class_names) > 1:
                check_classes(parts)
            return parts
        found.leave_out_unreadable()
        check_any_images(found, "Mend one, or give others")
        return _split_unlabelled(found, self.split_options)

    def _make_set(self, found: FoundImages, transform: v2.Transform) -> LabelledImages:
        names = self.class_names or []
        numbers = {name: number for number, name in enumerate(names)}
        labels = [numbers[name] for name in found.classes] or [0] * len(found.files)
        return LabelledImages(found.files, labels, names, transform)


def _split_unlabelled(found: FoundImages, options: SplitOptions) -> ImageParts:
    """Split images without classes."""
    fractions = {"val": options.val_fraction, "test": options.test_fraction}
    fractions = {part: fraction for part, fraction in fractions.items() if fraction}
    found.classes = ["any"] * len(found.files)  # a split deals out the images of classes
    images = split_images(found, fractions, options.split_seed)
    for part in images.values():
        part.classes = []
    shares = " and ".join(f"{100 * fraction:g} % to {part}" for part, fraction in fractions.items())
    return ImageParts(images, [f"Split off: {shares}, by split_seed {options.split_seed}."])


def _shuffle(found: FoundImages) -> FoundImages:
    """Return the images in another order, the same each time: the first ones are drawn, and are of all classes then."""
    order = list(range(len(found.files)))
    random.Random(0).shuffle(order)
    return found.select(order)

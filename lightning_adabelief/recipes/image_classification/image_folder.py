"""One's own images, in folders or listed by a CSV file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, WeightedRandomSampler
from torchvision.transforms import v2

from lightning_adabelief.lightning_tree import rank_zero_warn
from lightning_adabelief.recipes.image_classification.augmentation import Augmentation
from lightning_adabelief.recipes.image_classification.found_images import FoundImages, find_images
from lightning_adabelief.recipes.image_classification.image_data import ImageDataModule
from lightning_adabelief.recipes.image_classification.image_parts import SplitOptions, check_classes, find_parts
from lightning_adabelief.recipes.image_classification.image_sets import LabelledImages, ReadableImages, UnlabelledImages
from lightning_adabelief.recipes.image_classification.preprocessing import IMAGENET, Preprocessing

DEFAULT_AUGMENTATION = Augmentation()
"""The usual augmentation for ImageNet."""


class ImageFolderDataModule(ImageDataModule):
    """One's own images, in one folder per class or listed by a CSV file, and images to predict.

    ``root`` is one of:

    - a folder that holds one folder per class;
    - a folder that holds ``train`` and, if there are such, ``val`` and ``test``, each of which holds one folder per
      class. ``training``, ``valid``, ``validation``, ``testing`` and capital letters are understood too.

    ``csv`` is a file with the columns ``file`` and ``label`` and, if there are such, ``split`` (``train``, ``val``,
    ``test``) and ``group``; the files' paths are below its folder or ``root``.

    Parts that the data have stay as they are. Without one to validate on, images to train on are split off for it,
    and for one to test on, unless there is that: of each class the same fractions, and those of a group together. Which
    ones depends on ``split_seed`` and the images' paths below their folder alone, and an image that comes or goes moves
    hardly any other. Without images to test on, those to validate on are tested on too.

    The first ``setup`` prints how many images each class has, how they were split, and which files are left out: hidden
    ones, those of other kinds than torchvision's ``IMG_EXTENSIONS``, those beside the class folders, class folders
    without an image and, among up to 20,000, images whose beginning can't be read. A file that was cut off is found
    when it is read, and its name is in the error. How files are read is described at
    :func:`~lightning_adabelief.recipes.image_classification.image_file.read_rgb`.

    Images that are not trained on are resized and cropped at the centre. All stay uint8 in the worker processes and are
    normalized on the device. In a validation, test or prediction of a checkpoint that knows how its images were
    prepared, these are prepared likewise, whatever size, mean and std are given.

    Args:
        root: The folder of images; None where ``csv`` or ``predict`` is enough.
        batch_size: Images per batch.
        size: Height and width of the cropped images, in pixels; None for the network's, or else 224.
        num_workers: Processes that load data; None for one per CPU core, at most 16.
        mean: Mean of red, green and blue, of images in [0, 1]; None for the network's, or else ImageNet's.
        std: Standard deviation of red, green and blue; None for the network's, or else ImageNet's.
        csv: The file that lists the images; None for class folders.
        predict: Folder of the images to predict, in folders of any depth and without labels, or one image's file; None
            to predict those that are tested on.
        val_fraction: Fraction of the images, in (0, 1), to split off to validate on.
        test_fraction: Fraction of the images, in [0, 1), to split off to test on; 0 for none.
        split_seed: Another seed makes another split.
        groups: Regular expression whose first pair of parentheses matches, in an image's path below its folder, the
            name of a group, such as a patient or a scene, whose images are kept in one part: ``"/([^_]+)_"`` finds
            ``anna`` in ``cats/anna_1.jpg``. It is an error if parts that the data have tear one. None for no groups.
        augmentation: How images to train on are changed at random.
        balanced: Draw images to train on with replacement, each class equally often. An epoch stays as long as it was.

    Raises:
        ValueError: If a value is out of its range.

    Attributes:
        preprocessing: The size and the normalization of the images, which ``setup`` finds.
        class_counts: Number of images to train on of each class.
        split: The options by which images were split off; None if the parts are the data's own.
        train_set: The images to train on; ``files`` has their paths, ``labels`` their classes' numbers.
        val_set: The images to validate on, likewise.
        test_set: The images to test on, likewise.
        predict_set: The images to predict; ``files`` has their paths.

    Shape:
        Images (N, 3, size, size), labels (N,); grayscale files become RGB. Batches of ``predict`` are
        :class:`~lightning_adabelief.recipes.image_classification.image_sets.MarkedImages`.
    """

    in_channels = 3

    preprocessing: Preprocessing
    class_counts: list[int]
    split: SplitOptions | None = None
    train_set: LabelledImages
    val_set: LabelledImages
    test_set: LabelledImages
    predict_set: UnlabelledImages

    def __init__(
        self,
        root: str | Path | None = None,
        batch_size: int = 256,
        size: int | None = None,
        num_workers: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        csv: str | Path | None = None,
        predict: str | Path | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        groups: str | None = None,
        augmentation: Augmentation = DEFAULT_AUGMENTATION,
        balanced: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers)
        self.root = root
        self.csv = csv
        self.predict = predict
        self.split_options = SplitOptions(val_fraction, test_fraction, split_seed, groups)
        self.augmentation = augmentation
        self.balanced = balanced
        given = {"size": size, "mean": mean, "std": std}
        self.given_preprocessing: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        replace(IMAGENET, **self.given_preprocessing)  # which checks the values

    def setup(self, stage: str) -> None:
        """List the files, split them, and print how many there are, and what is left out.

        Raises:
            FileNotFoundError: If there are no images.
            ValueError: If ``root``, ``csv`` and ``predict`` are missing, the CSV file or the groups are not as they
                should be, or there are images of one class only to train on, or of a class that is not trained on.
        """
        self._set_preprocessing(self._find_preprocessing())
        if stage == "predict" and self.predict is not None:
            found = find_images(self.predict)
            self._print_table(str(self.predict), {"predict": found})
            self.predict_set = UnlabelledImages(found.files, self.preprocessing.make_transform())
            return
        parts = find_parts(self.root, self.csv, self.split_options)
        self._print_table(str(self.csv or self.root), parts.images, parts.notes)
        check_classes(parts)
        self.class_names = parts.class_names
        self.num_classes = len(self.class_names)
        self.split = parts.split
        others = self.preprocessing.make_transform()
        self.train_set = self._make_set(parts.images["train"], self.augmentation.make_transform(self.preprocessing))
        self.val_set = self._make_set(parts.images["val"], others)
        self.test_set = self._make_set(parts.images["test"], others) if "test" in parts.images else self.val_set
        self.predict_set = self._make_set(parts.images.get("test", parts.images["val"]), others)
        counts = Counter(self.train_set.labels)
        self.class_counts = [counts[label] for label in range(self.num_classes)]

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training set, with each class drawn equally often if ``balanced``.

        The last batch is left out if it is a single image, on which batch normalization can't be trained.
        """
        if not self.balanced:
            return super().train_dataloader()
        weights = [1 / self.class_counts[label] for label in self.train_set.labels]
        sampler = WeightedRandomSampler(weights, len(weights))
        return self._make_loader(self.train_set, sampler=sampler, drop_last=self._ends_in_single_image())

    def val_dataloader(self) -> DataLoader:
        """Return batches of the validation set."""
        self._follow_checkpoint(self.val_set)
        return super().val_dataloader()

    def test_dataloader(self) -> DataLoader:
        """Return batches of the test set."""
        self._follow_checkpoint(self.test_set)
        return super().test_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Return batches of the images to predict."""
        self._follow_checkpoint(self.predict_set)
        if self.predict is None:
            return self._make_loader(self.predict_set)
        shape = (self.in_channels, self.preprocessing.size, self.preprocessing.size)
        return self._make_loader(ReadableImages(self.predict_set, shape))

    def _follow_checkpoint(self, images: UnlabelledImages) -> None:
        """Prepare images as the checkpoint's were, unless a training goes on, or the checkpoint does not know how."""
        if self.trainer is None or self.trainer.state.fn == "fit":
            return
        of_checkpoint = getattr(self.trainer.lightning_module, "preprocessing", None)
        if of_checkpoint is None:
            return
        for name in self.given_preprocessing:
            given, trained = (getattr(prepared, name) for prepared in (self.preprocessing, of_checkpoint))
            if given != trained:
                rank_zero_warn(
                    f"The data's {name} is {given}, and that of the checkpoint's training {trained}. The images are "
                    "prepared as those to train on were"
                )
        self._set_preprocessing(of_checkpoint)
        images.transform = of_checkpoint.make_transform()

    def _find_preprocessing(self) -> Preprocessing:
        """Return the network's own preprocessing, or ImageNet's, with the values that were given."""
        module = None if self.trainer is None else self.trainer.lightning_module
        of_network = getattr(getattr(module, "network", None), "preprocessing", None)
        return replace(of_network or IMAGENET, **self.given_preprocessing)

    def _set_preprocessing(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self._normalize = preprocessing.normalize

    def _make_set(self, found: FoundImages, transform: v2.Transform) -> LabelledImages:
        assert self.class_names is not None
        labels = {name: label for label, name in enumerate(self.class_names)}
        return LabelledImages(found.files, [labels[name] for name in found.classes], self.class_names, transform)

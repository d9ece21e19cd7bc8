"""The parts of the data: the images to train, to validate and to test on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lightning_adabelief.recipes.image_classification.class_folders import PART_NAMES, find_parts_in_folders
from lightning_adabelief.recipes.image_classification.found_images import FoundImages, check_any_images, name_first
from lightning_adabelief.recipes.image_classification.labels_csv import read_labels
from lightning_adabelief.recipes.image_classification.splitting import (
    check_groups_are_whole,
    compile_groups,
    name_groups,
    split_images,
)
from lightning_adabelief.suggest import suggest

TESTED_ON_VAL = (
    "No images of their own to test on: those of val are. If the checkpoint was chosen by them, its score flatters."
)


@dataclass(frozen=True)
class SplitOptions:
    """Options of the split of images that come without a part to validate on.

    Args:
        val_fraction: Fraction of the images, in (0, 1), to validate on.
        test_fraction: Fraction of the images, in [0, 1), to test on, where there is no such part; 0 for none.
        split_seed: Another seed makes another split.
        groups: Regular expression whose first pair of parentheses matches, in an image's path, the name of its group;
            None for no groups.

    Raises:
        ValueError: If a fraction is out of its range, nothing would be left to train on, or ``groups`` is no such
            expression.
    """

    val_fraction: float = 0.15
    test_fraction: float = 0.15
    split_seed: int = 0
    groups: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"Invalid val_fraction: {self.val_fraction}. Give a fraction in (0, 1), such as 0.15")
        if not 0 <= self.test_fraction < 1 - self.val_fraction:
            raise ValueError(
                f"Invalid test_fraction: {self.test_fraction}. Give a fraction that leaves images to train on beside "
                f"val_fraction {self.val_fraction}, or 0 for none"
            )
        if self.groups is not None:
            compile_groups(self.groups)


@dataclass
class ImageParts:
    """The images of each part.

    Attributes:
        images: From a part's name, ``"train"``, ``"val"`` and, if there is one, ``"test"``, to its images.
        notes: Sentences that say how the images were split, and of which classes a part has none.
        split: The options by which images were split off; None if the parts are the data's own.
    """

    images: dict[str, FoundImages]
    notes: list[str] = field(default_factory=list)
    split: SplitOptions | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that are trained on, sorted."""
        return sorted(set(self.images["train"].classes))


def find_parts(root: str | Path | None, csv: str | Path | None, options: SplitOptions) -> ImageParts:
    """Find the images of each part, in folders or by a CSV file, and split off the parts that are missing.

    Where there is a part to validate on, all stay as they are. Otherwise the images to train on are split. Images
    that can't be read are left out, as far as the beginnings of their files tell.

    Args:
        root: A folder as :func:`~lightning_adabelief.recipes.image_classification.class_folders.find_parts_in_folders`
            takes it; beside ``csv``, one that its paths may be below.
        csv: A CSV file as :func:`~lightning_adabelief.recipes.image_classification.labels_csv.read_labels` takes it.
        options: Options of the split.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If the CSV file is not in its form, an image has no group, a group is in two parts, or a part would
            have no image.
    """
    if csv is not None:
        images = read_labels(csv, root)
    elif root is not None:
        images = find_parts_in_folders(root)
    else:
        raise ValueError(
            "There are no images. Give data.root, a folder, or data.csv, a file that lists them; or data.predict to "
            "predict others"
        )
    for found in images.values():
        found.leave_out_unreadable()
        check_any_images(found, "Mend one, or give others")
    if options.groups is not None:
        for found in images.values():
            if found.groups:
                raise ValueError(f"{csv} has a column 'group', and groups is {options.groups!r}. Give one of them")
            found.groups = name_groups(found, options.groups)
    check_groups_are_whole(images)
    parts = ImageParts(images)
    if "val" not in images:
        _split_off(parts, options)
    if "test" not in parts.images:
        parts.notes.append(TESTED_ON_VAL)
    parts.notes += _note_missing_classes(parts)
    return parts


def check_classes(parts: ImageParts) -> None:
    """Check that there are two classes or more, and that all of them are trained on.

    Raises:
        ValueError: If there is one class only, or a part has images of a class that is not trained on.
    """
    train, names = parts.images["train"].source, parts.class_names
    if len(names) == 1:
        raise ValueError(
            f"{train} has images of one class only, {names[0]}. Give images of two classes or more, those of each in a "
            "folder of its own or, in a CSV file, with a label of their own"
        )
    for part, found in parts.images.items():
        for name in sorted(set(found.classes) - set(names)):
            has = found.source if found.source != train else f"The part {part} of {train}"
            raise ValueError(
                f"{has} has images of the class {name!r}, and {train} has none of it to train on. "
                f"{suggest(name, names)}"
            )


def _split_off(parts: ImageParts, options: SplitOptions) -> None:
    fractions = {"val": options.val_fraction}
    if "test" not in parts.images and options.test_fraction:
        fractions["test"] = options.test_fraction
    whole = parts.images["train"]
    split = split_images(whole, fractions, options.split_seed)
    images = parts.images | split
    parts.images = {part: images[part] for part in PART_NAMES if part in images}
    parts.split = options
    shares = " and ".join(f"{100 * fraction:g} % for {part}" for part, fraction in fractions.items())
    groups = f"; each of {len(set(whole.groups)):,} groups is in one part" if whole.groups else ""
    by = f"by split_seed {options.split_seed}{groups}"
    parts.notes.append(f"Split off from each class of {whole.source}: {shares}, {by}.")


def _note_missing_classes(parts: ImageParts) -> list[str]:
    notes = []
    train = parts.images["train"]
    counts = Counter(train.classes)
    groups = Counter(name for name, _ in set(zip(train.classes, train.groups, strict=False)))
    for part, found in parts.images.items():
        missing = sorted(set(counts) - set(found.classes))
        if missing:
            described = [
                f"{name!r} ({counts[name]:,} to train on{f'; groups: {groups[name]:,}' if groups else ''})"
                for name in missing
            ]
            notes.append(f"The part {part} has no image of {name_first(described)}.")
    return notes

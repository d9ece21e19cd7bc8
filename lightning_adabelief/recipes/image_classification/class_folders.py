"""Images in one folder per class: which there are, and which files are left out."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_adabelief.recipes.image_classification.found_images import (
    HIDDEN,
    KINDS,
    FoundImages,
    add_images,
    check_any_images,
    make_printable,
)

EMPTY, STRAY, BESIDE = "empty class folders", "files in no class folder", "beside the folder of training images"
"""Reasons to leave a file or folder out, beside the ending of its name and a dot at its beginning."""

PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names, in small letters, of the folders of each part."""

ADVICE = (
    f"Put the images of each class into a folder of its own there, as {KINDS}, or list them in a file for data.csv. "
    "Images without classes are for data.predict"
)
"""The end of the message where there are no images in class folders."""


def find_parts_in_folders(root: str | Path) -> dict[str, FoundImages]:
    """List the images in the folders ``train``, ``val`` and ``test``; without these, in one folder per class.

    Args:
        root: A folder that holds ``train``, and ``val`` and ``test`` if there are such, under one of their
            :data:`PART_NAMES` in small or capital letters; or one that holds the class folders themselves.

    Returns:
        From a part's name (``"train"``, ``"val"``, ``"test"``) to its images. All are in ``"train"`` if ``root`` holds
        the class folders themselves.

    Raises:
        FileNotFoundError: If there is no such folder, it or one of its parts has no images, or there are class
            folders in ``val`` or ``test`` and no ``train``.
        ValueError: If there are two folders of one part.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"There is no folder {root}. Give data.root a folder that holds one folder of images per class, or the "
            "folders train and val that do"
        )
    folders = _find_part_folders(root)
    if "train" not in folders:
        _check_are_classes(root, folders)
        return {"train": find_class_folders(root)}
    parts = {part: find_class_folders(folder.path) for part, folder in folders.items()}
    known = {folder.name for folder in folders.values()}
    for entry in _list_entries(root):
        if entry.name not in known:
            parts["train"].leave_out(HIDDEN if entry.name.startswith(".") else BESIDE, entry.path)
    return parts


def find_class_folders(folder: str | Path) -> FoundImages:
    """List the images in a folder that holds one folder per class, sorted by class and path; no file is opened.

    Folders in a class's folder belong to it. Files and folders whose names begin with a dot are left out, and so are
    files of other kinds than torchvision's ``IMG_EXTENSIONS``, files beside the class folders, and class folders
    without an image.

    Raises:
        FileNotFoundError: If there are no images.
    """
    found = FoundImages(str(folder))
    for entry in _list_entries(folder):
        if entry.name.startswith("."):
            found.leave_out(HIDDEN, entry.path)
        elif not entry.is_dir():
            found.leave_out(STRAY, entry.path)
        elif number := add_images(found, entry.path):
            found.classes += [make_printable(entry.name)] * number
        else:
            found.leave_out(EMPTY, entry.path)
    check_any_images(found, ADVICE)
    return found


def _find_part_folders(root: str | Path) -> dict[str, os.DirEntry[str]]:
    folders: dict[str, os.DirEntry[str]] = {}
    for part, names in PART_NAMES.items():
        for entry in _list_entries(root):
            if entry.name.lower() in names and entry.is_dir():
                if part in folders:
                    raise ValueError(
                        f"{root} has two folders of {part}: {folders[part].name} and {entry.name}. Put the images of "
                        "each class into one of them"
                    )
                folders[part] = entry
    return folders


def _check_are_classes(root: str | Path, folders: dict[str, os.DirEntry[str]]) -> None:
    """Check that folders named like a part, where there is none to train on, hold images as a class's folder does."""
    for folder in folders.values():
        if any(entry.is_dir() and not entry.name.startswith(".") for entry in _list_entries(folder.path)):
            raise FileNotFoundError(
                f"{root} has the folder {folder.name}, and no folder train. Give the folder of the images to train on "
                f"that name, or take {folder.name} out to have images split off"
            )


def _list_entries(folder: str | Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(folder), key=lambda entry: entry.name)

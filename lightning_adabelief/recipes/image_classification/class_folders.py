"""Images in one folder per class: which there are, and which files are left out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_adabelief.recipes.image_classification.image_file import read_rgb

EMPTY, HIDDEN, STRAY = "empty class folders", "hidden", "in no class folder"
"""Reasons to leave a file or folder out, beside the ending of its name."""


@dataclass
class FoundImages:
    """The images in a folder of class folders.

    Attributes:
        files: The images, sorted by class and path.
        classes: The class of each.
        left_out: From the reason why files and folders are left out to their paths.
    """

    files: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, *paths: str) -> None:
        """Record files or folders that are left out."""
        if paths:
            self.left_out.setdefault(reason, []).extend(paths)


def find_images(folder: str | Path) -> FoundImages:
    """List the images in a folder that holds one folder per class; no file is opened.

    Folders in a class's folder belong to it. Files and folders whose names begin with a dot are left out, and so are
    files of other kinds than torchvision's ``IMG_EXTENSIONS``, files beside the class folders, and class folders
    without an image.
    """
    found = FoundImages()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            found.leave_out(HIDDEN, entry.path)
        elif not entry.is_dir():
            found.leave_out(STRAY, entry.path)
        else:
            _find_images_of_class(entry, found)
    return found


def _find_images_of_class(folder: os.DirEntry[str], found: FoundImages) -> None:
    number_before = len(found.files)
    for parent, folders, files in os.walk(folder.path, followlinks=True):
        hidden = [name for name in (*folders, *files) if name.startswith(".")]
        found.leave_out(HIDDEN, *(os.path.join(parent, name) for name in hidden))
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # those that os.walk goes on to
        for name in sorted(name for name in files if not name.startswith(".")):
            path = os.path.join(parent, name)
            ending = os.path.splitext(name)[1].lower()
            if ending in IMG_EXTENSIONS:
                found.files.append(path)
                found.classes.append(folder.name)
            else:
                found.leave_out(f"{ending} files" if ending else "files without an ending", path)
    if len(found.files) == number_before:
        found.leave_out(EMPTY, folder.path)


class LabelledImages(Dataset):
    """Images in files, and their labels.

    Args:
        files: The images.
        labels: The label of each, an index into ``classes``.
        classes: Names of all classes.
        transform: A function from the image, of mode ``RGB``, to what is put into batches.
    """

    def __init__(
        self, files: list[str], labels: list[int], classes: list[str], transform: Callable[[Any], Any]
    ) -> None:
        self.files = files
        self.labels = labels
        self.classes = classes
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Read an image, and return it transformed, with its label.

        Raises:
            ValueError: If the file can't be read as an image; the message names it.
        """
        return self.transform(read_rgb(self.files[index])), self.labels[index]

"""The images that were found for a part of the data, and the files that are left out."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_adabelief.recipes.image_classification.image_file import find_flaw

HIDDEN = "hidden"
"""The reason to leave out files and folders whose names begin with a dot."""

LOOP = "links that lead back"
"""The reason to leave out links to a folder around them, in which the same images would be found again."""

KINDS = ".jpg, .png, .tif or another kind of torchvision's IMG_EXTENSIONS"
"""The kinds of files that are read, for messages."""

MAX_OPENED = 20_000
"""The most images that are opened to find those that can't be read: a few seconds."""

MAX_NAMES = 3
"""Files and folders that are named in a message or a row of a table."""


@dataclass
class FoundImages:
    """Images, and the files and folders that are left out.

    Attributes:
        source: The folder or the CSV file that they were found in, for messages.
        files: Paths of the images.
        names: Their paths below ``source``, with ``/`` on every system: a split goes by them.
        classes: The class of each; empty if they have none.
        groups: The group of each, which is not to be torn apart; empty if there are none.
        left_out: From the reason why files and folders are left out to their paths.
    """

    source: str
    files: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, *paths: str) -> None:
        """Record files or folders that are left out."""
        if paths:
            self.left_out.setdefault(reason, []).extend(paths)

    def select(self, indices: Iterable[int]) -> FoundImages:
        """Return some of the images, and nothing that is left out."""
        chosen = list(indices)
        files, names, classes, groups = (
            [column[i] for i in chosen] if column else []
            for column in (self.files, self.names, self.classes, self.groups)
        )
        return FoundImages(self.source, files, names, classes, groups)

    def leave_out_unreadable(self) -> None:
        """Leave out images that can't be read, as far as the beginnings of their files tell.

        Of more than :data:`MAX_OPENED` images none is opened.
        """
        if len(self.files) > MAX_OPENED:
            return
        with ThreadPoolExecutor() as threads:
            flaws = list(threads.map(find_flaw, self.files))
        if not any(flaws):
            return
        for path, flaw in zip(self.files, flaws, strict=True):
            if flaw:
                self.leave_out(flaw, path)
        sound = self.select(i for i, flaw in enumerate(flaws) if not flaw)
        self.files, self.names, self.classes, self.groups = sound.files, sound.names, sound.classes, sound.groups


def find_images(path: str | Path) -> FoundImages:
    """List the images in a folder and the folders in it, sorted by path; no file is opened.

    Files and folders whose names begin with a dot are left out, and so are files of other kinds than torchvision's
    ``IMG_EXTENSIONS``.

    Args:
        path: The folder; or the file of one image.

    Raises:
        FileNotFoundError: If there is no such folder or file, or it has no images.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no {path}. Give a folder of images, or the file of one")
    found = FoundImages(str(path))
    if os.path.isdir(path):
        add_images(found, str(path))
    elif is_image(str(path)):
        found.files, found.names = [str(path)], [os.path.basename(path)]
    else:
        found.leave_out(describe_kind(str(path)), str(path))
    check_any_images(found, f"Give images as {KINDS}")
    return found


def add_images(found: FoundImages, folder: str) -> int:
    """Add the images in a folder and the folders in it, and what is left out of them; return the number of images."""
    number_before = len(found.files)
    walked: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        below = Path(os.path.relpath(parent, found.source)).as_posix()
        hidden = [name for name in (*folders, *files) if name.startswith(".")]
        found.leave_out(HIDDEN, *(os.path.join(parent, name) for name in hidden))
        walked.add(os.path.realpath(parent))
        others = sorted({*folders} - {*hidden})
        loops = [name for name in others if _leads_back(os.path.join(parent, name), walked)]
        found.leave_out(LOOP, *(os.path.join(parent, name) for name in loops))
        folders[:] = [name for name in others if name not in loops]  # those that os.walk goes on to
        for name in sorted(name for name in files if not name.startswith(".")):
            path = os.path.join(parent, name)
            if is_image(name):
                found.files.append(path)
                found.names.append(name if below == "." else f"{below}/{name}")
            else:
                found.leave_out(describe_kind(name), path)
    return len(found.files) - number_before


def _leads_back(path: str, walked: Collection[str]) -> bool:
    """Return True for a link to a folder around it, or to one that has been walked through."""
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return target in walked or Path(os.path.realpath(os.path.dirname(path))).is_relative_to(target)


def is_image(name: str) -> bool:
    """Return True if the ending of a file's name is that of an image."""
    return os.path.splitext(name)[1].lower() in IMG_EXTENSIONS


def describe_kind(name: str) -> str:
    """Return the reason to leave out a file that is no image: ``".gif files"``."""
    ending = os.path.splitext(name)[1].lower()
    return f"{ending} files" if ending else "files without an ending"


def make_printable(name: str) -> str:
    r"""Return a file's name with its bytes that are no UTF-8 written out: ``caf\xe9`` for such a byte at the end."""
    return os.fsencode(name).decode(errors="backslashreplace")


def check_any_images(found: FoundImages, advice: str) -> None:
    """Check that there are images.

    Args:
        found: The images.
        advice: The end of the message, which says what to do.

    Raises:
        FileNotFoundError: If there are none; the message says what there is.
    """
    if not found.files:
        others = ", ".join(f"{reason} ({len(paths)})" for reason, paths in found.left_out.items()) or "nothing"
        raise FileNotFoundError(f"{found.source} has no images. It has {others}. {advice}")


def name_first(names: Sequence[str]) -> str:
    """Return the first names and the number of the others: ``"a.jpg, b.jpg, c.jpg and 7 more"``."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")

"""Images and their classes, as a CSV file lists them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from lightning_adabelief.recipes.image_classification.class_folders import PART_NAMES
from lightning_adabelief.recipes.image_classification.found_images import (
    KINDS,
    FoundImages,
    check_any_images,
    describe_kind,
    is_image,
    name_first,
)
from lightning_adabelief.suggest import join_names, suggest

REQUIRED, OPTIONAL = ("file", "label"), ("split", "group")
"""Names of the columns that are read."""

PART_OF = {name: part for part, names in PART_NAMES.items() for name in names}
"""From a name in the column ``split``, in small letters, to the part's."""


def read_labels(path: str | Path, root: str | Path | None) -> dict[str, FoundImages]:
    """Read which images there are, and the class of each, from a CSV file.

    The file is UTF-8, its values separated by commas, semicolons or tabs, and its first line has the names of
    the columns: ``file`` and ``label``, and, if there are such, ``split`` (``train``, ``val`` or ``test``, or another
    of :data:`~lightning_adabelief.recipes.image_classification.class_folders.PART_NAMES`) and ``group``. Other columns
    are not read. Files of other kinds than torchvision's ``IMG_EXTENSIONS`` are left out.

    Args:
        path: The CSV file.
        root: A folder that the files' paths may be below; they may be below the CSV file's too.

    Returns:
        From a part's name (``"train"``, ``"val"``, ``"test"``) to its images. All are in ``"train"`` if no row has a
        ``split``.

    Raises:
        FileNotFoundError: If there is no such file, or a split has no images.
        ValueError: If it is not text in UTF-8, or a column, a value or a file is missing, a split is unknown, or a
            file is listed twice; the message names them.
    """
    rows = _read_rows(path)
    names = [row["file"] for row in rows]
    files = _locate(path, root, names)
    splits = [row["split"].lower() for row in rows]
    _check_splits(path, splits)
    parts: dict[str, FoundImages] = {}
    for row, file, split in zip(rows, files, splits, strict=True):
        found = parts.setdefault(PART_OF.get(split, "train"), FoundImages(str(path)))
        if not is_image(file):
            found.leave_out(describe_kind(file), file)
            continue
        found.files.append(file)
        found.names.append(Path(row["file"]).as_posix())
        found.classes.append(row["label"])
        if row["group"]:
            found.groups.append(row["group"])
    if "train" not in parts:
        raise ValueError(f"{path} has no image of the split 'train'. It has {join_names(parts, 'and')}")
    for found in parts.values():
        check_any_images(found, f"List images of each split, as {KINDS}")
    return {part: parts[part] for part in PART_NAMES if part in parts}


def _read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the columns that are read of each row, ``""`` for a missing optional one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no text, or a column or a value is missing.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Excel's begins with a byte-order mark
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no {path}. Give data.csv a CSV file with the columns file and label"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}. Save it as 'CSV UTF-8'") from error
    header, _, _ = text.partition("\n")
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count))
    columns = {name.strip().lower(): name for name in reader.fieldnames or []}
    for name in REQUIRED:
        if name not in columns:
            raise ValueError(f"{path} has no column {name!r} in its first line. {suggest(name, columns)}")
    rows = []
    lacking: dict[str, list[str]] = {name: [] for name in (*REQUIRED, *OPTIONAL)}
    for row in reader:
        values = {name: (row[columns[name]] or "").strip() if name in columns else "" for name in lacking}
        rows.append(values)
        for name, value in values.items():
            if not value:
                lacking[name].append(f"line {reader.line_num}")
    for name, lines in lacking.items():
        if lines and (name in REQUIRED or len(lines) < len(rows)):
            raise ValueError(f"{path} has rows without a {name}: {name_first(lines)}. Fill them in, or take them out")
    if not rows:
        raise ValueError(f"{path} has no rows. Give one for each image")
    return rows


def _locate(path: str | Path, root: str | Path | None, names: list[str]) -> list[str]:
    """Return the path of each file, below the CSV file's folder or else below ``root``.

    Raises:
        ValueError: If a file is missing, or listed twice.
    """
    bases = [os.path.dirname(path), *([] if root is None else [str(root)])]
    files, missing = [], []
    for name in names:
        candidates = [os.path.normpath(os.path.join(base, name)) for base in bases]
        file = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        files.append(candidates[0] if file is None else file)
        if file is None:
            missing.append(name)
    if missing:
        places = join_names((base or "." for base in bases), "or")
        raise ValueError(
            f"{path} lists files that are not there, {len(missing):,} of {len(names):,}: {name_first(missing)}. "
            f"Give paths below {places}, or data.root for another folder"
        )
    twice = _find_repeated(files)
    if twice:
        raise ValueError(f"{path} lists files more than once: {name_first(twice)}. Leave one row of each")
    return files


def _check_splits(path: str | Path, splits: list[str]) -> None:
    for split in splits:
        if split and split not in PART_OF:
            raise ValueError(f"{path} has an unknown split: {split!r}. {suggest(split, PART_NAMES)}")


def _find_repeated(files: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for file in files:
        if file in seen:
            repeated[file] = None
        seen.add(file)
    return list(repeated)

"""Reading of boxes from files in PASCAL VOC's and COCO's form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lightning_adabelief.lightning_tree import rank_zero_warn

MIN_SIDE = 1.0
"""Pixels: the least width and height of a box that a network can learn; a box without an area gives NaN."""

MAX_FILES_NAMED = 3
"""Files that a warning names."""


@dataclass
class Annotation:
    """The objects in an image, as its file describes them.

    Attributes:
        image: The image's file.
        source: The file that describes it, for messages.
        size: Width and height in pixels; None where the file does not give them.
        boxes: Left, top, right and bottom of each object, in pixels.
        names: The class of each.
        crowd: True for each that is neither trained on nor counted: VOC's ``difficult``, COCO's ``iscrowd``.
    """

    image: Path
    source: Path
    size: tuple[float, float] | None = None
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)


def read_voc(images: Sequence[Path], annotations: Sequence[Path]) -> list[Annotation]:
    """Read the XML files of images in PASCAL VOC's form.

    Args:
        images: The images' files.
        annotations: The XML file of each.

    Returns:
        What each file describes; objects whose box has no area are left out, with a warning.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If a file is not in VOC's form; the message names it.
    """
    read = [_read_voc_file(image, source) for image, source in zip(images, annotations, strict=True)]
    return _check_boxes(read)


def read_coco(path: Path, folder: Path | None = None) -> tuple[list[Annotation], list[str]]:
    """Read a JSON file in COCO's form.

    Args:
        path: The file.
        folder: The folder that ``file_name`` of its images starts from; None for the file's own, or a folder
            ``images`` in it.

    Returns:
        What the file says of each image, and the names of its categories in the order of their ids; objects
        whose box has no area are left out, with a warning.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If the file is not in COCO's form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = {category["id"]: str(category["name"]) for category in content["categories"]}
        files = {image["id"]: image["file_name"] for image in content["images"]}
        folder = folder or _find_image_folder(path, list(files.values()))
        by_id = {
            image["id"]: Annotation(folder / image["file_name"], path, _read_size(image)) for image in content["images"]
        }
        for item in content.get("annotations", []):
            for key, known in (("image_id", by_id), ("category_id", categories)):
                if item[key] not in known:
                    raise ValueError(f"annotation {item.get('id')} has the {key} {item[key]}, which there is not")
            left, top, width, height = (float(number) for number in item["bbox"])
            annotation = by_id[item["image_id"]]
            annotation.boxes.append((left, top, left + width, top + height))
            annotation.names.append(categories[item["category_id"]])
            annotation.crowd.append(bool(item.get("iscrowd", 0)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not in COCO's form: {_describe(error)}") from error
    names = [categories[number] for number in sorted(categories)]
    return _check_boxes(list(by_id.values())), names


def _read_voc_file(image: Path, source: Path) -> Annotation:
    try:
        root = ElementTree.parse(source).getroot()
        width, height = root.findtext("size/width"), root.findtext("size/height")
        annotation = Annotation(image, source, (float(width), float(height)) if width and height else None)
        for thing in root.iter("object"):
            box = thing.find("bndbox")
            assert box is not None, "an object has no bndbox"
            left, top, right, bottom = (float(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax"))
            annotation.boxes.append((left, top, right, bottom))
            annotation.names.append((thing.findtext("name") or "").strip())
            annotation.crowd.append(thing.findtext("difficult", "0").strip() == "1")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {source}, which should describe {image}") from error
    except (ElementTree.ParseError, AssertionError, ValueError) as error:
        raise ValueError(f"{source} is not in PASCAL VOC's form: {_describe(error)}") from error
    return annotation


def _find_image_folder(path: Path, files: list[str]) -> Path:
    """Return the folder of a COCO file's images: its own, or ``images`` in it where the first image is there."""
    beside = path.parent / "images"
    return beside if files and (beside / files[0]).is_file() else path.parent


def _read_size(image: dict[str, Any]) -> tuple[float, float] | None:
    width, height = image.get("width"), image.get("height")
    return (float(width), float(height)) if width and height else None


def _check_boxes(annotations: list[Annotation]) -> list[Annotation]:
    """Leave out boxes without an area, warn of them and of those that reach out of their image.

    Raises:
        FileNotFoundError: If an image is missing.
    """
    without_area, out_of_frame = [], []
    for annotation in annotations:
        if not annotation.image.is_file():
            raise FileNotFoundError(f"There is no image {annotation.image}, which {annotation.source} describes")
        width, height = annotation.size or (float("inf"), float("inf"))
        kept = []
        for number, (left, top, right, bottom) in enumerate(annotation.boxes):
            # A comparison with a NaN is false: such a box is left out as well.
            if right - left >= MIN_SIDE and bottom - top >= MIN_SIDE:
                kept.append(number)
            else:
                without_area.append(annotation.image)
            if left < 0 or top < 0 or right > width or bottom > height:
                out_of_frame.append(annotation.image)
        annotation.boxes = [annotation.boxes[number] for number in kept]
        annotation.names = [annotation.names[number] for number in kept]
        annotation.crowd = [annotation.crowd[number] for number in kept]
    _warn_of(without_area, "less than a pixel wide or high, and left out")
    _warn_of(out_of_frame, "partly or wholly outside the image, and clipped to it")
    return annotations


def _warn_of(images: Sequence[Path], what: str) -> None:
    """Warn of boxes, by the images that they are in."""
    if not images:
        return
    names = list(dict.fromkeys(str(image) for image in images))
    more = f" and {len(names) - MAX_FILES_NAMED} more" if len(names) > MAX_FILES_NAMED else ""
    boxes = "1 box is" if len(images) == 1 else f"{len(images)} boxes are"
    rank_zero_warn(f"{boxes} {what}: in {', '.join(names[:MAX_FILES_NAMED])}{more}")


def _describe(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
